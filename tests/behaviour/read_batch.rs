//! Reads that would queue anyway are sent as one MGET.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use cache_core::store_testing::{RawSlot, RawStore};
use cache_core::{Cache, ErrorKind, cached};
use futures::FutureExt as _;
use futures::future::join_all;
use support::{Monitor, Proxy, RedisServer, eventually, soon};
use tokio::time::timeout;

const READS: usize = 100;

async fn store(server: &RedisServer, options: &str) -> RawStore {
    let store = RawStore::redis(&format!("{}{options}", server.url())).await.unwrap();
    forget_the_set_up(server);
    store
}

/// Resets the statistics: `connect` checks its permissions by reading.
fn forget_the_set_up(server: &RedisServer) {
    server.cli(&["CONFIG", "RESETSTAT"]);
}

async fn fill(store: &RawStore) {
    for number in 0..READS {
        store.put(&key(number), key(number).as_bytes(), None).await.unwrap();
    }
}

fn key(number: usize) -> String {
    format!("key {number}")
}

fn reads(server: &RedisServer) -> BTreeMap<String, u64> {
    let mut counts = server.commandstats();
    counts.retain(|name, _| name == "get" || name == "mget");
    counts
}

#[tokio::test]
async fn reads_that_queue_go_out_as_one_mget_and_each_gets_its_own_value() {
    let server = RedisServer::start();
    let store = store(&server, "").await;
    fill(&store).await;
    let keys: Vec<_> = (0..READS).map(key).collect();
    // A key of another type is absent in an MGET and does not affect the others.
    server.cli(&["DEL", "key 50"]);
    server.cli(&["RPUSH", "key 50", "x"]);
    let found = join_all(keys.iter().map(|key| store.read(key))).await;
    for (number, (key, slot)) in keys.iter().zip(found).enumerate() {
        let expected = if number == 50 { RawSlot::Absent } else { RawSlot::Bytes(key.clone().into_bytes()) };
        assert_eq!(slot.unwrap(), expected, "{key}");
    }
    let (first, rest) = (("get".to_owned(), 1), ("mget".to_owned(), 1));
    assert_eq!(reads(&server), BTreeMap::from([first, rest]));
}

#[tokio::test]
// D5
async fn callers_of_one_key_at_the_same_time_are_one_key_of_the_mget() {
    let server = RedisServer::start();
    let store = store(&server, "").await;
    fill(&store).await;
    let mut monitor = Monitor::start(&server).await;
    let asked = ["key 0", "key 1", "key 2", "key 1", "key 1", "key 2"];
    let mut all: Vec<_> = asked.iter().map(|key| Some(store.read(key).boxed())).collect();
    for read in all.iter_mut().flatten() {
        assert!(read.as_mut().now_or_never().is_none());
    }
    // The caller that requested the key first is dropped. The other callers of the key still get
    // their value.
    all[1] = None;
    for (key, read) in asked.iter().zip(all) {
        if let Some(read) = read {
            assert_eq!(soon("a read", read).await.unwrap(), RawSlot::Bytes(key.as_bytes().to_vec()));
        }
    }
    assert_eq!(monitor.commands().await, [vec!["GET", "key 0"], vec!["MGET", "key 1", "key 2"]]);
}

#[tokio::test]
// R9
async fn a_read_after_a_write_that_was_answered_does_not_share_what_was_sent_before_it() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port()).await;
    let options = "?response_timeout=60s&heartbeat=600s&connect_timeout=60s";
    let store = RawStore::redis(&format!("{}{options}", proxy.url())).await.unwrap();
    forget_the_set_up(&server);
    server.cli(&["SET", "k", "old"]);
    proxy.hold_answers();
    let first = |key| {
        let mut read = store.read(key).boxed();
        assert!(read.as_mut().now_or_never().is_none());
        read
    };
    let (_alone, before) = (first("other"), first("k"));
    eventually("the server has read it", || async { reads(&server).contains_key("mget") }).await;
    server.cli(&["SET", "k", "new"]);
    let after = first("k");
    proxy.heal();
    assert_eq!(soon("the read before", before).await.unwrap(), RawSlot::Bytes(b"old".to_vec()));
    assert_eq!(soon("the read after", after).await.unwrap(), RawSlot::Bytes(b"new".to_vec()));
}

