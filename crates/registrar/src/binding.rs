//! A binding: one device (or one flow of it) of an address-of-record, compact in memory.

use std::{fmt, num::NonZeroU32, sync::Arc};

use model::WallTime;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use smallvec::SmallVec;

use crate::{
    Contact, FlowView, GruuSeries, Octets, Registration,
    contact::{ContactKey, is_same_instance, slice, some_if_any},
    path,
};

/// Bindings of one address-of-record; two fit without allocating.
pub type Bindings = SmallVec<[Binding; 2]>;

/// One contact bound to an address-of-record until it expires. Cloning shares it.
#[derive(Clone, PartialEq, Eq)]
pub struct Binding(Arc<Record>);

/// Set in `q_and_mark` where the series of GRUUs stands at the end of the text.
const HAS_GRUUS: u16 = 0x8000;
/// Octets of a series of GRUUs: when it began, and the CSeq.
const GRUUS_BYTES: usize = 12;

/// All text stands in one allocation: URI, parameters, Call-ID, path, flow, series of GRUUs.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    bytes: Octets,
    updated_at: WallTime,
    expires_at_s: u32,
    cseq: u32,
    reg_id: Option<NonZeroU32>,
    q_and_mark: u16,
    uri_end: u16,
    instance_start: u16,
    instance_end: u16,
    parameters_end: u16,
    call_id_end: u16,
    path_end: u16,
}

impl Binding {
    /// Binds a contact of a REGISTER taken up at `now`, for `expires_s` seconds.
    ///
    /// `None` above 65,535 octets, which the limits of its parts rule out.
    pub(crate) fn new(
        contact: &Contact,
        registration: &Registration,
        expires_s: u32,
        now: WallTime,
        gruus: GruuSeries,
    ) -> Option<Self> {
        let path = registration.path.encoded();
        let length = contact.text.len() + registration.call_id.len() + path.len();
        let mut bytes = Vec::with_capacity(length + 64);
        let end = |bytes: &Vec<u8>| u16::try_from(bytes.len()).ok();
        bytes.extend_from_slice(&contact.text);
        let parameters_end = end(&bytes)?;
        bytes.extend_from_slice(&registration.call_id);
        let call_id_end = end(&bytes)?;
        bytes.extend_from_slice(path);
        let path_end = end(&bytes)?;
        if let Some(flow) = &registration.flow {
            flow.view().encode(&mut bytes);
        }
        let has_gruus = contact.instance().is_some();
        if has_gruus {
            push_gruus(gruus, &mut bytes);
        }
        Some(Self(Arc::new(Record {
            bytes: bytes.into(),
            updated_at: now,
            expires_at_s: seconds_rounded_up(now).saturating_add(expires_s),
            cseq: registration.cseq,
            reg_id: contact.reg_id,
            q_and_mark: if has_gruus { contact.q | HAS_GRUUS } else { contact.q },
            uri_end: contact.uri_end,
            instance_start: contact.instance_start,
            instance_end: contact.instance_end,
            parameters_end,
            call_id_end,
            path_end,
        })))
    }

    /// The contact URI as sent.
    pub fn uri(&self) -> &[u8] {
        slice(&self.0.bytes, 0, self.0.uri_end)
    }

    /// The contact's parameters as sent, from the first `;`, without `expires`.
    pub fn parameters(&self) -> &[u8] {
        slice(&self.0.bytes, self.0.uri_end, self.0.parameters_end)
    }

    /// Preference in thousandths, 0 to 1,000; 1,000 when the phone did not say.
    pub fn q(&self) -> u16 {
        self.0.q_and_mark & !HAS_GRUUS
    }

    /// The value of `+sip.instance`, usually `<urn:uuid:...>`: which device this is.
    pub fn instance(&self) -> Option<&[u8]> {
        some_if_any(slice(&self.0.bytes, self.0.instance_start, self.0.instance_end))
    }

    /// `reg-id`: which flow of the device this is (RFC 5626).
    pub fn reg_id(&self) -> Option<NonZeroU32> {
        self.0.reg_id
    }

    /// Call-ID of the REGISTER that made or last refreshed it.
    pub fn call_id(&self) -> &[u8] {
        slice(&self.0.bytes, self.0.parameters_end, self.0.call_id_end)
    }

    /// CSeq of that REGISTER.
    pub fn cseq(&self) -> u32 {
        self.0.cseq
    }

    /// The route from us to the phone: Route values in order; empty = none (RFC 3327).
    pub fn path(&self) -> impl Iterator<Item = &[u8]> {
        path::values_of(slice(&self.0.bytes, self.0.call_id_end, self.0.path_end))
    }

