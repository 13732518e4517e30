//! Limits how long a call looks for a value or a lease before it computes without storing.
//!
//! Invariant: the number of looks is bounded, and the time too if runs have a deadline. The holder
//! of a lease gives it up by the deadline of its run. So a caller that has waited longer without a
//! value or a lease is losing the key to others again and again.

use std::time::Duration;

use crate::clock::Stopwatch;
use crate::engine::Engine;

/// The maximum number of looks of one call.
const MOST_LOOKS: usize = 1000;

/// The looks and the time that one call has left.
#[derive(Debug, Clone)]
pub(crate) struct Patience {
    since: Stopwatch,
    /// `None`: runs have no deadline, so waiting for one has none either.
    longest: Option<Duration>,
    looks: usize,
}

impl Patience {
    /// Makes the limits of one call. `deadline`: that of a run of this function.
    pub(crate) fn new(engine: &Engine, deadline: Option<Duration>) -> Self {
        let longest = deadline.map(|deadline| deadline.saturating_add(engine.limits.lease));
        Self { since: engine.clock.start(), longest, looks: 0 }
    }

    /// Counts one more look. Returns `false` if a limit is reached.
    pub(crate) fn look_again(&mut self) -> bool {
        self.looks = self.looks.saturating_add(1);
        self.looks <= MOST_LOOKS && self.longest.is_none_or(|longest| self.since.elapsed() < longest)
    }
}
