//! D2 at the store: whatever the network or the server does, each call ends within its bound, and
//! the store recovers by itself.

use std::time::Duration;

use cache_core::ErrorKind;
use cache_core::events::Event;
use cache_core::store_testing::{RawMessage, RawOver, RawSlot, RawStore, record};
use futures::future::{BoxFuture, join_all};
use futures::{FutureExt, StreamExt};
use support::{Proxy, RedisServer, eventually, soon};
use tokio::time::timeout;

const TTL: Duration = Duration::from_secs(60);
/// The response timeout of these stores, and a bound with room for a busy machine.
const OPTIONS: &str = "?response_timeout=100ms&connect_timeout=200ms&heartbeat=50ms";
const BOUND: Duration = Duration::from_secs(3);

async fn store_at(url: &str) -> RawStore {
    RawStore::redis(&format!("{url}{OPTIONS}")).await.unwrap()
}

/// Returns every operation once, with its value removed from the result.
fn every_operation(store: &RawStore) -> Vec<(&'static str, BoxFuture<'_, cache_core::Result<()>>)> {
    let lease = Duration::from_secs(1);
    macro_rules! calls {
        ($($name:literal: $call:expr),* $(,)?) => {
            vec![$(($name, Box::pin(async move { $call.await.map(drop) }) as BoxFuture<'_, _>)),*]
        };
    }
    calls! {
        "read": store.read("k"),
        "read_and_watch": store.read_and_watch("k"),
        "acquire": store.acquire("k", 1, lease, RawOver::Nothing),
        "acquire for a refresh": store.acquire("k", 1, lease, RawOver::Record(1)),
        "fill": store.fill("k", 1, RawOver::Nothing, b"v", TTL),
        "renew": store.renew("k", 1, RawOver::Nothing, lease),
        "release": store.release("k", 1, RawOver::Nothing),
        "discard": store.discard("k", RawSlot::WrongType),
        "write": store.write("k", b"v", TTL, &["k2"], "builds"),
        "remove": store.remove(&["k"], "builds"),
        "raise": store.raise(&["k"], "builds", 1, lease),
        "lift": store.lift(&["k"], "builds", 1),
        "withdraw": store.withdraw(&["k"], 1),
        "fence_versions": store.fence_versions(&["kind"], &["tag"], 1, lease),
        "lift_versions": store.lift_versions(&["kind"], &["tag"], 1),
        "withdraw_versions": store.withdraw_versions(&["kind"], &["tag"], 1),
        "register_build": store.register_build("{f@version}:builds", "f@version", "f", TTL),
        "load": store.load("k"),
        "put": store.put("k", b"v", None),
        "create": store.create("k", b"v", None),
        "swap": store.swap("k", b"a", b"b", None),
        "expire": store.expire("k", None),
        "delete": store.delete("k"),
        "hash_set": store.hash_set("h", &[("f", b"v")]),
        "hash_get": store.hash_get("h", "f"),
        "hash_all": store.hash_all("h"),
        "hash_keys": store.hash_keys("h"),
        "hash_remove": store.hash_remove("h", &["f"]),
        "publish": store.publish("news", b"x"),
        "subscribe": store.subscribe("news"),
    }
}

/// Runs them concurrently, because one that fails makes the store drop the connection.
async fn assert_each_call_fails_in_time(store: &RawStore) {
    let calls = every_operation(store).into_iter().map(|(name, call)| async move {
        let Ok(answer) = timeout(BOUND, call).await else { panic!("{name} hangs") };
        let error = answer.map_err(|error| error.kind());
        assert_eq!(error, Err(ErrorKind::Unavailable), "{name}");
    });
    join_all(calls).await;
}

/// Without a connection no call waits for anything: it completes on its first poll.
async fn assert_each_call_fails_at_once(store: &RawStore) {
    eventually("the store is known to be away", || async { !store.is_available() }).await;
    for (name, call) in every_operation(store) {
        let answer = call.now_or_never().unwrap_or_else(|| panic!("{name} waits"));
        assert_eq!(answer.map_err(|error| error.kind()), Err(ErrorKind::Unavailable), "{name}");
    }
}

/// Checks that reads, writes and pushes work again. The round is repeated as a whole: a heartbeat
/// that was sent before the fault ended may miss its deadline and cost the connection once more.
async fn assert_recovers(store: &RawStore) {
    let round = || async {
        store.put("again", b"v", None).await?;
        let (slot, wake) = store.read_and_watch("again").await?;
        assert_eq!(slot, RawSlot::Bytes(b"v".to_vec()));
        store.put("again", b"w", None).await?;
        soon("pushes work again", wake).await;
        store.delete("again").await
    };
    eventually("the store works again", || async { round().await.is_ok() }).await;
}

#[tokio::test]
async fn a_killed_server_fails_calls_at_once_and_is_found_again() {
    let server = RedisServer::start();
    let store = store_at(&server.url()).await;
    let (_, wake) = store.read_and_watch("k").await.unwrap();
    server.kill();
    soon("the waiter is woken", wake).await;
    assert_each_call_fails_in_time(&store).await;
    assert_each_call_fails_at_once(&store).await;
    server.restart();
    assert_recovers(&store).await;
}

#[tokio::test]
async fn a_restarted_server_has_forgotten_leases_and_scripts_and_all_is_well() {
    let server = RedisServer::start();
    let store = store_at(&server.url()).await;
    store.acquire("k", 1, TTL, RawOver::Nothing).await.unwrap();
    store.renew("k", 1, RawOver::Nothing, TTL).await.unwrap();
    server.restart();
    eventually("it is back", || async { store.read("k").await.is_ok() }).await;
    assert!(!store.fill("k", 1, RawOver::Nothing, &record(1, "old"), TTL).await.unwrap());
    assert_recovers(&store).await;
}

#[tokio::test]
async fn a_paused_server_blocks_no_caller() {
    let server = RedisServer::start();
    let store = store_at(&server.url()).await;
    let (_, wake) = store.read_and_watch("k").await.unwrap();
    server.pause();
    assert_each_call_fails_in_time(&store).await;
    soon("the waiter is woken", wake).await;
    assert_each_call_fails_at_once(&store).await;
    server.resume();
    assert_recovers(&store).await;
}

// D5: a call that was given up during the pause gets its reply afterwards, and the reply goes to no
// other caller.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_pause_no_reply_goes_to_a_wrong_caller() {
    let server = RedisServer::start();
    // A long heartbeat interval keeps the connection with the unanswered commands in use. The
    // timeout is long enough for a busy machine; each round waits for it once.
    let options = "?response_timeout=500ms&heartbeat=60s&connect_timeout=10s";
    let store = RawStore::redis(&format!("{}{options}", server.url())).await.unwrap();
    let patient = RawStore::redis(&format!("{}?response_timeout=20s&connect_timeout=20s", server.url())).await.unwrap();
    for n in 0_u32..100 {
        patient.put(&format!("k{n}"), &n.to_le_bytes(), None).await.unwrap();
    }
    for _ in 0..3 {
        server.pause();
        let lost = (0..100).map(|n| {
            let store = store.clone();
            async move { store.read(&format!("k{}", n % 7)).await.is_err() }
        });
        assert!(join_all(lost).await.into_iter().all(|failed| failed));
        server.resume();
        let right = (0_u32..100).map(|n| {
            let store = store.clone();
            async move {
                eventually("the right value comes", || async {
                    match store.read(&format!("k{n}")).await {
                        Ok(found) => {
                            assert_eq!(found, RawSlot::Bytes(n.to_le_bytes().to_vec()));
                            true
                        }
                        Err(error) => {
                            assert_eq!(error.kind(), ErrorKind::Unavailable);
                            false
                        }
                    }
                })
                .await;
            }
        });
        join_all(right).await;
    }
}

#[tokio::test]
async fn a_cut_link_is_made_again() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port()).await;
    let store = store_at(&proxy.url()).await;
    for _ in 0..3 {
        let (_, wake) = store.read_and_watch("k").await.unwrap();
        proxy.cut();
        soon("the waiter is woken", wake).await;
        assert_each_call_fails_in_time(&store).await;
        proxy.heal();
        assert_recovers(&store).await;
    }
}

