//! How long callers wait, and how long a run may take.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use cache_core::error::DeadlineExceeded;
use cache_core::events::{Event, StaleCause};
use cache_core::testing::sim::flights;
use cache_core::{Cache, cached};
use support::{Gate, Nodes, RedisServer, event, eventually, on_both_stores, soon};

use super::{Answer, HOUR, LASTS, SHORT, behind, outlive, past_ttl};

/// Functions that wait this long for a new value before they serve an old one.
macro_rules! patient {
    ($($name:ident $soft_timeout:literal)*) => {$(
        #[cached(
            ttl = |value| if *value < LASTS { SHORT } else { HOUR },
            stale_if_error = "1h",
            soft_timeout = $soft_timeout,
            deadline = false,
            early = false,
            key = "{id}",
            skip(cache, gate, answer),
            cache = &cache
        )]
        async fn $name(cache: Cache, gate: Gate, id: u32, answer: Answer) -> Answer {
            let _ = id;
            gate.pass().await;
            answer
        }
    )*};
}

patient! {
    patient "1s"
    very_patient "1h"
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
        event(&mut events, "it is reported", told).await;
        // While the run continues, no caller starts another.
        assert_eq!(soon("it returns", patient(here.clone(), gate.clone(), 7, Ok(3))).await, Ok(1));
        gate.let_through(1);
        eventually("it is stored", || async { entry(&there).get().await.unwrap() == Some(LASTS) }).await;
        assert_eq!(gate.runs(), 1);
    }
}

// F5, X2
#[tokio::test]
async fn a_waiter_woken_without_a_value_waits_on_and_is_counted_once() {
    let nodes = Nodes::Redis(RedisServer::start());
    let Nodes::Redis(server) = &nodes else { unreachable!("it was just made") };
    let (here, there) = (nodes.node().await, nodes.node().await);
    let entry = |cache: &Cache| very_patient::entry(7).on(cache);
    assert_eq!(very_patient(there.clone(), Gate::open(), 7, Ok(1)).await, Ok(1));
    outlive(&nodes, &[&here, &there], entry).await;
    let gate = Gate::shut();
    let runs = tokio::spawn(very_patient(there.clone(), gate.clone(), 7, Ok(LASTS)));
    gate.arrival().await;
    let waits = tokio::spawn(very_patient(here.clone(), gate.clone(), 7, Ok(3)));
    eventually("it waits", || async { here.stats().waited == 1 }).await;
    let reads = || server.commandstats().get("get").copied().unwrap_or(0);
    let before = reads();
    // Pushed like any change, but the value is the same.
    let is_woken = || async {
        server.cli(&["EXPIRE", entry(&here).key(), "1000"]);
        reads() >= before + 4
    };
    eventually("it has looked again", is_woken).await;
    gate.let_through(1);
    assert_eq!(soon("it is computed", runs).await.unwrap(), Ok(LASTS));
    assert_eq!(soon("it comes", waits).await.unwrap(), Ok(LASTS));
    assert_eq!((here.stats().waited, gate.runs()), (1, 1));
}

// F6
#[tokio::test]
async fn without_an_old_value_the_soft_timeout_is_ignored() {
    let clock = cache_core::clock::Clock::manual();
    let (cache, gate) = (Cache::builder().clock(clock.clone()).in_memory(), Gate::shut());
    let waits = tokio::spawn(patient(cache.clone(), gate.clone(), 7, Ok(LASTS)));
    gate.arrival().await;
    clock.advance(Duration::from_secs(5));
    // Everything that wakes at this time has run before this continues.
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

/// An error type that can represent a deadline.
#[cached(
    name = "limited",
    ttl = |value| if *value < LASTS { SHORT } else { HOUR },
    stale_if_error = "1h",
    deadline = "200ms",
    early = false,
    key = "{id}",
    skip(cache, gate, ended),
    cache = cache
)]
async fn limited(cache: &Cache, gate: &Gate, id: u32, ended: &Arc<()>) -> Result<usize, Slow> {
    let (_, _held) = ((cache, id), Arc::clone(ended));
    gate.pass().await;
    if id == 0 { Err(Slow::Refused) } else { Ok(1) }
}

/// An I/O error represents the deadline.
#[cached(name = "by_io", ttl = 60, deadline = "200ms", key = "{id}", skip(cache, gate), cache = cache)]
async fn by_io(cache: &Cache, gate: &Gate, id: u32) -> Result<u32, io::Error> {
    let _ = cache;
    gate.pass().await;
    Ok(id)
}

/// No error type.
#[cached(name = "mute", ttl = 60, key = "{id}", skip(cache, gate, answer), cache = cache)]
async fn mute(cache: &Cache, gate: &Gate, id: u32, answer: u32) -> u32 {
    let _ = (cache, id);
    gate.pass().await;
    answer
}

