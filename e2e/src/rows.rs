//! Who serves a user: the rows of both tables of the product's section 4, as tests name what they prove.

/// A user homed on front-end pool P1, paired with P2: P1 | P2 sees | a REGISTER reaches | result.
pub mod pool {
    /// Row 1.
    pub const AT_HOME: &str = "owner, alive | alive | P1 | full service at P1; the 200 OK names P2 as backup";
    /// Row 2.
    pub const AT_THE_PARTNER: &str = "owner, alive | alive | P2 | P2 is the edge of a second flow (REGISTER \
         forwarded to P1 with Path), or 302 to P1 then P2, by configuration. Never 301";
    /// Row 3.
    pub const SILENT: &str = "owner, silent for less than the takeover time | - | P2 | 503 with \
         Retry-After of the time left; the second flows stay up";
    /// Row 4.
    pub const TAKEN_OVER: &str = "lease lost, takeover done (automatic) | owner of registrations | P2 | \
         accepted, resiliency mode, said so in the 200 OK";
    /// Row 5.
    pub const FAILED_OVER: &str = "failed over (command) | owner of everything | P2 | accepted, full service";
    /// Row 6.
    pub const FAILED_OVER_ALIVE: &str = "failed over, but alive | - | P1 | 302 to P2";
    /// Row 7.
    pub const FAILING_BACK: &str = "failing back | - | either | served where the routing group is now; no \
         sign-out, no read-only window above 2 s";
    /// Row 8.
    pub const CUT_OFF: &str = "cut off from partner and witness | - | P1 | P1 stops when its lease ends: \
         503; it never serves beyond the lease";
    /// Row 9.
    pub const QUORUM_LOST: &str = "pool quorum lost | - | P1 | 503 + Retry-After; counts as silence for P2";
    /// Row 10.
    pub const BACK_END_LOST: &str = "back end lost | alive | P1 | registrations and calls unaffected; \
         documents read-only; after the threshold resiliency mode at P1";
}

/// A user homed on branch appliance S, associated with P1, paired with P2; W is the WAN:
/// S | W | P1 | registers at | user services | mode.
pub mod branch {
    /// Row 1.
    pub const WELL: &str = "up | up | owner | S | P1 | full";
    /// Row 2.
    pub const CUT_OFF: &str = "up | down | any | S | none | resiliency";
    /// Row 3.
    pub const POOL_DOWN: &str = "up | up | down | S | none | resiliency";
    /// Row 4.
    pub const FAILED_OVER_NONE: &str =
        "up | up | failed over to P2 | S | none | resiliency (branch_recovery = \"none\")";
    /// Row 5.
    pub const FAILED_OVER_FOLLOW: &str =
        "up | up | failed over to P2 | S | P2 | full (branch_recovery = \"follow\")";
    /// Row 6.
    pub const APPLIANCE_DOWN: &str = "down | up | owner | P1 | P1 | full, central trunk";
    /// Row 7, `branch_recovery = "none"`.
    pub const BOTH_DOWN_NONE: &str = "down | up | down or failed over | nowhere | none | none (\"none\")";
    /// Row 7, `branch_recovery = "follow"`.
    pub const BOTH_DOWN_FOLLOW: &str =
        "down | up | down or failed over | P2 | P2 | as P1's users (\"follow\")";
    /// Row 8.
    pub const ALL_DOWN: &str = "down | down | any | nowhere inside | - | none";
}

/// Prints that a row was proved just now, and by what.
pub fn proved(row: &str, by: &str) {
    println!("row proved: {row}\n    by: {by}");
}
