//! Clocks that are set or run fast, and machines that sleep.

use std::collections::HashMap;
use std::time::Duration;

use cache_core::clock::Clock;
use cache_core::store_testing::{RawAcquired, RawOver, RawStore};
use cache_core::{Cache, cached};
use support::{Nodes, eventually};

const HOUR: Duration = Duration::from_secs(3600);
const TTL: Duration = Duration::from_secs(60);

#[cached(name = "dated", ttl = 60, local = false, key = "{id}", skip(cache, value), cache = cache)]
async fn dated(cache: &Cache, id: u32, value: u32) -> u32 {
    let _ = (cache, id);
    value
}

#[cached(batch, name = "dated", ttl = 60, local = false, key = "{ids}", skip(cache), cache = cache)]
async fn dated_many(cache: &Cache, ids: &[u32]) -> HashMap<u32, u32> {
    let _ = cache;
    ids.iter().map(|id| (*id, id * 10)).collect()
}

#[cached(name = "kept", ttl = 3600, early = false, key = "{id}", skip(cache, value), cache = cache)]
async fn kept(cache: &Cache, id: u32, value: u32) -> u32 {
    let _ = (cache, id);
    value
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// R14
async fn a_node_whose_wall_clock_is_set_between_two_heartbeats_dates_nothing_into_the_future() {
    let nodes = Nodes::redis();
    let right = nodes.node().await;
    let clock = Clock::manual();
    let set = nodes.node_with(Cache::builder().jitter(0.0).clock(clock.clone())).await;
    for (id, forward) in [(1, HOUR / 4), (2, HOUR * 24)] {
        clock.set_wall_forward(forward);
        dated(&set, id, 1).await;
        let left = dated::entry(id).on(&right).ttl().await.unwrap().expect("it is stored, and fresh");
        assert!(left <= TTL, "{left:?}");
    }
    clock.set_wall_back(HOUR * 48);
    dated(&set, 3, 1).await;
    let left = dated::entry(3).on(&right).ttl().await.unwrap().expect("it is stored, and fresh");
    assert!(left > TTL / 2, "{left:?}");
    // A value stored by another node has not expired for it either.
    dated(&right, 4, 1).await;
    for wrong in [Clock::set_wall_forward, Clock::set_wall_back] {
        wrong(&clock, HOUR * 24 * 7);
        assert_eq!(dated(&set, 4, 2).await, 1);
    }
}

#[tokio::test]
// R14
async fn the_embedded_store_keeps_its_times_while_the_wall_clock_is_set() {
    let clock = Clock::manual();
    let cache = Cache::builder().clock(clock.clone()).jitter(0.0).early(0.0).in_memory();
    // Back: no value lives longer.
    dated(&cache, 1, 1).await;
    clock.set_wall_back(HOUR);
    clock.advance(TTL - Duration::from_millis(1));
    assert_eq!(dated(&cache, 1, 2).await, 1);
    clock.advance(Duration::from_millis(1));
    assert_eq!(dated(&cache, 1, 2).await, 2);
    // Forward: no value expires.
    clock.set_wall_forward(HOUR * 2);
    assert_eq!(dated(&cache, 1, 3).await, 2);
    assert_eq!(dated::entry(1).on(&cache).ttl().await.unwrap(), Some(TTL));
    // Time while the machine sleeps counts.
    clock.suspend(TTL);
    assert_eq!(dated(&cache, 1, 3).await, 3);
}

#[tokio::test]
// R14, R11
async fn a_lease_in_the_embedded_store_ends_in_its_time_while_the_wall_clock_is_set() {
    let store = RawStore::memory();
    let clock = store.clock().unwrap().clone();
    let second = Duration::from_secs(1);
    let acquire = async |token| store.acquire("k", token, second, RawOver::Nothing).await.unwrap();
    assert_eq!(acquire(1).await, RawAcquired::Ours);
    clock.set_wall_back(HOUR);
    clock.advance(second);
    assert_eq!(acquire(2).await, RawAcquired::Ours, "it does not block its key");
    clock.set_wall_forward(HOUR * 2);
    assert_ne!(acquire(3).await, RawAcquired::Ours, "it is not gone either");
    store.index_put("i", "member", second).await.unwrap();
    clock.set_wall_forward(HOUR * 2);
    assert_eq!(store.index_members("i").await.unwrap(), [("member".to_owned(), second)]);
    clock.set_wall_back(HOUR * 4);
    clock.advance(second);
    assert_eq!(store.index_members("i").await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// R7
async fn local_entries_are_dropped_at_the_first_heartbeat_after_the_machine_slept() {
    let nodes = Nodes::redis();
    // The manual clock does not advance, so the clock alone would trust the tier forever.
    let clock = Clock::manual();
    let cache = nodes.node_with(Cache::builder().jitter(0.0).clock(clock.clone())).await;
    eventually("the tier in this process answers", || async {
        let before = cache.stats().local_hits;
        kept(&cache, 1, 1).await;
        cache.stats().local_hits > before
    })
    .await;
    clock.suspend(HOUR / 2);
    let before = cache.stats();
    eventually("the store is asked again", || async {
        assert_eq!(kept(&cache, 1, 2).await, 1);
        cache.stats().hits > before.hits
    })
    .await;
    assert_eq!(cache.stats().misses, before.misses);
}

/// Its run takes a second of the clock.
#[cached(name = "dear_and_short", ttl = 60, early = 1_000_000.0, key = "{id}", skip(cache, clock, value), cache = &cache)]
async fn dear(cache: Cache, clock: Clock, id: u32, value: u32) -> u32 {
    let _ = (&cache, id);
    clock.advance(Duration::from_secs(1));
    value
}

#[cached(name = "dear_and_asked_for", ttl = 60, early = 1_000_000.0, local = false, key = "{id}", skip(cache, clock, value), cache = &cache)]
async fn dear_in_the_store(cache: Cache, clock: Clock, id: u32, value: u32) -> u32 {
    let _ = (&cache, id);
    clock.advance(Duration::from_secs(1));
    value
}

#[tokio::test]
// F12
async fn nothing_is_refreshed_ahead_in_the_first_half_of_its_ttl_in_either_tier() {
    let clock = Clock::manual();
    let cache = Cache::builder().jitter(0.0).clock(clock.clone()).in_memory();
    let (here, there) = (
        |value| dear(cache.clone(), clock.clone(), 1, value),
        |value| dear_in_the_store(cache.clone(), clock.clone(), 1, value),
    );
    assert_eq!((here(1).await, there(1).await), (1, 1));
    clock.advance(Duration::from_millis(28_999));
    for _ in 0..200 {
        assert_eq!((here(2).await, there(2).await), (1, 1));
    }
    assert_eq!(cache.stats().refreshes, 0);
    clock.advance(Duration::from_millis(1_001));
    eventually("both are refreshed", || async {
        let _old_or_new = (here(2).await, there(2).await);
        cache.stats().refreshes >= 2
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// C1
async fn a_call_whose_key_stays_held_by_others_computes_after_the_longest_compute() {
    let nodes = Nodes::redis();
    let Nodes::Redis(server) = &nodes else { unreachable!() };
    let clock = Clock::manual();
    let settings = || Cache::builder().jitter(0.0).clock(clock.clone()).deadline(Duration::from_secs(20));
    let cache = nodes.node_with(settings()).await;
    // A lease that is always held by another process, on each of two keys.
    let lease = format!("L{:032x}", 7);
    let keys = [1, 2].map(|id| dated::entry(id).on(&cache).key().to_owned());
    keys.iter().for_each(|key| drop(server.cli(&["SET", key, &lease])));
    let one = tokio::spawn({
        let cache = cache.clone();
        async move { dated(&cache, 1, 5).await }
    });
    let many = tokio::spawn({
        let cache = cache.clone();
        async move { dated_many(&cache, &[2]).await }
    });
    let mut passed = 0;
    while !(one.is_finished() && many.is_finished()) {
        eventually("both wait", || async { cache.stats().waited >= 2 }).await;
        clock.advance(Duration::from_secs(1));
        server.cli(&["PING"]);
        passed += 1;
        assert!(passed < 500, "bounded by the deadline, not by a thousand waits of five seconds");
    }
    assert!(passed >= 20, "{passed}: the holder may still be at it");
    assert_eq!((one.await.unwrap(), many.await.unwrap()), (5, HashMap::from([(2, 20)])));
    keys.iter().for_each(|key| assert_eq!(server.cli(&["GET", key]).trim(), lease, "its lease is left alone"));
}
