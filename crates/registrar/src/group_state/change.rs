//! How one change alters the bindings of one user: RFC 3261 section 10.3 steps 6 and 7, RFC 5626 section 6.

use model::{WallTime, limits};

use crate::{
    Binding, Bindings, Contact, GruuSeries, RegisterError, Registration, UserChange,
    contact::{Fit, is_equivalent, is_same_instance},
};

/// The bindings after the change, from those alive before it. On an error there is no change at all.
pub(super) fn apply(
    current: &[Binding],
    change: &UserChange,
    now: WallTime,
) -> Result<Bindings, RegisterError> {
    match change {
        UserChange::Register(registration) => register(current, registration, now),
        UserChange::RemoveAll { call_id, cseq } => {
            let is_older = |binding: &Binding| is_out_of_order(binding, call_id, *cseq);
            if current.iter().any(is_older) { Err(RegisterError::OutOfOrder) } else { Ok(Bindings::new()) }
        }
        UserChange::Remove { contact: None } => Ok(Bindings::new()),
        UserChange::Remove { contact: Some(uri) } => remove(current, uri),
        UserChange::FlowClosed { server, boot, flow } => Ok(current
            .iter()
            .filter(|binding| {
                !binding.flow().is_some_and(|held| {
                    held.server == server.as_str() && held.boot == *boot && held.peer.flow.number() == *flow
                })
            })
            .cloned()
            .collect()),
    }
}

/// Step 7. A contact that stands twice in one REGISTER counts as it stands last.
fn register(current: &[Binding], asked: &Registration, now: WallTime) -> Result<Bindings, RegisterError> {
    let mut bindings: Bindings = current.into();
    for change in &asked.contacts {
        let found = find(&bindings, &change.contact);
        if let Some(bound) = found.and_then(|at| bindings.get(at))
            && current.contains(bound)
            && is_out_of_order(bound, &asked.call_id, asked.cseq)
        {
            return Err(RegisterError::OutOfOrder);
        }
        let binding = if change.expires_s == 0 {
            None
        } else {
            let gruus = gruus_of(&mut bindings, found, &change.contact, asked, now);
            Binding::new(&change.contact, asked, change.expires_s, now, gruus)
        };
        match (found.and_then(|at| Some((at, bindings.get_mut(at)?))), binding) {
            (Some((_, bound)), Some(binding)) => *bound = binding,
            (Some((at, _)), None) => {
                bindings.remove(at);
            }
            (None, Some(binding)) => bindings.push(binding),
            (None, None) => {}
        }
    }
    if bindings.len() > current.len() {
        check_devices(&bindings, asked.devices_max)?;
    }
    Ok(bindings)
}

/// The temporary GRUUs of the contact's device that are good from now on: those so far while the contact
/// keeps its Call-ID and while the device has any contact, else a series of its own, for all contacts of the
/// device (RFC 5627 sections 5.1 and 5.3).
fn gruus_of(
    bindings: &mut Bindings,
    found: Option<usize>,
    contact: &Contact,
    asked: &Registration,
    now: WallTime,
) -> GruuSeries {
    let Some(instance) = contact.instance() else { return GruuSeries::NONE };
    let is_of_device =
        |binding: &Binding| binding.instance().is_some_and(|bound| is_same_instance(bound, instance));
    let before = found.and_then(|at| bindings.get(at)).filter(|bound| is_of_device(bound));
    let known = match before {
        Some(bound) => Some(bound.gruus()).filter(|_| *bound.call_id() == *asked.call_id),
        None => bindings.iter().find(|binding| is_of_device(binding)).map(Binding::gruus),
    };
    known.unwrap_or_else(|| {
        let anew = GruuSeries { since: now, first_cseq: asked.cseq };
        bindings
            .iter_mut()
            .filter(|binding| is_of_device(binding))
            .for_each(|binding| binding.set_gruus(anew));
        anew
    })
}

/// The binding that a contact is the same as; of several the best fit, then the oldest place.
fn find(bindings: &[Binding], contact: &Contact) -> Option<usize> {
    let key = contact.key();
    let fits = bindings.iter().map(|binding| key.fit(&binding.key())).enumerate();
    let (at, fit) = fits.rev().max_by_key(|&(_, fit)| fit)?;
    (fit != Fit::None).then_some(at)
}

/// The same Call-ID and a CSeq that is not higher.
fn is_out_of_order(bound: &Binding, call_id: &[u8], cseq: u32) -> bool {
    bound.call_id() == call_id && cseq <= bound.cseq()
}

/// A user who has more than is allowed (since the setting was lowered) keeps them, but gets no more.
fn check_devices(bindings: &[Binding], devices_max: u16) -> Result<(), RegisterError> {
    let mut devices = 0;
    for (at, binding) in bindings.iter().enumerate() {
        let earlier = bindings.iter().take(at);
        let flows = earlier.filter(|other| other.is_same_device(binding)).count();
        if flows == 0 {
            devices += 1;
        }
        if flows >= usize::from(limits::FLOWS_PER_DEVICE_MAX) {
            return Err(RegisterError::TooManyFlows { max: limits::FLOWS_PER_DEVICE_MAX });
        }
    }
    if devices > usize::from(devices_max) {
        return Err(RegisterError::TooManyDevices { max: devices_max });
    }
    Ok(())
}

fn remove(current: &[Binding], uri: &[u8]) -> Result<Bindings, RegisterError> {
    let is_other = |binding: &&Binding| binding.uri() != uri && !is_equivalent(binding.uri(), uri);
    let kept: Bindings = current.iter().filter(is_other).cloned().collect();
    if kept.len() == current.len() { Err(RegisterError::UnknownContact) } else { Ok(kept) }
}
