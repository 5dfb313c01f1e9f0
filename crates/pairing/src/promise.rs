//! What the two pools of a pair say to each other about the ownership of one home pool.

use std::time::Duration;

use model::{Epoch, PoolName};
use serde::{Deserialize, Serialize};

use crate::Tenure;

/// A request from one pool of a pair to the other, about one home pool. Encoded as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromiseRequest {
    /// The home pool whose ownership this is about.
    pub home: PoolName,
    /// The pool that asks. The receiver checks it against the client certificate.
    pub from: PoolName,
    /// What it asks.
    pub ask: Ask,
}

/// What one pool asks of the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// The asker owns the home pool under this tenure and wants the promise that the other does not serve
    /// under a higher epoch before the lease has run out.
    Promise {
        /// The asker's tenure.
        tenure: Tenure,
    },
    /// What does the other know? Asked by a pool that just started.
    Observe {
        /// What the asker remembers.
        known: Option<Tenure>,
    },
    /// The home pool is up, able to serve and not the owner: it would like its users back.
    Return {
        /// What the asker knows.
        known: Tenure,
    },
}

/// The answer to a [`PromiseRequest`]. Encoded as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromiseAnswer {
    /// What the answering pool knows after it has read the request. It serves under no lower epoch, from the
    /// moment of this answer and for ever.
    pub known: Option<Tenure>,
    /// What it answers.
    pub verdict: Verdict,
}

/// What one pool answers the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The promise is given for this epoch.
    Granted {
        /// The epoch asked for.
        epoch: Epoch,
    },
    /// The promise is not given.
    Refused {
        /// Why not.
        reason: Refusal,
    },
    /// To [`Ask::Observe`], and to [`Ask::Return`] where there is nothing to return.
    Observed,
    /// The wish to return is noted; it is granted after the asker stayed stable for as long as this.
    ReturnNoted {
        /// Time left of the hold.
        #[serde(rename = "hold_left_ms", with = "milliseconds")]
        hold_left: Duration,
    },
}

/// Why a promise was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The asker's epoch is over; `known` names the tenure that followed.
    StaleEpoch,
    /// The asker was silent for so long that the other is taking over; its request to the witness is under
    /// way.
    TakingOver,
}

mod milliseconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(value.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}
