//! All integration tests, in one binary.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, in its helpers too, and has tasks and clocks of its own"
)]

mod behaviour;
mod browser;
mod faults;
mod interop;
mod model;
mod tidy;
mod ui;
