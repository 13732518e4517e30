//! Shortens a failing run: leaves out operations and failures as long as it breaks the same rule.
//!
//! Each operation, connection and run of a function has its own random sequence, so the delays of
//! the remaining ones do not change.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::history::{Rule, Violation};
use super::simulation::{Op, Setup, simulate};

/// A failing run from which nothing more can be left out.
pub(super) struct Shrunk {
    pub(super) ops: Vec<Op>,
    pub(super) violation: Violation,
    /// The setup without the operations left out.
    pub(super) setup: Setup,
}

/// Shortens a failing run. Returns `None` if the run breaks no rule.
pub(super) fn shrink(setup: &Setup) -> Option<Shrunk> {
    let first = simulate(setup);
    let rule = first.violation.as_ref()?.rule;
    let (mut ops, mut violation) = (first.ops, first.violation?);
    let mut size = ops.len().div_ceil(2).max(1);
    loop {
        let (mut at, mut is_shorter) = (0, false);
        while at < ops.len() {
            let end = ops.len().min(at + size);
            let fewer: Vec<Op> = [&ops[..at], &ops[end..]].concat();
            match fails(setup, &fewer, rule) {
                Some((happened, broken)) => {
                    // Operations after the failure are left out too.
                    (ops, violation, is_shorter) = (happened, broken, true);
                }
                None => at = end,
            }
        }
        if size == 1 && !is_shorter {
            let setup = Setup { only: Some(ops.iter().copied().collect()), ..setup.clone() };
            return Some(Shrunk { ops, violation, setup });
        }
        size = size.div_ceil(2);
    }
}

/// Runs with these operations only. Returns what happened if that breaks the same rule.
pub(super) fn fails(setup: &Setup, ops: &[Op], rule: Rule) -> Option<(Vec<Op>, Violation)> {
    let only: BTreeSet<Op> = ops.iter().copied().collect();
    let outcome = simulate(&Setup { only: Some(only), trace: false, ..setup.clone() });
    let violation = outcome.violation.filter(|violation| violation.rule == rule)?;
    Some((outcome.ops, violation))
}

impl Shrunk {
    /// Returns the command that runs it again.
    pub(super) fn command(&self) -> String {
        let mut command = format!("CACHE_MODEL_SEED={} CACHE_MODEL_ONLY=", self.setup.seed);
        for (n, op) in self.ops.iter().enumerate() {
            // Writing to a `String` cannot fail.
            let _written = write!(command, "{}{op}", if n == 0 { "" } else { "," });
        }
        command + " cargo test -p tests --all-features --test all model::replay -- --nocapture"
    }
}
