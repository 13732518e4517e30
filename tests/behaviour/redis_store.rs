//! Promises of the Redis store only: other programs write to it too, and operations have their
//! expected cost.

use std::collections::BTreeMap;
use std::time::Duration;

use cache_core::store_testing::{RawAcquired, RawMessage, RawOver, RawSlot, RawStore, record};
use futures::{FutureExt, StreamExt};
use support::{PATIENT, Proxy, RedisServer, eventually, soon};

const LEASE: Duration = Duration::from_secs(10);
const TTL: Duration = Duration::from_secs(60);

async fn started() -> (RedisServer, RawStore) {
    let server = RedisServer::start();
    let store = RawStore::redis(&server.patient_url()).await.unwrap();
    (server, store)
}

// R1: a DEL typed by hand
#[tokio::test]
async fn a_foreign_del_kills_the_fill_in_flight() {
    let (server, store) = started().await;
    store.acquire("k", 1, LEASE, RawOver::Nothing).await.unwrap();
    server.cli(&["DEL", "k"]);
    assert!(!store.fill("k", 1, RawOver::Nothing, &record(1, "old"), TTL).await.unwrap());
    store.write("k", &record(2, "stale"), TTL, &[], "builds").await.unwrap();
    store.acquire("k", 3, LEASE, RawOver::Record(2)).await.unwrap();
    server.cli(&["DEL", "k"]);
    assert!(!store.fill("k", 3, RawOver::Record(2), &record(3, "old"), TTL).await.unwrap());
    assert_eq!(server.cli(&["EXISTS", "k"]), "0");
}

// X2, T5
#[tokio::test]
async fn every_foreign_change_wakes_a_waiter() {
    let (server, store) = started().await;
    for (before, change) in [
        (&["DEL", "k"][..], &["SET", "k", "v"][..]),
        (&["SET", "k", "v"], &["SET", "k", "w"]),
        (&["SET", "k", "v"], &["DEL", "k"]),
        (&["SET", "k", "v"], &["PEXPIRE", "k", "20"]),
        (&["SET", "k", "v"], &["FLUSHALL"]),
        (&["SET", "k", "v"], &["FLUSHDB"]),
        (&["SET", "k", "v"], &["RENAME", "k", "l"]),
        (&["SET", "k", "v"], &["EVAL", "return redis.call('SET', 'k', 'x')", "0"]),
    ] {
        server.cli(before);
        let (_, wake) = store.read_and_watch("k").await.unwrap();
        server.cli(change);
        soon(&format!("{change:?} wakes"), wake).await;
    }
    // The key expires by itself. If it has expired before it is read, it is written again with a
    // longer ttl.
    let mut lasts = 30;
    loop {
        server.cli(&["SET", "k", "v", "PX", &lasts.to_string()]);
        let (slot, wake) = store.read_and_watch("k").await.unwrap();
        if slot != RawSlot::Absent {
            soon("an end in time wakes", wake).await;
            break;
        }
        lasts *= 2;
    }
}

// X2: the tracking of a key ends with one change, so each wait registers again.
#[tokio::test]
async fn waiters_are_woken_again_and_again() {
    let (server, store) = started().await;
    let other = RawStore::redis(&server.patient_url()).await.unwrap();
    for round in 0_u32..200 {
        let (_, wake) = store.read_and_watch("k").await.unwrap();
        let (_, also) = store.read_and_watch("k").await.unwrap();
        let writer = if round % 2 == 0 { &other } else { &store };
        writer.put("k", &round.to_le_bytes(), None).await.unwrap();
        soon("both are woken", futures::future::join(wake, also)).await;
    }
}

