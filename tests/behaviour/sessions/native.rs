//! Sessions in our own format, and the migration from the format of Express.

use std::time::Duration;

use cache_core::session::{CookieOptions, SessionLayer, SessionMode};
use support::{Gate, Nodes, on_both_stores, soon};

use super::client::{Browser, SECRET, express, moving, native};

fn dual(cache: &cache_core::Cache) -> SessionLayer {
    express(cache).mode(SessionMode::Dual).build().unwrap()
}

on_both_stores! {
    async fn nothing_in_the_store_gives_a_session_away(nodes: &Nodes) {
        let cache = nodes.node().await;
        let layer = native(&cache).build().unwrap();
        let browser = Browser::default();
        let page = browser.set(&layer, "views", 1).await;
        let cookie = &page.cookies[0];
        assert!(cookie.starts_with("__Host-id=s%3A") && cookie.ends_with("; Path=/; HttpOnly; Secure; SameSite=Lax"), "{cookie}");
        assert_eq!((&page.headers["vary"], &page.headers["cache-control"]), (&"Cookie".parse().unwrap(), &"no-store".parse().unwrap()));
        assert_eq!(browser.get(&layer, "views").await, Some(1));
        if let Nodes::Redis(server) = nodes {
            let keys = server.cli(&["KEYS", "*"]);
            let id = browser.id("__Host-id").unwrap();
            let tag = id.rsplit_once('.').unwrap().1;
            let shape = (keys.trim().starts_with(&format!("cache:sess:v1:{{{tag}}}")), keys.trim().len());
            assert_eq!(shape, (true, 70), "{keys}");
            assert!(!keys.contains(&id) && !server.cli(&["GET", keys.trim()]).contains(&id));
            // The hash in the stored key cannot be used as an id.
            let hash = keys.trim().strip_prefix("cache:sess:").unwrap().to_owned();
            let thief = Browser::default().with("cookie", &format!("__Host-id=s%3A{hash}"));
            assert_eq!(thief.get(&layer, "views").await, None);
        }
    }

    async fn a_damaged_record_is_no_session_and_stays(nodes: &Nodes) {
        let Nodes::Redis(server) = nodes else { return };
        let cache = nodes.node().await;
        let layer = native(&cache).build().unwrap();
        let browser = Browser::default();
        browser.set(&layer, "views", 1).await;
        let key = server.cli(&["KEYS", "*"]).trim().to_owned();
        server.cli(&["SETRANGE", &key, "60", "X"]);
        assert_eq!(browser.get(&layer, "views").await, None);
        assert_eq!(cache.stats().sessions.unreadable, 1);
        browser.set(&layer, "views", 5).await;
        assert_eq!(server.cli(&["GETRANGE", &key, "60", "60"]).trim(), "X");
    }

    async fn a_session_of_express_is_taken_over_at_its_next_use(nodes: &Nodes) {
        let cache = nodes.node().await;
        let (before, after) = (express(&cache).build().unwrap(), moving(&cache).build().unwrap());
        let browser = Browser::default();
        browser.set(&before, "views", 1).await;
        let late = browser.copy();
        let page = browser
            .visit(&after, |session| async move {
                assert_eq!(session.get::<i64>("views").await?, Some(1));
                Ok(200)
            })
            .await;
        // The new cookie is set, the old one is removed.
        assert_eq!(page.cookies.len(), 2, "{page:?}");
        assert_eq!(browser.cookie("connect.sid"), None);
        assert_eq!(browser.get(&after, "views").await, Some(1));
        assert_eq!(late.stored(&cache).await, None, "nothing is left in the old form");
        // A request that was in transit with the old cookie is not logged out.
        assert_eq!(late.get(&after, "views").await, Some(1));
        late.set(&after, "views", 2).await;
        assert_eq!(browser.get(&after, "views").await, Some(2));
    }

    async fn moving_to_the_native_form_logs_no_user_out(nodes: &Nodes) {
        let cache = nodes.node().await;
        let (old, both, new) = (express(&cache).build().unwrap(), dual(&cache), moving(&cache).build().unwrap());
        let browser = Browser::default();
        let mut views = 0;
        // Servers are replaced one by one: any two neighbouring steps run at the same time.
        for layer in [&old, &both, &old, &both, &new, &both, &new, &both, &new, &new] {
            assert_eq!(browser.get(layer, "views").await, (views > 0).then_some(views));
            views += 1;
            browser.set(layer, "views", views).await;
        }
        assert_eq!(cache.stats().sessions.created, 1);
        assert_eq!(browser.cookie("connect.sid"), None);
        // Back to `dual`: a migrated session stays in the new format.
        assert_eq!(browser.get(&both, "views").await, Some(10));
    }

    async fn a_write_meets_a_session_that_moves_meanwhile(nodes: &Nodes) {
        let cache = nodes.node().await;
        let (both, new) = (dual(&cache), moving(&cache).build().unwrap());
        for late_moves in [false, true] {
            let (late_layer, other) = if late_moves { (&new, &both) } else { (&both, &new) };
            let (browser, gate) = (Browser::default(), Gate::shut());
            browser.set(&both, "views", 1).await;
            let (late, entered, layer) = (browser.copy(), gate.clone(), late_layer.clone());
            let request = tokio::spawn(async move {
                late.visit(&layer, move |session| async move {
                    session.increment("views", 1).await?;
                    entered.pass().await;
                    Ok(200)
                })
                .await
            });
            soon("the late one has read", gate.arrival()).await;
            browser.set(other, "other", 5).await;
            gate.let_through(1);
            assert_eq!(soon("the late one", request).await.unwrap().status, 200);
            for layer in [&both, &new] {
                let found = (browser.get(layer, "views").await, browser.get(layer, "other").await);
                assert_eq!(found, (Some(2), Some(5)), "late moves: {late_moves}");
            }
        }
    }

    async fn a_cookie_signed_with_an_old_secret_is_signed_again(nodes: &Nodes) {
        let cache = nodes.node().await;
        let newer = "another secret of thirty-two bytes";
        let (old, new) = (native(&cache).build().unwrap(), SessionLayer::builder(&cache).secret(newer).secret(SECRET).build().unwrap());
        let (browser, express_browser) = (Browser::default(), Browser::default());
        browser.set(&old, "views", 1).await;
        assert_eq!(browser.get(&old, "views").await, Some(1));
        let page = browser.visit(&new, |session| async move { session.get::<i64>("views").await.map(|_| 200) }).await;
        assert_eq!(page.cookies.len(), 1);
        let last = SessionLayer::builder(&cache).secret(newer).build().unwrap();
        assert_eq!(browser.get(&last, "views").await, Some(1));
        // Express signs with the new secret only if it sends a cookie anyway.
        let two = SessionLayer::builder(&cache).mode(SessionMode::Express).secret(newer).secret(SECRET);
        let (one, two) = (express(&cache).build().unwrap(), two.build().unwrap());
        express_browser.set(&one, "views", 1).await;
        assert_eq!(express_browser.set(&two, "views", 2).await.cookies.len(), 0);
        assert_eq!(express_browser.get(&one, "views").await, Some(2));
    }

    async fn a_destroyed_session_leaves_no_cookie(nodes: &Nodes) {
        let cache = nodes.node().await;
        let layer = native(&cache).cookie(CookieOptions::new().max_age(Duration::from_secs(600))).build().unwrap();
        let browser = Browser::default();
        let page = browser.set(&layer, "views", 1).await;
        assert!(page.cookies[0].contains("; Path=/; Max-Age=600; Expires="), "{page:?}");
        let page = browser.visit(&layer, |session| async move { session.destroy().await.map(|()| 200) }).await;
        assert_eq!(
            page.cookies,
            ["__Host-id=; Path=/; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT; HttpOnly; Secure; SameSite=Lax"]
        );
        assert_eq!(browser.get(&layer, "views").await, None);
    }

    async fn a_cookie_lasts_as_long_as_browsers_allow_and_the_session_as_configured(nodes: &Nodes) {
        let cache = nodes.node().await;
        let (two_years, day) = (Duration::from_secs(730 * 86_400), Duration::from_secs(86_400));
        let layer = native(&cache).cookie(CookieOptions::new().max_age(two_years)).build().unwrap();
        let browser = Browser::default();
        let page = browser.visit(&layer, |session| async move { session.login("ada").await.map(|()| 200) }).await;
        assert!(page.cookies[0].contains(&format!("; Max-Age={}; ", 400 * 86_400)), "{page:?}");
        let info = layer.of_user("ada").list().await.unwrap().remove(0);
        assert!(info.since.unwrap().until(info.ends) > two_years - day, "{info:?}");
    }

    async fn a_session_destroyed_after_a_save_leaves_no_cookie_either(nodes: &Nodes) {
        let cache = nodes.node().await;
        let (before, layer) = (express(&cache).build().unwrap(), moving(&cache).build().unwrap());
        let browser = Browser::default();
        browser.set(&before, "views", 1).await;
        let page = browser.visit(&layer, |session| async move {
            session.insert("views", &2).await?;
            session.save().await?;
            session.destroy().await?;
            Ok(200)
        });
        assert!(page.await.cookies.iter().all(|cookie| cookie.contains("01 Jan 1970")));
        // Started again in the same request: the new cookie replaces the old one, and a cookie of
        // another name is removed.
        let browser = Browser::default();
        browser.set(&before, "views", 1).await;
        let page = browser.visit(&layer, |session| async move {
            session.destroy().await?;
            session.insert("note", &1).await?;
            Ok(200)
        });
        assert_eq!(page.await.cookies.len(), 2);
        assert_eq!((browser.cookie("connect.sid"), browser.get(&layer, "note").await), (None, Some(1)));
    }

    async fn anonymous_sessions_end_sooner(nodes: &Nodes) {
        let Nodes::Embedded(_, clock) = nodes else { return };
        let cache = nodes.node().await;
        let (minute, hour) = (Duration::from_secs(60), Duration::from_secs(3600));
        let layer = native(&cache).ttl_of(move |values| if values.user().is_some() { hour } else { minute }).build().unwrap();
        let (anonymous, ada) = (Browser::default(), Browser::default());
        anonymous.set(&layer, "views", 1).await;
        ada.visit(&layer, |session| async move { session.login("ada").await.map(|()| 200) }).await;
        ada.set(&layer, "views", 1).await;
        clock.advance(minute);
        assert_eq!((anonymous.get(&layer, "views").await, ada.get(&layer, "views").await), (None, Some(1)));
    }

    async fn a_session_ends_after_its_absolute_timeout_however_often_it_is_used(nodes: &Nodes) {
        let Nodes::Embedded(_, clock) = nodes else { return };
        let cache = nodes.node().await;
        let hour = Duration::from_secs(3600);
        let layer = native(&cache).ttl(hour).absolute_timeout(3 * hour).build().unwrap();
        let browser = Browser::default();
        browser.set(&layer, "views", 1).await;
        for _ in 0..5 {
            clock.advance(hour / 2);
            assert_eq!(browser.get(&layer, "views").await, Some(1));
        }
        clock.advance(hour / 4);
        browser.set(&layer, "views", 2).await;
        assert_eq!(browser.get(&layer, "views").await, Some(2));
        clock.advance(hour / 4);
        assert_eq!(browser.get(&layer, "views").await, None);
        // Without any use, it ends after the other timeout.
        browser.set(&layer, "views", 3).await;
        clock.advance(hour);
        assert_eq!(browser.get(&layer, "views").await, None);
    }
}
