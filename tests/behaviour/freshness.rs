//! When values end, what is served after that, and who computes the next one.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cache_core::events::{Event, StaleCause};
use cache_core::{
    Cache, CachedEntry, Deadline, DeadlineExceeded, EntryOptions, Key, RefreshBy, Revalidated, UnboundEntry, cached,
};
use support::{Gate, Nodes, event, eventually, on_both_stores, soon};

/// Values below this end at once, the others do not end in a test.
const LASTS: usize = 1000;
const SHORT: Duration = Duration::from_millis(40);
const HOUR: Duration = Duration::from_secs(3600);

#[derive(Debug, Clone, PartialEq)]
struct Refused;

type Answer = Result<usize, Refused>;

#[cached(name = "behind", ttl = |value| if *value < LASTS { SHORT } else { HOUR }, stale_while_revalidate = "1h", early = false, key = "{id}", cache = &cache)]
async fn behind(cache: Cache, gate: Gate, id: u32, answer: Answer) -> Answer {
    let _ = id;
    gate.pass().await;
    answer
}

#[cached(name = "fallback", ttl = |value| if *value < LASTS { SHORT } else { HOUR }, stale_if_error = "1h", key = "{id}", cache = cache)]
async fn fallback(cache: &Cache, gate: &Gate, id: u32, answer: Answer) -> Answer {
    let _ = (cache, id);
    gate.pass().await;
    answer
}

#[cached(name = "by_caller", ttl = |value| if *value < LASTS { SHORT } else { HOUR }, stale_while_revalidate = "1h", refresh = "caller", key = "{id}", cache = cache)]
async fn by_caller(cache: &Cache, gate: &Gate, id: u32, answer: Answer) -> Answer {
    let _ = (cache, id);
    gate.pass().await;
    answer
}

#[cached(ttl = 1000, cache = cache, skip(cache))]
async fn by_default(cache: &Cache, id: u32) -> u32 {
    let _ = cache;
    id
}

#[cached(ttl = 1000, jitter = 0.5, cache = cache, skip(cache))]
async fn half(cache: &Cache, id: u32) -> u32 {
    let _ = cache;
    id
}

#[cached(ttl = 1000, jitter = 0.0, cache = cache, skip(cache))]
async fn exact(cache: &Cache, id: u32) -> u32 {
    let _ = cache;
    id
}

/// Waits until a value is past its ttl. The clock of L1 is some milliseconds coarse: ten more looks leave it behind.
async fn past_ttl<R: Send + 'static>(entry: impl Fn() -> CachedEntry<R>) {
    let looks = AtomicUsize::new(0);
    eventually("it is past its ttl", || async {
        let is_past = entry().ttl().await.unwrap().is_none();
        is_past && looks.fetch_add(1, Ordering::Relaxed) >= 10
    })
    .await;
}

/// Waits until the stored value is past its ttl, as this cache sees it.
async fn outlive(nodes: &Nodes, caches: &[&Cache], entry: impl Fn(&Cache) -> CachedEntry<Answer>) {
    if let Nodes::Embedded(_, clock) = nodes {
        clock.advance(SHORT);
    }
    for cache in caches {
        past_ttl(|| entry(cache)).await;
    }
}

