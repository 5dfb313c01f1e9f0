//! What one pool tells the other of a user: the bindings, and which ones are no more.
//!
//! Copies are merged, never followed in order: of one device the newest version counts, and a removal counts
//! for every version that is not newer. So a copy may arrive twice, late, or from both sides, and all come to
//! the same.

use std::num::NonZeroU32;

use model::{WallTime, limits};
use serde::{Deserialize, Serialize};

use crate::{
    Binding, Bindings, Octets,
    contact::{is_same_instance, is_uuid},
};

/// The state of one user at one pool, to be merged into that of another.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct UserCopy {
    /// Every binding that is alive there.
    pub bindings: Vec<Binding>,
    /// What was removed there and may be alive elsewhere.
    pub removals: Vec<Removal>,
}

impl UserCopy {
    /// About how many octets it has on the wire.
    pub fn octets(&self) -> usize {
        let bindings = self.bindings.iter().map(Binding::octets);
        let removals = self.removals.iter().map(|removal| removal.device.len().saturating_add(24));
        bindings.chain(removals).sum()
    }
}

/// Says that a binding is no more, in every version up to one.
///
/// Kept until no version that it is about can be alive anywhere. Expiry needs none: copies end when the
/// binding does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Removal {
    /// The instance, a UUID in lower case, or the URI where there is none.
    device: Octets,
    has_instance: bool,
    reg_id: Option<NonZeroU32>,
    at: WallTime,
    until_s: u32,
}

impl Removal {
    /// A binding was removed at `now`: none of it that was registered earlier counts.
    ///
    /// Kept for as long as a registration of the same duration, made elsewhere until now, could last.
    pub(crate) fn of(binding: &Binding, now: WallTime) -> Self {
        let at = now.max(binding.updated_at());
        let updated_s = u32::try_from(binding.updated_at().as_secs()).unwrap_or(u32::MAX);
        let duration_s = binding.expires_at_s().saturating_sub(updated_s);
        let at_s = u32::try_from(at.as_secs()).unwrap_or(u32::MAX);
        Self::up_to(binding, at, at_s.saturating_add(duration_s))
    }

    /// A binding was replaced by one that ends earlier: this version must not come back after that.
    pub(crate) fn of_version(binding: &Binding) -> Self {
        Self::up_to(binding, binding.updated_at(), binding.expires_at_s())
    }

    fn up_to(binding: &Binding, at: WallTime, until_s: u32) -> Self {
        let device = match binding.instance() {
            Some(instance) if is_uuid(instance) => Octets::from(instance.to_ascii_lowercase()),
            Some(instance) => instance.into(),
            None => binding.uri().into(),
        };
        let has_instance = binding.instance().is_some();
        Self { device, has_instance, reg_id: binding.reg_id(), at, until_s }
    }

    /// The newest version that it removes.
    pub const fn at(&self) -> WallTime {
        self.at
    }

    /// The second from which it is not needed any more.
    pub(crate) const fn until_s(&self) -> u32 {
        self.until_s
    }

    pub(crate) fn is_over(&self, now: WallTime) -> bool {
        now.as_secs() >= u64::from(self.until_s)
    }

    /// Whether it is about this binding, in whatever version.
    pub(crate) fn is_about(&self, binding: &Binding) -> bool {
        self.reg_id == binding.reg_id()
            && match binding.instance() {
                Some(instance) => self.has_instance && is_same_instance(&self.device, instance),
                None => !self.has_instance && *self.device == *binding.uri(),
            }
    }

    fn is_about_the_same(&self, other: &Self) -> bool {
        (&self.device, self.has_instance, self.reg_id) == (&other.device, other.has_instance, other.reg_id)
    }
}

/// Of two states of one user the one that both pools come to, without what is over at `now`.
///
/// Idempotent and commutative, and associative as long as no bound is reached: beyond
/// `limits::BINDINGS_PER_USER_MAX` and `limits::REMOVALS_PER_USER_MAX` the oldest are left out.
pub(crate) fn merge(
    bindings: &[Binding],
    removals: &[Removal],
    copy: &UserCopy,
    now: WallTime,
) -> (Bindings, Vec<Removal>) {
    let removals = merge_removals(removals, &copy.removals, now);
    let mut merged: Bindings = bindings.into();
    for binding in &copy.bindings {
        match merged.iter_mut().find(|held| held.is_same_flow(binding)) {
            Some(held) if held.version() < binding.version() => *held = binding.clone(),
            Some(_) => {}
            None => merged.push(binding.clone()),
        }
    }
    let is_removed = |binding: &Binding| {
        removals.iter().any(|removal| removal.at >= binding.updated_at() && removal.is_about(binding))
    };
    merged.retain(|binding| !binding.is_expired(now) && !is_removed(binding));
    merged.sort_by(|a, b| b.version().cmp(&a.version()));
    merged.truncate(limits::BINDINGS_PER_USER_MAX);
    (merged, removals)
}

/// Both lists as one in a fixed order, without what is over, the last to end kept.
pub(crate) fn merge_removals(some: &[Removal], others: &[Removal], now: WallTime) -> Vec<Removal> {
    let mut merged: Vec<Removal> = Vec::with_capacity(some.len().saturating_add(others.len()));
    for removal in some.iter().chain(others).filter(|removal| !removal.is_over(now)) {
        match merged.iter_mut().find(|held| held.is_about_the_same(removal)) {
            Some(held) => {
                held.at = held.at.max(removal.at);
                held.until_s = held.until_s.max(removal.until_s);
            }
            None => merged.push(removal.clone()),
        }
    }
    merged.sort_by(|a, b| (b.until_s, b).cmp(&(a.until_s, a)));
    merged.truncate(limits::REMOVALS_PER_USER_MAX);
    merged
}

/// Makes what a change did to a user mergeable: each new binding gets a version above all that it follows,
/// clocks differing or not. Returns what is no more.
pub(crate) fn settle(
    before: &[Binding],
    after: &mut Bindings,
    removals: &[Removal],
    now: WallTime,
) -> Vec<Removal> {
    let mut gone = Vec::new();
    for old in before {
        match after.iter_mut().find(|binding| binding.is_same_flow(old)) {
            Some(binding) if binding.is_shared_with(old) => {}
            Some(binding) => {
                binding.raise_above(old.updated_at());
                if binding.expires_at_s() < old.expires_at_s() {
                    gone.push(Removal::of_version(old));
                }
            }
            None => gone.push(Removal::of(old, now)),
        }
    }
    for removal in removals {
        for binding in after.iter_mut().filter(|binding| removal.is_about(binding)) {
            binding.raise_above(removal.at);
        }
    }
    gone
}
