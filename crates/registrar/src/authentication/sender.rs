//! Where credentials come from, and who keeps account of the passwords that are guessed there.

use std::time::Duration;

use model::Source;

/// Who sent a request: a source, with an account of its guesses.
///
/// It is told only of credentials whose nonce was sent to this source, so of nobody else's.
pub trait Sender {
    /// Where it is.
    fn source(&self) -> Source;

    /// Whether a password of this user name may be looked at now. Asked whether there is such a user or not.
    ///
    /// Errors: not for so long.
    fn may_try(&self, username: &[u8], realm: &[u8]) -> Result<(), Duration>;

    /// The password was wrong, or there is no such user.
    fn wrong(&self, username: &[u8], realm: &[u8]);

    /// The password was right, and the request in the name of another user.
    fn foreign(&self, username: &[u8], realm: &[u8]);

    /// The password was right.
    fn right(&self, username: &[u8], realm: &[u8]);
}

/// A source of whose guesses nobody keeps account.
impl Sender for Source {
    fn source(&self) -> Source {
        *self
    }

    fn may_try(&self, _username: &[u8], _realm: &[u8]) -> Result<(), Duration> {
        Ok(())
    }

    fn wrong(&self, _username: &[u8], _realm: &[u8]) {}

    fn foreign(&self, _username: &[u8], _realm: &[u8]) {}

    fn right(&self, _username: &[u8], _realm: &[u8]) {}
}