on_both_stores! {
    // V4
    async fn a_value_ends_early_by_at_most_its_jitter_and_never_late(nodes: &Nodes) {
        let cache = nodes.node_with(Cache::builder()).await;
        let all = Duration::from_secs(1000);
        for id in 0..200 {
            // Computed or set, it is the same.
            if id % 2 == 0 {
                by_default(&cache, id).await;
                half(&cache, id).await;
                exact(&cache, id).await;
            } else {
                by_default::entry(id).on(&cache).set(id).await.unwrap();
                half::entry(id).on(&cache).set(id).await.unwrap();
                exact::entry(id).on(&cache).set(id).await.unwrap();
            }
        }
        type Entry = fn(u32) -> UnboundEntry<u32>;
        for (entry, least) in [(by_default::entry as Entry, 900), (half::entry, 500), (exact::entry, 1000)] {
            let mut lives = Vec::new();
            for id in 0..200 {
                lives.push(entry(id).on(&cache).ttl().await.unwrap().unwrap());
            }
            let (shortest, longest) = (*lives.iter().min().unwrap(), *lives.iter().max().unwrap());
            let least = Duration::from_secs(least);
            // On a clock that runs, some seconds may have passed.
            assert!(longest <= all && shortest + Duration::from_secs(20) >= least, "{shortest:?} to {longest:?}");
            // 200 values leave no gap of a tenth at either end.
            assert!(longest - shortest >= (all - least).mul_f64(0.8), "{shortest:?} to {longest:?}");
        }
    }

    // F1
    async fn a_stale_value_is_served_at_once_while_one_refresh_runs_in_all_processes(nodes: &Nodes) {
        let (here, there) = (nodes.node().await, nodes.node().await);
        let entry = |cache: &Cache| behind::entry(7).on(cache);
        assert_eq!(behind(here.clone(), Gate::open(), 7, Ok(1)).await, Ok(1));
        outlive(nodes, &[&here, &there], entry).await;
        let gate = Gate::shut();
        for _ in 0..50 {
            for cache in [&here, &there] {
                let call = behind(cache.clone(), gate.clone(), 7, Ok(LASTS));
                assert_eq!(soon("the stale value comes at once", call).await, Ok(1));
            }
        }
        gate.arrival().await;
        assert_eq!(gate.runs(), 1);
        gate.let_through(1);
        for cache in [&here, &there] {
            eventually("the refresh is stored", || async { entry(cache).get().await.unwrap() == Some(LASTS) }).await;
            eventually("it is served", || async { behind(cache.clone(), gate.clone(), 7, Ok(2)).await == Ok(LASTS) }).await;
        }
        assert_eq!(gate.runs(), 1);
        assert_eq!(here.stats().refreshes.min(1) + there.stats().refreshes.min(1), 2, "each has tried");
    }

    // F1, F3
    async fn a_refresh_that_fails_leaves_the_stale_value_and_rests_in_all_processes(nodes: &Nodes) {
        let (here, there) = (nodes.node().await, nodes.node().await);
        let entry = |cache: &Cache| behind::entry(7).on(cache);
        assert_eq!(behind(here.clone(), Gate::open(), 7, Ok(1)).await, Ok(1));
        outlive(nodes, &[&here, &there], entry).await;
        let (mut events, gate) = (here.subscribe(), Gate::open());
        assert_eq!(soon("stale", behind(here.clone(), gate.clone(), 7, Err(Refused))).await, Ok(1));
        event(&mut events, "it is told", |event| matches!(event, Event::RefreshFailed { name } if &**name == "behind")).await;
        for cache in [&here, &there, &here, &there] {
            assert_eq!(soon("stale", behind(cache.clone(), gate.clone(), 7, Ok(2))).await, Ok(1));
        }
        // The attempt of the other process has ended at the throttle.
        eventually("it has tried", || async { there.stats().refreshes == 1 }).await;
        assert_eq!(gate.runs(), 1);
    }

    // F11
    async fn refreshes_are_bounded_and_one_too_many_is_skipped_with_an_event(nodes: &Nodes) {
        let cache = nodes.node_with(Cache::builder().jitter(0.0).refreshes_in_flight(2)).await;
        for id in 0..3 {
            assert_eq!(behind(cache.clone(), Gate::open(), id, Ok(1)).await, Ok(1));
        }
        for id in 0..3 {
            if id == 0 { outlive(nodes, &[&cache], |cache| behind::entry(0).on(cache)).await; }
            past_ttl(|| behind::entry(id).on(&cache)).await;
        }
        let (mut events, gate) = (cache.subscribe(), Gate::shut());
        for id in 0..3 {
            assert_eq!(soon("stale", behind(cache.clone(), gate.clone(), id, Ok(LASTS))).await, Ok(1));
        }
        event(&mut events, "it is told", |event| matches!(event, Event::RefreshSkipped { name } if &**name == "behind")).await;
        gate.arrival().await;
        gate.arrival().await;
        assert_eq!((gate.runs(), cache.stats().refreshes_skipped), (2, 1));
        gate.let_through(3);
        eventually("two are done", || async { cache.stats().fills == 5 }).await;
        for _ in 0..100 {
            behind(cache.clone(), gate.clone(), 2, Ok(LASTS)).await.unwrap();
        }
        assert!(cache.stats().refreshes_skipped <= 1, "told once, not at each hit");
        if let Nodes::Embedded(_, clock) = nodes {
            clock.advance(Duration::from_millis(100));
        }
        let call = || behind(cache.clone(), gate.clone(), 2, Ok(LASTS));
        eventually("the third has its turn", || async { call().await == Ok(LASTS) }).await;
    }

    // F1: refreshed by the caller that finds the stale value first, for functions that borrow.
    async fn one_caller_computes_and_all_others_get_the_stale_value(nodes: &Nodes) {
        let (here, there) = (nodes.node().await, nodes.node().await);
        let entry = |cache: &Cache| by_caller::entry(7).on(cache);
        assert_eq!(by_caller(&here, &Gate::open(), 7, Ok(1)).await, Ok(1));
        outlive(nodes, &[&here, &there], entry).await;
        let gate = Gate::shut();
        let first = tokio::spawn({
            let (cache, gate) = (here.clone(), gate.clone());
            async move { by_caller(&cache, &gate, 7, Ok(LASTS)).await }
        });
        gate.arrival().await;
        for cache in [&here, &there, &here, &there] {
            assert_eq!(soon("the others do not wait", by_caller(cache, &gate, 7, Ok(2))).await, Ok(1));
        }
        gate.let_through(1);
        assert_eq!(soon("the first returns", first).await.unwrap(), Ok(LASTS));
        eventually("the other process has heard of it", || async { by_caller(&there, &gate, 7, Ok(2)).await == Ok(LASTS) }).await;
        assert_eq!(gate.runs(), 1);
        // By hand it is the same.
        let options = EntryOptions::new().ttl(HOUR).stale_while_revalidate(HOUR).refresh(RefreshBy::Caller);
        let compute = || async { Ok::<_, Refused>(5_u32) };
        assert_eq!(*here.get_or_compute(Key::new("hand"), &options, compute).await.as_ref().unwrap(), 5);
    }

    // F2
    async fn a_stale_value_is_served_when_the_function_fails(nodes: &Nodes) {
        let cache = nodes.node().await;
        let gate = Gate::open();
        assert_eq!(fallback(&cache, &gate, 7, Ok(1)).await, Ok(1));
        outlive(nodes, &[&cache], |cache| fallback::entry(7).on(cache)).await;
        let mut events = cache.subscribe();
        assert_eq!(soon("it returns", fallback(&cache, &gate, 7, Err(Refused))).await, Ok(1));
        let failed = |event: &Event| matches!(event, Event::StaleServed { name, cause: StaleCause::Failed } if &**name == "fallback");
        event(&mut events, "the error is told", failed).await;
        assert_eq!((gate.runs(), cache.stats().stale), (2, 1));
        // Without a stale value, the error is the caller's.
        assert_eq!(fallback(&cache, &gate, 8, Err(Refused)).await, Err(Refused));
    }

    // F3
    async fn after_a_failure_the_next_attempt_waits_for_the_throttle_in_all_processes(nodes: &Nodes) {
        let (here, there) = (nodes.node().await, nodes.node().await);
        let gate = Gate::open();
        let entry = |cache: &Cache| fallback::entry(7).on(cache);
        assert_eq!(fallback(&here, &gate, 7, Ok(1)).await, Ok(1));
        outlive(nodes, &[&here, &there], entry).await;
        for _ in 0..3 {
            for cache in [&here, &there] {
                assert_eq!(soon("stale", fallback(cache, &gate, 7, Err(Refused))).await, Ok(1));
            }
        }
        assert_eq!(gate.runs(), 2, "one attempt");
        match nodes {
            Nodes::Embedded(_, clock) => {
                clock.advance(Duration::from_millis(4_999));
                assert_eq!(fallback(&there, &gate, 7, Ok(LASTS)).await, Ok(1));
                clock.advance(Duration::from_millis(1));
            }
            Nodes::Redis(_) => nodes.let_expire(&format!("{{{}}}:l", entry(&here).key()), Duration::ZERO),
        }
        let fresh = nodes.node().await;
        eventually("the throttle ends", || async { fallback(&fresh, &gate, 7, Ok(LASTS)).await == Ok(LASTS) }).await;
        assert_eq!(gate.runs(), 3);
    }

    // R17
    async fn an_invalidated_value_is_not_served_when_the_function_fails(nodes: &Nodes) {
        let (cache, other) = (nodes.node().await, nodes.node().await);
        let entry = |cache: &Cache| fallback::entry(7).on(cache);
        assert_eq!(fallback(&cache, &Gate::open(), 7, Ok(1)).await, Ok(1));
        outlive(nodes, &[&cache], entry).await;
        entry(&other).invalidate().await.unwrap();
        assert_eq!(fallback(&cache, &Gate::open(), 7, Err(Refused)).await, Err(Refused));
        // Nor if it was invalidated while the function ran.
        assert_eq!(fallback(&cache, &Gate::open(), 7, Ok(1)).await, Ok(1));
        outlive(nodes, &[&cache], entry).await;
        let gate = Gate::shut();
        let call = tokio::spawn({
            let (cache, gate) = (cache.clone(), gate.clone());
            async move { fallback(&cache, &gate, 7, Err(Refused)).await }
        });
        gate.arrival().await;
        entry(&other).invalidate().await.unwrap();
        gate.let_through(1);
        assert_eq!(soon("it returns", call).await.unwrap(), Err(Refused));
    }
}

