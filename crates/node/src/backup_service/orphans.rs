//! Orphans: changes that this server acknowledged and that the present owner of the journal does not have.
//!
//! They are offered to the owner, which applies, replays or unites them, or keeps them as conflicts. Only
//! when it said that all are durable does this server forget them and go on copying: nothing is lost if
//! either dies on the way, and offering them again is harmless.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use store::{Cursor, Scope, UserStore};

use super::pull::{Divergence, PullError, Reader};
use crate::peers::{Endpoint, PeerError};

/// Orphans in one page.
const PAGE_MAX: usize = 500;
/// Time the owner may take for a page.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// How often the common point may be corrected before the copy is given up for now: each time it moves back
/// to an earlier epoch, of which there are few.
const CORRECTIONS_MAX: u32 = 64;

/// How many orphans came to which end; by the words of `store::Adoption`.
pub type Offered = BTreeMap<String, u64>;

/// Offers every orphan, and cuts the journal back to the common point when all are adopted.
///
/// Errors: [`PullError`]; then nothing is forgotten here.
pub async fn offer(reader: &Reader, owner: &Endpoint, theirs: Cursor) -> Result<Offered, PullError> {
    let common = common_point(reader, owner, theirs).await?;
    let mut after = common.sequence;
    let mut offered = Offered::new();
    loop {
        let (users, at) = (Arc::clone(&reader.shared.users), common.clone());
        let page = tokio::task::spawn_blocking(move || users.orphans(&at, after, PAGE_MAX))
            .await?
            .map_err(|error| PullError::Refused(error.to_string()))?;
        if !page.orphans().is_empty() {
            let outcomes: Offered =
                reader.client.post_octets(owner, "/v1/orphans", page.encode(), ANSWER_WITHIN).await?;
            for (outcome, count) in outcomes {
                *offered.entry(outcome).or_default() += count;
            }
        }
        after = page.next();
        if page.is_end() {
            break;
        }
    }
    let users = Arc::clone(&reader.shared.users);
    tokio::task::spawn_blocking(move || users.rewind(&common, after))
        .await?
        .map_err(|error| PullError::Refused(error.to_string()))?;
    Ok(offered)
}

/// The last change that both journals have: each side names the last it has at or before the other's, until
/// they agree.
async fn common_point(reader: &Reader, owner: &Endpoint, theirs: Cursor) -> Result<Cursor, PullError> {
    let mut theirs = theirs;
    for _ in 0..CORRECTIONS_MAX {
        let (users, asked) = (Arc::clone(&reader.shared.users), theirs.clone());
        let mine = tokio::task::spawn_blocking(move || users.common(&asked)).await??;
        if mine == theirs {
            return Ok(mine);
        }
        let path = format!(
            "/v1/journal?journal={}&sequence={}&epoch={}&whole=0&scope={}&wait_ms=0",
            mine.journal,
            mine.sequence,
            mine.epoch.number(),
            Scope::Everything
        );
        match reader.client.get_octets(owner, &path, ANSWER_WITHIN).await {
            Ok(_page) => return Ok(mine),
            Err(PeerError::Refused { status: 409, message }) => {
                let divergence: Divergence =
                    serde_json::from_str(&message).map_err(|_| PullError::Refused(message))?;
                theirs = divergence.common;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(PullError::Refused("the two journals have no point in common that could be found".to_owned()))
}

/// Counts the outcomes of a page, for the answer to who offered it.
pub fn counted(outcomes: impl Iterator<Item = String>) -> Offered {
    let mut counts = Offered::new();
    for outcome in outcomes {
        *counts.entry(outcome).or_default() += 1;
    }
    counts
}
