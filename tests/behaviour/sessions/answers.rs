//! Session errors as responses: the status, and the log line.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use cache_core::Cache;
use cache_core::clock::Clock;
use cache_core::session::{Session, SessionError, SessionErrorKind, TooMany};
use http::Request;
use tower::ServiceExt as _;

use support::RedisServer;

use super::client::{Browser, native};

/// The log of this thread from INFO on, one line for each event.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

impl tracing::field::Visit for Log {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        let _never_fails = write!(self.0.lock().unwrap(), "{field}={value:?} ");
    }
}

impl tracing::Subscriber for Log {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::INFO && metadata.target() == "cache_core"
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut self.clone());
        self.0.lock().unwrap().push('\n');
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

async fn count(session: Session) -> Result<String, SessionError> {
    session.insert("word", "mellon").await?;
    Ok(session.increment("word", 1).await?.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_instead_of_an_unsaved_response_is_private() {
    // N1
    let server = RedisServer::start();
    let cache = Cache::connect(server.url()).await.unwrap();
    let (layer, browser) = (native(&cache).build().unwrap(), Browser::default());
    browser.set(&layer, "views", 1).await;
    let page = browser.visit(&layer, move |session| async move {
        session.increment("views", 1).await?;
        server.kill();
        Ok(200)
    });
    let page = page.await;
    assert_eq!((page.status, page.headers.get("set-cookie")), (503, None), "nothing of the handler's is left");
    let said = ["vary", "cache-control"].map(|name| page.headers.get(name).map(|value| value.to_str().unwrap()));
    assert_eq!(said, [Some("Cookie"), Some("private")]);
}

// One thread, because the log is captured on the current thread.
#[tokio::test(flavor = "current_thread")]
async fn an_error_that_becomes_a_response_is_logged() {
    let log = Log::default();
    let guard = tracing::subscriber::set_default(log.clone());
    let ask = |app: Router| async move {
        let request = Request::get("/").body(Body::empty()).unwrap();
        app.oneshot(request).await.unwrap().status().as_u16()
    };
    let app = || Router::new().route("/", get(count));
    // Logged once in a process, and no other test asks without a layer.
    assert_eq!((ask(app()).await, ask(app()).await), (500, 500));
    let told = std::mem::take(&mut *log.0.lock().unwrap());
    assert!(told.contains("did not pass through a session layer") && told.contains("SessionLayer::builder"), "{told}");
    assert_eq!(told.matches("did not pass through a session layer").count(), 1, "{told}");
    let layer = native(&Cache::in_memory()).build().unwrap();
    assert_eq!(ask(app().layer(layer)).await, 500);
    let told = std::mem::take(&mut *log.0.lock().unwrap());
    assert!(
        told.contains("a session operation failed") && told.contains("the value cannot be stored or read"),
        "{told}"
    );
    assert!(!told.contains("mellon"), "{told}");
    drop(guard);
}

// One thread, because the log is captured on the current thread.
#[tokio::test(flavor = "current_thread")]
// C4
async fn a_thousand_error_responses_are_one_log_line_and_later_a_count() {
    let (log, clock) = (Log::default(), Clock::manual());
    let guard = tracing::subscriber::set_default(log.clone());
    let cache = Cache::builder().clock(clock.clone()).in_memory();
    let app = Router::new().route("/", get(count)).layer(native(&cache).build().unwrap());
    let fail = async |times: usize| {
        for _ in 0..times {
            let request = Request::get("/").body(Body::empty()).unwrap();
            assert_eq!(app.clone().oneshot(request).await.unwrap().status().as_u16(), 500);
        }
        let told = std::mem::take(&mut *log.0.lock().unwrap());
        told.lines()
            .filter(|line| line.contains("the value cannot be stored or read"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let first = fail(1000).await;
    assert!(first.len() == 1 && !first[0].contains("count"), "{first:?}");
    clock.advance(Duration::from_secs(10));
    let second = fail(1).await;
    assert!(second.len() == 1 && second[0].contains("count=1000 "), "{second:?}");
    assert_eq!(fail(10).await.len(), 0);
    assert_eq!(cache.stats().sessions.failed, 1011);
    drop(guard);
}

#[tokio::test]
async fn a_login_over_the_limit_is_an_error_to_match_and_a_409() {
    let layer = native(&Cache::in_memory()).max_sessions(1, TooMany::Refuse).build().unwrap();
    let login = |session: Session| async move {
        session.login("ada").await.inspect_err(|error| assert_eq!(error.kind(), SessionErrorKind::TooManySessions))?;
        Ok(200)
    };
    assert_eq!(Browser::default().visit(&layer, login).await.status, 200);
    assert_eq!(Browser::default().visit(&layer, login).await.status, 409);
}

#[tokio::test]
async fn a_handler_may_do_without_a_session() {
    async fn handler(session: Option<Session>) -> &'static str {
        if session.is_some() { "with" } else { "without" }
    }
    let cache = Cache::in_memory();
    let app = Router::new().route("/", get(handler));
    let ask = |app: Router| async move {
        let response = app.oneshot(Request::get("/").body(Body::empty()).unwrap()).await.unwrap();
        axum::body::to_bytes(response.into_body(), 100).await.unwrap()
    };
    assert_eq!(ask(app.clone()).await, "without");
    let with_sessions = app.layer(native(&cache).build().unwrap());
    assert_eq!(ask(with_sessions).await, "with");
}
