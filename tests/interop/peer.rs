//! The two peers, started in the same way.

use serde_json::Value;
use support::{Express, RedisServer};

use super::browser::App;
use super::ours::Ours;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Peer {
    Express,
    Ours,
}

/// Applications of one peer.
pub(super) enum Site {
    Express(Express),
    Ours(Ours),
}

impl Peer {
    pub(super) async fn start(self, server: &RedisServer, apps: &[App]) -> Site {
        match self {
            Self::Express => {
                let options: Vec<Value> = apps.iter().map(App::options).collect();
                Site::Express(Express::start(server, &options).await)
            }
            Self::Ours => Site::Ours(Ours::start(server, apps).await),
        }
    }
}

impl Site {
    pub(super) fn port(&self, index: usize) -> u16 {
        match self {
            Self::Express(express) => express.ports()[index],
            Self::Ours(ours) => ours.port(index),
        }
    }
}

/// Defines each test once for Express, to confirm the behavior of Express, and once for ours.
macro_rules! on_both_peers {
    ($(async fn $name:ident($peer:ident: Peer) $body:block)*) => {$(
        mod $name {
            use super::*;

            async fn on($peer: Peer) $body

            #[tokio::test]
            async fn express() {
                on(Peer::Express).await;
            }

            #[tokio::test]
            async fn ours() {
                on(Peer::Ours).await;
            }
        }
    )*};
}
pub(super) use on_both_peers;