/// Serves for ten seconds, at once for five more, and on errors for twenty.
#[cached(
    name = "windows",
    ttl = "10s",
    stale_while_revalidate = "5s",
    stale_if_error = "20s",
    key = "{id}",
    cache = &cache
)]
async fn windows(cache: Cache, gate: Gate, id: u32, answer: Answer) -> Answer {
    let _ = id;
    gate.pass().await;
    answer
}

// F4
#[tokio::test]
async fn no_value_is_served_beyond_its_ttl_and_the_larger_window() {
    let clock = cache_core::clock::Clock::manual();
    let cache =
        Cache::builder().jitter(0.0).refresh_throttle(Duration::from_millis(1)).clock(clock.clone()).in_memory();
    let call = |answer| soon("it returns", windows(cache.clone(), Gate::open(), 7, answer));
    let failures = || cache.stats().compute_errors;
    assert_eq!(call(Ok(1)).await, Ok(1));
    for (after_ms, computes) in [(9_999, 0), (4_000, 1), (1_000, 2), (1, 3), (14_998, 4)] {
        clock.advance(Duration::from_millis(after_ms));
        assert_eq!(call(Err(Refused)).await, Ok(1));
        eventually("it has failed", || async { failures() == computes }).await;
        // The attempt is told to the store a moment later.
        eventually("its lease is given back", || async { cache.stats().refreshes <= 2 }).await;
    }
    clock.advance(Duration::from_millis(2));
    assert_eq!(call(Err(Refused)).await, Err(Refused));
}

