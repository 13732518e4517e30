//! What the comparison and the benches share: how to measure, how to print, and the applications
//! with sessions.

#![allow(clippy::missing_panics_doc, reason = "a program that measures stops at the first error")]

pub mod machine;
pub mod measure;
pub mod plot;
pub mod posts;
pub mod proxy;
pub mod report;
pub mod sessions;

#[allow(dead_code, unreachable_pub, reason = "shared with the tests")]
#[path = "../../support/server.rs"]
pub mod server;
