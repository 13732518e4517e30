//! Every shape of argument, return type and function that `#[cached]` accepts, with the in-memory
//! cache.
#![deny(
    clippy::shadow_reuse,
    reason = "generated code moves arguments under their own names, and users must not see lints for it"
)]

mod arguments;
mod functions;
mod key_parts;
mod methods;
mod names;
mod options;
mod returns;

use std::sync::atomic::{AtomicU32, Ordering};

use serde::{Deserialize, Serialize};

/// Counts the runs of a function.
#[derive(Debug, Default)]
struct Runs(AtomicU32);

impl Runs {
    /// Returns the number of this run, from 1.
    fn next(&self) -> u32 {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn count(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct User {
    id: u64,
    name: String,
}

impl User {
    fn new(id: u64) -> Self {
        Self { id, name: format!("user {id}") }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum AppError {
    NotFound,
}
