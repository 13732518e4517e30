//! One binary for all integration tests.

mod behaviour;
mod ui;
