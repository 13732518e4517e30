//! What the tests share: a real `redis-server` of one's own, a network that can be broken, and waiting without sleeping.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what tests stand on fails by panicking, with a text that says why"
)]

mod express;
pub mod http;
mod monitor;
mod nodes;
mod proxy;
mod server;
mod wait;

pub use express::{Express, node, root};
pub use monitor::Monitor;
pub use nodes::{Gate, Nodes, event};
pub use proxy::{Loss, Proxy};
pub use server::{RedisServer, RedisServerBuilder};
pub use wait::{eventually, soon};
