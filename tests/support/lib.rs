//! Helpers shared by the tests: a real `redis-server` for each test, a network that can be broken,
//! and waiting without sleeping.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test helpers fail by panicking, with a message that says why"
)]

mod express;
pub mod http;
mod left_out;
mod monitor;
mod nginx;
mod nodes;
mod proxy;
mod server;
mod tls;
mod wait;

pub use express::{Express, node, root};
pub use left_out::{left_out, long_form, skipped};
pub use monitor::Monitor;
pub use nginx::Nginx;
pub use nodes::{Gate, Nodes, event};
pub use proxy::{Loss, Proxy};
pub use server::{PATIENT, RedisServer, RedisServerBuilder};
pub use wait::{ends, eventually, soon};
