//! An ended session stays ended, even if it is moved or replaced while it ends.

use std::time::Duration;

use cache_core::session::{TooMany, Transport};
use support::{Gate, Nodes, on_both_stores, soon};

use super::client::{Browser, express, moving, native, session_keys};

on_both_stores! {
    async fn a_session_replaced_by_one_that_is_over_at_once_ends_all_the_same(nodes: &Nodes) {
        let cache = nodes.node().await;
        for layer in [express(&cache).build().unwrap(), native(&cache).build().unwrap()] {
            let browser = Browser::default();
            browser.set(&layer, "views", 1).await;
            let old = browser.copy();
            let page = browser.visit(&layer, |session| async move {
                session.regenerate().await?;
                session.set_max_age(Duration::ZERO).await?;
                Ok(200)
            });
            assert_eq!(page.await.status, 200);
            assert_eq!(old.get(&layer, "views").await, None);
        }
    }

    async fn a_session_that_moves_to_our_own_form_while_it_ends_ends(nodes: &Nodes) {
        let cache = nodes.node().await;
        let (before, after) = (express(&cache).build().unwrap(), moving(&cache).build().unwrap());
        let (browser, gate) = (Browser::default(), Gate::shut());
        browser.set(&before, "views", 1).await;
        let (late, entered, layer) = (browser.copy(), gate.clone(), after.clone());
        let request = tokio::spawn(async move {
            late.visit(&layer, move |session| async move {
                session.get::<i64>("views").await?;
                entered.pass().await;
                session.logout().await?;
                Ok(200)
            })
            .await
        });
        soon("the late one has read", gate.arrival()).await;
        let old = browser.copy();
        browser.set(&after, "views", 2).await;
        gate.let_through(1);
        assert_eq!(soon("the logout", request).await.unwrap().status, 200);
        assert_eq!((browser.get(&after, "views").await, old.get(&after, "views").await), (None, None));
    }

    async fn a_session_that_has_moved_but_not_in_the_list_is_ended_with_all(nodes: &Nodes) {
        let Nodes::Redis(server) = nodes else { return };
        let cache = nodes.node().await;
        let (before, after) = (express(&cache).build().unwrap(), moving(&cache).build().unwrap());
        let browser = Browser::default();
        browser.visit(&before, |session| async move { session.login("ada").await.map(|()| 200) }).await;
        let index = server.cli(&["KEYS", "cache:sidx:*"]).trim().to_owned();
        let id = browser.id("connect.sid").unwrap();
        browser.set(&after, "views", 1).await;
        // The list as it is between the move and the entry of the new key.
        let moved = server.cli(&["ZRANGE", &index, "0", "-1"]).trim().to_owned();
        let ends = server.cli(&["ZSCORE", &index, &moved]).trim().to_owned();
        server.cli(&["ZADD", &index, &ends, &format!("sess:{id}")]);
        server.cli(&["ZREM", &index, &moved]);
        assert_eq!(after.of_user("ada").end_all().await.unwrap(), 1);
        assert_eq!(browser.get(&after, "views").await, None);
        assert_eq!(session_keys(server), Vec::<String>::new());
    }

    async fn a_login_that_begins_anew_still_goes_by_the_clients_header(nodes: &Nodes) {
        let cache = nodes.node().await;
        let layer = native(&cache).transports([Transport::Bearer, Transport::Cookie]).build().unwrap();
        let page = Browser::default().set(&layer, "views", 1).await;
        let with = |token: &http::HeaderValue| {
            Browser::default().with("authorization", &format!("Bearer {}", token.to_str().unwrap()))
        };
        let (app, gate) = (with(&page.headers["session-token"]), Gate::shut());
        let (late, entered, of_late) = (app.clone(), gate.clone(), layer.clone());
        let request = tokio::spawn(async move {
            late.visit(&of_late, move |session| async move {
                session.get::<i64>("views").await?;
                entered.pass().await;
                session.login("ada").await?;
                Ok(200)
            })
            .await
        });
        soon("the late one has read", gate.arrival()).await;
        app.visit(&layer, |session| async move { session.destroy().await.map(|()| 200) }).await;
        gate.let_through(1);
        let page = soon("the login", request).await.unwrap();
        assert_eq!(page.status, 200);
        let token = &page.headers["session-token"];
        let is_ada = |session: cache_core::session::Session| async move {
            Ok(if session.user().await?.as_deref() == Some("ada") { 200 } else { 401 })
        };
        assert_eq!(with(token).visit(&layer, is_ada).await.status, 200);
        let as_cookie = Browser::default().with("cookie", &format!("__Host-id=s%3A{}", token.to_str().unwrap()));
        assert_eq!(as_cookie.visit(&layer, is_ada).await.status, 401);
    }

    async fn an_entry_without_its_session_costs_no_other_its_life(nodes: &Nodes) {
        let cache = nodes.node().await;
        let layer = express(&cache).max_sessions(2, TooMany::EndOldest).build().unwrap();
        let devices = [Browser::default(), Browser::default(), Browser::default()];
        for (index, device) in devices.iter().enumerate() {
            if let Nodes::Embedded(_, clock) = nodes {
                clock.advance(Duration::from_secs(60));
            }
            let page = device.visit(&layer, |session| async move { session.login("ada").await.map(|()| 200) });
            assert_eq!(page.await.status, 200);
            if index == 1 {
                nodes.delete_by_hand(&format!("sess:{}", device.id("connect.sid").unwrap())).await;
            }
        }
        let mut alive = Vec::new();
        for device in &devices {
            alive.push(device.stored(&cache).await.is_some());
        }
        assert_eq!(alive, [true, false, true]);
    }

    async fn a_life_of_any_length_is_taken(nodes: &Nodes) {
        let cache = nodes.node().await;
        for ttl in [Duration::MAX, Duration::from_secs(u64::MAX / 2), Duration::from_nanos(1)] {
            for builder in [express(&cache), native(&cache)] {
                let layer = builder.ttl(ttl).touch_after(0.0).build().unwrap();
                let browser = Browser::default();
                let page = browser.visit(&layer, |session| async move { session.login("ada").await.map(|()| 200) });
                assert_eq!(page.await.status, 200, "{ttl:?}");
                let page = browser.visit(&layer, |session| async move {
                    session.touch().await?;
                    session.insert("views", &1).await?;
                    session.set_max_age(Duration::MAX).await?;
                    Ok(200)
                });
                assert_eq!(page.await.status, 200, "{ttl:?}");
                layer.of_user("ada").end_all().await.unwrap();
            }
        }
    }

    async fn what_a_login_that_was_taken_back_leaves_is_no_leave_to_begin_anew(nodes: &Nodes) {
        let cache = nodes.node().await;
        // With `resave` there is a write at the end even if every operation was dropped.
        for builder in [express(&cache), native(&cache)] {
            let layer = builder.resave(true).build().unwrap();
            for status in [200, 500] {
                let (browser, gate) = (Browser::default(), Gate::shut());
                browser.visit(&layer, |session| async move { session.login("ada").await.map(|()| 200) }).await;
                let old = browser.copy();
                let (late, entered, of_late) = (browser.copy(), gate.clone(), layer.clone());
                let request = tokio::spawn(async move {
                    late.visit(&of_late, move |session| async move {
                        session.login("ada").await?;
                        if status == 200 {
                            session.reload().await?;
                        }
                        entered.pass().await;
                        session.insert("views", &7).await?;
                        Ok(status)
                    })
                    .await
                });
                soon("the late one has read", gate.arrival()).await;
                assert_eq!(layer.of_user("ada").end_all().await.unwrap(), 1);
                gate.let_through(1);
                assert_eq!(soon("the late one", request).await.unwrap().cookies, Vec::<String>::new());
                assert_eq!(old.get(&layer, "views").await, None);
                assert_eq!(layer.all().length().await.unwrap(), 0, "{status}: an ended session exists again");
            }
        }
    }
}
