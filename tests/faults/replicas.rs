//! Invalidations that wait for replicas, so that a failover does not undo them.

use std::time::{Duration, Instant};

use cache_core::{Cache, Error, ErrorKind, cached};
use futures::future::join_all;
use support::{Proxy, RedisServer, eventually, soon};

#[cached(name = "row", ttl = 60, key = "{id}", skip(cache, text), cache = cache, tags("rows"))]
async fn row(cache: &Cache, id: u32, text: &str) -> String {
    let _ = (cache, id);
    text.to_owned()
}

/// Returns a primary and a replica that follows it.
async fn pair() -> (RedisServer, RedisServer) {
    let primary = RedisServer::builder().option("repl-diskless-sync-delay", "0").start();
    let replica = RedisServer::builder().replica_of(&primary).start();
    // Both sides know each other's state before the first write of the test.
    primary.cli(&["SET", "probe", "1"]);
    eventually("the replica follows", || async { replica.cli(&["EXISTS", "probe"]) == "1" }).await;
    primary.cli(&["SET", "probe", "2"]);
    eventually("it goes on", || async { replica.cli(&["GET", "probe"]) == "2" }).await;
    (primary, replica)
}

/// Returns a cache without a local tier, so that reads show the state of the store.
async fn waiting(server: &RedisServer, timeout: Duration) -> Cache {
    let settings = Cache::builder().url(server.url()).local_limit_bytes(0).wait_for_replicas(1, timeout);
    settings.connect().await.expect("the server is up")
}

const LONG: Duration = Duration::from_secs(10);

/// Every operation that ends values, by name.
const WAYS: [&str; 7] = ["entry", "set", "tag", "function", "everything", "fence raised", "fence lifted"];

