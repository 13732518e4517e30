//! The path of a call, in the order of its steps.
//!
//! ```text
//! lookup        fast path: returns a value without waiting
//! read_through  reads the store, before the function is run
//! flight        shares one run per key in this process
//! leader        what the leader of a flight does ─> look (the store, leases)
//! record        opens and judges what a key holds ─> verdict (decides what to do about it)
//! run, refresh  runs the function, in the foreground or in the background ─> function
//! fill          stores the value ─> lifetime, revalidate
//! ```
//!
//! `plain` is the same path for values without a header. `batch` is the same path for many ids.

pub(crate) mod batch;
pub(crate) mod cooldown;
pub(crate) mod fill;
pub(crate) mod flight;
pub(crate) mod function;
pub(crate) mod leader;
pub(crate) mod lifetime;
pub(crate) mod look;
pub(crate) mod lookup;
pub(crate) mod patience;
pub(crate) mod plain;
pub(crate) mod plan;
pub(crate) mod read_through;
pub(crate) mod record;
pub(crate) mod refresh;
pub(crate) mod revalidate;
pub(crate) mod run;
pub(crate) mod task;
pub(crate) mod verdict;