/// Owns its arguments, and has no error type.
#[cached(name = "owned_mute", ttl = 60, key = "{id}", skip(cache, gate, answer), cache = &cache)]
async fn owned_mute(cache: Cache, gate: Gate, id: u32, answer: u32) -> u32 {
    let _ = (&cache, id);
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
        event(&mut events, "it is reported", |event| matches!(event, Event::DeadlinePassed { name } if &**name == "limited")).await;
        assert_eq!(soon("the key is free", limited(&there, &Gate::open(), 7, &ended)).await, Ok(1));
        assert_eq!(there.stats().waited, 0);
        // The function's own errors are unchanged, and an I/O error can represent the deadline too.
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
        event(&mut events, "it is reported", told).await;
    }

    // R23: the key becomes free even if the deadline cannot be reported.
    async fn a_compute_without_a_deadline_error_goes_on_without_its_key(nodes: &Nodes) {
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
        event(&mut events, "it is reported", |event| matches!(event, Event::DeadlinePassed { .. })).await;
        assert_eq!(soon("the waiter runs again", follows).await.unwrap(), 2);
        assert_eq!(soon("and so may others", mute(&there, &Gate::open(), 7, 3)).await, 2);
        gate.let_through(1);
        assert_eq!(soon("its own caller gets its value", hangs).await.unwrap(), 1);
        assert_eq!(mute::entry(7).on(&there).get().await.unwrap(), Some(2), "which is not stored");
    }

    // R23: a run that owns its arguments goes on for all callers that wait for it.
    async fn a_caller_after_the_deadline_of_a_compute_does_not_join_it(nodes: &Nodes) {
        let (cache, gate) = (nodes.node_with(short_deadline()).await, Gate::shut());
        let call = |gate: &Gate, answer| tokio::spawn(owned_mute(cache.clone(), gate.clone(), 7, answer));
        let hangs = call(&gate, 1);
        gate.arrival().await;
        let other = Gate::open();
        let joins = call(&other, 2);
        eventually("it has joined", || async { cache.stats().joined == 1 }).await;
        pass_deadline(nodes);
        eventually("it can no longer be joined", || async { flights(&cache) == 0 }).await;
        assert_eq!(soon("a later caller runs", call(&other, 3)).await.unwrap(), 3);
        gate.let_through(1);
        for waits in [hangs, joins] {
            assert_eq!(soon("the waiter gets its value", waits).await.unwrap(), 1);
        }
        assert_eq!((cache.stats().joined, other.runs()), (1, 1));
        let entry = owned_mute::entry(7).on(&cache);
        assert_eq!(entry.get().await.unwrap(), Some(3), "only the later run is stored");
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
        event(&mut events, "it is reported", |event| matches!(event, Event::RefreshFailed { .. })).await;
        assert_eq!(soon("stale", behind(cache.clone(), gate.clone(), 7, Ok(2))).await, Ok(1));
        assert_eq!(gate.runs(), 1);
    }
}

/// Like [`patient`], with a tag.
#[cached(
    name = "tagged",
    ttl = |value| if *value < LASTS { SHORT } else { HOUR },
    stale_if_error = "1h",
    soft_timeout = "1s",
    deadline = false,
    early = false,
    key = "{id}",
    skip(cache, gate, answer),
    cache = &cache,
    tags("rows")
)]
async fn tagged(cache: Cache, gate: Gate, id: u32, answer: Answer) -> Answer {
    let _ = id;
    gate.pass().await;
    answer
}

#[tokio::test]
// R17, F6: there is no old value left, so callers wait for the new one
async fn after_an_invalidation_the_soft_timeout_serves_nothing_old() {
    let nodes = Nodes::embedded();
    let Nodes::Embedded(_, clock) = &nodes else { unreachable!() };
    let (here, there) = (nodes.node().await, nodes.node().await);
    let entry = |cache: &Cache| tagged::entry(7).on(cache);
    for way in ["none", "entry", "tag", "function", "namespace"] {
        assert_eq!(tagged(here.clone(), Gate::open(), 7, Ok(1)).await, Ok(1));
        outlive(&nodes, &[&here], entry).await;
        let gate = Gate::shut();
        let call = tokio::spawn(tagged(here.clone(), gate.clone(), 7, Ok(2)));
        gate.arrival().await;
        match way {
            "none" => {}
            "entry" => entry(&there).invalidate().await.unwrap(),
            "tag" => there.invalidate_tag("rows").await.unwrap(),
            "function" => tagged::invalidate_all(&there).await.unwrap(),
            _ => there.clear().await.unwrap(),
        }
        clock.advance(Duration::from_secs(1));
        // On one thread: every task that can continue does.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(call.is_finished(), way == "none", "{way}");
        gate.let_through(1);
        assert_eq!(soon("the call", call).await.unwrap(), Ok(if way == "none" { 1 } else { 2 }), "{way}");
        entry(&there).invalidate().await.unwrap();
    }
}
