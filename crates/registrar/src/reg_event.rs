//! The event package `reg`: phones that subscribe to their own registrations learn when these end elsewhere
//! than by their own doing, and come back at once or later as they are told. Source: RFC 3680 over RFC 6665.
//!
//! [`read_subscribe`] reads a SUBSCRIBE, [`RegEvents`] keeps the subscriptions of one shard and says when
//! which NOTIFY is due, with its body. The driver has the dialogs, sends, and looks up bindings.
//!
//! Policy, where the RFC leaves it open: only users themselves may subscribe; every document has the full
//! state; a mere refresh of a contact makes no notification, or every REGISTER of a phone would cost another
//! request; and a user who subscribes again from the same contact replaces the former subscription, which is
//! what a phone that restarted does.

mod contacts;
mod document;
mod request;
mod subscription;
mod subscriptions;
#[cfg(test)]
mod tests;
mod xml;

use std::time::Duration;

use model::{Instant, WallTime, limits};

pub use contacts::{Cause, ContactEvent};
pub use request::{SubscribeError, SubscribeRequest, SubscribeSettings, read_subscribe};
pub use subscription::{Ending, SubscriptionState};
pub use subscriptions::{Granted, NotifyAnswer, Output, RegEvents};

/// The name of the package, as Event and Allow-Events say it.
pub const PACKAGE: &str = "reg";
/// Content-Type of its documents.
pub const CONTENT_TYPE: &str = "application/reginfo+xml";

/// Both clocks at one moment: timers run on the monotonic one, bindings end by the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// For timers.
    pub instant: Instant,
    /// For bindings.
    pub wall: WallTime,
}

/// A subscription of one shard; unique until the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionId(pub u64);

/// What the machine goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Time between two phones that are sent away by [`RegEvents::steer`].
    pub steer_every: Duration,
    /// Time between a NOTIFY and the next one that nobody asked for; one that ends the subscription does not
    /// wait. Source: RFC 3680 section 4.10.
    pub pause: Duration,
    /// Time after which bindings are looked up although nobody said that they changed.
    pub look_every: Duration,
    /// Subscriptions in all. More: 503.
    pub subscriptions_max: usize,
    /// Subscriptions of one user. More: 403.
    pub per_user_max: usize,
}

impl Default for Settings {
    /// 200 phones a second, 5 s, one minute, and the bounds of `limits`.
    fn default() -> Self {
        Self {
            steer_every: Duration::from_millis(5),
            pause: Duration::from_secs(5),
            look_every: Duration::from_secs(60),
            subscriptions_max: limits::SUBSCRIPTIONS_MAX,
            per_user_max: limits::SUBSCRIPTIONS_PER_USER_MAX,
        }
    }
}
