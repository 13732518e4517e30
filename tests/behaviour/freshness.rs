//! When values expire, what is served afterwards, and who computes the next value.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cache_core::entry::UnboundEntry;
use cache_core::events::{Event, StaleCause};
use cache_core::options::RefreshBy;
use cache_core::{Cache, CachedEntry, EntryOptions, Key, cached};
use support::{Gate, Nodes, event, eventually, on_both_stores, soon};

mod refreshes;
mod revalidation;
mod time_limits;

/// Values below this expire immediately, the others never within a test.
const LASTS: usize = 1000;
const SHORT: Duration = Duration::from_millis(40);
const HOUR: Duration = Duration::from_secs(3600);

#[derive(Debug, Clone, PartialEq)]
struct Refused;

type Answer = Result<usize, Refused>;

#[cached(name = "behind", ttl = |value| if *value < LASTS { SHORT } else { HOUR }, stale_while_revalidate = "1h", early = false, key = "{id}", skip(cache, gate, answer), cache = &cache)]
async fn behind(cache: Cache, gate: Gate, id: u32, answer: Answer) -> Answer {
    let _ = id;
    gate.pass().await;
    answer
}

#[cached(name = "fallback", ttl = |value| if *value < LASTS { SHORT } else { HOUR }, stale_if_error = "1h", key = "{id}", skip(cache, gate, answer), cache = cache)]
async fn fallback(cache: &Cache, gate: &Gate, id: u32, answer: Answer) -> Answer {
    let _ = (cache, id);
    gate.pass().await;
    answer
}

#[cached(name = "by_caller", ttl = |value| if *value < LASTS { SHORT } else { HOUR }, stale_while_revalidate = "1h", refresh = "caller", key = "{id}", skip(cache, gate, answer), cache = cache)]
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

/// Waits until a value is past its ttl. The clock of L1 has a resolution of some milliseconds, so
/// ten more reads follow.
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
        let cache = nodes.node_with(Cache::builder().jitter(0.1)).await;
        let all = Duration::from_secs(1000);
        let began = Instant::now();
        for id in 0..200 {
            // Computed and set values are treated the same.
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
            // On a running clock, some time has passed.
            let passed = began.elapsed() + Duration::from_secs(1);
            assert!(longest <= all && shortest + passed >= least, "{shortest:?} to {longest:?}");
            // 200 values leave no gap of a tenth at either end.
            assert!(longest - shortest >= (all - least).mul_f64(0.8), "{shortest:?} to {longest:?}");
        }
    }

    // V4: without `jitter`, the ttl is used unchanged
    async fn without_jitter_a_ttl_is_exact(nodes: &Nodes) {
        let cache = nodes.node_with(Cache::builder()).await;
        let began = Instant::now();
        for id in 0..100 {
            if id % 2 == 0 {
                by_default(&cache, id).await;
            } else {
                by_default::entry(id).on(&cache).set(id).await.unwrap();
            }
        }
        for id in 0..100 {
            let left = by_default::entry(id).on(&cache).ttl().await.unwrap().unwrap();
            // On a running clock, some time has passed.
            let passed = if matches!(nodes, Nodes::Redis(_)) { began.elapsed() + Duration::from_secs(1) } else { Duration::ZERO };
            let all = Duration::from_secs(1000);
            assert!(left <= all && left + passed >= all, "{left:?} of {all:?}");
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
        event(&mut events, "it is reported", |event| matches!(event, Event::RefreshFailed { name } if &**name == "behind")).await;
        for cache in [&here, &there, &here, &there] {
            assert_eq!(soon("stale", behind(cache.clone(), gate.clone(), 7, Ok(2))).await, Ok(1));
        }
        // The attempt of the other process was stopped by the throttle.
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
        event(&mut events, "it is reported", |event| matches!(event, Event::RefreshSkipped { name } if &**name == "behind")).await;
        gate.arrival().await;
        gate.arrival().await;
        assert_eq!((gate.runs(), cache.stats().refreshes_skipped), (2, 1));
        gate.let_through(3);
        eventually("two are done", || async { cache.stats().fills == 5 }).await;
        for _ in 0..100 {
            behind(cache.clone(), gate.clone(), 2, Ok(LASTS)).await.unwrap();
        }
        assert!(cache.stats().refreshes_skipped <= 1, "reported once, not at each hit");
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
        // The same without the attribute.
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
        event(&mut events, "the error is reported", failed).await;
        assert_eq!((gate.runs(), cache.stats().stale), (2, 1));
        // Without a stale value, the caller gets the error.
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
        // It is not served either if it was invalidated while the function ran.
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

/// Fresh for ten seconds, stale-while-revalidate for five more, stale-if-error for twenty.
#[cached(
    name = "windows",
    ttl = "10s",
    stale_while_revalidate = "5s",
    stale_if_error = "20s",
    key = "{id}",
    skip(cache, gate, answer),
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
        // The lease is given back to the store a moment later.
        eventually("its lease is given back", || async { cache.stats().refreshes <= 2 }).await;
    }
    clock.advance(Duration::from_millis(2));
    assert_eq!(call(Err(Refused)).await, Err(Refused));
}

