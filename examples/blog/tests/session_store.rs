//! Sessions in the application's own database.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test that cannot continue fails, and starts its own tasks"
)]

#[path = "support/browser.rs"]
mod browser;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use blog::session_store::SqliteSessions;
use browser::Browser;
use cache_core::Cache;
use cache_core::session::{CookieOptions, Secure, Session, SessionError, SessionLayer, SessionStore as _};
use cache_core::testing::check_session_store;
use sqlx::SqlitePool;
use tempfile::TempDir;

fn url(folder: &TempDir) -> String {
    format!("sqlite:{}", folder.path().join("sessions.db").display())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_keeps_every_promise_of_a_session_store() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteSessions::open(&url(&folder)).await.unwrap();
    let beside = SqlitePool::connect(&url(&folder)).await.unwrap();
    // Instead of waiting, moves all expiries closer.
    let pass = async |time: Duration| {
        let nearer = "UPDATE session SET ends = ends - $1";
        sqlx::query(nearer).bind(i64::try_from(time.as_millis()).unwrap()).execute(&beside).await.unwrap();
    };
    check_session_store(&store, pass).await.unwrap();
    // Removed keys are gone, and expired ones are deleted by a sweep.
    let count = async || sqlx::query_scalar::<_, i64>("SELECT count(*) FROM session").fetch_one(&beside).await.unwrap();
    let before = count().await;
    assert_eq!((store.sweep().await.unwrap(), count().await), (u64::try_from(before).unwrap(), 0));
    assert_ne!(before, 0, "what has ended was still there");
    // A sweep leaves what has time left or never ends.
    let (hour, moment) = (Duration::from_secs(3600), Duration::from_millis(1));
    for (key, ttl) in [("living", Some(hour)), ("endless", None), ("ending", Some(moment))] {
        assert!(store.create(key, b"bytes", ttl).await.unwrap());
    }
    pass(Duration::from_secs(60)).await;
    assert_eq!((store.sweep().await.unwrap(), count().await), (1, 2));
    assert!(store.load("living").await.unwrap().is_some() && store.load("endless").await.unwrap().is_some());
}

/// Returns how many times it was called in this session.
async fn view(session: Session) -> Result<String, SessionError> {
    Ok(session.increment("views", 1).await?.to_string())
}

async fn login(session: Session) -> Result<&'static str, SessionError> {
    session.login("ada").await.map(|()| "in")
}

async fn views(session: Session) -> Result<String, SessionError> {
    Ok(session.get::<i64>("views").await?.unwrap_or_default().to_string())
}

/// Starts a server on this database, as another process would be.
async fn server(url: &str) -> (Browser, SessionLayer) {
    let store = Arc::new(SqliteSessions::open(url).await.unwrap());
    let layer = SessionLayer::builder(&Cache::in_memory())
        .store(store)
        .secret("a secret of thirty-two bytes....")
        .native_name("id")
        .cookie(CookieOptions::new().secure(Secure::Never))
        .deadline(Duration::from_secs(60))
        .build()
        .unwrap();
    let router = Router::new().route("/", get(view)).route("/views", get(views)).route("/login", get(login));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = router.layer(layer.clone());
    tokio::task::spawn(async move { axum::serve(listener, router).await });
    (Browser(address), layer)
}

/// Returns the cookie in the response to a request.
fn cookie(browser: Browser, path: &str, before: &str) -> String {
    let page = browser.request_with("GET", path, &[("cookie", before)], None, "");
    assert_eq!(page.status, 200, "{}", page.body);
    page.all("set-cookie").first().unwrap().split(';').next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_counter_in_sqlite_loses_no_view_of_parallel_requests() {
    const PEOPLE: usize = 8;
    const VIEWS: usize = 10;
    let folder = tempfile::tempdir().unwrap();
    let servers = [server(&url(&folder)).await, server(&url(&folder)).await];
    let seen = tokio::task::spawn_blocking(move || {
        let browsers = servers.map(|(browser, _)| browser);
        let cookie = cookie(browsers[0], "/", "");
        std::thread::scope(|scope| {
            for person in 0..PEOPLE {
                let (browser, cookie) = (browsers[person % 2], &cookie);
                scope.spawn(move || {
                    for _ in 0..VIEWS {
                        let page = browser.request_with("GET", "/", &[("cookie", cookie)], None, "");
                        assert_eq!(page.status, 200);
                    }
                });
            }
        });
        browsers[1].request_with("GET", "/views", &[("cookie", &cookie)], None, "").body
    });
    assert_eq!(seen.await.unwrap(), (1 + PEOPLE * VIEWS).to_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logins_in_sqlite_are_listed_and_ended() {
    let folder = tempfile::tempdir().unwrap();
    let ((browser, layer), (other, _)) = (server(&url(&folder)).await, server(&url(&folder)).await);
    let cookies = tokio::task::spawn_blocking(move || {
        let visitor = cookie(browser, "/", "");
        let ada = cookie(browser, "/login", &visitor);
        let views = |cookie: &str| other.request_with("GET", "/views", &[("cookie", cookie)], None, "").body;
        // The visitor's values are kept, and the old id is invalid.
        assert_eq!((views(&ada), views(&visitor)), ("1".to_owned(), "0".to_owned()));
        (ada, cookie(other, "/login", ""))
    });
    let (first, second) = cookies.await.unwrap();
    let ada = layer.of_user("ada");
    assert_eq!(ada.list().await.unwrap().len(), 2);
    assert_eq!(ada.end_all().await.unwrap(), 2);
    assert_eq!(ada.list().await.unwrap(), []);
    let views = tokio::task::spawn_blocking(move || {
        [first, second].map(|cookie| browser.request_with("GET", "/views", &[("cookie", &cookie)], None, "").body)
    });
    assert_eq!(views.await.unwrap(), ["0", "0"]);
}
