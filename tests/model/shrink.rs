//! Makes a failing run short: operations and failures are left out while it still breaks the same
//! rule.
//!
//! What is drawn for each of them, for each connection and for each run of a function is a sequence
//! of its own, so the delays of what stays remain as they were.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::history::{Rule, Violation};
use super::simulation::{Op, Setup, simulate};

/// A failing run of which nothing can be left out.
pub(super) struct Shrunk {
    pub(super) ops: Vec<Op>,
    pub(super) violation: Violation,
    /// Without what is left out.
    pub(super) setup: Setup,
}

/// `None`: this run breaks no rule.
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
                    // What comes after the failure is left out with it.
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

/// What happened when only these operations could, if that breaks the same rule.
pub(super) fn fails(setup: &Setup, ops: &[Op], rule: Rule) -> Option<(Vec<Op>, Violation)> {
    let only: BTreeSet<Op> = ops.iter().copied().collect();
    let outcome = simulate(&Setup { only: Some(only), trace: false, ..setup.clone() });
    let violation = outcome.violation.filter(|violation| violation.rule == rule)?;
    Some((outcome.ops, violation))
}

impl Shrunk {
    /// The command that runs it again.
    pub(super) fn command(&self) -> String {
        let mut command = format!("CACHE_MODEL_SEED={} CACHE_MODEL_ONLY=", self.setup.seed);
        for (n, op) in self.ops.iter().enumerate() {
            // Writing to a `String` cannot fail.
            let _written = write!(command, "{}{op}", if n == 0 { "" } else { "," });
        }
        command + " cargo test -p tests --all-features --test all model::replay -- --nocapture"
    }
}
