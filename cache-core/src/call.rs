//! The path of a call, in the order of its steps.
//!
//! ```text
//! lookup        a value that is found without waiting
//! read_through  the store, before any run
//! flight        one run of a key in this process
//! lead          what one caller does for all ─> look (the store, leases) ─> record (what is stored)
//! run, refresh  the function, in the foreground and behind an old value ─> body (its future)
//! fill          what is stored of its value ─> lifetime, revalidate
//! ```
//!
//! `plain` is the same path for values without a header, `batch` for many ids at once.

pub(crate) mod batch;
pub(crate) mod body;
pub(crate) mod cooldown;
pub(crate) mod fill;
pub(crate) mod flight;
pub(crate) mod lead;
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
