//! Refreshes that fail or are skipped, and refreshes that meet another one.

use std::sync::Mutex;

use super::*;
use cache_core::clock::Clock;
use support::{Proxy, RedisServer};

tokio::task_local! {
    static TENANT: u32;
}

/// The tenants that the runs have seen.
type Seen = Arc<Mutex<Vec<Option<u32>>>>;

/// Returns the tenant of the caller, if its run sees that, and from its second run on what lasts.
#[cached(name = "of_tenant", ttl = |value| if *value < LASTS { SHORT } else { HOUR }, stale_while_revalidate = "1h", early = false, key = "{id}", skip(cache, seen), cache = &cache)]
async fn of_tenant(cache: Cache, seen: Seen, id: u32) -> Answer {
    let _ = (&cache, id);
    let tenant = || TENANT.try_with(|tenant| *tenant).ok();
    let first = tenant();
    tokio::task::yield_now().await;
    let mut seen = seen.lock().unwrap();
    seen.push(first.or(tenant()));
    Ok(if seen.len() == 1 { 1 } else { LASTS })
}

on_both_stores! {
    // S11, F1
    async fn a_refresh_in_the_background_sees_no_context_of_the_caller_that_began_it(nodes: &Nodes) {
        let (cache, seen) = (nodes.node().await, Seen::default());
        let call = |tenant| TENANT.scope(tenant, of_tenant(cache.clone(), Arc::clone(&seen), 7));
        assert_eq!(call(1).await, Ok(1));
        outlive(nodes, &[&cache], |cache| of_tenant::entry(7).on(cache)).await;
        assert_eq!(soon("the stale value comes at once", call(2)).await, Ok(1));
        eventually("the refresh is served", || async { call(3).await == Ok(LASTS) }).await;
        assert_eq!(*seen.lock().unwrap(), [None, None]);
    }

    // F3: an explicit refresh is not delayed by another one's failure.
    async fn a_refresh_that_is_asked_for_is_stored_though_the_last_one_failed(nodes: &Nodes) {
        let cache = nodes.node().await;
        let (entry, open) = (|cache: &Cache| fallback::entry(7).on(cache), Gate::open());
        assert_eq!(fallback(&cache, &open, 7, Ok(1)).await, Ok(1));
        outlive(nodes, &[&cache], entry).await;
        assert_eq!(fallback(&cache, &open, 7, Err(Refused)).await, Ok(1));
        assert_eq!(fallback::refresh(&cache, &open, 7, Ok(LASTS)).await, Ok(LASTS));
        assert_eq!(entry(&cache).get().await.unwrap(), Some(LASTS));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// F2, D2
async fn a_run_that_fails_after_the_store_was_lost_falls_back_on_the_old_value() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port()).await;
    let url = format!("{}?response_timeout=2s&connect_timeout=2s&max_staleness=4s", proxy.url());
    let cache = Cache::builder().url(&url).jitter(0.0).connect().await.unwrap();
    assert_eq!(fallback(&cache, &Gate::open(), 7, Ok(1)).await, Ok(1));
    past_ttl(|| fallback::entry(7).on(&cache)).await;
    let gate = Gate::shut();
    let failing = tokio::spawn({
        let (cache, gate) = (cache.clone(), gate.clone());
        async move { fallback(&cache, &gate, 7, Err(Refused)).await }
    });
    gate.arrival().await;
    proxy.cut();
    eventually("the loss is noticed", || async { !cache.is_available() }).await;
    gate.let_through(1);
    assert_eq!(soon("it ends", failing).await.unwrap(), Ok(1), "it is not known whether the value is current");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// F11
async fn a_skipped_refresh_is_not_reported_at_each_hit() {
    let clock = Clock::manual();
    let cache = Cache::builder().jitter(0.0).refreshes_in_flight(1).clock(clock.clone()).in_memory();
    let (open, gate) = (Gate::open(), Gate::shut());
    for id in [1, 2] {
        assert_eq!(behind(cache.clone(), open.clone(), id, Ok(1)).await, Ok(1));
    }
    clock.advance(SHORT);
    assert_eq!(behind(cache.clone(), gate.clone(), 1, Ok(LASTS)).await, Ok(1));
    gate.arrival().await;
    let mut events = cache.subscribe();
    for _ in 0..20 {
        assert_eq!(behind(cache.clone(), open.clone(), 2, Ok(LASTS)).await, Ok(1));
    }
    let mut skipped = 0;
    while let Ok(event) = events.try_recv() {
        skipped += usize::from(matches!(event, Event::RefreshSkipped { .. }));
    }
    assert_eq!(skipped, 1);
    gate.let_through(1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// F3: the lease of another process may be much longer, and its holder may have died.
async fn a_key_that_another_process_refreshes_is_tried_again_after_the_throttle() {
    let nodes = Nodes::embedded();
    let throttle = Duration::from_secs(1);
    let settings = || Cache::builder().jitter(0.0).lease(Duration::from_secs(30)).refresh_throttle(throttle);
    let (here, there) = (nodes.node_with(settings()).await, nodes.node_with(settings()).await);
    let (open, gate) = (Gate::open(), Gate::shut());
    assert_eq!(behind(there.clone(), open.clone(), 7, Ok(1)).await, Ok(1));
    outlive(&nodes, &[&here, &there], |cache| behind::entry(7).on(cache)).await;
    assert_eq!(behind(there.clone(), gate.clone(), 7, Ok(2)).await, Ok(1));
    gate.arrival().await;
    let own = Gate::open();
    let call = || behind(here.clone(), own.clone(), 7, Ok(LASTS));
    eventually("it finds the other's lease", || async {
        assert_eq!(call().await, Ok(1));
        here.stats().refreshes == 1
    })
    .await;
    nodes.delete_by_hand(&format!("{{{}}}:l", behind::entry(7).on(&here).key())).await;
    let Nodes::Embedded(_, clock) = &nodes else { panic!("it is the embedded store") };
    // The cooldown begins a moment after the lease was found. Allow a few throttle intervals, which
    // are far less than the lease.
    let (looks, mut throttles) = (AtomicUsize::new(0), 0);
    let is_computed = || {
        if looks.fetch_add(1, Ordering::Relaxed) % 100 == 0 && throttles < 5 {
            throttles += 1;
            clock.advance(throttle);
        }
        async { call().await.is_ok() && own.runs() == 1 }
    };
    eventually("it is computed here", is_computed).await;
    assert_eq!(own.runs(), 1);
    gate.let_through(1);
}

#[cached(name = "window", ttl = 10, stale_while_revalidate = "10s", early = false, key = "{id}", skip(cache, value), cache = &cache)]
async fn short_window(cache: Cache, id: u32, value: u32) -> u32 {
    let _ = (cache, id);
    value
}

#[cached(name = "window", ttl = 10, stale_while_revalidate = "1h", early = false, key = "{id}", skip(cache, value), cache = &cache)]
async fn long_window(cache: Cache, id: u32, value: u32) -> u32 {
    let _ = (cache, id);
    value
}

#[tokio::test]
// F4: the record could have been written by a build with a shorter window.
async fn a_record_is_served_no_longer_than_its_own_window_by_either_tier() {
    let clock = Clock::manual();
    let cache = Cache::builder().jitter(0.0).clock(clock.clone()).in_memory();
    assert_eq!(short_window(cache.clone(), 7, 1).await, 1);
    for _ in 0..2 {
        assert_eq!(long_window(cache.clone(), 7, 2).await, 1);
    }
    assert!(cache.stats().local_hits > 0, "the tier in this process has it");
    clock.advance(Duration::from_secs(21));
    assert_eq!(long_window(cache.clone(), 7, 3).await, 3);
}

/// It takes five seconds of the clock to compute, and is kept in the local tier for as long.
#[cached(name = "dear_and_brief_here", ttl = 600, local = "5s", key = "{id}", skip(cache, clock, value), cache = &cache)]
async fn dear_and_brief_here(cache: Cache, clock: Clock, id: u32, value: u32) -> u32 {
    let _ = (&cache, id);
    clock.advance(Duration::from_secs(5));
    value
}

#[tokio::test]
// F8: an entry that expires in the local tier only is read from the store again, which is cheaper
// than computing it.
async fn nothing_is_refreshed_ahead_of_the_end_of_the_tier_in_this_process() {
    let clock = Clock::manual();
    let cache = Cache::builder().jitter(0.0).clock(clock.clone()).in_memory();
    for _ in 0..2 {
        assert_eq!(dear_and_brief_here(cache.clone(), clock.clone(), 7, 1).await, 1);
    }
    for _ in 0..4 {
        for _ in 0..100 {
            assert_eq!(dear_and_brief_here(cache.clone(), clock.clone(), 7, 2).await, 1);
        }
        clock.advance(Duration::from_secs(1));
    }
    let stats = cache.stats();
    assert!(stats.local_hits >= 300, "{stats:?}");
    assert_eq!((stats.refreshes, stats.computes), (0, 1), "{stats:?}");
}

#[cached(
    name = "rather_patient",
    ttl = |value| if *value < LASTS { SHORT } else { HOUR },
    stale_if_error = "1h",
    soft_timeout = "10s",
    deadline = false,
    early = false,
    key = "{id}",
    skip(cache, gate, answer),
    cache = &cache
)]
async fn rather_patient(cache: Cache, gate: Gate, id: u32, answer: Answer) -> Answer {
    let _ = id;
    gate.pass().await;
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// F5, X2
async fn a_waiter_woken_without_a_value_waits_no_longer_than_its_soft_timeout() {
    let nodes = Nodes::embedded();
    let settings = || Cache::builder().jitter(0.0).lease(Duration::from_secs(3000));
    let (here, there) = (nodes.node_with(settings()).await, nodes.node_with(settings()).await);
    let (gate, unused) = (Gate::shut(), Gate::shut());
    let entry = |cache: &Cache| rather_patient::entry(7).on(cache);
    assert_eq!(rather_patient(there.clone(), Gate::open(), 7, Ok(1)).await, Ok(1));
    outlive(&nodes, &[&here, &there], entry).await;
    let runs = tokio::spawn(rather_patient(there.clone(), gate.clone(), 7, Ok(LASTS)));
    gate.arrival().await;
    let waits = tokio::spawn(rather_patient(here.clone(), unused.clone(), 7, Ok(3)));
    eventually("it waits", || async { here.stats().waited == 1 }).await;
    let Nodes::Embedded(_, clock) = &nodes else { panic!("it is the embedded store") };
    eventually("it stops waiting", || async {
        clock.advance(Duration::from_secs(1));
        // Pushed like any change, but the value is the same.
        here.plain().expire(entry(&here).key(), HOUR).await.unwrap();
        waits.is_finished()
    })
    .await;
    assert_eq!(soon("it has the old value", waits).await.unwrap(), Ok(1));
    assert_eq!((here.stats().waited, unused.runs()), (1, 0));
    gate.let_through(1);
    drop(runs);
}
