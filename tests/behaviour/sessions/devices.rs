//! The devices of a user's sessions, and when each was last used.

use std::time::Duration;

use cache_core::session::SessionLayer;
use support::{Nodes, on_both_stores};

use super::client::{Browser, express, native};

const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";

async fn login(browser: &Browser, layer: &SessionLayer, user: &'static str) {
    let page = browser.visit(layer, move |session| async move { session.login(user).await.map(|()| 200) });
    assert_eq!(page.await.status, 200);
}

async fn devices(layer: &SessionLayer, user: &str) -> Vec<Option<String>> {
    layer.of_user(user).list().await.unwrap().into_iter().map(|info| info.device).collect()
}

on_both_stores! {
    async fn a_login_records_the_browser_only_if_configured(nodes: &Nodes) {
        let cache = nodes.node().await;
        for build in [express, native] {
            let (silent, telling) = (build(&cache).build().unwrap(), build(&cache).record_user_agent(true).build().unwrap());
            let browser = Browser::default().with("user-agent", FIREFOX);
            login(&browser, &silent, "ada").await;
            assert_eq!(devices(&silent, "ada").await, [None]);
            login(&browser, &telling, "ada").await;
            assert_eq!(devices(&telling, "ada").await, [Some(FIREFOX.to_owned())]);
            // The device stays with the session and is not stored for other sessions.
            browser.visit(&telling, |session| async move { session.cycle_id().await.map(|()| 200) }).await;
            browser.set(&telling, "views", 1).await;
            assert_eq!(devices(&silent, "ada").await, [Some(FIREFOX.to_owned())]);
            login(&browser, &telling, "bob").await;
            assert_eq!((devices(&telling, "ada").await, devices(&telling, "bob").await), (vec![], vec![Some(FIREFOX.to_owned())]));
            let shown = format!("{:?}", telling.of_user("bob").list().await.unwrap());
            assert!(!shown.contains("Firefox") && !shown.contains("bob"), "{shown}");
            // A client's text is truncated, and no text breaks the list.
            for (said, kept) in [("x".repeat(5000), Some("x".repeat(256))), ("\u{e9}\"}\\".to_owned(), Some("\u{e9}\"}\\".to_owned())), (" ".to_owned(), None)] {
                login(&Browser::default().with("user-agent", &said), &telling, "eve").await;
                assert_eq!(devices(&telling, "eve").await, [kept]);
                telling.of_user("eve").end_all().await.unwrap();
            }
            telling.of_user("bob").end_all().await.unwrap();
        }
    }

    async fn a_handler_names_the_device_itself(nodes: &Nodes) {
        let cache = nodes.node().await;
        for build in [express, native] {
            let layer = build(&cache).build().unwrap();
            let browser = Browser::default().with("user-agent", FIREFOX);
            let page = browser.visit(&layer, |session| async move {
                session.login("ada").await?;
                session.set_device("the tablet in the kitchen\n").await?;
                Ok(200)
            });
            assert_eq!(page.await.status, 200);
            login(&browser, &layer, "ada").await;
            assert_eq!(devices(&layer, "ada").await, [Some("the tablet in the kitchen".to_owned())]);
            browser.visit(&layer, |session| async move { session.set_device("").await.map(|()| 200) }).await;
            assert_eq!(devices(&layer, "ada").await, [None]);
            layer.of_user("ada").end_all().await.unwrap();
        }
    }

    async fn the_last_use_of_a_session_follows_from_its_expiry(nodes: &Nodes) {
        let Nodes::Embedded(_, clock) = nodes else { return };
        let cache = nodes.node().await;
        let (hour, minute) = (Duration::from_secs(3600), Duration::from_secs(60));
        for build in [express, native] {
            let layer = build(&cache).ttl(hour).touch_after(0.1).build().unwrap();
            let browser = Browser::default();
            login(&browser, &layer, "ada").await;
            let since = layer.of_user("ada").list().await.unwrap()[0].since.unwrap();
            let seen = async || layer.of_user("ada").list().await.unwrap()[0].seen.unwrap();
            assert_eq!(seen().await, since);
            clock.advance(minute * 20);
            assert_eq!(seen().await, since, "reading the list does not count as use of the session");
            browser.get(&layer, "views").await;
            assert_eq!(seen().await, since.plus(minute * 20));
            // Within a tenth of the session's time, reading writes nothing.
            clock.advance(minute * 5);
            browser.get(&layer, "views").await;
            assert_eq!(seen().await, since.plus(minute * 20));
            browser.set(&layer, "views", 1).await;
            assert_eq!(seen().await, since.plus(minute * 25));
            layer.of_user("ada").end_all().await.unwrap();
            // If the absolute timeout ends the session, or nothing does, the last use is unknown.
            for builder in [build(&cache).ttl(hour).absolute_timeout(minute * 50), build(&cache).disable_ttl(true)] {
                let layer = builder.build().unwrap();
                login(&Browser::default(), &layer, "ada").await;
                assert_eq!(layer.of_user("ada").list().await.unwrap()[0].seen, None);
                layer.of_user("ada").end_all().await.unwrap();
            }
        }
    }
}
