//! How much is sent in one round trip, and what waits behind it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use cache_core::clock::Clock;
use cache_core::store_testing::{RawSlot, RawStore};
use cache_core::{Cache, ErrorKind, cached};
use futures::StreamExt as _;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use support::{Proxy, RedisServer, eventually, soon};

const MIB: usize = 1 << 20;
/// Through a slow proxy, no reply larger than this many bytes arrives within the timeout.
const SHORT: &str = "?response_timeout=1s&heartbeat=100ms&connect_timeout=5s&max_staleness=2s";

/// The data source behind the cache: the number of requested ids, and the number of renewals at the
/// time of the last request.
#[derive(Clone, Default)]
struct Db {
    asked: Arc<AtomicUsize>,
    asked_at: Arc<AtomicU64>,
}

#[cached(batch, name = "large", ttl = 600, skip(cache, db, bytes), cache = cache)]
async fn large(cache: &Cache, db: &Db, ids: &[u32], bytes: usize) -> HashMap<u32, Arc<str>> {
    let _ = cache;
    db.asked.fetch_add(ids.len(), Ordering::SeqCst);
    ids.iter().map(|id| (*id, format!("{id} {}", "x".repeat(bytes)).into())).collect()
}

async fn cache(proxy: &Proxy) -> Cache {
    let builder = Cache::builder().url(format!("{}{SHORT}", proxy.url()));
    // Longer than a busy machine takes to encode all values: leases are not the subject.
    builder.lease(Duration::from_secs(60)).connect().await.expect("the server is up")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// C3
async fn many_values_of_a_mebibyte_are_stored_and_read_without_a_fault_and_the_connection_stays() {
    let (server, ids) = (RedisServer::start(), (0..30).collect::<Vec<u32>>());
    let proxy = Proxy::start(server.port()).await;
    let (here, there, db) = (cache(&proxy).await, cache(&proxy).await, Db::default());
    let connections = proxy.connections();
    // All of them take two seconds or more, one of them a twentieth of that.
    proxy.delay(Duration::from_millis(5));
    for node in [&here, &there] {
        let values = soon("the batch", large(node, &db, &ids, MIB)).await;
        assert_eq!(values.len(), ids.len());
        let stats = node.stats();
        assert_eq!((stats.store_failures, stats.refused_fills), (0, 0));
    }
    assert_eq!(db.asked.load(Ordering::SeqCst), ids.len(), "each was computed once");
    assert_eq!((there.stats().hits, there.stats().computes), (ids.len() as u64, 0));
    assert_eq!(proxy.connections(), connections, "no connection was closed");
    assert!(here.is_available() && there.is_available());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// C3
async fn small_reads_behind_the_largest_value_wait_for_it_and_the_connection_stays() {
    for of_url in [RedisServer::unix_url, RedisServer::tls_url, RedisServer::url] {
        let Some(server) = RedisServer::with_tls() else { return };
        let separator = if of_url(&server).contains('?') { '&' } else { '?' };
        let url = format!("{}{separator}{}", of_url(&server), SHORT.trim_start_matches('?'));
        let (cache, db) = (Cache::builder().url(url).connect().await.unwrap(), Db::default());
        large(&cache, &db, &[1], 10).await;
        // Near the limit of a value.
        let most = (16 << 20) - 1000;
        let (large_one, small) = tokio::join!(large(&cache, &db, &[2], most), large(&cache, &db, &[1], 10));
        assert_eq!((large_one[&2].len(), small[&1].len()), (most + 2, 12));
        assert_eq!((cache.stats().store_failures, cache.stats().fills), (0, 2), "{}", of_url(&server));
    }
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port()).await;
    let store = RawStore::redis(&format!("{}{SHORT}", proxy.url())).await.unwrap();
    store.put("large", &vec![7; 16 << 20], None).await.unwrap();
    store.put("small", b"small", None).await.unwrap();
    let connections = proxy.connections();
    // 256 pieces: at least two seconds, twice the response timeout.
    proxy.delay(Duration::from_millis(8));
    let large = store.read("large");
    let small = async {
        for _ in 0..20 {
            assert_eq!(store.read("small").await.unwrap(), RawSlot::Bytes(b"small".to_vec()));
        }
    };
    let (large, ()) = soon("all of them", async { tokio::join!(large, small) }).await;
    assert!(matches!(large.unwrap(), RawSlot::Bytes(bytes) if bytes.len() == 16 << 20));
    assert_eq!(proxy.connections(), connections);
}

#[tokio::test]
// C3, D2
async fn reads_that_queue_are_sent_by_their_expected_bytes() {
    let server = RedisServer::start();
    let store = RawStore::redis(&server.url()).await.unwrap();
    let keys: Vec<String> = (0..100).map(|id| format!("app:f:{id}@v1")).collect();
    join_all(keys.iter().map(|key| store.put(key, &[7; 200_000], None))).await;
    for round in 0..3 {
        let before = server.commandstats();
        let found = join_all(keys.iter().map(|key| store.read(key))).await;
        assert!(found.iter().all(|slot| matches!(slot, Ok(RawSlot::Bytes(bytes)) if bytes.len() == 200_000)));
        let sent = server.commandstats()["mget"] - before.get("mget").copied().unwrap_or(0);
        // Five of them are a MiB, which is known from the first round.
        if round > 0 {
            assert!((19..=25).contains(&sent), "{sent}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// C3, D2
async fn three_thousand_reads_over_a_slow_link_all_get_their_values() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port()).await;
    let store = RawStore::redis(&format!("{}?response_timeout=500ms&heartbeat=100ms", proxy.url())).await.unwrap();
    let keys = put_many(&store, 3000).await;
    proxy.delay(Duration::from_millis(60));
    let found = soon("all reads", join_all(keys.iter().map(|key| store.read(key)))).await;
    let failed = found.iter().filter(|found| found.is_err()).count();
    assert_eq!(failed, 0);
}

/// Stores different keys, because concurrent callers of one key share its read.
async fn put_many(store: &RawStore, many: usize) -> Vec<String> {
    let keys: Vec<String> = (0..many).map(|number| format!("app:f:{number}@v1")).collect();
    for key in &keys {
        store.put(key, b"seven", None).await.unwrap();
    }
    keys
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// C3, D2
async fn reads_that_queue_behind_one_that_times_out_get_their_values() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port()).await;
    let store = RawStore::redis(&format!("{}?response_timeout=1s&heartbeat=5s", proxy.url())).await.unwrap();
    let keys = put_many(&store, 1000).await;
    // The limits of a round trip are known.
    join_all(keys.iter().map(|key| store.read(key))).await;
    proxy.freeze();
    let mut reads: FuturesUnordered<_> = keys.iter().map(|key| store.read(key)).collect();
    let mut failed = 0;
    soon("all reads", async {
        while let Some(read) = reads.next().await {
            match read {
                Ok(found) => assert_eq!(found, RawSlot::Bytes(b"seven".to_vec())),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Unavailable);
                    failed += 1;
                    // The first read has timed out. From now on there are replies.
                    proxy.heal();
                }
            }
        }
    })
    .await;
    assert!((1..=4 + 2 * 128).contains(&failed), "{failed} of those that were sent, and none after them");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// C1, B1
async fn a_very_large_batch_is_complete_and_its_leases_are_renewed_while_others_are_taken_and_filled() {
    let (server, clock) = (RedisServer::start(), Clock::manual());
    let proxy = Proxy::start(server.port()).await;
    let node = async || {
        let settings = Cache::builder().url(proxy.url()).clock(clock.clone()).deadline(None).local_limit_bytes(0);
        settings.connect().await.expect("the server is up")
    };
    let there = Cache::builder().url(server.url()).connect().await.expect("the server is up");
    let (here, db) = (node().await, Db::default());
    let ids: Vec<u32> = (0..5000).collect();

    #[cached(batch, name = "many", ttl = "30d", skip(cache, db), cache = cache)]
    async fn many(cache: &Cache, db: &Db, ids: &[u32]) -> HashMap<u32, u32> {
        db.asked.fetch_add(ids.len(), Ordering::SeqCst);
        db.asked_at.store(cache.stats().renewals, Ordering::SeqCst);
        ids.iter().map(|id| (*id, *id)).collect()
    }

    // More than a third of a lease's time passes between any two round trips.
    let passes = async {
        let mut sent = proxy.sendings();
        loop {
            if std::mem::replace(&mut sent, proxy.sendings()) != sent {
                clock.advance(Duration::from_secs(4));
            }
            tokio::task::yield_now().await;
        }
    };
    let values = soon("the batch", async {
        tokio::select! {
            values = many(&here, &db, &ids) => values,
            () = passes => HashMap::new(),
        }
    })
    .await;
    assert_eq!(values.len(), ids.len());
    let (stats, before_the_run) = (here.stats(), db.asked_at.load(Ordering::SeqCst));
    assert!(before_the_run >= 1000, "{before_the_run} renewed while the others were taken");
    assert!(stats.renewals >= before_the_run + 1000, "{} renewed while others were filled", stats.renewals);
    assert_eq!((stats.store_failures, stats.refused_fills, stats.fills), (0, 0, ids.len() as u64));
    let again = soon("the batch", many(&there, &db, &ids)).await;
    assert_eq!(db.asked.load(Ordering::SeqCst), ids.len(), "{:?}", there.stats());
    assert!(again == values);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// C1, D2
async fn a_very_large_batch_is_complete_whichever_of_its_reads_fails() {
    let server = RedisServer::start();
    let there = Cache::builder().url(server.url()).connect().await.unwrap();
    let ids: Vec<u32> = (0..3000).collect();
    assert_eq!(large(&there, &Db::default(), &ids, 8).await.len(), ids.len());
    let mut computed = Vec::new();
    for after in 0.. {
        let proxy = Proxy::start(server.port()).await;
        let here = Cache::builder().url(proxy.url()).connect().await.unwrap();
        let db = Db::default();
        proxy.lose(after, support::Loss::Request);
        let values = soon("the batch", large(&here, &db, &ids, 8)).await;
        assert!(ids.iter().all(|id| values.contains_key(id)), "trip {after} is lost: {} values", values.len());
        if !proxy.has_lost() {
            break;
        }
        computed.push(db.asked.load(Ordering::SeqCst));
    }
    assert!(computed.iter().any(|computed| (1..ids.len()).contains(computed)), "some were read: {computed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// C1, I1
async fn very_many_tags_are_invalidated_in_one_call_and_a_failure_says_how_many() {
    const TAGS: usize = 10_000;
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port()).await;
    let cache = Cache::builder().url(proxy.url()).connect().await.unwrap();
    let tags = || (0..TAGS).map(|number| format!("row:{number}"));
    let sets = || server.commandstats().get("set").copied().unwrap_or(0);
    let before = sets();
    soon("the invalidation", cache.invalidate_tags(tags())).await.unwrap();
    assert_eq!(sets() - before, TAGS as u64 + 1, "each tag, and their kind");
    proxy.lose(8, support::Loss::Request);
    let error = soon("the invalidation", cache.invalidate_tags(tags())).await.unwrap_err();
    assert!(proxy.has_lost());
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let text = error.to_string();
    assert!(text.contains("000 of 10001 were completed before; the others may or may not have been"), "{text}");
    // The lost connection may count as available until its end is noticed.
    eventually("it has a new connection", || async { cache.stats().connects == 2 && cache.is_available() }).await;
    let mut fence = cache.fence();
    for tag in tags() {
        fence = fence.tag(tag);
    }
    let fence = soon("the fence", fence.raise()).await.unwrap();
    soon("its end", fence.withdraw()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// C1
async fn the_server_tracks_no_key_that_is_not_kept() {
    #[cached(name = "kept_nowhere", ttl = 600, skip(cache), cache = cache, local = false)]
    async fn kept_nowhere(cache: &Cache, id: u32) -> u32 {
        let _ = cache;
        id
    }
    #[cached(batch, name = "kept_nowhere", ttl = 600, skip(cache), cache = cache, local = false)]
    async fn many_kept_nowhere(cache: &Cache, ids: &[u32]) -> HashMap<u32, u32> {
        let _ = cache;
        ids.iter().map(|id| (*id, *id)).collect()
    }
    #[cached(name = "kept", ttl = 600, skip(cache), cache = cache)]
    async fn kept(cache: &Cache, id: u32) -> u32 {
        let _ = cache;
        id
    }
    let tracked = |server: &RedisServer| -> u32 {
        let info = server.cli(&["INFO", "stats"]);
        let line = info.lines().find_map(|line| line.strip_prefix("tracking_total_keys:")).unwrap();
        line.trim().parse().unwrap()
    };
    let server = RedisServer::start();
    let without = Cache::builder().url(server.url()).local_limit_bytes(0).connect().await.unwrap();
    let with = Cache::builder().url(server.url()).connect().await.unwrap();
    for (cache, round) in [(&without, 0), (&with, 1), (&without, 2), (&with, 3)] {
        for id in 0..50 {
            assert_eq!(kept_nowhere(cache, id).await, id);
        }
        let ids: Vec<u32> = (0..200).collect();
        assert_eq!(many_kept_nowhere(cache, &ids).await.len(), 200, "{round}");
        join_all((0..200).map(|id| kept_nowhere(cache, id))).await;
    }
    for id in 1000..1100 {
        kept(&without, id).await;
    }
    // The versions of the namespace and of two functions.
    assert!(tracked(&server) <= 3, "{}", tracked(&server));
    for id in 0..100 {
        kept(&with, id).await;
    }
    assert!(tracked(&server) >= 100, "what is kept is");
}
