//! Bugs that the simulation has found, reproduced step by step.

use cache_core::events::Event;
use cache_core::testing::sim::{Invariant, World, without};
use cache_core::{Cache, cached};
use support::{Gate, event, eventually, soon};
use tokio::runtime::Builder;

#[cached(name = "row", ttl = 60, key = "{id}", skip(cache, gate, text), cache = cache)]
async fn row(cache: &Cache, gate: &Gate, id: u32, text: &str) -> Result<String, String> {
    let _ = (cache, id);
    let text = text.to_owned();
    gate.pass().await;
    Ok(text)
}

/// Starts a call on a task of its own. Its run waits at the gate.
async fn start(cache: &Cache, gate: &Gate, text: &'static str) -> tokio::task::JoinHandle<Result<String, String>> {
    let (cache, own) = (cache.clone(), gate.clone());
    let call = tokio::spawn(async move { row(&cache, &own, 7, text).await });
    gate.arrival().await;
    call
}

#[tokio::test(start_paused = true)]
// T7: found by seed 53 of the first version, which joined a run without a lease for as long as it
// lasted.
async fn a_run_without_a_lease_is_not_joined_beyond_the_staleness_bound() {
    // This world has no driver, so no message ever arrives.
    let (world, gate) = (World::new(0, false), Gate::shut());
    let cache = world.node().cache(Cache::builder());
    let old = start(&cache, &gate, "v1").await;
    world.pause(2001).await;
    assert_eq!(soon("a new run", row(&cache, &Gate::open(), 7, "v2")).await.unwrap(), "v2");
    gate.let_through(1);
    assert_eq!(old.await.unwrap().unwrap(), "v1", "the waiter gets its value");
}

#[tokio::test(start_paused = true)]
// T7
async fn a_run_whose_lease_cannot_be_renewed_is_not_joined_beyond_the_staleness_bound() {
    let (world, gate) = (World::new(0, false), Gate::shut());
    let driver = tokio::spawn({
        let world = world.clone();
        async move { world.drive().await }
    });
    let cache = world.node().cache(Cache::builder());
    world.pause(1000).await;
    assert!(cache.is_available());
    let old = start(&cache, &gate, "v1").await;
    driver.abort();
    world.pause(2001).await;
    assert_eq!(soon("a new run", row(&cache, &Gate::open(), 7, "v2")).await.unwrap(), "v2");
    gate.let_through(1);
    assert_eq!(old.await.unwrap().unwrap(), "v1");
}

#[tokio::test(start_paused = true)]
// T7, I2: an invalidation of everything does not touch the lease, and its push went to a link that
// is gone.
async fn a_run_that_may_have_been_invalidated_while_the_link_was_lost_is_not_joined() {
    for seed in 0..20 {
        let (world, gate) = (World::new(seed, false), Gate::shut());
        let driver = tokio::spawn({
            let world = world.clone();
            async move { world.drive().await }
        });
        let (node, other) = (world.node(), world.node());
        let (cache, elsewhere) = (node.cache(Cache::builder()), other.cache(Cache::builder()));
        world.pause(1000).await;
        let old = start(&cache, &gate, "v1").await;
        node.cut(0);
        elsewhere.clear().await.unwrap();
        world.pause(2001).await;
        let new = tokio::spawn(async move { row(&cache, &Gate::open(), 7, "v2").await });
        world.pause(1).await;
        gate.let_through(1);
        assert_eq!(soon("the old run", old).await.unwrap().unwrap(), "v1");
        assert_eq!(soon("a new run", new).await.unwrap().unwrap(), "v2", "seed {seed}");
        driver.abort();
    }
}

/// Returns what a caller gets if it arrives when a stopped process continues (SIGSTOP). During the
/// stop, the answer to its fill has arrived but was not processed, and the value was invalidated
/// elsewhere.
async fn after_a_stop(seed: u64) -> String {
    let (world, gate) = (World::new(seed, false), Gate::shut());
    let driver = tokio::spawn({
        let world = world.clone();
        async move { world.drive().await }
    });
    let (node, other) = (world.node(), world.node());
    let (cache, elsewhere) = (node.cache(Cache::builder()), other.cache(Cache::builder()));
    world.pause(1000).await;
    let old = start(&cache, &gate, "v1").await;
    gate.let_through(1);
    // Lets the fill be sent.
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    assert!(!old.is_finished());
    node.freeze(6000);
    elsewhere.clear().await.unwrap();
    node.thaw().await;
    let new = soon("a new run", row(&cache, &Gate::open(), 7, "v2")).await.unwrap();
    assert_eq!(soon("the old run", old).await.unwrap().unwrap(), "v1", "the waiter gets its value");
    driver.abort();
    new
}

#[test]
// T7, R13, X5
fn a_run_that_was_last_seen_before_its_process_was_stopped_is_not_joined() {
    let found = |guard, seed| {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        without(guard, || runtime.block_on(after_a_stop(seed)))
    };
    for seed in 0..20 {
        assert_eq!(found(Some(Invariant::UnseenRunIsNotJoined), seed), "v1", "seed {seed}: it could be joined");
        assert_eq!(found(None, seed), "v2", "seed {seed}");
    }
}

/// Returns how long an answer to the meter is delayed, and how long after the hit the meter
/// reports.
async fn reported_after(seed: u64) -> (u64, u64) {
    // From a world of the same seed: an inbound stall shorter than the timeout of a call.
    let probe = World::new(seed, false);
    let drawn = |stream: u64| (probe.draw_from(stream, 3000), probe.draw_from(stream, 3));
    let stalls = (0..).map(|stream| (stream, drawn(stream)));
    let (stream, (held_up, _)) =
        stalls.into_iter().find(|(_, (ms, ways))| (200..450).contains(ms) && *ways == 2).unwrap();
    let (world, open) = (World::new(seed, false), Gate::open());
    let driver = tokio::spawn({
        let world = world.clone();
        async move { world.drive().await }
    });
    let (node, other) = (world.node(), world.node());
    let cache = node.cache(Cache::builder().consistency_meter(1.0));
    let elsewhere = other.cache(Cache::builder());
    world.pause(1000).await;
    eventually("it is kept", || async {
        let hits = cache.stats().local_hits;
        row(&cache, &open, 7, "v1").await.unwrap();
        cache.stats().local_hits > hits
    })
    .await;
    world.pause(1000).await;
    let mut events = cache.subscribe();
    row::entry(7).on(&elsewhere).set("v2".to_owned()).await.unwrap();
    world.pause(1000).await;
    node.stall(stream);
    let hit_at = world.now();
    assert_eq!(row(&cache, &open, 7, "v3").await.unwrap(), "v1", "the push is not heard");
    event(&mut events, "it is reported", |event| matches!(event, Event::StaleBeyondBound { .. })).await;
    driver.abort();
    (held_up, world.now() - hit_at)
}

#[test]
// T5: a value replaced while the answer was in transit is not reported before its push may arrive.
fn the_meter_waits_for_the_bound_from_the_answer_of_its_read_on() {
    for seed in 0..10 {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let deaf = Some(Invariant::PushDropsEntry);
        let (held_up, after) = without(deaf, || runtime.block_on(reported_after(seed)));
        assert!(after >= held_up + 2000, "seed {seed}: held up for {held_up}, reported after {after}");
    }
}
