//! Redis fails before or during a request that changes a session. The response comes in bounded
//! time, confirms nothing that was not saved, and reveals nothing of the session.

use std::sync::Arc;
use std::time::Duration;

use cache_core::Cache;
use cache_core::session::{Session, SessionError, SessionLayer};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use support::{Proxy, RedisServer, eventually};
use tokio::time::timeout;

use super::client::{Browser, SECRET, native};

/// A request takes a few response timeouts of 100 ms. The rest is room for a busy machine.
const BOUND: Duration = Duration::from_secs(5);

type Fault = fn(&Broken);
type Change = fn(Session) -> BoxFuture<'static, Result<(), SessionError>>;

const CHANGES: [(&str, Change); 6] = [
    ("insert", |session| async move { session.insert("views", &2).await }.boxed()),
    ("increment", |session| async move { session.increment("views", 1).await.map(drop) }.boxed()),
    ("login", |session| async move { session.login("ada").await }.boxed()),
    ("cycle_id", |session| async move { session.cycle_id().await }.boxed()),
    ("regenerate", |session| {
        async move {
            session.regenerate().await?;
            session.insert("views", &2).await
        }
        .boxed()
    }),
    ("save", |session| {
        async move {
            session.insert("views", &2).await?;
            session.save().await
        }
        .boxed()
    }),
];

/// The parts that can be broken.
struct Broken {
    server: RedisServer,
    network: Proxy,
}

/// Whether the previous state is kept if the response was a failure.
#[derive(Clone, Copy, PartialEq)]
enum Afterwards {
    /// Refused: nothing has changed.
    AsBefore,
    /// Unknown.
    Unknown,
}

async fn visits(fault: Fault, mend: Fault, afterwards: Afterwards) {
    let server = RedisServer::start();
    let network = Proxy::start(server.port()).await;
    let url = format!("{}?response_timeout=100ms&connect_timeout=200ms&heartbeat=50ms", network.url());
    let cache = Cache::connect(&url).await.unwrap();
    let layer = native(&cache).build().unwrap();
    let (broken, mut events) = (Arc::new(Broken { server, network }), cache.subscribe());
    let mut shown = String::new();
    for (name, change) in CHANGES {
        for in_the_middle in [false, true] {
            let browser = Browser::default();
            assert_eq!(browser.set(&layer, "views", 1).await.status, 200);
            let before = browser.copy();
            let in_handler = Arc::clone(&broken);
            if !in_the_middle {
                fault(&broken);
            }
            let visit = browser.visit(&layer, move |session| async move {
                if in_the_middle {
                    assert_eq!(session.get("views").await?, Some(1));
                    fault(&in_handler);
                }
                change(session).await?;
                Ok(200)
            });
            let page = timeout(BOUND, visit).await.unwrap_or_else(|_| panic!("{name} hangs"));
            assert_eq!((page.status, page.cookies.as_slice()), (503, [].as_slice()), "{name}, {in_the_middle}");
            // A client without a session gets no cookie for a session that was not stored.
            let stranger = Browser::default();
            let page = timeout(BOUND, stranger.set(&layer, "views", 1)).await.expect("it hangs");
            assert_eq!((page.status, page.cookies.as_slice()), (503, [].as_slice()), "{name}, {in_the_middle}");
            mend(&broken);
            eventually("sessions work again", || works(&layer)).await;
            if afterwards == Afterwards::AsBefore {
                assert_eq!(before.get(&layer, "views").await, Some(1), "{name}, {in_the_middle}");
            }
            while let Ok(event) = events.try_recv() {
                shown.push_str(&format!("{event:?}"));
                assert!(!shown.contains(&before.id("__Host-id").unwrap()), "{event:?}");
            }
        }
    }
    assert!(!shown.contains(SECRET));
    assert!(cache.stats().sessions.failed >= 12);
}

async fn works(layer: &SessionLayer) -> bool {
    let browser = Browser::default();
    browser.set(layer, "views", 1).await.status == 200
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// D2
async fn redis_killed_at_any_step_is_a_503_without_a_cookie() {
    visits(|broken| broken.server.kill(), |broken| broken.server.restart(), Afterwards::Unknown).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// D2
async fn redis_paused_at_any_step_is_a_503_without_a_cookie() {
    visits(|broken| broken.server.pause(), |broken| broken.server.resume(), Afterwards::Unknown).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// D2
async fn redis_slow_at_any_step_is_a_503_without_a_cookie() {
    visits(
        |broken| broken.network.delay(Duration::from_millis(400)),
        |broken| broken.network.heal(),
        Afterwards::Unknown,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// D2
async fn redis_read_only_at_any_step_is_a_503_without_a_cookie() {
    let read_only: Fault = |broken| drop(broken.server.cli(&["REPLICAOF", "127.0.0.1", "1"]));
    visits(read_only, |broken| drop(broken.server.cli(&["REPLICAOF", "NO", "ONE"])), Afterwards::AsBefore).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// D2
async fn redis_full_at_any_step_is_a_503_without_a_cookie() {
    let full: Fault = |broken| drop(broken.server.cli(&["CONFIG", "SET", "maxmemory", "1"]));
    visits(full, |broken| drop(broken.server.cli(&["CONFIG", "SET", "maxmemory", "0"])), Afterwards::AsBefore).await;
}
