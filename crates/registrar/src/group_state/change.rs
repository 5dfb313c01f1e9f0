//! How one change alters the bindings of one user: RFC 3261 section 10.3 steps 6 and 7, RFC 5626 section 6.

use model::{WallTime, limits};

use crate::{
    Binding, Bindings, Contact, GruuSeries, RegisterError, Registration, UserChange,
    contact::{Fit, is_equivalent, is_same_instance},
};

/// The bindings after the change, from those alive before it, and those that left to make room for a new
/// device. On an error there is no change at all.
pub(super) fn apply(
    current: &[Binding],
    change: &UserChange,
    now: WallTime,
) -> Result<(Bindings, Bindings), RegisterError> {
    let kept = match change {
        UserChange::Register(registration) => return register(current, registration, now),
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
    };
    kept.map(|kept| (kept, Bindings::new()))
}

/// Step 7. A contact that stands twice in one REGISTER counts as it stands last.
fn register(
    current: &[Binding],
    asked: &Registration,
    now: WallTime,
) -> Result<(Bindings, Bindings), RegisterError> {
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
    let mut replaced = Bindings::new();
    if bindings.len() > current.len() {
        let mut devices = count_devices(&bindings)?;
        while devices > usize::from(asked.devices.max()) {
            let oldest = oldest_device(&bindings, current).filter(|_| asked.devices.replaces_oldest());
            let Some(oldest) = oldest else {
                return Err(RegisterError::TooManyDevices { max: asked.devices.max() });
            };
            replaced.extend(bindings.iter().filter(|binding| binding.is_same_device(&oldest)).cloned());
            bindings.retain(|binding| !binding.is_same_device(&oldest));
            devices -= 1;
        }
    }
    Ok((bindings, replaced))
}

/// One binding of the device that registered longest ago, over whichever of its flows, among those that do
/// not register now.
fn oldest_device(bindings: &[Binding], current: &[Binding]) -> Option<Binding> {
    let is_idle = |device: &&Binding| {
        bindings.iter().filter(|flow| flow.is_same_device(device)).all(|flow| current.contains(flow))
    };
    let last_heard = |device: &&Binding| {
        let flows = bindings.iter().filter(|flow| flow.is_same_device(device));
        flows.map(Binding::updated_at).max()
    };
    bindings.iter().filter(is_idle).min_by_key(last_heard).cloned()
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

/// How many devices there are. A user who has more than is allowed (since the setting was lowered) keeps
/// them, until one more comes.
///
/// Errors: `TooManyFlows`.
fn count_devices(bindings: &[Binding]) -> Result<usize, RegisterError> {
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
    Ok(devices)
}

fn remove(current: &[Binding], uri: &[u8]) -> Result<Bindings, RegisterError> {
    let is_other = |binding: &&Binding| binding.uri() != uri && !is_equivalent(binding.uri(), uri);
    let kept: Bindings = current.iter().filter(is_other).cloned().collect();
    if kept.len() == current.len() { Err(RegisterError::UnknownContact) } else { Ok(kept) }
}
