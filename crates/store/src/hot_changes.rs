//! What changed in a hot store, for the stream of bindings to the other pool. Format:
//! `docs/protocols/bindings.md`.

use model::{AddressOfRecord, RoutingGroup};
use registrar::UserCopy;
use serde::{Deserialize, Serialize};

/// How far a reader knows the bindings of one home pool at one store.
///
/// Worth nothing after the store was opened again: numbers belong to an incarnation. The default is that of a
/// reader that knows nothing.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HotCursor {
    /// Of the store when it was opened; random, never 0.
    pub incarnation: u64,
    /// Changes of this home pool that the reader knows, from 1 in each incarnation.
    pub number: u64,
    /// Where a full copy stands; `None` when it is complete.
    pub copying: Option<CopyPlace>,
}

/// How far a full copy is: by routing group, in it by address-of-record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyPlace {
    /// The group that is being copied; those before it are done.
    pub group: RoutingGroup,
    /// The last user of it that the reader has; `None` = none yet.
    pub after: Option<AddressOfRecord>,
}

/// Users that changed after a cursor, or a part of a full copy.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BindingPage {
    /// Ask with this next, once what is in the page is on disk.
    pub next: HotCursor,
    /// Each user once, with everything that the store knows of it: in the order of the last changes, in a
    /// full copy in that of the addresses of a group.
    pub users: Vec<(AddressOfRecord, UserCopy)>,
    /// The last change there is; what is between it and `next` is the reader's lag.
    pub newest: u64,
    /// Whether it is part of a full copy: the cursor was of another incarnation or too old, or began one.
    pub is_copy: bool,
}

impl BindingPage {
    /// Whether the reader knows everything when it has this page.
    pub const fn is_end(&self) -> bool {
        self.next.copying.is_none() && self.next.number == self.newest
    }
}

impl HotCursor {
    /// As it stands in a request: lower-case hexadecimal.
    pub fn to_text(&self) -> String {
        let octets = postcard::to_allocvec(self)
            .expect("invariant: memory takes everything, and no type above is of unknown length");
        octets.iter().map(|octet| format!("{octet:02x}")).collect()
    }

    /// Reads [`Self::to_text`]; `None` when it is something else.
    pub fn from_text(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        let (pairs, rest) = digits.as_chunks::<2>();
        let value = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
        let octets: Vec<u8> =
            pairs.iter().map(|[high, low]| Some(value(*high)? << 4 | value(*low)?)).collect::<Option<_>>()?;
        rest.is_empty().then(|| postcard::from_bytes(&octets).ok())?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_the_same_after_its_text_and_anything_else_is_none() {
        let group = RoutingGroup::all().last();
        let copying = group.map(|group| CopyPlace { group, after: AddressOfRecord::new("sip:a@b.c").ok() });
        let cursor = HotCursor { incarnation: u64::MAX, number: 7, copying };
        let text = cursor.to_text();

        assert_eq!(HotCursor::from_text(&text), Some(cursor));
        assert_eq!(HotCursor::from_text(&HotCursor::default().to_text()), Some(HotCursor::default()));
        for end in 0..text.len() {
            assert_eq!(HotCursor::from_text(&text[..end]), None, "{end}");
        }
        assert_eq!(HotCursor::from_text("zz"), None);
    }
}
