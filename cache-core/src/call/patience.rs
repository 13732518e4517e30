//! For how long a call looks for a value, or for the right to compute it, before it computes for
//! itself without storing.
//!
//! Invariant: bounded in looks, and in time wherever runs are: who holds the lease now has given it
//! up by the deadline of its run, so a caller that has found neither value nor lease for longer is
//! losing the key to others again and again.

use std::time::Duration;

use crate::clock::Stopwatch;
use crate::engine::Engine;

/// How often one call looks at most.
const MOST_LOOKS: usize = 1000;

/// What is left of it.
#[derive(Debug, Clone)]
pub(crate) struct Patience {
    since: Stopwatch,
    /// `None`: runs have no deadline, so waiting for one has none either.
    longest: Option<Duration>,
    looks: usize,
}

impl Patience {
    /// `deadline`: of a run of this function.
    pub(crate) fn new(engine: &Engine, deadline: Option<Duration>) -> Self {
        let longest = deadline.map(|deadline| deadline.saturating_add(engine.limits.lease));
        Self { since: engine.clock.start(), longest, looks: 0 }
    }

    /// Counts one look more. `false`: it would be one too many, or too late.
    pub(crate) fn look_again(&mut self) -> bool {
        self.looks = self.looks.saturating_add(1);
        self.looks <= MOST_LOOKS && self.longest.is_none_or(|longest| self.since.elapsed() < longest)
    }
}
