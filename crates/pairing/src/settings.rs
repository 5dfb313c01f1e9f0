//! Parties and time limits of one ownership machine.

use std::time::Duration;

use model::PoolName;

/// Who takes part in the ownership of one home pool, seen from one of the two pools.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parties {
    /// The pool whose users are owned.
    pub home: PoolName,
    /// The pool this machine runs in: `home` or its partner.
    pub me: PoolName,
    /// The other pool of the pair.
    pub other: PoolName,
}

impl Parties {
    /// The parties as the home pool sees them.
    pub fn at_home(home: PoolName, partner: PoolName) -> Self {
        Self { me: home.clone(), home, other: partner }
    }

    /// The parties as the partner, the home pool's backup registrar, sees them.
    pub fn at_partner(home: PoolName, partner: PoolName) -> Self {
        Self { other: home.clone(), home, me: partner }
    }

    /// Whether the machine runs at the home pool.
    pub fn is_home(&self) -> bool {
        self.me == self.home
    }
}

/// Time limits of ownership, the same at both pools of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long a promise is good for, from the instant at which its request began. Default 5 s, 1 s to 1 h.
    pub ttl: Duration,
    /// Silence of the owner after which the other pool takes over. Default 10 s; never shorter than
    /// [`Self::wait`].
    pub takeover_after: Duration,
    /// How long the home pool has to be back and stable before its users are returned. Default 120 s.
    pub hold: Duration,
    /// Allowance for the time between testing an authority and the answer leaving the machine. Default 200
    /// ms.
    pub margin: Duration,
    /// The longest that an owner stops serving for one drained handover, the last change included. Default
    /// 1.5 s. The other pool has three quarters of it to confirm that it holds everything.
    pub handover_stop_max: Duration,
    /// How long an operation may be under way before the owner undoes it by itself. Default 60 s. A restarted
    /// owner counts from its start.
    pub operation_max: Duration,
    /// Whether a silent owner is replaced without a command. Default true.
    pub is_automatic: bool,
    /// A mistake made on purpose, for the tests of the simulator.
    #[doc(hidden)]
    pub planted: Planted,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(5),
            takeover_after: Duration::from_secs(10),
            hold: Duration::from_secs(120),
            margin: Duration::from_millis(200),
            handover_stop_max: Duration::from_millis(1_500),
            operation_max: Duration::from_secs(60),
            is_automatic: true,
            planted: Planted::None,
        }
    }
}

impl Settings {
    /// Time between two renewals: a fifth of the time a promise is good for.
    pub fn interval(&self) -> Duration {
        self.ttl / 5
    }

    /// How long a pool that gave a promise must not serve under a higher epoch, on its own clock.
    ///
    /// TTL x 1.01 / 0.99 + margin: the owner's clock may run 1 % slow while this one runs 1 % fast.
    pub fn wait(&self) -> Duration {
        if self.planted == Planted::WaitShortened {
            return self.ttl / 2;
        }
        self.ttl.saturating_mul(101) / 99 + Duration::from_micros(1) + self.margin
    }

    /// Silence of the owner after which the other pool takes over: [`Self::takeover_after`], but at least
    /// [`Self::wait`].
    pub fn silence(&self) -> Duration {
        if self.planted == Planted::WaitShortened {
            self.wait()
        } else {
            self.takeover_after.max(self.wait())
        }
    }

    /// How long an answer may take before its request counts as lost.
    pub fn patience(&self) -> Duration {
        self.interval() * 2
    }

    /// How long the other pool may take to confirm that it holds everything, while the owner does not serve.
    pub fn drain_max(&self) -> Duration {
        self.handover_stop_max / 4 * 3
    }

    /// How old the last sign of life of the owner may be before phones are no longer sent to it.
    pub fn quiet(&self) -> Duration {
        self.interval() * 3
    }
}

/// Mistakes the simulator has to find; each is one a careful author could make.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Planted {
    /// None: how it runs.
    #[default]
    None,
    /// The owner serves until it hears of a higher epoch; its leases mean nothing.
    NoFence,
    /// The other pool waits half a TTL before it takes over.
    WaitShortened,
    /// A lease counts from the arrival of the answer, not from the beginning of the request.
    LeaseFromAnswer,
    /// A restarted pool thinks that it had given no promise.
    RestartForgets,
    /// The owner hands over first and stops serving when it hears that this worked.
    HandsOverServing,
    /// The pool goes on giving promises while its takeover is under way, and serves as soon as it succeeds.
    GrantsTakingOver,
    /// The owner hands over without waiting for the other pool's word that it holds everything.
    SwapsUndrained,
    /// An operation is undone with whatever version the witness shows, whoever owns by then.
    UndoesByForce,
    /// A cancel is carried out in whatever epoch it arrives.
    CancelsLate,
    /// An order that is given again is begun again.
    OrdersTwice,
    /// After a handover whose outcome is unknown documents are writable before the witness spoke.
    WritesInDoubt,
}
