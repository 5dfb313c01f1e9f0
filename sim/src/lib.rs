//! Simulation of pools, partners and a witness in virtual time with seeded faults.
//!
//! One run: the two pools of a pair and the witness of one home pool, each pool a process with its own clock
//! (rate wrong by up to 1 %), its driver and its phones. First come faults: lost, doubled and late
//! messages, cuts in one direction or both, paused and crashed processes, driver threads that stall, lost
//! disks, a dead witness. Then two or three of the three parties are left in peace. After every step no two
//! pools may be able to answer; in peace one of them must be able to, soon, and from then on without a gap.
//!
//! What a process may do is tested where it answers: with its clock as it is at that instant. A pause or a
//! stall may hit before that test, never between the test and the sending; that time is what
//! `Settings::margin` is for.

mod clock;
mod faults;
mod fleet;
mod judge;
mod network;
mod process;
mod run;
mod scenario;
mod witness;
mod world;

pub use fleet::{Breach, FleetReport, FleetVariant, Mistake, Tally, run_fleet};
pub use judge::{Outcome, Violation};
pub use run::{Report, Variant, run_seed};
pub use scenario::Peace;
