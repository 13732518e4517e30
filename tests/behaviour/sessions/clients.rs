//! Clients without cookies, and an unavailable store.

use std::time::Duration;

use cache_core::Cache;
use cache_core::session::{OptionalSession, Session, SessionErrorKind, Transport};
use http::{HeaderName, Request};
use support::{Proxy, RedisServer, on_both_stores, soon};
use tower::ServiceExt as _;

use super::client::{Browser, express, native};

on_both_stores! {
    async fn a_client_without_cookies_shows_a_token(nodes: &Nodes) {
        let cache = nodes.node().await;
        let layer = native(&cache).transports([Transport::Bearer, Transport::Cookie]).build().unwrap();
        let app = Browser::default();
        let page = app.set(&layer, "views", 1).await;
        assert!(page.cookies.is_empty());
        let token = page.headers["session-token"].to_str().unwrap().to_owned();
        let app = Browser::default().with("authorization", &format!("bearer {token}"));
        assert_eq!(app.get(&layer, "views").await, Some(1));
        assert!(!app.set(&layer, "views", 2).await.headers.contains_key("session-token"));
        // A session that began with a header is not accepted from a cookie, which a browser sends
        // on its own.
        let stolen = Browser::default().with("cookie", &format!("__Host-id=s%3A{token}"));
        assert_eq!(stolen.get(&layer, "views").await, None);
        // A session of a cookie is not accepted from a header either.
        let by_cookie = native(&cache).transports([Transport::Cookie, Transport::Bearer]).build().unwrap();
        let browser = Browser::default();
        browser.set(&by_cookie, "views", 5).await;
        let value = browser.cookie("__Host-id").unwrap().replace("s%3A", "").replace("%2B", "+").replace("%2F", "/");
        let as_bearer = Browser::default().with("authorization", &format!("Bearer {value}"));
        assert_eq!(as_bearer.get(&by_cookie, "views").await, None);
        assert_eq!((browser.get(&by_cookie, "views").await, app.get(&by_cookie, "views").await), (Some(5), Some(2)));
        // A login changes the token.
        let page = app.visit(&layer, |session| async move { session.login("ada").await.map(|()| 200) }).await;
        assert_ne!(page.headers["session-token"].to_str().unwrap(), token);
        assert_eq!(app.get(&layer, "views").await, None);
    }

    async fn a_token_is_sent_in_a_custom_header(nodes: &Nodes) {
        let cache = nodes.node().await;
        let header = Transport::Header(HeaderName::from_static("x-session"));
        let layer = express(&cache).transports([header]).build().unwrap();
        let page = Browser::default().set(&layer, "views", 1).await;
        let token = page.headers["x-session"].to_str().unwrap().to_owned();
        assert_eq!(Browser::default().with("x-session", &token).get(&layer, "views").await, Some(1));
        assert_eq!(Browser::default().with("authorization", &format!("Bearer {token}")).get(&layer, "views").await, None);
    }
}

async fn optional(OptionalSession(session): OptionalSession) -> &'static str {
    if session.is_some() { "with" } else { "without" }
}

async fn write(session: Session) -> Result<&'static str, cache_core::session::SessionError> {
    session.insert("views", &1).await?;
    Ok("written")
}

