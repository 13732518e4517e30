//! A write that its caller has given up is not executed after later writes of others.

use cache_core::events::Event;
use cache_core::object::{CacheObject, Objects};
use cache_core::{Cache, ErrorKind, cached};
use serde::{Deserialize, Serialize};
use support::{Proxy, RedisServer, event, eventually};

const OPTIONS: &str = "?response_timeout=100ms&connect_timeout=500ms&heartbeat=50ms";

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, CacheObject)]
#[cache_object(name = "cart", ttl = "7d", id = id)]
struct Cart {
    id: u32,
    text: String,
}

#[cached(name = "row", ttl = 60, key = "{id}", skip(cache, text), cache = cache)]
async fn row(cache: &Cache, id: u32, text: &str) -> String {
    let _ = (cache, id);
    text.to_owned()
}

async fn cache_at(url: &str) -> Cache {
    Cache::builder().url(format!("{url}{OPTIONS}")).connect().await.unwrap()
}

/// Returns a cache behind a network that can be broken, and another cache.
async fn two() -> (RedisServer, Proxy, Cache, Cache) {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port()).await;
    let (slow, other) = (cache_at(&proxy.url()).await, cache_at(&server.url()).await);
    (server, proxy, slow, other)
}

async fn has_a_new_connection(cache: &Cache) {
    eventually("it has a new connection", || async { cache.stats().connects == 2 && cache.is_available() }).await;
}

/// Waits until the held connection has ended. Its requests are then executed, or never will be.
async fn only_one_is_left(proxy: &Proxy) {
    eventually("the old connection has ended", || async { proxy.open() == 1 }).await;
}

fn cart(text: &str) -> Cart {
    Cart { id: 7, text: text.to_owned() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// R26
async fn a_later_save_of_an_object_wins_when_the_link_heals() {
    let (_server, proxy, slow, other) = two().await;
    let (carts, elsewhere): (Objects<Cart>, Objects<Cart>) = (slow.objects(), other.objects());
    carts.save(&cart("v1")).await.unwrap();
    proxy.hold_fast();
    assert_eq!(carts.save(&cart("v2")).await.unwrap_err().kind(), ErrorKind::Unavailable);
    has_a_new_connection(&slow).await;
    elsewhere.save(&cart("v3")).await.unwrap();
    proxy.let_go();
    only_one_is_left(&proxy).await;
    assert_eq!(carts.load(&7).await.unwrap(), Some(cart("v3")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// R26
async fn a_later_set_of_a_plain_value_wins_when_the_link_heals() {
    let (_server, proxy, slow, other) = two().await;
    proxy.hold_fast();
    assert_eq!(slow.plain().set("k", "v2", None).await.unwrap_err().kind(), ErrorKind::Unavailable);
    has_a_new_connection(&slow).await;
    other.plain().set("k", "v3", None).await.unwrap();
    proxy.let_go();
    only_one_is_left(&proxy).await;
    assert_eq!(slow.plain().get::<String>("k").await.unwrap(), Some("v3".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// R26
async fn a_later_set_of_a_value_wins_when_the_link_heals() {
    let (_server, proxy, slow, other) = two().await;
    let (here, elsewhere) = (row::entry(7).on(&slow), row::entry(7).on(&other));
    here.set("v1".to_owned()).await.unwrap();
    proxy.hold_fast();
    assert_eq!(here.set("v2".to_owned()).await.unwrap_err().kind(), ErrorKind::Unavailable);
    has_a_new_connection(&slow).await;
    elsewhere.set("v3".to_owned()).await.unwrap();
    proxy.let_go();
    only_one_is_left(&proxy).await;
    assert_eq!(elsewhere.get().await.unwrap(), Some("v3".to_owned()));
    assert_eq!(row(&slow, 7, "computed").await, "v3");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// R26: nothing gets through at all, so the failed write lands before the connection that would have
// ended its own.
async fn a_failed_set_is_followed_by_an_invalidation() {
    let (server, proxy, slow, other) = two().await;
    let (here, elsewhere) = (row::entry(7).on(&slow), row::entry(7).on(&other));
    here.set("v1".to_owned()).await.unwrap();
    proxy.freeze();
    assert_eq!(here.set("v2".to_owned()).await.unwrap_err().kind(), ErrorKind::Unavailable);
    elsewhere.set("v3".to_owned()).await.unwrap();
    // As if the network had delivered it now.
    elsewhere.set("v2".to_owned()).await.unwrap();
    proxy.heal();
    eventually("it is removed", || async { server.cli(&["EXISTS", here.key()]).trim() == "0" }).await;
    assert_eq!(row(&other, 7, "v3").await, "v3", "computed anew");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// R26, D8
async fn a_server_that_allows_no_kill_is_reported_once() {
    let server = RedisServer::builder().user("app on >secret ~* &* +@all -client|kill").start();
    let cache = Cache::builder().url(format!("{}{OPTIONS}", server.url_as("app:secret"))).connect().await.unwrap();
    let mut events = cache.subscribe();
    for times in 2..4 {
        server.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
        eventually("it connects", || async { cache.stats().connects >= times && cache.is_available() }).await;
        assert_eq!(row(&cache, 7, "v").await, "v");
    }
    let mut told = 0;
    while let Ok(event) = events.try_recv() {
        told += u32::from(matches!(event, Event::KillUnavailable { .. }));
    }
    assert_eq!(told, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// R26: a restarted server assigns the same connection ids again.
async fn a_restarted_server_loses_no_other_connection() {
    let server = RedisServer::start();
    let mut caches = Vec::new();
    for _ in 0..4 {
        caches.push(cache_at(&server.url()).await);
    }
    let mut events = caches[0].subscribe();
    server.restart();
    for cache in &caches {
        eventually("each connects", || async { cache.stats().connects >= 2 && cache.is_available() }).await;
    }
    event(&mut events, "it was lost once", |event| matches!(event, Event::Disconnected { .. })).await;
    for cache in &caches {
        assert_eq!(row(cache, 7, "v").await, "v");
        assert_eq!(cache.stats().connects, 2);
    }
}