/// The value is dear: its run takes five seconds of the clock.
#[cached(name = "dear", ttl = 60, key = "{id}", cache = &cache)]
async fn dear(cache: Cache, clock: cache_core::clock::Clock, id: u32, value: u32) -> u32 {
    let _ = (&cache, id);
    clock.advance(Duration::from_secs(5));
    value
}

#[cached(name = "dear_to_the_end", ttl = 60, early = false, key = "{id}", cache = &cache)]
async fn dear_to_the_end(cache: Cache, clock: cache_core::clock::Clock, id: u32, value: u32) -> u32 {
    let _ = (&cache, id);
    clock.advance(Duration::from_secs(5));
    value
}

// F8
#[tokio::test]
async fn a_dear_value_is_refreshed_in_the_background_before_it_ends() {
    for local in [0, 1 << 20] {
        let clock = cache_core::clock::Clock::manual();
        let cache = Cache::builder().jitter(0.0).local_limit_bytes(local).clock(clock.clone()).in_memory();
        assert_eq!(dear(cache.clone(), clock.clone(), 7, 1).await, 1);
        // With a millisecond left, all reads but one of five thousand find it due: exp(-1 / 5,000).
        clock.advance(Duration::from_millis(59_999));
        for _ in 0..10 {
            assert!([1, 3].contains(&dear(cache.clone(), clock.clone(), 7, 3).await));
        }
        let read = || async { dear::entry(7).on(&cache).get().await.unwrap() };
        eventually("the next value is there before the old one ends", || async { read().await == Some(3) }).await;
        assert_eq!((cache.stats().refreshes, cache.stats().misses), (1, 1), "nobody waited for it");

        assert_eq!(dear_to_the_end(cache.clone(), clock.clone(), 7, 1).await, 1);
        clock.advance(Duration::from_millis(59_999));
        for _ in 0..1_000 {
            assert_eq!(dear_to_the_end(cache.clone(), clock.clone(), 7, 2).await, 1);
        }
        assert_eq!(cache.stats().refreshes, 1, "early = false");
    }
}