async fn ignore(_: Session) -> &'static str {
    "ignored"
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_store_no_cookie_is_sent() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port()).await;
    let cache = Cache::builder().url(proxy.url()).response_timeout(Duration::from_millis(200)).connect().await.unwrap();
    let layer = native(&cache).build().unwrap();
    let browser = Browser::default();
    browser.set(&layer, "views", 1).await;
    let app = axum::Router::new()
        .route("/optional", axum::routing::get(optional))
        .route("/write", axum::routing::get(write))
        .route("/ignore", axum::routing::get(ignore))
        .layer(layer.clone());
    let ask = |path: &'static str, cookie: bool| {
        let mut request = Request::get(path);
        if cookie {
            request = request.header("cookie", format!("__Host-id={}", browser.cookie("__Host-id").unwrap()));
        }
        let app = app.clone();
        async move {
            let response = soon(path, app.oneshot(request.body(axum::body::Body::empty()).unwrap())).await.unwrap();
            (response.status().as_u16(), response.headers().contains_key("set-cookie"))
        }
    };
    assert_eq!(ask("/write", false).await, (200, true));
    // A frozen proxy does not answer, so the time limit is the cache's response timeout. A cut one
    // is known to be unavailable.
    for broken in [Proxy::freeze, Proxy::cut] {
        broken(&proxy);
        for cookie in [true, false] {
            assert_eq!(ask("/write", cookie).await, (503, false), "cookie: {cookie}");
            assert_eq!(ask("/ignore", cookie).await, (200, false), "nothing is asked of it");
            assert_eq!(ask("/optional", cookie).await, (200, false));
        }
        proxy.heal();
        support::eventually("it is back", || async { ask("/write", true).await.0 == 200 }).await;
    }
    assert!(cache.stats().sessions.failed >= 2);
    // A write that fails in the middle of a request is reported to its handler and to the client.
    let cut = proxy;
    let page = browser
        .visit(&layer, move |session| async move {
            session.insert("views", &9).await?;
            cut.cut();
            let error = session.save().await.unwrap_err();
            assert_eq!(error.kind(), SessionErrorKind::Unavailable);
            Ok(200)
        })
        .await;
    assert_eq!((page.status, page.cookies.len()), (503, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_takes_no_writes_is_an_error_for_the_client() {
    let server = RedisServer::start();
    let cache = Cache::connect(&server.patient_url()).await.unwrap();
    let layer = express(&cache).build().unwrap();
    let browser = Browser::default();
    browser.set(&layer, "views", 1).await;
    server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    for client in [browser.clone(), Browser::default()] {
        let page = client.set(&layer, "views", 2).await;
        assert_eq!((page.status, page.cookies.len()), (503, 0));
    }
    server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(browser.get(&layer, "views").await, Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_shows_an_id_a_value_or_a_secret() {
    let server = RedisServer::start();
    let cache = Cache::connect(&server.patient_url()).await.unwrap();
    let layer = native(&cache).secret("keyboard cat").build().unwrap();
    let browser = Browser::default();
    let mut events = cache.subscribe();
    let shown = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
    let seen = std::sync::Arc::clone(&shown);
    browser
        .visit(&layer, move |session| async move {
            session.insert("word", "mellon").await?;
            session.login("ada").await?;
            let id = session.id().await?;
            let wrong = session.get::<i64>("word").await.unwrap_err();
            let text = session.read(|values| format!("{values:?}")).await?;
            *seen.lock().unwrap() = format!("{session:?} {id:?} {wrong} {wrong:?} {text}");
            Ok(200)
        })
        .await;
    browser.set(&layer, "views", 1).await;
    let mut shown = shown.lock().unwrap().clone();
    shown.push_str(&format!("{layer:?} {:?} {:?}", layer.of_user("ada"), native(&cache)));
    while let Ok(event) = events.try_recv() {
        shown.push_str(&format!("{event:?}"));
    }
    let id = browser.id("__Host-id").unwrap();
    for secret in ["mellon", "keyboard", super::client::SECRET, "\"ada\"", &id] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_costs_what_is_used_of_it() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port()).await;
    let settings = Cache::builder().max_staleness(Duration::from_secs(1200));
    let cache = settings.url(format!("{}?heartbeat=600s", proxy.url())).connect().await.unwrap();
    for layer in [express(&cache).build().unwrap(), native(&cache).build().unwrap()] {
        let browser = Browser::default();
        let trips = async |browser: &Browser, what: u8| {
            let before = proxy.sendings();
            let page = browser
                .visit(&layer, move |session| async move {
                    match what {
                        0 => {}
                        1 => drop(session.get::<i64>("views").await?),
                        _ => drop(session.increment("views", 1).await?),
                    }
                    Ok(200)
                })
                .await;
            assert_eq!(page.status, 200);
            proxy.sendings() - before
        };
        // The server learns scripts at their first use.
        trips(&browser, 2).await;
        trips(&browser, 2).await;
        let stranger = Browser::default();
        let costs = [trips(&browser, 0).await, trips(&browser, 1).await, trips(&browser, 2).await];
        assert_eq!(costs, [0, 1, 2], "ignored, read, written");
        assert_eq!([trips(&stranger, 0).await, trips(&stranger, 1).await, trips(&stranger, 2).await], [0, 0, 1]);
    }
}
