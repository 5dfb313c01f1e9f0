//! A page of bindings as it travels.

use model::Epoch;
use serde::{Deserialize, Serialize};
use store::BindingPage;

/// First octet of a page; rises with each change of the format.
const FORMAT: u8 = 1;

/// Answer of `GET /v1/bindings`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamPage {
    /// Under which epoch the source speaks: that of its authority, else the highest it holds bindings of.
    pub epoch: Epoch,
    /// Bindings that the source holds of this home pool.
    pub held: u64,
    /// The bindings.
    pub bindings: BindingPage,
}

/// Why octets are no page.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    /// Another version of the program wrote it.
    #[error("the page of bindings has format {found}, this program reads {FORMAT}")]
    Format {
        /// The format found; 0 for nothing at all.
        found: u8,
    },
    /// It cannot be read.
    #[error("the page of bindings is damaged")]
    Damaged(#[source] postcard::Error),
}

impl StreamPage {
    /// Writes it.
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_extend(self, vec![FORMAT])
            .expect("invariant: memory takes everything, and no type above is of unknown length")
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// Errors: [`PageError`]; no octets make it panic or allocate beyond their own number.
    pub fn decode(octets: &[u8]) -> Result<Self, PageError> {
        let (&format, body) = octets.split_first().ok_or(PageError::Format { found: 0 })?;
        if format != FORMAT {
            return Err(PageError::Format { found: format });
        }
        postcard::from_bytes(body).map_err(PageError::Damaged)
    }
}

#[cfg(test)]
mod tests {
    use model::{AddressOfRecord, PoolName, WallTime};
    use store::{HotCursor, conformance};

    use super::*;

    fn page() -> StreamPage {
        let (home, now) = (PoolName::new("east").unwrap(), WallTime::from_secs(1_800_000_000));
        let mut state = registrar::GroupState::new();
        for command in [
            conformance::register(&home, 1, 1, now),
            conformance::register(&home, 2, 1, now),
            conformance::unregister(&home, 2, 2, now),
        ] {
            state.apply(&command);
        }
        let users = [1, 2].map(conformance::user);
        let copy = |aor: AddressOfRecord| (aor.clone(), state.copy_of(&aor, now));
        let next = HotCursor { incarnation: 7, number: 3, copying: None };
        let bindings = BindingPage { next, users: users.map(copy).to_vec(), newest: 3, is_copy: false };
        StreamPage { epoch: Epoch::new(4), held: 1, bindings }
    }

    #[test]
    fn a_page_is_the_same_after_its_way() {
        assert_eq!(StreamPage::decode(&page().encode()).unwrap(), page());
        assert!(page().bindings.is_end());
    }

    #[test]
    fn octets_that_are_no_page_are_refused_without_harm() {
        let octets = page().encode();
        assert!(matches!(StreamPage::decode(&[]), Err(PageError::Format { found: 0 })));
        assert!(matches!(StreamPage::decode(&[9, 1]), Err(PageError::Format { found: 9 })));
        for at in 1..octets.len() {
            assert!(matches!(StreamPage::decode(&octets[..at]), Err(PageError::Damaged(_))), "{at}");
            for value in [0, 0x7f, 0xff] {
                let mut damaged = octets.clone();
                damaged[at] = value;
                let _any_answer = StreamPage::decode(&damaged).map(|page| format!("{page:?}"));
            }
        }
    }
}