// R7: on a half-open link nothing arrives, nothing is refused, and no push reports it.
#[tokio::test]
async fn a_frozen_link_is_noticed_without_any_call() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port()).await;
    let store = store_at(&proxy.url()).await;
    let (_, wake) = store.read_and_watch("k").await.unwrap();
    proxy.freeze();
    // The heartbeat detects it. The waiter is woken, because it could miss a change in the
    // meantime.
    soon("the waiter is woken", wake).await;
    assert_each_call_fails_at_once(&store).await;
    proxy.heal();
    assert_recovers(&store).await;
}

// D2
#[tokio::test]
async fn a_slow_link_is_slow_and_nothing_more() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port()).await;
    let store = RawStore::redis(&format!("{}?response_timeout=10s&heartbeat=20ms", proxy.url())).await.unwrap();
    let mut events = store.events();
    proxy.delay(Duration::from_millis(20));
    for (name, call) in every_operation(&store) {
        // A swap of a missing key and a load of a present one are both valid replies.
        call.await.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    assert!(events.try_recv().is_err());
}

// D2
#[tokio::test]
async fn killed_connections_are_made_again_without_an_end() {
    let server = RedisServer::start();
    let store = store_at(&server.url()).await;
    let mut events = store.events();
    for _ in 0..10 {
        server.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
        soon("it is reported", async { while !matches!(events.recv().await.unwrap(), Event::Disconnected { .. }) {} })
            .await;
        soon("it connects", async { while !matches!(events.recv().await.unwrap(), Event::Connected) {} }).await;
        eventually("it works", || async { store.read("k").await.is_ok() }).await;
    }
    let clients = server.cli(&["CLIENT", "LIST"]);
    assert_eq!(clients.lines().filter(|line| line.contains("name=cache-core")).count(), 1, "{clients}");
}

