//! Data stored by an Express peer: read unchanged, and incremented as Express does.

use cache_core::session::{SessionErrorKind, SessionMode};
use support::{Nodes, on_both_stores};

use super::client::{Browser, SECRET, express, moving};

/// Returns a browser with a session that an Express peer has written with these values.
async fn with(nodes: &Nodes, values: &str) -> (cache_core::session::SessionLayer, Browser) {
    let cache = nodes.node().await;
    let layer = express(&cache).build().unwrap();
    let browser = Browser::default();
    browser.set(&layer, "views", 1).await;
    let key = format!("sess:{}", browser.id("connect.sid").unwrap());
    let text = format!(r#"{{"cookie":{{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/"}},{values}}}"#);
    nodes.write_by_hand(&key, &text).await;
    (layer, browser)
}

on_both_stores! {
    async fn numbers_are_counted_on_as_express_does(nodes: &Nodes) {
        for (stood, sum, stands) in [
            ("null", 1, "1"),
            ("3.0", 4, "4"),
            ("1e3", 1001, "1001"),
            ("-0", 1, "1"),
            ("2.5", 3, "3.5"),
            ("-2.5", -1, "-1.5"),
        ] {
            let (layer, browser) = with(nodes, &format!(r#""n":{stood}"#)).await;
            let page = browser.visit(&layer, move |session| async move {
                assert_eq!(session.increment("n", 1).await?, sum, "{stood}");
                Ok(200)
            });
            assert_eq!(page.await.status, 200, "{stood}");
            let cache = nodes.node().await;
            let text = browser.stored(&cache).await.unwrap();
            assert!(text.ends_with(&format!(r#","n":{stands}}}"#)), "{stood}: {text}");
        }
        for no_number in ["true", "\"3\"", "[1]", "{}"] {
            let (layer, browser) = with(nodes, &format!(r#""n":{no_number}"#)).await;
            let page = browser.visit(&layer, |session| async move {
                assert_eq!(session.increment("n", 1).await.unwrap_err().kind(), SessionErrorKind::Value);
                Ok(200)
            });
            assert_eq!(page.await.status, 200, "{no_number}");
        }
    }

    async fn a_session_that_is_too_large_already_may_be_used_but_not_grow(nodes: &Nodes) {
        let big = "x".repeat(80_000);
        let (layer, browser) = with(nodes, &format!(r#""big":"{big}","small":"abc","views":1"#)).await;
        // Changes that keep its size or make it smaller.
        browser.visit(&layer, |session| async move {
            session.increment("views", 1).await?;
            session.save().await?;
            session.insert("small", "ab").await?;
            session.cycle_id().await?;
            Ok(200)
        }).await;
        assert_eq!(browser.get(&layer, "views").await, Some(2));
        let page = browser.visit(&layer, |session| async move {
            session.login("ada").await?;
            session.remove("small").await?;
            Ok(200)
        });
        assert_eq!(page.await.status, 200);
        let page = browser.visit(&layer, |session| async move {
            assert_eq!(session.user().await?.as_deref(), Some("ada"));
            for grown in ["abc", "abcd"] {
                let error = session.insert("more", grown).await.unwrap_err();
                assert_eq!(error.kind(), SessionErrorKind::TooLarge);
            }
            // The value that did not fit is not stored. Values that fit are.
            session.increment("views", 1).await?;
            Ok(200)
        });
        assert_eq!(page.await.status, 200);
        assert_eq!(browser.get(&layer, "views").await, Some(3));
    }

    async fn writes_of_an_express_peer_never_change_a_users_identity(nodes: &Nodes) {
        // N4
        let forged = r#""_m":{"u":"admin","a":1767225600000,"i":1798761600000},"views":1"#;
        let cache = nodes.node().await;
        let (layer, browser) = with(nodes, forged).await;
        let new = moving(&cache).build().unwrap();
        let moved = browser.copy();
        let page = browser.visit(&layer, |session| async move {
            assert_eq!((session.user().await?, session.auth_age().await?), (None, None));
            // It is data and remains data.
            let value: serde_json::Value = session.get("_m").await?.unwrap();
            assert_eq!(value["u"], "admin");
            session.login("ada").await.map(|()| 200)
        });
        assert_eq!(page.await.status, 200);
        let text = browser.stored(&cache).await.unwrap();
        assert!(text.contains(r#""_m":{"u":"admin","a":1767225600000,"i":1798761600000},"views":1,"_m2":{"#), "{text}");
        assert_eq!(who(&browser, &layer).await.as_deref(), Some("ada"));
        // Also during a migration to our own format, and next to a session of our own.
        let own = Browser::default();
        own.visit(&layer, |session| async move { session.login("eve").await.map(|()| 200) }).await;
        let text = own.stored(&cache).await.unwrap();
        let of_eve = text.split_once(r#""_m":"#).unwrap().1.trim_end_matches('}').to_owned() + "}";
        for values in [forged.to_owned(), format!(r#""_m":{of_eve},"views":1"#), r#""_m":7,"_m2":{"u":"x"},"views":1"#.into()] {
            let (layer, browser) = with(nodes, &values).await;
            let moved = browser.copy();
            assert_eq!(who(&browser, &layer).await, None, "{values}");
            assert_eq!((who(&moved, &new).await, moved.get(&new, "views").await), (None, Some(1)), "{values}");
            assert_eq!(who(&moved, &new).await, None, "{values}");
        }
        drop(moved);
        assert_eq!(who(&own, &layer).await.as_deref(), Some("eve"));
        for user in ["admin", "x"] {
            assert_eq!(layer.of_user(user).list().await.unwrap(), []);
        }
    }

    async fn an_end_that_an_express_peer_has_put_off_is_no_end(nodes: &Nodes) {
        // N4
        let Nodes::Embedded(_, clock) = nodes else { return };
        let cache = nodes.node().await;
        let hour = std::time::Duration::from_secs(3600);
        let layer = express(&cache).ttl(hour * 48).absolute_timeout(hour).build().unwrap();
        let browser = Browser::default();
        browser.set(&layer, "views", 1).await;
        let key = format!("sess:{}", browser.id("connect.sid").unwrap());
        let text = browser.stored(&cache).await.unwrap();
        // Set to a year from now: the session starts again at its next use, not later.
        let (before, _) = text.split_once(r#""_m":{"c":"#).unwrap();
        nodes.write_by_hand(&key, &format!(r#"{before}"_m":{{"c":1798761600000}}}}"#)).await;
        assert_eq!(browser.get(&layer, "views").await, Some(1));
        clock.advance(hour);
        assert_eq!(browser.get(&layer, "views").await, None);
    }

    async fn users_stay_logged_in_when_the_secret_changes(nodes: &Nodes) {
        // N4
        let cache = nodes.node().await;
        let newer = "another secret of thirty-two bytes";
        for native_form in [false, true] {
            let layers = [vec![SECRET], vec![newer, SECRET], vec![newer]].map(|secrets| {
                let mut builder = cache_core::session::SessionLayer::builder(&cache).rolling(true);
                if !native_form {
                    builder = builder.mode(SessionMode::Express);
                }
                for secret in secrets {
                    builder = builder.secret(secret);
                }
                builder.build().unwrap()
            });
            let browser = Browser::default();
            browser.visit(&layers[0], |session| async move { session.login("ada").await.map(|()| 200) }).await;
            for layer in &layers {
                assert_eq!(who(&browser, layer).await.as_deref(), Some("ada"), "native: {native_form}");
            }
        }
    }
}

async fn who(browser: &Browser, layer: &cache_core::session::SessionLayer) -> Option<String> {
    let (send, receive) = tokio::sync::oneshot::channel();
    let page = browser.visit(layer, move |session| async move {
        send.send(session.user().await?).unwrap();
        Ok(200)
    });
    assert_eq!(page.await.status, 200);
    receive.await.unwrap()
}
