//! What every deciding part has in common.

use crate::Instant;

/// A synchronous machine: inputs and `now` in, ordered outputs out; no IO, no clock, no threads.
///
/// Two drivers run machines: `node` with real sockets and clocks, `sim` with virtual ones. Source:
/// architecture, rule 1.
pub trait Machine {
    /// What happens to the machine.
    type Input;
    /// What the driver has to do, in order.
    type Output;
    /// Why an input was refused; a refused input changes nothing.
    type Error;

    /// Applies one input. Drain [`Self::poll_output`] before the next.
    fn handle(&mut self, now: Instant, input: Self::Input) -> Result<(), Self::Error>;

    /// Lets deadlines that have passed take effect; safe early, late or twice.
    fn handle_timeout(&mut self, now: Instant);

    /// The next thing to do; `None` when there is nothing left.
    fn poll_output(&mut self) -> Option<Self::Output>;

    /// When to call [`Self::handle_timeout`] next; `None` = only after an input.
    fn poll_timeout(&self) -> Option<Instant>;
}