async fn end(cache: &Cache, how: &str) -> Result<(), Error> {
    let entry = row::entry(7).on(cache);
    match how {
        "entry" => entry.invalidate().await,
        "set" => entry.set("new".to_owned()).await,
        "tag" => cache.invalidate_tag("rows").await,
        "function" => row::invalidate_all(cache).await,
        "everything" => cache.clear().await,
        // Lifted in the background, at an unspecified time.
        "fence raised" => cache.fence().entry(&entry).tag("rows").raise().await.map(drop),
        _ => {
            let without = cache.fence().entry(&entry).raise().await;
            match without {
                Ok(fence) => fence.lift().await,
                Err(error) => Err(error),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// R24
async fn what_was_invalidated_stays_so_after_a_failover() {
    for how in WAYS {
        let (primary, replica) = pair().await;
        let cache = waiting(&primary, LONG).await;
        assert_eq!(row(&cache, 7, "old").await, "old");
        eventually("the replica has it", || async { replica.cli(&["EXISTS", row::entry(7).on(&cache).key()]) == "1" })
            .await;
        soon(how, end(&cache, how)).await.unwrap();
        primary.kill();
        replica.cli(&["REPLICAOF", "NO", "ONE"]);
        let after = Cache::builder().url(replica.url()).local_limit_bytes(0).connect().await.unwrap();
        assert_eq!(row(&after, 7, "new").await, "new", "{how}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// R24
async fn too_few_replicas_are_an_error_that_counts_them_and_reads_wait_for_nothing() {
    let (primary, replica) = pair().await;
    let reader = Cache::builder().url(primary.url()).local_limit_bytes(0).connect().await.unwrap();
    row(&reader, 7, "old").await;
    // Connected before, so that the time measured below is the wait.
    let cache = waiting(&primary, Duration::from_secs(3)).await;
    soon("all are there", end(&cache, "tag")).await.unwrap();
    replica.pause();
    for how in ["entry", "tag"] {
        let ended = tokio::spawn({
            let cache = cache.clone();
            async move { (Instant::now(), end(&cache, how).await, Instant::now()) }
        });
        // Sent and not answered: the WAIT is blocked from here on.
        eventually("it is under way", || async { primary.cli(&["INFO", "clients"]).contains("blocked_clients:1") })
            .await;
        for _ in 0..20 {
            assert_eq!(row(&cache, 8, "read").await, "read");
        }
        assert!(!ended.is_finished(), "{how}: twenty reads took as long as the replica was given");
        let (began, error, over) = soon(how, ended).await.unwrap();
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotReplicated, "{error}");
        assert!(error.to_string().contains("0 of 1 replicas have acknowledged the write within 3000 ms"), "{error}");
        assert!(over - began >= Duration::from_secs(3), "{:?}", over - began);
        assert!(!error.is_transient());
        // It is done on the primary.
        assert_eq!(row(&reader, 7, how).await, how);
    }
    replica.resume();
    soon("the replica is back", end(&cache, "entry")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// R24
async fn every_kind_of_invalidation_waits() {
    let (primary, replica) = pair().await;
    let cache = waiting(&primary, Duration::from_millis(20)).await;
    let plain = Cache::builder().url(primary.url()).connect().await.unwrap();
    replica.pause();
    for how in WAYS {
        row(&plain, 7, "old").await;
        // A script that has to be sent again is waited for as well.
        primary.cli(&["SCRIPT", "FLUSH"]);
        let error = soon(how, end(&cache, how)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotReplicated, "{how}: {error}");
        soon("without the option", end(&plain, how)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// R24
async fn callers_at_the_same_time_share_the_wait() {
    let (primary, replica) = pair().await;
    let cache = waiting(&primary, Duration::from_secs(1)).await;
    soon("all are there", end(&cache, "tag")).await.unwrap();
    // Stored first, because a removal of an absent entry changes nothing and is not replicated.
    for id in 0..50 {
        row(&cache, id, "old").await;
    }
    let before = primary.commandstats().get("wait").copied().unwrap_or(0);
    replica.pause();
    let began = Instant::now();
    let all = join_all((0..50).map(|id| {
        let entry = row::entry(id).on(&cache);
        async move { entry.invalidate().await.unwrap_err().kind() }
    }));
    let kinds = soon("all of them", all).await;
    assert_eq!(kinds, vec![ErrorKind::NotReplicated; 50]);
    let waits = primary.commandstats()["wait"] - before;
    assert!((1..=5).contains(&waits), "{waits} for 50 callers, in {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// R24, D2
async fn the_waiting_connection_comes_back_after_a_restart_and_a_dropped_caller_blocks_no_other() {
    let (primary, replica) = pair().await;
    let cache = waiting(&primary, Duration::from_secs(3)).await;
    soon("all are there", end(&cache, "entry")).await.unwrap();
    // Something to end: by its entry, and by its tag.
    row(&cache, 7, "old").await;
    replica.pause();
    let dropped = tokio::spawn({
        let cache = cache.clone();
        async move { end(&cache, "entry").await }
    });
    eventually("it is under way", || async { primary.cli(&["INFO", "clients"]).contains("blocked_clients:1") }).await;
    dropped.abort();
    let error = soon("the next one", end(&cache, "tag")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotReplicated, "{error}");
    replica.resume();
    primary.restart();
    eventually("both connections and the replica are back", || async { end(&cache, "entry").await.is_ok() }).await;
}

#[tokio::test]
// R24
async fn a_server_without_replicas_says_so_and_the_embedded_store_needs_none() {
    let server = RedisServer::start();
    let url = format!("{}?wait_for_replicas=2&replica_timeout=50ms", server.url());
    let cache = Cache::connect(&url).await.unwrap();
    let error = soon("at once, nearly", end(&cache, "everything")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotReplicated);
    assert!(error.to_string().contains("0 of 2 replicas"), "{error}");

    let embedded = Cache::builder().wait_for_replicas(1, LONG).in_memory();
    for how in WAYS {
        end(&embedded, how).await.unwrap();
    }
    let never = Cache::builder().url(server.url()).wait_for_replicas(1, Duration::ZERO).connect().await.unwrap_err();
    assert_eq!(never.kind(), ErrorKind::Configuration);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// R9, R24
async fn what_was_read_while_a_write_waits_for_replicas_is_not_served_after_it() {
    let (primary, _replica) = pair().await;
    let proxy = Proxy::start(primary.port()).await;
    let settings = Cache::builder().url(proxy.url()).max_staleness(Duration::from_secs(60));
    let cache = settings.wait_for_replicas(1, LONG).connect().await.expect("the server is up");
    // Stores the old value.
    assert_eq!(row(&cache, 7, "old").await, "old");
    let main = proxy.connections() - 1;
    // The first write opens the waiting connection, which takes as long as it is held here.
    proxy.hold(&[main + 1]);
    let write = tokio::spawn({
        let cache = cache.clone();
        async move { row::entry(7).on(&cache).set("new".to_owned()).await }
    });
    eventually("the write makes its connection", || async { proxy.connections() == main + 2 }).await;
    eventually("the old value is in the process again", || async {
        let hits = cache.stats().local_hits;
        assert_eq!(row(&cache, 7, "computed").await, "old");
        cache.stats().local_hits > hits
    })
    .await;
    // Now the write gets through, but its push does not.
    proxy.hold(&[main]);
    soon("the write", write).await.unwrap().unwrap();
    assert_eq!(soon("a read", row(&cache, 7, "computed")).await, "computed", "the store does not answer");
    proxy.hold(&[]);
    eventually("the store answers", || async { row(&cache, 7, "computed again").await == "new" }).await;
}
