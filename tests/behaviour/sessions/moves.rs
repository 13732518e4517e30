//! The migration from Express to our own format: it logs out no user, and afterwards admits no old
//! cookie.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cache_core::Cache;
use cache_core::clock::Timestamp;
use cache_core::session::{SessionLayer, SessionMode};
use futures::future::join_all;
use support::{Nodes, Proxy, RedisServer, eventually, on_both_stores, soon};

use super::client::{Browser, express, moving, native};

const USERS: usize = 100;
const REQUESTS: usize = 6;

/// Returns a browser with the same cookie, under the name that Express uses.
fn as_express_cookie(browser: &Browser) -> Browser {
    Browser::default().with("cookie", &format!("connect.sid={}", browser.cookie("__Host-id").unwrap()))
}

/// Sends some requests at once, each of which adds one. Counts those that see no session.
async fn requests(browser: &Browser, layers: [SessionLayer; 2], without: &Arc<AtomicUsize>) {
    let requests = (0..REQUESTS).map(|index| {
        let (browser, layer, without) = (browser.copy(), layers[index % 2].clone(), Arc::clone(without));
        tokio::spawn(async move {
            let page = browser.visit(&layer, move |session| async move {
                if session.get::<i64>("views").await?.is_none() {
                    without.fetch_add(1, Ordering::SeqCst);
                }
                session.increment("views", 1).await.map(|_| 200)
            });
            assert_eq!(page.await.status, 200);
        })
    });
    for request in join_all(requests.collect::<Vec<_>>()).await {
        request.unwrap();
    }
}

/// Sends the first requests of users whose sessions an Express peer has made, all of a user's at
/// once and over two processes.
async fn first_requests(nodes: &Nodes) {
    let (one, two) = (nodes.node().await, nodes.node().await);
    let before = express(&one).build().unwrap();
    let dual = [&one, &two].map(|cache| express(cache).mode(SessionMode::Dual).build().unwrap());
    let after = [&one, &two].map(|cache| moving(cache).build().unwrap());
    let without = Arc::new(AtomicUsize::new(0));
    let users = (0..USERS).map(|user| {
        let (before, dual, after, without) = (before.clone(), dual.clone(), after.clone(), Arc::clone(&without));
        async move {
            let browser = Browser::default();
            browser.set(&before, "views", 0).await;
            // Servers are replaced one by one: a server of each step runs together with those of
            // the previous step.
            let [dual_one, dual_two] = dual;
            let [after_one, after_two] = after.clone();
            for layers in [[before, dual_two], [dual_one, after_two.clone()], [after_one, after_two]] {
                requests(&browser, layers, &without).await;
            }
            let all = i64::try_from(3 * REQUESTS).unwrap();
            assert_eq!(browser.get(&after[user % 2], "views").await, Some(all), "nothing that was written is lost");
        }
    });
    join_all(users).await;
    assert_eq!(without.load(Ordering::SeqCst), 0, "requests that saw no session");
    assert_eq!((one.stats().sessions.unknown_ids, two.stats().sessions.unknown_ids), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parallel_first_requests_during_a_move_lose_no_session_embedded() {
    // N5
    first_requests(&Nodes::embedded()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parallel_first_requests_during_a_move_lose_no_session_redis() {
    // N5
    first_requests(&Nodes::redis()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_moves_between_two_looks_is_found() {
    // N5
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port()).await;
    let near = Cache::connect(&server.patient_url()).await.unwrap();
    let far = Cache::connect(&format!("{}?{}", proxy.url(), support::PATIENT)).await.unwrap();
    let (before, layer, late_layer) =
        (express(&near).build().unwrap(), moving(&near).build().unwrap(), moving(&far).build().unwrap());
    let browser = Browser::default();
    browser.set(&before, "views", 1).await;
    let late = browser.copy();
    let looks = || server.commandstats().get("get").copied().unwrap_or(0);
    let before_it = looks();
    // The request has looked for one format, and the reply has not arrived yet.
    proxy.hold_answers();
    let request = tokio::spawn(async move {
        let page = late.visit(&late_layer, |session| async move {
            Ok(if session.get("views").await? == Some(2) { 200 } else { 404 })
        });
        page.await.status
    });
    eventually("it has looked", || async { looks() > before_it }).await;
    browser.set(&layer, "views", 2).await;
    proxy.heal();
    assert_eq!(soon("the late one", request).await.unwrap(), 200);
}

on_both_stores! {
    async fn a_cookie_without_the_prefix_is_refused(nodes: &Nodes) {
        // N2
        let cache = nodes.node().await;
        let (before, layer) = (express(&cache).build().unwrap(), native(&cache).build().unwrap());
        let (old, own) = (Browser::default(), Browser::default());
        old.set(&before, "views", 1).await;
        own.set(&layer, "views", 1).await;
        let loaded = cache.stats().sessions.loaded;
        assert_eq!((old.get(&layer, "views").await, as_express_cookie(&own).get(&layer, "views").await), (None, None));
        assert_eq!(cache.stats().sessions.loaded, loaded, "nothing was looked for");
        // An id of Express under the prefixed name does not bring over its session either.
        let renamed = Browser::default().with("cookie", &format!("__Host-id={}", old.cookie("connect.sid").unwrap()));
        assert_eq!(renamed.get(&layer, "views").await, None);
        assert_eq!((old.get(&before, "views").await, own.get(&layer, "views").await), (Some(1), Some(1)));
    }

    async fn a_move_ends_on_its_day(nodes: &Nodes) {
        // N2
        let Nodes::Embedded(_, clock) = nodes else { return };
        let cache = nodes.node().await;
        let day = Duration::from_secs(86_400);
        let before = express(&cache).ttl(day * 90).build().unwrap();
        let after = moving(&cache).ttl(day * 90).build().unwrap();
        let (early, late) = (Browser::default(), Browser::default());
        for browser in [&early, &late] {
            browser.set(&before, "views", 1).await;
        }
        clock.advance(day * 30 - Duration::from_millis(1));
        let copy = early.copy();
        assert_eq!(early.get(&after, "views").await, Some(1));
        assert_eq!((early.cookie("connect.sid"), copy.get(&after, "views").await), (None, Some(1)));
        // If the response with the new cookie was lost, the client sends the old one and gets the
        // new one again.
        assert_eq!((copy.cookie("connect.sid"), copy.cookie("__Host-id").is_some()), (None, true));
        clock.advance(Duration::from_millis(1));
        assert_eq!((late.get(&after, "views").await, as_express_cookie(&early).get(&after, "views").await), (None, None));
        assert_eq!(early.get(&after, "views").await, Some(1));
    }
}

#[tokio::test]
async fn a_move_that_never_ends_is_refused() {
    // N2
    let (cache, clock) = match Nodes::embedded() {
        Nodes::Embedded(cache, clock) => (cache, clock),
        Nodes::Redis(_) => unreachable!("it was asked for"),
    };
    let days = |days: u64| Timestamp::from_millis(1_767_225_600_000 + days * 86_400_000);
    let error = native(&cache).take_over_until(days(401)).build().unwrap_err();
    assert!(error.to_string().contains("400 days"), "{error}");
    let layer = native(&cache).take_over_until(days(400)).build();
    assert!(layer.is_ok());
    // An outdated setting does not prevent a start.
    clock.advance(Duration::from_secs(500 * 86_400));
    assert!(native(&cache).take_over_until(days(400)).build().is_ok());
}
