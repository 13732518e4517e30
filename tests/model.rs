//! A deterministic simulation of several processes on one store, and a checker of what they may
//! read.
//!
//! ```text
//! seed ──> operations, delays, losses, deaths ──> history of reads and invalidations ──> the rule
//! ```
//!
//! Clients do the following:
//!
//! - They read single values and batches, and ask whether values have changed.
//! - They write and invalidate: entries, tags of an argument or of the value, functions,
//!   everything.
//! - They raise and withdraw fences. Several fences of different clients may be on one row.
//! - They count in an object and in a session.
//! - They log in, change the ids of sessions, and end one or all sessions.
//! - They write one value from several nodes at once.
//! - Some of the computed values are not stored.
//!
//! Nodes of two builds run concurrently. Links break and stall. Processes stop, sleep and die.
//! Clocks differ and step. The store restarts empty, and evicts versions and entries, with the
//! fences stored in their place.
//!
//! Rules ([`history::Rule`]):
//!
//! - No read returns a value older than an invalidation that completed more than `max_staleness`
//!   before the read began, and none older than an invalidation that completed on the same node
//!   before the read began.
//! - The value that is written without a lock is the last acknowledged write or a later one.
//! - No acknowledged increment and no login is lost. No ended session lives on. A logged-in user is
//!   in the list of the user's sessions.
//! - A key has one run if nothing fails and nothing is written. A caller that waited for a run that
//!   stored nothing runs immediately. A value that must not be stored is not found.
//! - L1, waiters and outstanding operations are bounded. No call exceeds its time bound, all tasks
//!   end, and no task is left over.
//! - A link is trusted for `max_staleness` from the sending of its last answered request. It is
//!   used only after its gap was reported. The simulation runs the real supervisor.
//!
//! A failing seed is shortened. The report has the command that runs it again and the full trace:
//! `CACHE_MODEL_SEED=123 CACHE_MODEL_ONLY=0.3,2.15 cargo test -p tests --all-features --test all
//! model::replay -- --nocapture`. `CACHE_MODEL_ONLY` names the operations (`2.15`: the 15th of
//! client 2; client 0 is the failures). Without it, all operations happen.
//! `CACHE_MODEL_SEEDS=10000` sets how many seeds are tried, `CACHE_MODEL_TWICE=300` how many are
//! run twice and compared.

mod account;
mod cell;
mod client;
mod counters;
mod found;
mod functions;
mod history;
mod mutations;
mod shrink;
mod simulation;

use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use cache_core::testing::sim::Invariant;

use history::Rule;
use shrink::{fails, shrink};
use simulation::{Op, Outcome, Setup, simulate};

/// The number of seeds in a plain `cargo test`.
const SEEDS: u64 = 1000;
/// The number of seeds in `tests/run --long`.
const SEEDS_OF_THE_LONG_FORM: u64 = 20_000;

/// Whether to check that a key has one run if nothing fails and nothing is written.
const ONE_RUN_A_KEY: bool = true;
/// Whether the store may lose a registry of builds (R25).
const LOST_REGISTRIES: bool = true;

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name}={value} is no number")))
}

/// Returns the smallest of these seeds that breaks a rule. Uses all processors.
fn first_violation(seeds: u64, setup: &Setup) -> Option<(Setup, Outcome)> {
    let next = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let search = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                return None;
            }
            let setup = Setup { seed, ..setup.clone() };
            let outcome = simulate(&setup);
            if outcome.violation.is_some() {
                next.store(seeds, Ordering::Relaxed);
                return Some((setup, outcome));
            }
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(search)).collect();
        workers.into_iter().filter_map(|worker| worker.join().unwrap()).min_by_key(|(setup, _)| setup.seed)
    })
}

#[test]
// R1, R2, R3, R4, R5, R6, R7, R9, R10, R13, R16, R21, R22, R25, R27, T7, V5, V8, X1, X7, C1, C5
fn no_rule_is_broken() {
    let seeds = from_environment("CACHE_MODEL_SEEDS").unwrap_or(SEEDS);
    if seeds < SEEDS_OF_THE_LONG_FORM {
        support::left_out(&format!("{} of {SEEDS_OF_THE_LONG_FORM} seeds", SEEDS_OF_THE_LONG_FORM - seeds));
    }
    if let Some((setup, outcome)) = first_violation(seeds, &Setup::default()) {
        let (seed, all) = (setup.seed, outcome.violation.unwrap());
        let shrunk = shrink(&setup).expect("a seed decides everything");
        let (ops, command) = (shrunk.ops.len(), shrunk.command());
        panic!("seed {seed}: {all}\nwith {ops} operations: {}\nrun it again: {command}", shrunk.violation);
    }
}

#[test]
fn replay() {
    let seed = from_environment("CACHE_MODEL_SEED").unwrap_or(0);
    let only = std::env::var("CACHE_MODEL_ONLY").ok();
    let only =
        only.map(|ops| ops.split(',').map(|op| op.parse::<Op>().unwrap_or_else(|what| panic!("{what}"))).collect());
    let outcome = simulate(&Setup { seed, only, trace: true, ..Setup::default() });
    let mut out = std::io::stdout().lock();
    // Without a seed, this only checks that a replay works.
    if std::env::var_os("CACHE_MODEL_SEED").is_some() {
        writeln!(out, "seed {seed}\n{}", outcome.trace.join("\n")).unwrap();
    }
    assert_eq!(outcome.violation, None);
}

#[test]
fn a_failing_run_is_made_short() {
    let broken =
        Setup { without: Some(Invariant::PushDropsEntry), aim: Some(simulation::Aim::Function(0)), ..Setup::default() };
    let (setup, outcome) = first_violation(100, &broken).expect("L1 is deaf to pushes");
    let shrunk = shrink(&setup).expect("a seed decides everything");
    assert_eq!((outcome.violation.unwrap().rule, shrunk.violation.rule), (Rule::Staleness, Rule::Staleness));
    // The expected rest: a read that keeps the value, an invalidation on another node, a read, and
    // what makes them meet.
    assert!(shrunk.ops.len() <= 40 && shrunk.ops.len() < outcome.ops.len() / 2, "{} operations", shrunk.ops.len());
    let again = simulate(&shrunk.setup);
    assert_eq!((again.violation.as_ref(), &again.ops), (Some(&shrunk.violation), &shrunk.ops), "{}", shrunk.command());
    for left_out in &shrunk.ops {
        let fewer: Vec<Op> = shrunk.ops.iter().copied().filter(|op| op != left_out).collect();
        assert!(fails(&setup, &fewer, Rule::Staleness).is_none(), "{left_out} can be left out");
    }
}

#[test]
fn a_seed_decides_everything() {
    for seed in 0..from_environment("CACHE_MODEL_TWICE").unwrap_or(20) {
        let setup = Setup { seed, trace: true, ..Setup::default() };
        let (first, again) = (simulate(&setup), simulate(&setup));
        assert!(first.trace.len() > 100, "seed {seed}: almost nothing happened");
        if let Some(at) = first.trace.iter().zip(&again.trace).position(|(a, b)| a != b) {
            panic!("seed {seed} parts at {at}:\n{}\n{}", first.trace[at], again.trace[at]);
        }
        assert_eq!(first.trace.len(), again.trace.len(), "seed {seed}");
    }
}

#[test]
fn the_simulation_reaches_what_it_is_about() {
    let mut all = simulation::Reached::default();
    for seed in 0..400 {
        all.add(&simulate(&Setup { seed, ..Setup::default() }).reached);
    }
    assert!(all.is_everything(), "{all:?}");
}