/// Waits for a new value a second, and for an old one no longer.
#[cached(
    name = "patient",
    ttl = |value| if *value < LASTS { SHORT } else { HOUR },
    stale_if_error = "1h",
    soft_timeout = "1s",
    deadline = false,
    early = false,
    key = "{id}",
    cache = &cache
)]
async fn patient(cache: Cache, gate: Gate, id: u32, answer: Answer) -> Answer {
    let _ = id;
    gate.pass().await;
    answer
}

on_both_stores! {
    // F5, F10
    async fn after_the_soft_timeout_the_old_value_is_served_and_the_run_goes_on(nodes: &Nodes) {
        let (here, there) = (nodes.node().await, nodes.node().await);
        let entry = |cache: &Cache| patient::entry(7).on(cache);
        assert_eq!(patient(here.clone(), Gate::open(), 7, Ok(1)).await, Ok(1));
        outlive(nodes, &[&here, &there], entry).await;
        let (mut events, gate) = (here.subscribe(), Gate::shut());
        let waits = tokio::spawn(patient(here.clone(), gate.clone(), 7, Ok(LASTS)));
        let is_dropped = tokio::spawn(patient(here.clone(), gate.clone(), 7, Ok(LASTS)));
        gate.arrival().await;
        is_dropped.abort();
        if let Nodes::Embedded(_, clock) = nodes {
            clock.advance(Duration::from_millis(999));
            assert!(!waits.is_finished());
            clock.advance(Duration::from_millis(1));
        }
        assert_eq!(soon("it returns", waits).await.unwrap(), Ok(1));
        let told = |event: &Event| matches!(event, Event::StaleServed { cause: StaleCause::SoftTimeout, .. });
        event(&mut events, "it is told", told).await;
        // While the run goes on, nobody starts another.
        assert_eq!(soon("it returns", patient(here.clone(), gate.clone(), 7, Ok(3))).await, Ok(1));
        gate.let_through(1);
        eventually("it is stored", || async { entry(&there).get().await.unwrap() == Some(LASTS) }).await;
        assert_eq!(gate.runs(), 1);
    }
}

// F6
#[tokio::test]
async fn without_an_old_value_the_soft_timeout_is_ignored() {
    let clock = cache_core::clock::Clock::manual();
    let (cache, gate) = (Cache::builder().clock(clock.clone()).in_memory(), Gate::shut());
    let waits = tokio::spawn(patient(cache.clone(), gate.clone(), 7, Ok(LASTS)));
    gate.arrival().await;
    clock.advance(Duration::from_secs(5));
    // Whatever wakes at that time has run before this one has.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!waits.is_finished());
    gate.let_through(1);
    assert_eq!(soon("it returns", waits).await.unwrap(), Ok(LASTS));
    assert_eq!(patient::entry(7).on(&cache).get().await.unwrap(), Some(LASTS));
}

#[derive(Debug, Clone, PartialEq)]
enum Slow {
    Refused,
    Late(Duration),
}

impl From<DeadlineExceeded> for Slow {
    fn from(late: DeadlineExceeded) -> Self {
        Self::Late(late.after())
    }
}

/// An error that can say so.
#[cached(
    name = "limited",
    ttl = |value| if *value < LASTS { SHORT } else { HOUR },
    stale_if_error = "1h",
    deadline = "200ms",
    early = false,
    key = "{id}",
    cache = cache
)]
async fn limited(cache: &Cache, gate: &Gate, id: u32, ended: &Arc<()>) -> Result<usize, Slow> {
    let (_, _held) = ((cache, id), Arc::clone(ended));
    gate.pass().await;
    if id == 0 { Err(Slow::Refused) } else { Ok(1) }
}

/// One that can by way of an I/O error.
#[cached(name = "by_io", ttl = 60, deadline = "200ms", key = "{id}", cache = cache)]
async fn by_io(cache: &Cache, gate: &Gate, id: u32) -> Result<u32, io::Error> {
    let _ = cache;
    gate.pass().await;
    Ok(id)
}

