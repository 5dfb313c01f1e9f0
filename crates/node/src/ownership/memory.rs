//! What an ownership machine keeps on disk from one process to the next.

use std::{fs::File, io::Write, path::Path};

use pairing::Tenure;
use tracing::warn;

/// What an earlier process kept; `None` when there is nothing that can be read.
pub fn remembered(file: &Path) -> Option<Tenure> {
    let text = std::fs::read_to_string(file).ok()?;
    match serde_json::from_str(&text) {
        Ok(tenure) => Some(tenure),
        Err(error) => {
            warn!(file = %file.display(), %error, "remembered ownership cannot be read; asking for it again");
            None
        }
    }
}

/// Writes what was learnt, durably. Losing it costs a question at the next start, never two owners.
pub fn remember(file: &Path, tenure: &Tenure) {
    let written = serde_json::to_vec(tenure).map_err(std::io::Error::other).and_then(|content| {
        let fresh = file.with_extension("new");
        let mut new = File::create(&fresh)?;
        new.write_all(&content)?;
        new.sync_all()?;
        std::fs::rename(&fresh, file)?;
        file.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    });
    if let Err(error) = written {
        warn!(file = %file.display(), %error, "ownership not remembered");
    }
}

#[cfg(test)]
mod tests {
    use model::{Epoch, PoolName};
    use pairing::PoolState;

    use super::*;

    #[test]
    fn what_is_remembered_is_read_back_and_damage_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ownership-east.json");
        let tenure = Tenure::new(PoolName::new("west").unwrap(), Epoch::new(4), PoolState::FailedOver);

        remember(&file, &tenure);
        assert_eq!(remembered(&file), Some(tenure));

        std::fs::write(&file, b"{").unwrap();
        assert_eq!(remembered(&file), None);
    }
}