// X2: the last value is seen, whatever the order of read and write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_change_after_the_read_is_missed() {
    let (server, store) = started().await;
    let other = RawStore::redis(&server.patient_url()).await.unwrap();
    let writes = async {
        for round in 1_u32..=300 {
            other.put("k", &round.to_le_bytes(), None).await.unwrap();
        }
    };
    let reads = soon("the last value is seen", async {
        loop {
            let (slot, wake) = store.read_and_watch("k").await.unwrap();
            if slot == RawSlot::Bytes(300_u32.to_le_bytes().to_vec()) {
                return;
            }
            wake.await;
        }
    });
    tokio::join!(writes, reads);
}

#[tokio::test]
async fn scripts_survive_script_flush() {
    let (server, store) = started().await;
    for _ in 0..2 {
        server.cli(&["SCRIPT", "FLUSH"]);
        store.acquire("k", 1, LEASE, RawOver::Nothing).await.unwrap();
        server.cli(&["SCRIPT", "FLUSH"]);
        assert!(store.renew("k", 1, RawOver::Nothing, LEASE).await.unwrap());
        server.cli(&["SCRIPT", "FLUSH"]);
        assert!(store.fill("k", 1, RawOver::Nothing, &record(1, "v"), TTL).await.unwrap());
        server.cli(&["SCRIPT", "FLUSH"]);
        assert_eq!(store.acquire("k", 2, LEASE, RawOver::Record(1)).await.unwrap(), RawAcquired::Ours);
        server.cli(&["FLUSHALL"]);
    }
}

// X2
#[tokio::test]
async fn tracking_a_read_pushes_once_and_only_then() {
    let (server, store) = started().await;
    store.read("plain").await.unwrap();
    let (_, mut wake) = store.read_and_watch("k").await.unwrap();
    server.cli(&["SET", "plain", "v"]);
    let tracked = server.cli(&["INFO", "stats"]);
    assert!(tracked.contains("tracking_total_keys:1\r") || tracked.contains("tracking_total_keys:1\n"), "{tracked}");
    assert!((&mut wake).now_or_never().is_none());
}

/// Checks the round trips that the design promises, by the commands that the server counts.
#[tokio::test]
async fn each_operation_costs_what_it_should() {
    let (server, store) = started().await;
    // Loads the scripts.
    store.acquire("k", 1, LEASE, RawOver::Nothing).await.unwrap();
    store.fill("k", 1, RawOver::Nothing, &record(1, "v"), TTL).await.unwrap();
    store.delete("k").await.unwrap();
    server.cli(&["CONFIG", "RESETSTAT"]);

    for _ in 0..10 {
        store.read("k").await.unwrap();
    }
    store.acquire("k", 1, LEASE, RawOver::Nothing).await.unwrap();
    store.fill("k", 1, RawOver::Nothing, &record(1, "v"), TTL).await.unwrap();
    store.remove(&["k"], "builds").await.unwrap();

    let counted = server.commandstats();
    let of = |name: &str| counted.get(name).copied().unwrap_or(0);
    // The fill's script compares with a GETRANGE and writes with a SET. Another GETRANGE makes the
    // server track the key again.
    let expected =
        [("get", 10), ("set", 2), ("evalsha", 1), ("getrange", 2), ("unlink", 1), ("smembers", 1), ("eval", 0)];
    let expected: BTreeMap<_, _> = expected.into();
    let found: BTreeMap<_, _> = expected.keys().map(|name| (*name, of(name))).collect();
    assert_eq!(found, expected);
    assert_eq!(of("script|load"), 0);
}

#[tokio::test]
async fn the_connection_sets_its_client_name() {
    let server = RedisServer::start();
    let store = RawStore::redis(&format!("{}?client_name=blog-web", server.url())).await.unwrap();
    let clients = server.cli(&["CLIENT", "LIST"]);
    assert!(clients.contains("name=blog-web") && clients.contains("resp=3"), "{clients}");
    assert!(store.is_available());
}

// R14
#[tokio::test]
async fn time_is_the_servers() {
    let (server, store) = started().await;
    let told = server.cli(&["TIME"]);
    let seconds: u64 = told.lines().next().unwrap().parse().unwrap();
    let ours = store.now_millis() / 1000;
    assert!(ours.abs_diff(seconds) <= 2, "{ours} {seconds}");
}

