//! A session layer that shares its sessions with an Express application.

use std::time::Duration;

use cache_core::clock::Timestamp;
use cache_core::session::{CookieOptions, Secure, SessionErrorKind, SessionLayer, SessionMode, TooMany, Unset};
use support::{Nodes, on_both_stores};

use super::client::{Browser, Page, SECRET, express, stored};

const IGNORE: u16 = 204;

async fn ignore(browser: &Browser, layer: &SessionLayer) -> Page {
    browser.visit(layer, |_| async { Ok(IGNORE) }).await
}

async fn look(browser: &Browser, layer: &SessionLayer) -> Page {
    browser.visit(layer, |session| async move { session.get::<i64>("views").await.map(|_| 200) }).await
}

on_both_stores! {
    async fn a_session_is_stored_as_express_stores_it(nodes: &Nodes) {
        let cache = nodes.node().await;
        let layer = express(&cache).build().unwrap();
        let browser = Browser::default();
        let page = browser.set(&layer, "views", 1).await;
        assert_eq!(page.status, 200);
        let [cookie] = &page.cookies[..] else { panic!("{page:?}") };
        let id = browser.id("connect.sid").unwrap();
        assert_eq!(id.len(), 32);
        assert!(cookie.ends_with("; Path=/; HttpOnly"), "{cookie}");
        // The cookies of the application stay, and ours follows them.
        assert_eq!(page.headers.get_all("set-cookie").iter().next().unwrap(), "theme=dark; Path=/");
        // N1
        assert_eq!((&page.headers["vary"], &page.headers["cache-control"]), (&"Cookie".parse().unwrap(), &"no-store".parse().unwrap()));
        assert_eq!(
            browser.stored(&cache).await.unwrap(),
            r#"{"cookie":{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/"},"views":1}"#
        );
        assert_eq!(browser.get(&layer, "views").await, Some(1));
        // Known, and without an age: the cookie is not sent again.
        let page = browser.set(&layer, "views", 2).await;
        assert_eq!((page.cookies, browser.get(&layer, "views").await), (vec![], Some(2)));
    }

    async fn a_visit_that_writes_nothing_stores_nothing(nodes: &Nodes) {
        let cache = nodes.node().await;
        let layer = express(&cache).build().unwrap();
        let browser = Browser::default();
        for page in [ignore(&browser, &layer).await, look(&browser, &layer).await] {
            assert!(page.cookies.is_empty(), "{page:?}");
        }
        let page = browser
            .visit(&layer, |session| async move {
                session.insert("a", &1).await?;
                session.remove("a").await?;
                session.save().await?;
                session.clear().await?;
                Ok(200)
            })
            .await;
        assert!(page.cookies.is_empty(), "{page:?}");
        assert_eq!(cache.stats().sessions.created, 0);
    }

    async fn an_age_is_sent_with_each_write_and_kept(nodes: &Nodes) {
        let cache = nodes.node().await;
        let cookie = CookieOptions::new().max_age(Duration::from_secs(600));
        let layer = express(&cache).cookie(cookie).build().unwrap();
        let browser = Browser::default();
        for views in 1..3 {
            let page = browser.set(&layer, "views", views).await;
            assert!(page.cookies[0].contains("; Path=/; Expires="), "{page:?}");
            assert!(!page.cookies[0].to_ascii_lowercase().contains("max-age"));
        }
        let stored = browser.stored(&cache).await.unwrap();
        assert!(stored.starts_with(r#"{"cookie":{"originalMaxAge":600000,"expires":"20"#), "{stored}");
        assert!(stored.ends_with(r#"Z","httpOnly":true,"path":"/"},"views":2}"#), "{stored}");
        // Setting the same value again is not a change.
        let page = browser.set(&layer, "views", 2).await;
        assert!(page.cookies.is_empty());
        if let Nodes::Embedded(_, clock) = nodes {
            clock.advance(Duration::from_secs(599));
            assert_eq!(browser.get(&layer, "views").await, Some(2));
            clock.advance(Duration::from_secs(599));
            assert_eq!(browser.get(&layer, "views").await, Some(2), "reading prolongs it");
            clock.advance(Duration::from_secs(600));
            assert_eq!(browser.get(&layer, "views").await, None);
        }
    }

    async fn all_options_are_in_the_store_and_in_the_cookie(nodes: &Nodes) {
        let cache = nodes.node().await;
        let cookie = CookieOptions::new()
            .max_age(Duration::from_millis(90_000))
            .partitioned(true)
            .priority(cache_core::session::Priority::High)
            .secure(Secure::Always)
            .http_only(false)
            .domain("example.com")
            .same_site(cache_core::session::SameSite::Strict);
        let layer = express(&cache).cookie(cookie).name("sid").prefix("app:").proxy(true).build().unwrap();
        let browser = Browser::default().with("x-forwarded-proto", "HTTPS, http");
        let page = browser.set(&layer, "views", 1).await;
        let cookie = &page.cookies[0];
        assert!(cookie.contains("; Domain=example.com; Path=/; Expires="), "{cookie}");
        assert!(cookie.ends_with(" GMT; Secure; Partitioned; Priority=High; SameSite=Strict"), "{cookie}");
        let key = format!("app:{}", browser.id("sid").unwrap());
        let text = stored(&cache, &key).await.unwrap();
        assert!(text.starts_with(r#"{"cookie":{"originalMaxAge":90000,"partitioned":true,"priority":"high","expires":""#), "{text}");
        assert!(text.contains(r#"Z","secure":true,"httpOnly":false,"domain":"example.com","path":"/","sameSite":"strict"},"#), "{text}");
        // Over plain HTTP the client would get no cookie, so nothing is stored for it.
        let plain = Browser::default().with("x-forwarded-proto", "http, https");
        let page = plain.set(&layer, "views", 1).await;
        assert_eq!((page.status, page.cookies), (200, vec![]));
        assert_eq!(cache.stats().sessions.cookies_not_sent, 1);
        assert_eq!(cache.stats().sessions.created, 1);
    }

    async fn secure_auto_is_decided_when_the_session_begins(nodes: &Nodes) {
        let cache = nodes.node().await;
        let cookie = CookieOptions::new().secure(Secure::Auto).same_site(cache_core::session::SameSite::Auto);
        let layer = express(&cache).cookie(cookie).proxy(true).build().unwrap();
        let (http, https) = (Browser::default(), Browser::default().with("x-forwarded-proto", "https"));
        let page = http.set(&layer, "views", 1).await;
        assert!(page.cookies[0].ends_with("; HttpOnly; SameSite=Lax"), "{page:?}");
        assert!(http.stored(&cache).await.unwrap().contains(r#""secure":false,"httpOnly":true,"path":"/","sameSite":"lax""#));
        let page = https.set(&layer, "views", 1).await;
        assert!(page.cookies[0].ends_with("; HttpOnly; Secure; SameSite=None"), "{page:?}");
    }

    async fn an_id_that_is_not_ours_is_never_taken(nodes: &Nodes) {
        let cache = nodes.node().await;
        let layer = express(&cache).build().unwrap();
        let other = express(&cache).secret("x").build().unwrap();
        let browser = Browser::default();
        browser.set(&layer, "views", 1).await;
        let known = browser.id("connect.sid").unwrap();
        // An invalid signature: a new session.
        let forged = Browser::default().with("cookie", &format!("connect.sid=s%3A{known}.AAAA"));
        assert_eq!(forged.get(&layer, "views").await, None);
        forged.set(&layer, "views", 7).await;
        assert_ne!(forged.id("connect.sid").unwrap(), known);
        assert_eq!(browser.get(&layer, "views").await, Some(1));
        // A valid signature of an ended session: another id.
        cache.plain().remove(&format!("sess:{known}")).await.unwrap();
        assert_eq!(browser.get(&other, "views").await, None);
        let page = browser.set(&other, "views", 3).await;
        assert_eq!(page.cookies.len(), 1);
        assert_ne!(browser.id("connect.sid").unwrap(), known);
        let stats = cache.stats().sessions;
        assert_eq!((stats.bad_signatures, stats.unknown_ids), (2, 2));
    }

    async fn values_of_others_go_back_byte_for_byte(nodes: &Nodes) {
        let cache = nodes.node().await;
        let layer = express(&cache).build().unwrap();
        let browser = Browser::default();
        browser.set(&layer, "views", 1).await;
        let key = format!("sess:{}", browser.id("connect.sid").unwrap());
        let odd = r#""big":12345678901234567890,"float":1.0,"text":"é\ud83d\ude00","nested":{"b":[1,2],"a":null}"#;
        nodes.write_by_hand(&key, &format!(r#"{{"cookie":{{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/"}},{odd}}}"#)).await;
        let before = browser.stored(&cache).await.unwrap();
        look(&browser, &layer).await;
        assert_eq!(browser.stored(&cache).await.unwrap(), before, "a read writes nothing");
        browser.set(&layer, "views", 2).await;
        assert_eq!(browser.stored(&cache).await.unwrap(), format!("{},\"views\":2}}", before.strip_suffix('}').unwrap()));
    }

    async fn an_unreadable_session_is_left_unchanged(nodes: &Nodes) {
        let cache = nodes.node().await;
        let layer = express(&cache).build().unwrap();
        for (text, unreadable) in [("5", 1), ("[]", 1), ("{}", 1), (r#"{"cookie":null,"a":1}"#, 1), ("null", 0), ("false", 0)] {
            let browser = Browser::default();
            browser.set(&layer, "views", 1).await;
            let key = format!("sess:{}", browser.id("connect.sid").unwrap());
            nodes.write_by_hand(&key, text).await;
            let before = cache.stats().sessions;
            let page = browser.set(&layer, "views", 2).await;
            assert_eq!((page.status, page.cookies.len()), (200, 1), "{text}: a new session");
            assert_eq!(stored(&cache, &key).await.unwrap(), text);
            assert_eq!(cache.stats().sessions.unreadable - before.unreadable, unreadable, "{text}");
        }
        let browser = Browser::default();
        browser.set(&layer, "views", 1).await;
        let key = format!("sess:{}", browser.id("connect.sid").unwrap());
        cache.plain().remove(&key).await.unwrap();
        cache.plain().hash::<i64>(&key).set("views", &1).await.unwrap();
        assert_eq!(browser.set(&layer, "views", 2).await.status, 200);
        assert_eq!(cache.plain().hash::<i64>(&key).get("views").await.unwrap(), Some(1));
    }

    async fn names_that_express_uses_are_refused(nodes: &Nodes) {
        let cache = nodes.node().await;
        let layer = express(&cache).build().unwrap();
        let page = Browser::default()
            .visit(&layer, |session| async move {
                for name in ["cookie", "id", "save", "toString", "__proto__", "_m"] {
                    let error = session.insert(name, &1).await.unwrap_err();
                    assert_eq!(error.kind(), SessionErrorKind::ReservedName);
                    assert!(error.to_string().contains(name));
                    assert!(session.update(name, |_: Option<i64>| Some(1)).await.is_err());
                }
                let error = session.insert("big", &u64::MAX).await.unwrap_err();
                assert_eq!(error.kind(), SessionErrorKind::Value);
                let error = session.insert("long", &"x".repeat(70_000)).await.unwrap_err();
                assert_eq!(error.kind(), SessionErrorKind::TooLarge);
                session.insert("fits", &1).await?;
                Ok(200)
            })
            .await;
        assert_eq!(page.status, 200);
    }

    async fn regenerate_and_destroy_end_the_old_session(nodes: &Nodes) {
        let cache = nodes.node().await;
        let layer = express(&cache).build().unwrap();
        let browser = Browser::default();
        browser.set(&layer, "views", 1).await;
        let old = browser.copy();
        let page = browser
            .visit(&layer, |session| async move {
                let before = session.id().await?;
                session.regenerate().await?;
                assert_ne!(session.id().await?, before);
                assert_eq!(session.get::<i64>("views").await?, None);
                session.insert("user", &7).await?;
                Ok(200)
            })
            .await;
        assert_eq!(page.cookies.len(), 1);
        assert_eq!(browser.stored(&cache).await.unwrap().matches("\"user\":7").count(), 1);
        assert_eq!(old.stored(&cache).await, None);
        let page = browser.visit(&layer, |session| async move { session.destroy().await.map(|()| 500) }).await;
        assert_eq!(page.cookies, Vec::<String>::new(), "as Express");
        assert_eq!(browser.stored(&cache).await, None, "whatever the handler answers");
        // A regenerated session is stored even if it is empty. A destroyed session that is used
        // again is a new one.
        browser.visit(&layer, |session| async move { session.regenerate().await.map(|()| 200) }).await;
        let empty = browser.copy();
        assert!(empty.stored(&cache).await.is_some());
        browser
            .visit(&layer, |session| async move {
                session.destroy().await?;
                session.insert("note", &1).await?;
                Ok(200)
            })
            .await;
        assert_eq!(empty.stored(&cache).await, None);
        assert_eq!(browser.get(&layer, "note").await, Some(1));
    }

    async fn cycling_keeps_what_is_in_it_and_ends_the_old_id(nodes: &Nodes) {
        let cache = nodes.node().await;
        let layer = express(&cache).build().unwrap();
        let browser = Browser::default();
        browser.set(&layer, "views", 1).await;
        let old = browser.copy();
        let page = browser
            .visit(&layer, |session| async move {
                session.insert("cart", &3).await?;
                session.cycle_id().await?;
                Ok(200)
            })
            .await;
        assert_eq!(page.cookies.len(), 1);
        assert_eq!((browser.get(&layer, "views").await, browser.get(&layer, "cart").await), (Some(1), Some(3)));
        assert_eq!((old.get(&layer, "views").await, old.stored(&cache).await), (None, None));
    }

    async fn an_error_of_the_server_discards_changes(nodes: &Nodes) {
        let cache = nodes.node().await;
        let layer = express(&cache).build().unwrap();
        let keeps = express(&cache).discard_on_server_error(false).build().unwrap();
        let browser = Browser::default();
        let fail = |session: cache_core::session::Session| async move {
            session.increment("views", 1).await?;
            session.cycle_id().await?;
            Ok(500)
        };
        let page = browser.visit(&layer, fail).await;
        assert_eq!((page.status, page.cookies.len()), (500, 0));
        browser.set(&layer, "views", 1).await;
        let page = browser.visit(&layer, fail).await;
        assert_eq!((page.status, page.cookies.len()), (500, 0));
        assert_eq!(browser.get(&layer, "views").await, Some(1));
        let page = browser.visit(&keeps, fail).await;
        assert_eq!((page.status, page.cookies.len()), (500, 1));
        assert_eq!(browser.get(&layer, "views").await, Some(2));
    }

    async fn an_age_of_its_own_stays_with_the_session(nodes: &Nodes) {
        let cache = nodes.node().await;
        let layer = express(&cache).build().unwrap();
        let browser = Browser::default();
        browser.set(&layer, "views", 1).await;
        let month = Duration::from_secs(30 * 86400);
        let page = browser.visit(&layer, move |session| async move { session.set_max_age(month).await.map(|()| 200) }).await;
        assert!(page.cookies[0].contains("; Expires="), "{page:?}");
        browser
            .visit(&layer, move |session| async move {
                assert_eq!(session.max_age().await?, Some(month));
                session.insert("views", &2).await?;
                Ok(200)
            })
            .await;
        assert!(browser.stored(&cache).await.unwrap().contains("\"originalMaxAge\":2592000000,"));
        let page = browser.visit(&layer, |session| async move { session.set_max_age(None).await.map(|()| 200) }).await;
        assert!(page.cookies[0].ends_with("; Path=/; HttpOnly"), "{page:?}");
        assert!(browser.stored(&cache).await.unwrap().starts_with(r#"{"cookie":{"originalMaxAge":null,"expires":null,"#));
        // No time is left: the session ends immediately, and the browser gets an expired cookie.
        let page = browser.visit(&layer, |session| async move { session.set_max_age(Duration::ZERO).await.map(|()| 200) }).await;
        assert!(page.cookies[0].contains("; Expires="), "{page:?}");
        assert_eq!(browser.stored(&cache).await, None);
    }

    async fn the_stored_cookie_wins_over_the_settings(nodes: &Nodes) {
        let cache = nodes.node().await;
        let strict = CookieOptions::new().same_site(cache_core::session::SameSite::Strict).domain("old.example");
        let before = express(&cache).cookie(strict).build().unwrap();
        let after = express(&cache).rolling(true).build().unwrap();
        let browser = Browser::default();
        browser.set(&before, "views", 1).await;
        let page = ignore(&browser, &after).await;
        assert!(page.cookies[0].ends_with("; Domain=old.example; Path=/; HttpOnly; SameSite=Strict"), "{page:?}");
    }

    async fn options_of_express_act_as_in_express(nodes: &Nodes) {
        let cache = nodes.node().await;
        let eager = express(&cache).save_uninitialized(true).build().unwrap();
        let browser = Browser::default();
        assert_eq!(ignore(&browser, &eager).await.cookies.len(), 1);
        assert!(browser.stored(&cache).await.is_some());
        assert_eq!(ignore(&browser, &eager).await.cookies.len(), 0);
        let rolling = express(&cache).rolling(true).build().unwrap();
        assert_eq!(ignore(&browser, &rolling).await.cookies.len(), 1);
        let resave = express(&cache).resave(true).build().unwrap();
        let saved = cache.stats().sessions.saved;
        assert_eq!(ignore(&browser, &resave).await.cookies.len(), 0);
        assert_eq!(cache.stats().sessions.saved, saved + 1);
        let keep = express(&cache).build().unwrap();
        let unset = |session: cache_core::session::Session| async move {
            session.insert("views", &1).await?;
            session.unset().await?;
            Ok(200)
        };
        browser.visit(&keep, unset).await;
        assert_eq!(browser.get(&keep, "views").await, None);
        assert!(browser.stored(&cache).await.is_some());
        let destroy = express(&cache).unset(Unset::Destroy).build().unwrap();
        browser.visit(&destroy, unset).await;
        assert_eq!(browser.stored(&cache).await, None);
        let own = express(&cache).generate_id(|| "id/of?mine".to_owned()).build().unwrap();
        let (first, second) = (Browser::default(), Browser::default());
        let page = first.set(&own, "views", 1).await;
        assert!(page.cookies[0].starts_with("connect.sid=s%3Aid%2Fof%3Fmine."), "{page:?}");
        assert_eq!(stored(&cache, "sess:id/of?mine").await.unwrap().matches("views").count(), 1);
        // The id is in use. Two sessions must never share one.
        assert_eq!(second.set(&own, "views", 1).await.status, 500);
        let until = Timestamp::from_millis(4_000_000_000_000);
        let fixed = express(&cache).cookie(CookieOptions::new().expires(until)).build().unwrap();
        let page = Browser::default().set(&fixed, "views", 1).await;
        assert!(page.cookies[0].contains("; Expires=Tue, 02 Oct 2096 07:06:"), "{page:?}");
    }

    async fn the_time_to_live_is_that_of_the_settings(nodes: &Nodes) {
        let Nodes::Redis(server) = nodes else { return };
        let cache = nodes.node().await;
        let browser = Browser::default();
        let left = |browser: &Browser| {
            server.cli(&["TTL", &format!("sess:{}", browser.id("connect.sid").unwrap())]).trim().parse::<i64>().unwrap()
        };
        let layer = express(&cache).build().unwrap();
        browser.set(&layer, "views", 1).await;
        assert!((86399..=86400).contains(&left(&browser)));
        server.cli(&["EXPIRE", &format!("sess:{}", browser.id("connect.sid").unwrap()), "100"]);
        look(&browser, &express(&cache).disable_touch(true).build().unwrap()).await;
        assert!(left(&browser) <= 100);
        look(&browser, &layer).await;
        assert!(left(&browser) > 86000, "read, it lives on");
        let of_value = express(&cache).ttl_of(|values| Duration::from_secs(values.get::<u64>("views").ok().flatten().unwrap_or(9)));
        let of_value = of_value.build().unwrap();
        browser.set(&of_value, "views", 50).await;
        assert!((49..=50).contains(&left(&browser)));
        let for_ever = Browser::default();
        for_ever.set(&express(&cache).disable_ttl(true).build().unwrap(), "views", 1).await;
        assert_eq!(left(&for_ever), -1);
    }
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused() {
    let cache = cache_core::Cache::in_memory();
    let native = || SessionLayer::builder(&cache).secret(SECRET);
    for (builder, says) in [
        (SessionLayer::builder(&cache), "need a secret"),
        (SessionLayer::builder(&cache).secret("short"), "at least 32"),
        (native().cookie(CookieOptions::new().domain("a.example")), "__Host-id"),
        (native().cookie(CookieOptions::new().path("/admin")), "__Host-id"),
        (native().cookie(CookieOptions::new().secure(Secure::Never)), "plain HTTP"),
        (native().name("a b"), "name"),
        (native().cookie(CookieOptions::new().path("/a;b")), "`;`"),
        (native().mode(SessionMode::Express).cookie(CookieOptions::new().partitioned(true)), "Secure"),
        (native().name("n".repeat(1025)), "1024"),
        (native().native_name("n".repeat(1025)), "1024"),
        (express(&cache).cookie(CookieOptions::new().path(format!("/{}", "p".repeat(1024)))), "1024"),
        (express(&cache).cookie(CookieOptions::new().domain("d".repeat(1025))), "1024"),
        (native().max_sessions(0, TooMany::Refuse), "at least 1"),
        (native().transports([]), "transport"),
        (native().touch_after(1.5), "between 0 and 1"),
        (native().ttl(Duration::ZERO), "`ttl`"),
        (express(&cache).ttl(Duration::ZERO), "`ttl`"),
        (native().absolute_timeout(Duration::ZERO), "`absolute_timeout`"),
        (native().max_bytes(0), "`max_bytes`"),
        (native().max_bytes(255), "`max_bytes`"),
    ] {
        let error = builder.build().unwrap_err();
        assert_eq!(error.kind(), cache_core::ErrorKind::Configuration);
        assert!(error.to_string().contains(says), "{error}");
    }
    assert!(SessionLayer::builder(&cache).mode(SessionMode::Express).secret("keyboard cat").build().is_ok());
}

#[tokio::test]
async fn a_request_outside_of_the_cookies_path_has_no_session() {
    let cache = cache_core::Cache::in_memory();
    let layer = express(&cache).cookie(CookieOptions::new().path("/admin")).build().unwrap();
    let inside = Browser::default().at("/admin/users");
    assert!(inside.set(&layer, "views", 1).await.cookies[0].contains("; Path=/admin; "));
    let app = axum::Router::new()
        .route("/adminfoo", axum::routing::get(|_: cache_core::session::Session| async {}))
        .route("/admin/x", axum::routing::get(|_: cache_core::session::Session| async {}))
        .layer(layer);
    for (path, status) in [("/adminfoo", 500), ("/admin/x", 200)] {
        let request = http::Request::get(path).body(axum::body::Body::empty()).unwrap();
        let response = tower::ServiceExt::oneshot(app.clone(), request).await.unwrap();
        assert_eq!(response.status().as_u16(), status, "{path}");
    }
}
