//! What the 200 OK to a REGISTER says. Source: RFC 3261 section 10.3 step 8, RFC 3327, RFC 3608, RFC 5626,
//! RFC 5627.

use model::WallTime;
use sip::{Date, HeaderId};

use crate::{Binding, Gruus, Path, RegisterRequest};

/// The header values of one 200 OK, for `sip::ResponseBuilder::header`. Reuse it: filling it again allocates
/// nothing in the steady state.
#[derive(Clone, Debug, Default)]
pub struct OkHeaders {
    values: Vec<u8>,
    /// Each field ends where the next begins.
    fields: Vec<(HeaderId, usize)>,
    /// The last Date and its text: the same for all responses of one second.
    date: Option<Date>,
    date_text: Vec<u8>,
}

impl OkHeaders {
    /// No headers yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces what is in it by the headers for this request: one Contact per binding, the Path that was
    /// kept, `service_route` (Route values in order, empty = none), `Require: outbound` where Outbound was
    /// applied, Date. `gruus` of the contacts are for phones that know them; `None`: for nobody.
    ///
    /// `bindings` are those of the outcome, or of a lookup when the request only asked.
    pub fn fill<'a>(
        &mut self,
        request: &RegisterRequest,
        bindings: &[Binding],
        service_route: impl IntoIterator<Item = &'a [u8]>,
        gruus: Option<&Gruus>,
        now: WallTime,
    ) {
        let gruus = gruus.filter(|_| request.wants_gruus());
        self.values.clear();
        self.fields.clear();
        for binding in bindings {
            write_contact(binding, now, &mut self.values);
            if let Some(gruus) = gruus {
                gruus.write_parameters(&request.aor, binding, bindings, &mut self.values);
            }
            self.end_field(HeaderId::Contact);
        }
        for value in request.path().into_iter().flat_map(Path::values) {
            self.push(HeaderId::Path, value);
        }
        for value in service_route {
            self.push(HeaderId::ServiceRoute, value);
        }
        if request.is_outbound() {
            self.push(HeaderId::Require, b"outbound");
        }
        self.push_date(Date::new(now));
    }

    fn push_date(&mut self, date: Date) {
        if self.date != Some(date) {
            self.date_text.clear();
            date.write_to(&mut self.date_text);
            self.date = Some(date);
        }
        self.values.extend_from_slice(&self.date_text);
        self.end_field(HeaderId::Date);
    }

    /// The headers in the order of the response.
    pub fn iter(&self) -> impl Iterator<Item = (HeaderId, &[u8])> {
        let mut start = 0;
        self.fields.iter().map(move |&(id, end)| {
            let value = self.values.get(start..end).unwrap_or_default();
            start = end;
            (id, value)
        })
    }

    fn push(&mut self, id: HeaderId, value: &[u8]) {
        self.values.extend_from_slice(value);
        self.end_field(id);
    }

    fn end_field(&mut self, id: HeaderId) {
        self.fields.push((id, self.values.len()));
    }
}

/// Appends one Contact value: URI and parameters as the phone sent them, and the seconds that are left.
pub fn write_contact(binding: &Binding, now: WallTime, out: &mut Vec<u8>) {
    out.push(b'<');
    out.extend_from_slice(binding.uri());
    out.push(b'>');
    out.extend_from_slice(binding.parameters());
    out.extend_from_slice(b";expires=");
    write_number(binding.expires_in_s(now), out);
}

fn write_number(number: u32, out: &mut Vec<u8>) {
    let mut digits = [0_u8; 10];
    let mut rest = number;
    let mut count = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        count += 1;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(digits.len() - count..).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_in_full() {
        for number in [0, 7, 10, 3_600, u32::MAX] {
            let mut out = Vec::new();
            write_number(number, &mut out);
            assert_eq!(out, number.to_string().into_bytes());
        }
    }
}
