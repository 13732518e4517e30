//! The session operations of common tutorials, with one visitor whose requests alternate between
//! Express and ours.

use serde_json::{Value, json};

use super::browser::{App, Browser, Redis};
use super::ours::Ours;
use super::peer::Peer;
use support::Express;

/// One application on each peer, with the same options.
struct Both {
    redis: Redis,
    express: Express,
    ours: Ours,
}

impl Both {
    async fn start() -> Self {
        let redis = Redis::start().await;
        let express = Express::start(&redis.server, &[App::default().options()]).await;
        let ours = Ours::start(&redis.server, &[App::default()]).await;
        Self { redis, express, ours }
    }

    fn port(&self, peer: Peer) -> u16 {
        match peer {
            Peer::Express => self.express.ports()[0],
            Peer::Ours => self.ours.port(0),
        }
    }

    async fn at(&self, peer: Peer, visitor: &mut Browser, steps: &[&str]) -> Value {
        visitor.port = self.port(peer);
        let visit = visitor.visit(steps).await;
        assert_eq!(visit.0.status, 200, "{peer:?} {steps:?}: {}", visit.0.body);
        visit.last()
    }
}

/// Both directions: the first peer begins, the second continues.
const BOTH_WAYS: [(Peer, Peer); 2] = [(Peer::Express, Peer::Ours), (Peer::Ours, Peer::Express)];

#[tokio::test]
async fn a_counter_of_views_counts_on_both_peers() {
    let both = Both::start().await;
    for (first, second) in BOTH_WAYS {
        let mut visitor = Browser::new(0);
        for views in 1..=3 {
            assert_eq!(both.at(first, &mut visitor, &["count views"]).await, json!(2 * views - 1));
            assert_eq!(both.at(second, &mut visitor, &["count views"]).await, json!(2 * views));
        }
    }
}

#[tokio::test]
async fn a_cart_that_one_peer_fills_is_the_cart_of_the_other() {
    let both = Both::start().await;
    for (first, second) in BOTH_WAYS {
        let mut visitor = Browser::new(0);
        let one = json!([{ "id": 7, "count": 1, "name": "Tee \"é\"" }]);
        let two = json!([{ "id": 7, "count": 2, "name": "Tee \"é\"" }, { "id": 9, "count": 1, "name": "" }]);
        both.at(first, &mut visitor, &[&format!("set cart {one}")]).await;
        assert_eq!(both.at(second, &mut visitor, &["read cart"]).await, one);
        both.at(second, &mut visitor, &[&format!("set cart {two}")]).await;
        assert_eq!(both.at(first, &mut visitor, &["read cart"]).await, two);
        both.at(first, &mut visitor, &["delete cart"]).await;
        assert_eq!(both.at(second, &mut visitor, &["read cart"]).await, Value::Null);
    }
}

#[tokio::test]
async fn a_flash_message_of_one_peer_is_shown_once_by_the_other() {
    let both = Both::start().await;
    for (first, second) in BOTH_WAYS {
        let mut visitor = Browser::new(0);
        both.at(first, &mut visitor, &["set user \"ada\"", "set flash {\"info\":[\"Saved\"]}"]).await;
        let shown = both.at(second, &mut visitor, &["delete other", "read flash"]).await;
        assert_eq!(shown, json!({ "info": ["Saved"] }));
        both.at(second, &mut visitor, &["delete flash"]).await;
        for peer in [first, second] {
            assert_eq!(both.at(peer, &mut visitor, &["read flash"]).await, Value::Null, "{peer:?}");
            assert_eq!(both.at(peer, &mut visitor, &["read user"]).await, json!("ada"), "{peer:?}");
        }
    }
}

#[tokio::test]
async fn a_login_by_one_peer_gives_an_id_that_the_other_ends_at_the_logout() {
    let mut both = Both::start().await;
    for (first, second) in BOTH_WAYS {
        let mut visitor = Browser::new(0);
        both.at(first, &mut visitor, &["set cart [1]"]).await;
        let (before, guest) = (visitor.clone(), visitor.sid());
        both.at(first, &mut visitor, &["regenerate", "set user \"ada\""]).await;
        assert_ne!(visitor.sid(), guest, "a login changes the id");
        assert_eq!(both.at(second, &mut visitor, &["read user"]).await, json!("ada"));
        // The id from before the login has no session.
        assert_eq!(both.at(second, &mut before.clone(), &["read user"]).await, Value::Null);

        let logged_in = visitor.clone();
        both.at(second, &mut visitor, &["destroy"]).await;
        assert_eq!(both.redis.get(&format!("sess:{}", logged_in.sid())).await, None);
        for peer in [first, second] {
            assert_eq!(both.at(peer, &mut logged_in.clone(), &["read user"]).await, Value::Null, "{peer:?}");
        }
    }
}