/// No error at all.
#[cached(name = "mute", ttl = 60, key = "{id}", cache = cache)]
async fn mute(cache: &Cache, gate: &Gate, id: u32, answer: u32) -> u32 {
    let _ = (cache, id);
    gate.pass().await;
    answer
}

fn short_deadline() -> cache_core::CacheBuilder {
    Cache::builder().jitter(0.0).deadline(Duration::from_millis(200))
}

/// Lets a deadline of 200 ms pass.
fn pass_deadline(nodes: &Nodes) {
    if let Nodes::Embedded(_, clock) = nodes {
        clock.advance(Duration::from_millis(200));
    }
}

on_both_stores! {
    // F7, R23
    async fn a_run_over_its_deadline_is_dropped_and_its_key_is_free(nodes: &Nodes) {
        let (here, there) = (nodes.node().await, nodes.node().await);
        let (mut events, gate, ended) = (here.subscribe(), Gate::shut(), Arc::new(()));
        let hangs = tokio::spawn({
            let (cache, gate, ended) = (here.clone(), gate.clone(), Arc::clone(&ended));
            async move { limited(&cache, &gate, 7, &ended).await }
        });
        gate.arrival().await;
        pass_deadline(nodes);
        assert_eq!(soon("it ends", hangs).await.unwrap(), Err(Slow::Late(Duration::from_millis(200))));
        assert_eq!(Arc::strong_count(&ended), 1, "the future is dropped");
        event(&mut events, "it is told", |event| matches!(event, Event::DeadlinePassed { name } if &**name == "limited")).await;
        assert_eq!(soon("the key is free", limited(&there, &Gate::open(), 7, &ended)).await, Ok(1));
        assert_eq!(there.stats().waited, 0);
        // Its own errors stay what they are, and an I/O error can tell too.
        assert_eq!(limited(&here, &Gate::open(), 0, &ended).await, Err(Slow::Refused));
        let hangs = tokio::spawn({
            let (cache, gate) = (here.clone(), gate.clone());
            async move { by_io(&cache, &gate, 7).await }
        });
        gate.arrival().await;
        pass_deadline(nodes);
        assert_eq!(soon("it ends", hangs).await.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    // F7
    async fn at_the_deadline_an_old_value_is_served_if_there_is_one(nodes: &Nodes) {
        let (cache, gate, ended) = (nodes.node().await, Gate::shut(), Arc::new(()));
        gate.let_through(1);
        assert_eq!(limited(&cache, &gate, 7, &ended).await, Ok(1));
        gate.arrival().await;
        if let Nodes::Embedded(_, clock) = nodes { clock.advance(SHORT); }
        past_ttl(|| limited::entry(7).on(&cache)).await;
        let mut events = cache.subscribe();
        let hangs = tokio::spawn({
            let (cache, gate, ended) = (cache.clone(), gate.clone(), Arc::clone(&ended));
            async move { limited(&cache, &gate, 7, &ended).await }
        });
        gate.arrival().await;
        pass_deadline(nodes);
        assert_eq!(soon("it ends", hangs).await.unwrap(), Ok(1));
        assert_eq!(Arc::strong_count(&ended), 1, "the future is dropped");
        let told = |event: &Event| matches!(event, Event::StaleServed { cause: StaleCause::DeadlinePassed, .. });
        event(&mut events, "it is told", told).await;
    }

    // R23: where nobody can be told, the key is free all the same.
    async fn a_run_whose_callers_cannot_be_told_goes_on_without_its_key(nodes: &Nodes) {
        let (here, there) = (nodes.node_with(short_deadline()).await, nodes.node().await);
        let (mut events, gate) = (here.subscribe(), Gate::shut());
        let call = |gate: &Gate, answer| {
            let (cache, gate) = (here.clone(), gate.clone());
            tokio::spawn(async move { mute(&cache, &gate, 7, answer).await })
        };
        let hangs = call(&gate, 1);
        gate.arrival().await;
        let follows = call(&Gate::open(), 2);
        eventually("it has joined", || async { here.stats().joined == 1 }).await;
        pass_deadline(nodes);
        event(&mut events, "it is told", |event| matches!(event, Event::DeadlinePassed { .. })).await;
        assert_eq!(soon("who waited runs anew", follows).await.unwrap(), 2);
        assert_eq!(soon("and so may others", mute(&there, &Gate::open(), 7, 3)).await, 2);
        gate.let_through(1);
        assert_eq!(soon("its own caller gets its value", hangs).await.unwrap(), 1);
        assert_eq!(mute::entry(7).on(&there).get().await.unwrap(), Some(2), "which is not stored");
    }

    // R23, F3
    async fn a_refresh_over_its_deadline_ends_and_rests(nodes: &Nodes) {
        let cache = nodes.node_with(short_deadline()).await;
        assert_eq!(behind(cache.clone(), Gate::open(), 7, Ok(1)).await, Ok(1));
        outlive(nodes, &[&cache], |cache| behind::entry(7).on(cache)).await;
        let (mut events, gate) = (cache.subscribe(), Gate::shut());
        assert_eq!(soon("stale", behind(cache.clone(), gate.clone(), 7, Ok(2))).await, Ok(1));
        gate.arrival().await;
        pass_deadline(nodes);
        event(&mut events, "it is told", |event| matches!(event, Event::RefreshFailed { .. })).await;
        assert_eq!(soon("stale", behind(cache.clone(), gate.clone(), 7, Ok(2))).await, Ok(1));
        assert_eq!(gate.runs(), 1);
    }
}

/// A page that can be asked whether it has changed: what it was asked with is noted.
async fn page(
    cache: &Cache,
    gate: &Gate,
    asked: &Mutex<Vec<Option<String>>>,
    ttl: Duration,
) -> Result<String, Refused> {
    let options = EntryOptions::new().ttl(ttl).stale_if_error(HOUR).deadline(Deadline::Off);
    let revalidate = |old: Option<String>| async {
        asked.lock().unwrap().push(old.clone());
        gate.pass().await;
        Ok(old.map_or_else(|| Revalidated::New("text ".repeat(10_000)), Revalidated::NotModified))
    };
    cache
        .get_or_revalidate(Key::new("page"), &options, revalidate)
        .await
        .map_err(|error: Arc<Refused>| (*error).clone())
}

/// The entry of the same key.
#[cached(name = "page", cache = cache, skip(cache))]
async fn entry_of_page(cache: &Cache) -> String {
    let _ = cache;
    String::new()
}

on_both_stores! {
    // V8
    async fn a_value_that_is_not_modified_stays_and_its_ttl_is_renewed(nodes: &Nodes) {
        let (here, there) = (nodes.node().await, nodes.node().await);
        let (gate, asked) = (Gate::open(), Mutex::new(Vec::new()));
        let text = page(&here, &gate, &asked, SHORT).await.unwrap();
        if let Nodes::Embedded(_, clock) = nodes { clock.advance(SHORT); }
        eventually("it is asked again", || async {
            assert_eq!(page(&here, &gate, &asked, HOUR).await.as_ref(), Ok(&text));
            asked.lock().unwrap().len() == 2
        }).await;
        assert_eq!(*asked.lock().unwrap(), [None, Some(text.clone())]);
        assert_eq!((here.stats().fills, here.stats().renewed), (1, 1));
        if let Nodes::Redis(server) = nodes {
            // The one `SET` of the payload was its first fill.
            assert_eq!(server.commandstats().get("setrange"), Some(&1));
            assert_eq!(server.commandstats().get("set").copied(), Some(5), "two leases, a value and two versions");
        }
        // Everybody sees it for its new ttl.
        if let Nodes::Embedded(_, clock) = nodes { clock.advance(HOUR / 2); }
        for cache in [&there, &here] {
            assert_eq!(page(cache, &gate, &asked, HOUR).await.as_ref(), Ok(&text));
        }
        assert_eq!(gate.runs(), 2);
    }

    // V8, R1
    async fn a_value_that_was_invalidated_while_it_was_asked_for_is_not_renewed(nodes: &Nodes) {
        let cache = nodes.node().await;
        let (gate, asked) = (Gate::open(), Arc::new(Mutex::new(Vec::new())));
        let text = page(&cache, &gate, &asked, SHORT).await.unwrap();
        if let Nodes::Embedded(_, clock) = nodes { clock.advance(SHORT); }
        let (mut events, gate) = (cache.subscribe(), Gate::shut());
        let slow = tokio::spawn({
            let (cache, gate, asked) = (cache.clone(), gate.clone(), Arc::clone(&asked));
            async move {
                while gate.runs() == 0 {
                    page(&cache, &gate, &asked, HOUR).await.unwrap();
                }
            }
        });
        gate.arrival().await;
        entry_of_page::entry().on(&cache).invalidate().await.unwrap();
        gate.let_through(1);
        soon("it returns", slow).await.unwrap();
        event(&mut events, "it is told", |event| matches!(event, Event::FillRefused { .. })).await;
        assert_eq!(page(&cache, &Gate::open(), &asked, HOUR).await, Ok(text.clone()));
        assert_eq!(*asked.lock().unwrap(), [None, Some(text), None]);
    }
}

/// By hand, with a tag.
async fn tagged(cache: &Cache, gate: &Gate, answer: Answer, stale: EntryOptions) -> Result<usize, Arc<Refused>> {
    let options = stale.ttl(SHORT).jitter(0.0).tags(["numbers"]);
    let compute = || async {
        gate.pass().await;
        answer
    };
    soon("a call", cache.get_or_compute(Key::new("tagged"), &options, compute)).await
}

/// The entry of the same key.
#[cached(name = "tagged", cache = cache, skip(cache))]
async fn entry_of_tagged(cache: &Cache) -> usize {
    let _ = cache;
    0
}

/// Until the ttl of [`tagged`] is over.
async fn outlive_tagged(nodes: &Nodes, cache: &Cache) {
    if let Nodes::Embedded(_, clock) = nodes {
        clock.advance(SHORT);
    }
    past_ttl(|| entry_of_tagged::entry().on(cache)).await;
}

on_both_stores! {
    // R17
    async fn a_stale_value_that_a_tag_has_ended_is_not_served(nodes: &Nodes) {
        let (here, there) = (nodes.node().await, nodes.node().await);
        let stale = || EntryOptions::new().stale_while_revalidate(HOUR).stale_if_error(HOUR);
        for tell in [true, false] {
            tagged(&here, &Gate::open(), Ok(1), stale()).await.unwrap();
            outlive_tagged(nodes, &here).await;
            // It is there to fall back on, until it is invalidated: by everything, or by its tag.
            assert_eq!(tagged(&here, &Gate::open(), Err(Refused), stale()).await, Ok(1));
            if tell { there.invalidate_tag("numbers").await.unwrap() } else { there.clear().await.unwrap() }
            eventually("it is told", || async { tagged(&here, &Gate::open(), Err(Refused), stale()).await.is_err() }).await;
        }
    }

    // R17
    async fn a_run_that_fails_does_not_fall_back_on_what_a_tag_has_ended_meanwhile(nodes: &Nodes) {
        let (here, there) = (nodes.node().await, nodes.node().await);
        let stale = || EntryOptions::new().stale_if_error(HOUR);
        tagged(&here, &Gate::open(), Ok(1), stale()).await.unwrap();
        outlive_tagged(nodes, &here).await;
        let during = || async {
            there.invalidate_tag("numbers").await.unwrap();
            Err::<usize, _>(Refused)
        };
        let options = stale().ttl(SHORT).jitter(0.0).tags(["numbers"]);
        let call = here.get_or_compute(Key::new("tagged"), &options, during);
        assert!(soon("a call", call).await.is_err());
        // Its value would have been older than the invalidation too.
        assert_eq!(tagged(&here, &Gate::open(), Ok(2), stale()).await, Ok(2));
    }
}

// V8: a value in an `Arc` is kept like any other.
#[tokio::test]
async fn a_shared_value_that_is_not_modified_stays() {
    let clock = cache_core::clock::Clock::manual();
    let cache = Cache::builder().jitter(0.0).clock(clock.clone()).in_memory();
    let options = EntryOptions::new().ttl(SHORT).stale_if_error(HOUR);
    for renewed in 0..3 {
        let revalidate = |old: Option<Arc<String>>| async {
            let new = || Revalidated::New(Arc::new("text".to_owned()));
            Ok::<_, Refused>(old.map_or_else(new, Revalidated::NotModified))
        };
        let value = cache.get_or_revalidate(Key::new("shared"), &options, revalidate).await;
        assert_eq!(**value.as_ref().unwrap(), "text");
        assert_eq!((cache.stats().fills, cache.stats().renewed), (1, renewed));
        clock.advance(SHORT);
    }
}
