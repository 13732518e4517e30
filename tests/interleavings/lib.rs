//! The engine's own source files, compiled with the scheduler's locks instead of those of the
//! standard library.
//!
//! ```text
//! cache-core/src/{single_flight,local,versions}.rs ── crate::sync ──> in cache-core: std
//!                                                               └───> here: shuttle
//! ```
//!
//! shuttle chooses whose step is next. Two things are not interleaved: atomics, which are all used
//! next to a lock here, and the steps inside `papaya`'s table, which synchronizes by itself. Each
//! call of the table is one step here. None of these calls reaches a lock of ours, so only the
//! table's own races are left out, which have their own tests.

// Their own unit tests run in cache-core, outside of any scheduler.
#![cfg(not(test))]
// The modules belong to the engine as a whole, so some parts are unused here.
#![allow(dead_code, unused_imports, unreachable_pub, missing_docs, reason = "most of the engine is not built here")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]
#![allow(clippy::large_enum_variant, reason = "the scheduler's locks are larger than those of the standard library")]

mod doubles;
mod flights;
mod tiers;

pub use flights::*;
pub use mutants::{Invariant, without};
pub use tiers::*;

use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, Runner};

use doubles::{clock, key, random, store, sync};

#[path = "../../cache-core/src/value/erased.rs"]
mod erased;
#[path = "../../cache-core/src/key/text.rs"]
mod key_text;
#[path = "../../cache-core/src/local.rs"]
mod local;
#[path = "../../cache-core/src/mutants.rs"]
mod mutants;
#[path = "../../cache-core/src/coordination/single_flight.rs"]
mod single_flight;
#[path = "../../cache-core/src/versions/cells.rs"]
mod versions;

mod value {
    pub(crate) use crate::doubles::freshness;
    pub(crate) use crate::erased::{Erased, drop_caught};
}

/// Runs `model` with the steps of its threads in many orders, drawn by a seed: `orders` for each
/// number of preemptions at random places that races need (Burckhardt et al., "A randomized
/// scheduler with probabilistic guarantees of finding bugs", ASPLOS 2010), and as many at random
/// throughout.
///
/// # Panics
/// If one of them breaks the model. The message has the schedule that breaks it.
pub fn explore(orders: usize, model: impl Fn() + Send + Sync + 'static) {
    let model = std::sync::Arc::new(model);
    for depth in 1..=4 {
        let model = std::sync::Arc::clone(&model);
        let scheduler = PctScheduler::new_from_seed(SEED, depth, orders);
        Runner::new(scheduler, Config::new()).run(move || model());
    }
    Runner::new(RandomScheduler::new_from_seed(SEED, orders), Config::new()).run(move || model());
}

/// The same orders in every run.
const SEED: u64 = 1;
