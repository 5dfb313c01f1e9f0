//! From errors to exit codes: 0 done, 1 refused or findings, 2 usage or unreachable.

use std::{fmt, process::ExitCode};

use anyhow::Error;
use node::peers::PeerError;

/// A mistake in how the command was used: exit code 2.
#[derive(Debug)]
pub struct Usage(pub String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// The exit code for a failed command.
pub fn exit_code(error: &Error) -> ExitCode {
    let is_unreachable =
        error.chain().filter_map(|cause| cause.downcast_ref::<PeerError>()).any(|cause| match cause {
            PeerError::Unreachable { .. } | PeerError::Unknown { .. } | PeerError::Answer { .. } => true,
            PeerError::Refused { .. } => false,
        });
    if is_unreachable || error.downcast_ref::<Usage>().is_some() {
        ExitCode::from(2)
    } else {
        ExitCode::from(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_1_and_a_wrong_use_is_2() {
        let refused = Error::new(PeerError::Refused { status: 409, message: String::new() });
        let usage = Error::new(Usage(String::new()));

        assert_eq!(exit_code(&refused), ExitCode::from(1));
        assert_eq!(exit_code(&usage), ExitCode::from(2));
    }
}