#[tokio::test]
async fn subscribers_of_one_channel_share_one_subscription() {
    let (server, store) = started().await;
    let mut all = Vec::new();
    for _ in 0..20 {
        all.push(store.subscribe("news").await.unwrap());
    }
    assert_eq!(server.cli(&["PUBSUB", "NUMSUB", "news"]), "news\n1");
    assert_eq!(server.cli(&["PUBLISH", "news", "x"]), "1");
    for subscriber in &mut all {
        let message = soon("the message arrives", subscriber.next()).await;
        assert_eq!(message, Some(RawMessage::Payload(b"x".to_vec())));
    }
    drop(all);
    // The connection for messages closes with the last subscriber.
    eventually("only the main connection is left", || async {
        server.cli(&["CLIENT", "LIST"]).lines().filter(|line| line.contains("lib-name=cache-core")).count() <= 1
            && server.cli(&["PUBSUB", "NUMSUB", "news"]) == "news\n0"
    })
    .await;
}

#[tokio::test]
async fn a_slow_subscriber_is_told_that_it_missed_messages() {
    let (_server, store) = started().await;
    let mut messages = store.subscribe("news").await.unwrap();
    let mut quick = store.subscribe("news").await.unwrap();
    for n in 0_u32..3000 {
        store.publish("news", &n.to_le_bytes()).await.unwrap();
        soon("the quick one has it", quick.next()).await;
    }
    assert_eq!(soon("something arrives", messages.next()).await, Some(RawMessage::Interrupted));
    assert!(matches!(messages.next().await, Some(RawMessage::Payload(_))));
}

#[tokio::test]
async fn a_unix_socket_works() {
    let server = RedisServer::start();
    let store = RawStore::redis(&server.unix_url()).await.unwrap();
    store.put("k", b"v", None).await.unwrap();
    assert_eq!(server.cli(&["GET", "k"]), "v");
    let third = RawStore::redis(&format!("{}?db=3", server.unix_url())).await.unwrap();
    third.put("k", b"three", None).await.unwrap();
    assert_eq!(server.cli(&["-n", "3", "GET", "k"]), "three");
}

#[tokio::test]
async fn tls_works_with_its_authority() {
    let Some(server) = RedisServer::with_tls() else { return };
    let store = RawStore::redis(&server.tls_url()).await.unwrap();
    let (_, wake) = store.read_and_watch("k").await.unwrap();
    server.cli(&["SET", "k", "v"]);
    soon("the push comes over TLS", wake).await;
    assert_eq!(store.read("k").await.unwrap(), RawSlot::Bytes(b"v".to_vec()));
}

// D5: callers are dropped at random moments, and no reply goes to another caller.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_reply_to_a_dropped_call_reaches_no_other_call() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port()).await;
    proxy.delay(Duration::from_millis(1));
    let store = RawStore::redis(&format!("{}?{PATIENT}", proxy.url())).await.unwrap();
    for n in 0_u32..50 {
        store.put(&format!("k{n}"), &n.to_le_bytes(), None).await.unwrap();
    }
    let calls = (0_u32..2000).map(|n| {
        let store = store.clone();
        async move {
            let key = format!("k{}", n % 50);
            let read = store.read(&key);
            let limit = Duration::from_micros(u64::from(n % 7) * 400);
            match tokio::time::timeout(limit, read).await {
                Ok(Ok(found)) => assert_eq!(found, RawSlot::Bytes((n % 50).to_le_bytes().to_vec())),
                Ok(Err(error)) => panic!("{error}"),
                Err(_dropped) => {}
            }
        }
    });
    futures::stream::iter(calls).buffer_unordered(64).collect::<Vec<()>>().await;
    proxy.heal();
    for n in 0_u32..50 {
        assert_eq!(store.read(&format!("k{n}")).await.unwrap(), RawSlot::Bytes(n.to_le_bytes().to_vec()));
    }
}
