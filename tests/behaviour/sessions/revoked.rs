//! Express peers that write back data they read before the session ended: a session that was ended
//! here stays ended.

use std::time::Duration;

use cache_core::session::{Session, SessionError, SessionLayer, SessionMode, TooMany};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use support::{Nodes, on_both_stores};

use super::client::{Browser, express, native, stored};

type End = fn(Session) -> BoxFuture<'static, Result<(), SessionError>>;

const ENDS: [(&str, End); 6] = [
    ("destroy", |session| async move { session.destroy().await }.boxed()),
    ("logout", |session| async move { session.logout().await }.boxed()),
    ("another id", |session| async move { session.cycle_id().await }.boxed()),
    ("an empty session", |session| async move { session.regenerate().await }.boxed()),
    ("a login", |session| async move { session.login("ada").await }.boxed()),
    ("a login of another user", |session| async move { session.login("bob").await }.boxed()),
];

/// Returns a logged-in browser, the key of its session, and the stored text.
async fn ada(nodes: &Nodes, layer: &SessionLayer) -> (Browser, String, String) {
    let browser = Browser::default();
    let page = browser.visit(layer, |session| async move {
        session.insert("views", &1).await?;
        session.login("ada").await.map(|()| 200)
    });
    assert_eq!(page.await.status, 200);
    let key = format!("sess:{}", browser.id("connect.sid").unwrap());
    let text = stored(&nodes.node().await, &key).await.unwrap();
    (browser, key, text)
}

on_both_stores! {
    async fn a_session_restored_by_an_express_peer_is_deleted_again(nodes: &Nodes) {
        let (one, other) = (nodes.node().await, nodes.node().await);
        for mode in [SessionMode::Express, SessionMode::Dual] {
            for (name, end) in ENDS {
                let layers = [&one, &other].map(|cache| express(cache).mode(mode).build().unwrap());
                let (browser, key, text) = ada(nodes, &layers[0]).await;
                let old = browser.copy();
                let page = browser.visit(&layers[0], move |session| async move { end(session).await.map(|()| 200) });
                assert_eq!(page.await.status, 200);
                // Like the request of an Express peer that has read it before, and another that has
                // read that write.
                for _ in 0..2 {
                    nodes.write_by_hand(&key, &text).await;
                    let before = other.stats().sessions;
                    assert_eq!(old.get(&layers[1], "views").await, None, "{mode:?}, {name}");
                    assert_eq!(stored(&one, &key).await, None, "{mode:?}, {name}");
                    let after = other.stats().sessions;
                    assert_eq!((after.resurrected - before.resurrected, after.loaded - before.loaded), (1, 0));
                }
                for layer in layers {
                    layer.of_user("ada").end_all().await.unwrap();
                    layer.of_user("bob").end_all().await.unwrap();
                }
            }
        }
    }

    async fn a_session_ended_from_a_list_stays_ended(nodes: &Nodes) {
        let cache = nodes.node().await;
        let layer = express(&cache).max_sessions(2, TooMany::EndOldest).build().unwrap();
        for how in 0..4 {
            let (browser, key, text) = ada(nodes, &layer).await;
            if let Nodes::Embedded(_, clock) = nodes {
                clock.advance(Duration::from_secs(60));
            }
            let user = layer.of_user("ada");
            match how {
                0 => drop(user.end_all().await.unwrap()),
                1 => drop(user.end(&user.list().await.unwrap()[0].handle).await.unwrap()),
                2 => drop(layer.all().clear().await.unwrap()),
                // Two more logins.
                _ => drop((ada(nodes, &layer).await, ada(nodes, &layer).await)),
            }
            nodes.write_by_hand(&key, &text).await;
            assert_eq!(browser.get(&layer, "views").await, None, "{how}");
            assert_eq!(stored(&cache, &key).await, None, "{how}");
        }
    }

    async fn a_restored_session_is_in_no_list(nodes: &Nodes) {
        let cache = nodes.node().await;
        let layer = express(&cache).build().unwrap();
        let (browser, key, text) = ada(nodes, &layer).await;
        browser.visit(&layer, |session| async move { session.logout().await.map(|()| 200) }).await;
        nodes.write_by_hand(&key, &text).await;
        assert_eq!(layer.all().list().await.unwrap(), []);
        assert_eq!(stored(&cache, &key).await, None);
    }

    async fn after_the_longest_request_nothing_is_remembered(nodes: &Nodes) {
        let cache = nodes.node().await;
        let minute = Duration::from_secs(60);
        for longest in [minute, Duration::ZERO] {
            let layer = express(&cache).revoke_for(longest).build().unwrap();
            let (browser, key, text) = ada(nodes, &layer).await;
            let old = browser.copy();
            browser.visit(&layer, |session| async move { session.logout().await.map(|()| 200) }).await;
            if let Nodes::Redis(server) = nodes {
                let marks: Vec<String> = server.cli(&["KEYS", "{sess:*}:r"]).lines().map(str::to_owned).collect();
                assert_eq!(marks.len(), usize::from(!longest.is_zero()));
                for mark in marks {
                    // In the slot of the session.
                    assert_eq!(mark, format!("{{{key}}}:r"));
                    let left: u64 = server.cli(&["PTTL", &mark]).trim().parse().unwrap();
                    assert!((55_000..=60_000).contains(&left), "{left}");
                    server.cli(&["DEL", &mark]);
                }
            } else {
                nodes.let_expire(&key, longest);
            }
            nodes.write_by_hand(&key, &text).await;
            assert_eq!(old.get(&layer, "views").await, Some(1));
            nodes.delete_by_hand(&key).await;
        }
    }

    async fn our_own_form_needs_no_marks(nodes: &Nodes) {
        let Nodes::Redis(server) = nodes else { return };
        let cache = nodes.node().await;
        let layer = native(&cache).build().unwrap();
        for (_, end) in ENDS {
            let browser = Browser::default();
            browser.set(&layer, "views", 1).await;
            browser.visit(&layer, move |session| async move { end(session).await.map(|()| 200) }).await;
        }
        assert_eq!(server.cli(&["KEYS", "{sess:*}:r"]).trim(), "");
    }
}