#[tokio::test]
// D5
async fn a_read_that_nobody_polls_holds_up_no_other() {
    let server = RedisServer::start();
    let store = store(&server, "").await;
    fill(&store).await;
    // Polled once. Then its task does something else.
    let mut left = Box::pin(store.read("key 0"));
    assert!(left.as_mut().now_or_never().is_none());
    for number in 0..3 {
        let read = soon("another read at the same time", store.read(&key(number))).await;
        assert_eq!(read.unwrap(), RawSlot::Bytes(key(number).into_bytes()));
    }
    assert_eq!(soon("the first", left).await.unwrap(), RawSlot::Bytes(b"key 0".to_vec()));
}

#[tokio::test]
async fn a_single_read_is_sent_at_once() {
    let server = RedisServer::start();
    let store = store(&server, "").await;
    fill(&store).await;
    for number in 0..READS {
        store.read(&key(number)).await.unwrap();
    }
    assert_eq!(reads(&server), BTreeMap::from([("get".to_owned(), READS as u64)]));
}

#[tokio::test]
// D5
async fn callers_that_are_dropped_leave_the_others_their_own_values() {
    let server = RedisServer::start();
    let store = store(&server, "").await;
    fill(&store).await;
    let keys: Vec<_> = (0..READS).map(key).collect();
    for round in 0..20 {
        let mut asked: Vec<_> = keys.iter().map(|key| Some(store.read(key).boxed())).collect();
        for read in asked.iter_mut().flatten() {
            assert!(read.as_mut().now_or_never().is_none());
        }
        // Some are dropped before their batch is sent, some while it is in transit.
        if round % 2 == 1 {
            tokio::task::yield_now().await;
        }
        asked.iter_mut().skip(round % 3).step_by(3).for_each(|read| *read = None);
        let left = keys.iter().zip(asked).filter_map(|(key, read)| Some((key, read?)));
        for (key, read) in left {
            assert_eq!(read.await.unwrap(), RawSlot::Bytes(key.clone().into_bytes()), "{key}");
        }
    }
}

#[tokio::test]
// D2
async fn each_read_that_queues_fails_in_time_when_the_server_stops_to_answer() {
    let server = RedisServer::start();
    let store = store(&server, "?response_timeout=100ms&connect_timeout=200ms&heartbeat=50ms").await;
    fill(&store).await;
    server.pause();
    // More keys than fit into the MGETs in flight. Nothing else reports the failure to those that
    // queue.
    let keys: Vec<_> = (0..1000).map(key).collect();
    let all = join_all(keys.iter().map(|key| store.read(key)));
    let answers = timeout(Duration::from_secs(3), all).await.expect("they hang");
    for answer in answers {
        assert_eq!(answer.map_err(|error| error.kind()), Err(ErrorKind::Unavailable));
    }
    server.resume();
    eventually("reads work again", || async { store.read("key 1").await.is_ok() }).await;
}

#[tokio::test]
// T1, T5
async fn values_that_come_together_are_kept_and_followed_one_by_one() {
    static COMPUTED: AtomicU32 = AtomicU32::new(0);
    #[cached(name = "together", ttl = 60, skip(cache), cache = cache)]
    async fn together(cache: &Cache, id: usize) -> Arc<u32> {
        let _ = cache;
        let _ = id;
        Arc::new(COMPUTED.fetch_add(1, Ordering::SeqCst))
    }
    let server = RedisServer::start();
    let cache = || async { Cache::builder().url(server.patient_url()).connect().await.unwrap() };
    let (writer, reader) = (cache().await, cache().await);
    let written = join_all((0..READS).map(|id| together(&writer, id))).await;
    assert_eq!(together(&reader, 0).await, written[0]);
    let read = join_all((0..READS).map(|id| together(&reader, id))).await;
    assert_eq!((&read, reader.stats().computes), (&written, 0));
    let again = join_all((0..READS).map(|id| together(&reader, id))).await;
    assert_eq!((again, reader.stats().local_hits), (read, READS as u64 + 1));
    together::entry(7).on(&writer).invalidate().await.unwrap();
    eventually("the reader sees the change", || async { together(&reader, 7).await != written[7] }).await;
    assert_eq!((together(&reader, 8).await, reader.stats().computes), (Arc::clone(&written[8]), 1));
}