/// An expensive value: its run takes five seconds of the clock.
#[cached(name = "dear", ttl = 60, key = "{id}", skip(cache, clock, value), cache = &cache)]
async fn dear(cache: Cache, clock: cache_core::clock::Clock, id: u32, value: u32) -> u32 {
    let _ = (&cache, id);
    clock.advance(Duration::from_secs(5));
    value
}

#[cached(name = "dear_to_the_end", ttl = 60, early = false, key = "{id}", skip(cache, clock, value), cache = &cache)]
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
        // With one millisecond left, a read does not trigger a refresh once in five thousand:
        // exp(-1 / 5,000).
        clock.advance(Duration::from_millis(59_999));
        for _ in 0..10 {
            assert!([1, 3].contains(&dear(cache.clone(), clock.clone(), 7, 3).await));
        }
        let read = || async { dear::entry(7).on(&cache).get().await.unwrap() };
        eventually("the next value is there before the old one ends", || async { read().await == Some(3) }).await;
        assert_eq!((cache.stats().refreshes, cache.stats().misses), (1, 1), "no caller waited for it");

        assert_eq!(dear_to_the_end(cache.clone(), clock.clone(), 7, 1).await, 1);
        clock.advance(Duration::from_millis(59_999));
        for _ in 0..1_000 {
            assert_eq!(dear_to_the_end(cache.clone(), clock.clone(), 7, 2).await, 1);
        }
        assert_eq!(cache.stats().refreshes, 1, "early = false");
    }
}

/// Without the attribute, with a tag.
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

/// Waits until the ttl of [`tagged`] is over.
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
            // It is used as a fallback until it is invalidated: by everything, or by its tag.
            assert_eq!(tagged(&here, &Gate::open(), Err(Refused), stale()).await, Ok(1));
            if tell { there.invalidate_tag("numbers").await.unwrap() } else { there.clear().await.unwrap() }
            eventually("it is reported", || async { tagged(&here, &Gate::open(), Err(Refused), stale()).await.is_err() }).await;
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

#[cached(name = "refreshed", ttl = |value| if *value < LASTS { SHORT } else { HOUR }, stale_while_revalidate = "1h", early = false, key = "{id}", skip(cache, gate, answer), tags("all", "one:{id}"), cache = &cache)]
async fn refreshed(cache: Cache, gate: Gate, id: u32, answer: Answer) -> Answer {
    let _ = id;
    gate.pass().await;
    answer
}

on_both_stores! {
    // R3, R4
    async fn a_refresh_in_the_background_stores_nothing_from_before_an_invalidation(nodes: &Nodes) {
        let (here, there) = (nodes.node().await, nodes.node().await);
        for (by, scope) in [(&here, "all"), (&there, "all"), (&there, "one:7"), (&here, ""), (&there, ""), (&there, "function")] {
            assert_eq!(refreshed(here.clone(), Gate::open(), 7, Ok(1)).await, Ok(1), "{scope}");
            outlive(nodes, &[&here], |cache| refreshed::entry(7).on(cache)).await;
            let (ended, gate) = (|| here.stats().fills + here.stats().refused_fills, Gate::shut());
            let before = ended();
            assert_eq!(refreshed(here.clone(), gate.clone(), 7, Ok(2)).await, Ok(1), "{scope}");
            gate.arrival().await;
            match scope {
                "" => by.clear().await.unwrap(),
                "function" => refreshed::invalidate_all(by).await.unwrap(),
                tag => by.invalidate_tag(tag).await.unwrap(),
            }
            gate.let_through(1);
            eventually("the refresh ends", || async { ended() > before }).await;
            assert_eq!(refreshed::entry(7).on(&there).get().await.unwrap(), None, "{scope}");
            eventually("what was computed before is gone", || async {
                let found = refreshed(here.clone(), Gate::open(), 7, Ok(LASTS)).await;
                assert_ne!(found, Ok(2), "{scope}");
                found == Ok(LASTS)
            })
            .await;
            refreshed::entry(7).on(&here).invalidate().await.unwrap();
        }
    }
}
