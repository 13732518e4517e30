//! Login and logout, and the list of a user's sessions.

use std::time::Duration;

use cache_core::Cache;
use cache_core::session::{SessionErrorKind, SessionLayer, TooMany};
use futures::future::join;
use support::{Gate, Nodes, on_both_stores, soon};

use super::client::{Browser, Page, express, native, session_keys};

async fn login(browser: &Browser, layer: &SessionLayer, user: &'static str) -> Page {
    browser.visit(layer, move |session| async move { session.login(user).await.map(|()| 200) }).await
}

async fn user(browser: &Browser, layer: &SessionLayer) -> Option<String> {
    let (send, receive) = tokio::sync::oneshot::channel();
    let page = browser.visit(layer, move |session| async move {
        send.send(session.user().await?).unwrap();
        Ok(200)
    });
    assert_eq!(page.await.status, 200);
    receive.await.unwrap()
}

fn both(cache: &Cache) -> [SessionLayer; 2] {
    [native(cache).build().unwrap(), express(cache).build().unwrap()]
}

on_both_stores! {
    async fn a_login_gives_another_id_and_a_logout_ends_it(nodes: &Nodes) {
        let cache = nodes.node().await;
        for layer in both(&cache) {
            let browser = Browser::default();
            browser.set(&layer, "cart", 3).await;
            // A planted id is of no use after the login.
            let planted = browser.copy();
            assert_eq!(login(&browser, &layer, "ada").await.cookies.len(), 1);
            assert_eq!(user(&browser, &layer).await.as_deref(), Some("ada"));
            assert_eq!(browser.get(&layer, "cart").await, Some(3));
            assert_eq!(user(&planted, &layer).await, None);
            // Another user gets none of its data.
            let before = browser.copy();
            login(&browser, &layer, "bob").await;
            assert_eq!((browser.get(&layer, "cart").await, user(&before, &layer).await), (None, None));
            let page = browser.visit(&layer, |session| async move { session.logout().await.map(|()| 503) }).await;
            assert!(page.cookies[0].contains("01 Jan 1970"), "{page:?}");
            assert_eq!(user(&browser, &layer).await, None);
            for name in ["ada", "bob"] {
                assert_eq!(layer.of_user(name).list().await.unwrap(), []);
            }
        }
    }

    async fn sessions_of_a_user_are_listed_and_ended(nodes: &Nodes) {
        let cache = nodes.node().await;
        for layer in both(&cache) {
            let devices = [Browser::default(), Browser::default(), Browser::default(), Browser::default()];
            for device in &devices {
                login(device, &layer, "ada").await;
            }
            let stranger = Browser::default();
            login(&stranger, &layer, "bob").await;
            let ada = layer.of_user("ada");
            let list = ada.list().await.unwrap();
            assert_eq!(list.len(), 4);
            assert!(list.iter().all(|info| info.since.is_some() && info.handle.len() == 43));
            assert!(ada.end(&list[0].handle).await.unwrap());
            assert!(!ada.end(&list[0].handle).await.unwrap());
            assert!(!layer.of_user("bob").end(&list[1].handle).await.unwrap(), "of another user");
            let mut alive = Vec::new();
            for device in &devices {
                if user(device, &layer).await.is_some() {
                    alive.push(device);
                }
            }
            assert_eq!(alive.len(), 3);
            let own = {
                let ada = ada.clone();
                async move { ada.list().await.unwrap().pop().map(|info| info.handle) }
            };
            let page = alive[0].visit(&layer, |session| async move {
                assert_eq!(session.end_others().await?, 2);
                Ok(if session.handle().await? == own.await { 200 } else { 500 })
            });
            assert_eq!(page.await.status, 200);
            let new = Browser::default();
            let page = new.visit(&layer, |session| async move {
                assert_eq!(session.handle().await?, None, "the store is empty");
                Ok(200)
            });
            assert_eq!(page.await.status, 200);
            assert_eq!((user(alive[0], &layer).await.is_some(), user(alive[1], &layer).await), (true, None));
            assert_eq!(ada.end_all().await.unwrap(), 1);
            assert_eq!((ada.end_all().await.unwrap(), user(alive[0], &layer).await), (0, None));
            assert_eq!(user(&stranger, &layer).await.as_deref(), Some("bob"));
        }
    }

    async fn the_list_ends_with_its_sessions(nodes: &Nodes) {
        let Nodes::Embedded(_, clock) = nodes else { return };
        let cache = nodes.node().await;
        let hour = Duration::from_secs(3600);
        let layer = native(&cache).ttl(hour).build().unwrap();
        let (used, left) = (Browser::default(), Browser::default());
        login(&used, &layer, "ada").await;
        login(&left, &layer, "ada").await;
        // By reading alone, and by writing.
        for round in 0..4 {
            clock.advance(hour / 2);
            if round % 2 == 0 { used.get(&layer, "views").await; } else { used.set(&layer, "views", round).await; }
            assert_eq!(layer.of_user("ada").list().await.unwrap().len(), if round == 0 { 2 } else { 1 });
        }
        assert_eq!(layer.of_user("ada").end_all().await.unwrap(), 1, "it has not slipped out of the list");
        assert_eq!(user(&used, &layer).await, None);
    }

    async fn above_the_limit_the_oldest_session_ends_or_the_newest_is_refused(nodes: &Nodes) {
        let cache = nodes.node().await;
        let ending = native(&cache).max_sessions(2, TooMany::EndOldest).build().unwrap();
        let devices = [Browser::default(), Browser::default(), Browser::default()];
        for device in &devices {
            if let Nodes::Embedded(_, clock) = nodes {
                clock.advance(Duration::from_secs(60));
            }
            assert_eq!(login(device, &ending, "ada").await.status, 200);
        }
        assert_eq!(ending.of_user("ada").list().await.unwrap().len(), 2);
        assert!(user(&devices[2], &ending).await.is_some());
        let refusing = native(&cache).max_sessions(2, TooMany::Refuse).build().unwrap();
        let another = Browser::default();
        let page = another.visit(&refusing, |session| async move {
            assert_eq!(session.login("ada").await.unwrap_err().kind(), SessionErrorKind::TooManySessions);
            Ok(200)
        });
        assert_eq!(page.await.cookies.len(), 0);
        // A logged-in user may log in again.
        assert_eq!(login(&devices[2], &refusing, "ada").await.status, 200);
        assert_eq!(refusing.of_user("ada").list().await.unwrap().len(), 2);
        // A session whose key was deleted directly does not count.
        if let Nodes::Redis(server) = nodes {
            for key in &session_keys(server) {
                server.cli(&["DEL", key]);
            }
            assert_eq!(login(&Browser::default(), &refusing, "ada").await.cookies.len(), 1);
        }
    }

    async fn ending_all_sessions_also_catches_those_that_change_their_id(nodes: &Nodes) {
        let cache = nodes.node().await;
        let layer = native(&cache).build().unwrap();
        let devices: Vec<Browser> = (0..8).map(|_| Browser::default()).collect();
        for device in &devices {
            login(device, &layer, "ada").await;
        }
        let cycles = futures::future::join_all(devices.iter().map(|device| async {
            for _ in 0..10 {
                device.visit(&layer, |session| async move { session.cycle_id().await.map(|()| 200) }).await;
            }
        }));
        let ada = layer.of_user("ada");
        let (_, ended) = soon("all", join(cycles, ada.end_all())).await;
        assert!(ended.unwrap() <= 8);
        for device in &devices {
            assert_eq!(user(device, &layer).await, None);
        }
        assert_eq!(ada.list().await.unwrap(), []);
    }

    async fn a_session_ended_while_its_id_changes_does_not_live_on(nodes: &Nodes) {
        let cache = nodes.node().await;
        for layer in both(&cache) {
            let (browser, gate) = (Browser::default(), Gate::shut());
            login(&browser, &layer, "ada").await;
            let (late, of_late, entered) = (browser.copy(), layer.clone(), gate.clone());
            let request = tokio::spawn(async move {
                late.visit(&of_late, move |session| async move {
                    session.cycle_id().await?;
                    entered.pass().await;
                    Ok(200)
                })
                .await
            });
            gate.arrival().await;
            assert_eq!(layer.of_user("ada").end_all().await.unwrap(), 1);
            gate.let_through(1);
            let page = soon("the late one is answered", request).await.unwrap();
            assert_eq!((page.status, page.cookies.len()), (200, 0));
            assert_eq!((user(&browser, &layer).await, layer.all().length().await.unwrap()), (None, 0));
        }
    }

    async fn a_lost_list_is_created_again(nodes: &Nodes) {
        let Nodes::Redis(server) = nodes else { return };
        let cache = nodes.node().await;
        for layer in both(&cache) {
            let browser = Browser::default();
            login(&browser, &layer, "ada").await;
            for again in [false, true] {
                server.cli(&["DEL", server.cli(&["KEYS", "cache:sidx:*"]).trim()]);
                assert_eq!(layer.of_user("ada").list().await.unwrap(), []);
                let page = browser.visit(&layer, move |session| async move {
                    if again { session.login("ada").await? } else { session.cycle_id().await? }
                    Ok(200)
                });
                assert_eq!(page.await.cookies.len(), 1);
                assert_eq!(layer.of_user("ada").list().await.unwrap().len(), 1);
            }
            layer.of_user("ada").end_all().await.unwrap();
        }
    }

    async fn the_age_of_a_login_is_known(nodes: &Nodes) {
        let Nodes::Embedded(_, clock) = nodes else { return };
        let cache = nodes.node().await;
        let layer = native(&cache).build().unwrap();
        let browser = Browser::default();
        login(&browser, &layer, "ada").await;
        clock.advance(Duration::from_secs(600));
        let page = browser.visit(&layer, |session| async move {
            assert_eq!(session.auth_age().await?, Some(Duration::from_secs(600)));
            session.login("ada").await?;
            assert_eq!(session.auth_age().await?, Some(Duration::ZERO));
            session.insert("seen", &1).await?;
            Ok(200)
        });
        assert_eq!(page.await.status, 200);
        assert_eq!(layer.of_user("ada").list().await.unwrap().len(), 1);
        let nobody = Browser::default();
        let page = nobody.visit(&layer, |session| async move {
            assert_eq!((session.auth_age().await?, session.end_others().await?), (None, 0));
            let error = session.login("").await.unwrap_err();
            assert_eq!(error.kind(), SessionErrorKind::Value);
            Ok(200)
        });
        assert_eq!(page.await.status, 200);
    }
}