    /// The flow it was registered over; `None` when another server registered it, which is then in the path.
    pub fn flow(&self) -> Option<FlowView<'_>> {
        FlowView::decode(self.0.parts_behind_path()?.0)
    }

    /// When that REGISTER was taken up, or a moment after what it replaced where that was later by the clock
    /// of another server: the newer of two versions of a binding is the right one.
    pub fn updated_at(&self) -> WallTime {
        self.0.updated_at
    }

    /// When it ends: up to a second later than the phone was told, never earlier.
    pub fn expires_at(&self) -> WallTime {
        WallTime::from_secs(u64::from(self.0.expires_at_s))
    }

    /// Whether it has ended.
    pub fn is_expired(&self, now: WallTime) -> bool {
        now.as_secs() >= u64::from(self.0.expires_at_s)
    }

    /// Seconds until it ends, as a 200 OK says them; at least 1, as 0 would mean removed.
    pub fn expires_in_s(&self, now: WallTime) -> u32 {
        self.0.expires_at_s.saturating_sub(seconds_rounded_up(now)).max(1)
    }

    /// Which temporary GRUUs of its device are good; the same for all contacts of the device.
    pub fn gruus(&self) -> GruuSeries {
        let series = self.0.parts_behind_path().and_then(|(_, gruus)| read_gruus(gruus));
        series.unwrap_or(GruuSeries::NONE)
    }

    /// Begins another series of temporary GRUUs.
    pub(crate) fn set_gruus(&mut self, gruus: GruuSeries) {
        let Some((_, former)) = self.0.parts_behind_path() else { return };
        let kept = self.0.bytes.len().saturating_sub(former.len());
        let mut bytes = self.0.bytes.get(..kept).unwrap_or_default().to_vec();
        push_gruus(gruus, &mut bytes);
        let q_and_mark = self.0.q_and_mark | HAS_GRUUS;
        self.0 = Arc::new(Record { bytes: bytes.into(), q_and_mark, ..Record::clone(&self.0) });
    }

    /// Whether both are of one device: the same instance, or the same binding where there is none.
    pub fn is_same_device(&self, other: &Self) -> bool {
        match (self.instance(), other.instance()) {
            (Some(mine), Some(theirs)) => is_same_instance(mine, theirs),
            (None, None) => self.uri() == other.uri(),
            (None, Some(_)) | (Some(_), None) => false,
        }
    }

    /// Whether both are versions of one binding, spelled alike: what copies of a user are merged by.
    pub(crate) fn is_same_flow(&self, other: &Self) -> bool {
        self.0.reg_id == other.0.reg_id && self.is_same_device(other)
    }

    /// Orders the versions of one binding, newest last, the same everywhere.
    pub(crate) fn version(&self) -> impl Ord {
        (self.0.updated_at, self.0.cseq, self.0.expires_at_s, &self.0.bytes, self.0.call_id_end)
    }

    /// Whether both are the same version in the same place of memory.
    pub(crate) fn is_shared_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Makes it newer than a version that it follows, where the clock that took that one up is ahead of ours.
    pub(crate) fn raise_above(&mut self, version: WallTime) {
        if self.0.updated_at <= version {
            let above = WallTime::from_micros(version.as_micros().saturating_add(1));
            self.0 = Arc::new(Record { updated_at: above, ..Record::clone(&self.0) });
        }
    }

    /// About how many octets it has on the wire.
    pub(crate) fn octets(&self) -> usize {
        self.0.bytes.len().saturating_add(48)
    }

    pub(crate) fn expires_at_s(&self) -> u32 {
        self.0.expires_at_s
    }

    pub(crate) fn key(&self) -> ContactKey<'_> {
        ContactKey { uri: self.uri(), instance: self.instance(), reg_id: self.0.reg_id }
    }

    /// Octets of memory in use, allocations as asked for; for the test of the budget.
    #[cfg(test)]
    pub(crate) fn memory_bytes(&self) -> usize {
        2 * size_of::<usize>() + size_of::<Record>() + self.0.bytes.len()
    }
}

impl Record {
    /// The flow, empty without one, and the series of GRUUs, empty without one.
    fn parts_behind_path(&self) -> Option<(&[u8], &[u8])> {
        let rest = self.bytes.get(usize::from(self.path_end)..)?;
        let gruus = if self.q_and_mark & HAS_GRUUS == 0 { 0 } else { GRUUS_BYTES };
        rest.split_at_checked(rest.len().checked_sub(gruus)?)
    }

    /// Whether the offsets rise and stay inside, and flow and GRUUs can be read.
    fn is_sound(&self) -> bool {
        let offsets = [self.uri_end, self.parameters_end, self.call_id_end, self.path_end];
        let flow = self.parts_behind_path().map(|(flow, _)| flow);
        offsets.is_sorted()
            && (self.instance_start <= self.instance_end && self.instance_end <= self.parameters_end)
            && flow.is_some_and(|flow| flow.is_empty() || FlowView::decode(flow).is_some())
    }
}

fn push_gruus(gruus: GruuSeries, out: &mut Vec<u8>) {
    out.extend_from_slice(&gruus.since.as_micros().to_be_bytes());
    out.extend_from_slice(&gruus.first_cseq.to_be_bytes());
}

fn read_gruus(bytes: &[u8]) -> Option<GruuSeries> {
    let (since, rest) = bytes.split_first_chunk::<8>()?;
    let since = WallTime::from_micros(u64::from_be_bytes(*since));
    Some(GruuSeries { since, first_cseq: u32::from_be_bytes(*rest.first_chunk()?) })
}

impl fmt::Debug for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Binding")
            .field("uri", &Octets::from(self.uri()))
            .field("parameters", &Octets::from(self.parameters()))
            .field("reg_id", &self.0.reg_id)
            .field("call_id", &Octets::from(self.call_id()))
            .field("cseq", &self.0.cseq)
            .field("path", &self.path().map(Octets::from).collect::<Vec<_>>())
            .field("flow", &self.flow())
            .field("updated_at", &self.0.updated_at)
            .field("expires_at_s", &self.0.expires_at_s)
            .finish_non_exhaustive()
    }
}

impl Serialize for Binding {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Binding {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let record = Record::deserialize(deserializer)?;
        if record.is_sound() {
            Ok(Self(Arc::new(record)))
        } else {
            Err(D::Error::custom("a binding whose offsets lie outside of it"))
        }
    }
}

fn seconds_rounded_up(time: WallTime) -> u32 {
    u32::try_from(time.as_micros().div_ceil(1_000_000)).unwrap_or(u32::MAX)
}