#[tokio::test]
async fn a_subscription_is_taken_up_again_and_says_so() {
    let server = RedisServer::start();
    let store = store_at(&server.url()).await;
    let mut messages = store.subscribe("news").await.unwrap();
    server.restart();
    // Reported twice: when it broke, and when it is back.
    for _ in 0..2 {
        assert_eq!(soon("it is reported", messages.next()).await, Some(RawMessage::Interrupted));
    }
    eventually("the store is back", || async { store.publish("news", b"x").await.is_ok_and(|count| count == 1) }).await;
    assert_eq!(soon("the message arrives", messages.next()).await, Some(RawMessage::Payload(b"x".to_vec())));
}

#[tokio::test]
async fn a_frozen_subscription_is_noticed() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port()).await;
    let store = store_at(&proxy.url()).await;
    let mut messages = store.subscribe("news").await.unwrap();
    proxy.freeze();
    assert_eq!(soon("it is reported", messages.next()).await, Some(RawMessage::Interrupted));
    proxy.heal();
    assert_eq!(soon("it is reported again", messages.next()).await, Some(RawMessage::Interrupted));
    server.cli(&["PUBLISH", "news", "x"]);
    assert_eq!(soon("the message arrives", messages.next()).await, Some(RawMessage::Payload(b"x".to_vec())));
}

// D2
#[tokio::test]
async fn a_full_server_refuses_and_stays_connected() {
    let server = RedisServer::start();
    let store = store_at(&server.url()).await;
    store.acquire("leased", 1, TTL, RawOver::Nothing).await.unwrap();
    server.cli(&["CONFIG", "SET", "maxmemory", "500kb"]);
    for refused in [
        store.put("k", b"v", None).await,
        store.acquire("k", 1, TTL, RawOver::Nothing).await.map(drop),
        store.fill("leased", 1, RawOver::Nothing, b"v", TTL).await.map(drop),
    ] {
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert!(error.to_string().contains("OOM"), "{error}");
    }
    // Operations that free memory still work.
    store.release("leased", 1, RawOver::Nothing).await.unwrap();
    store.remove(&["leased"], "builds").await.unwrap();
    assert_eq!(store.read("k").await.unwrap(), RawSlot::Absent);
    assert!(store.is_available());
}

// D2
#[tokio::test]
async fn a_read_only_replica_refuses_writes() {
    let server = RedisServer::builder().option("replicaof", "127.0.0.1 1").start();
    let store = store_at(&server.url()).await;
    let error = store.put("k", b"v", None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.to_string().contains("READONLY"), "{error}");
}

// D5: futures dropped while the server is stopped leave no waiter and no lease beyond its time.
#[tokio::test]
async fn calls_dropped_at_a_standstill_leave_nothing_behind() {
    let server = RedisServer::start();
    let store = store_at(&server.url()).await;
    server.pause();
    for (_, call) in every_operation(&store) {
        drop(timeout(Duration::from_millis(5), call).await);
    }
    server.resume();
    assert_recovers(&store).await;
    // The acquire may have been executed. Its lease is one second long.
    eventually("no lease stays", || async { !matches!(store.read("k").await, Ok(RawSlot::Leased(_))) }).await;
    eventually("no subscription stays", || async { server.cli(&["PUBSUB", "CHANNELS"]).is_empty() }).await;
}

// D7
#[tokio::test]
async fn closing_is_bounded_whatever_the_server_does() {
    let server = RedisServer::start();
    let store = store_at(&server.url()).await;
    let _messages = store.subscribe("news").await.unwrap();
    server.pause();
    assert!(timeout(BOUND, store.close()).await.unwrap());
    assert_eq!(store.read("k").await.unwrap_err().kind(), ErrorKind::Closed);
    let away = RedisServer::start();
    away.kill();
    let store = store_at(&away.url()).await;
    assert!(timeout(BOUND, store.close()).await.unwrap());
}

// D9: like a global cache in a program, or a test binary, with several successive runtimes.
#[test]
fn a_store_whose_runtime_ended_is_taken_over_by_the_next_call() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let server = RedisServer::start();
    let first = runtime();
    let store = first.block_on(store_at(&server.url()));
    let messages = first.block_on(store.subscribe("news")).unwrap();
    drop(first);
    assert!(!store.is_available());
    runtime().block_on(async {
        store.put("k", b"v", None).await.unwrap();
        assert_ne!(store.read("k").await.unwrap(), RawSlot::Absent);
        assert!(store.is_available());
        assert_eq!(soon("the stream ends", messages.collect::<Vec<_>>()).await, []);
    });
}
