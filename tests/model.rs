//! A deterministic simulation of several processes on one store, and a checker of what they may read.
//!
//! ```text
//! seed ──> operations, delays, losses, deaths ──> history of reads and invalidations ──> the rule
//! ```
//!
//! Invalidations are of entries, by tag of an argument or of the value, of a function, of everything, and by fences; nodes of two builds
//! stand side by side, and the store loses versions.
//!
//! One rule: no read returns a value older than an invalidation that completed more than `max_staleness` before the read began,
//! and none older than an invalidation that completed before the read began on the same node.
//!
//! A failing seed is printed with the command that runs it again, with everything that happened:
//! `CACHE_MODEL_SEED=123 cargo test -p tests --test all model::replay -- --nocapture`.
//! `CACHE_MODEL_SEEDS=10000` sets how many seeds are tried.

mod client;
mod found;
mod functions;
mod history;
mod mutations;
mod simulation;

use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use cache_core::testing::sim::Guard;

use simulation::{Outcome, simulate};

/// How many seeds a plain `cargo test` tries.
const SEEDS: u64 = 1000;

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name}={value} is no number")))
}

/// The smallest of these seeds that breaks the rule, found on all processors.
fn first_violation(seeds: u64, without: Option<Guard>) -> Option<(u64, Outcome)> {
    let next = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let search = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                return None;
            }
            let outcome = simulate(seed, without, false);
            if outcome.violation.is_some() {
                next.store(seeds, Ordering::Relaxed);
                return Some((seed, outcome));
            }
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(search)).collect();
        workers.into_iter().filter_map(|worker| worker.join().unwrap()).min_by_key(|(seed, _)| *seed)
    })
}

#[test]
// R1, R2, R3, R4, R5, R6, R7, R9, R10, R16, R21, R22, T7
fn no_read_is_older_than_the_rule_allows() {
    let seeds = from_environment("CACHE_MODEL_SEEDS").unwrap_or(SEEDS);
    if let Some((seed, outcome)) = first_violation(seeds, None) {
        panic!(
            "seed {seed}: {}\nrun it again: CACHE_MODEL_SEED={seed} cargo test -p tests --test all model::replay -- --nocapture",
            outcome.violation.unwrap()
        );
    }
}

#[test]
fn replay() {
    let seed = from_environment("CACHE_MODEL_SEED").unwrap_or(0);
    let outcome = simulate(seed, None, true);
    let mut out = std::io::stdout().lock();
    // Without a seed this only shows that a replay works.
    if std::env::var_os("CACHE_MODEL_SEED").is_some() {
        writeln!(out, "seed {seed}\n{}", outcome.trace.join("\n")).unwrap();
    }
    assert_eq!(outcome.violation, None);
}

#[test]
fn a_seed_decides_everything() {
    for seed in 0..20 {
        let (first, again) = (simulate(seed, None, true), simulate(seed, None, true));
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
    for seed in 0..200 {
        all.add(&simulate(seed, None, false).reached);
    }
    assert!(all.is_everything(), "{all:?}");
}
