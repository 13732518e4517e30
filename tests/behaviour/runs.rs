//! Runs as tasks of their own: cycles, panics, task-locals, callers that are not polled, recursion.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use cache_core::error::DeadlineExceeded;
use cache_core::events::Event;
use cache_core::{Cache, cached};
use futures::future::{BoxFuture, join_all};
use futures::{FutureExt as _, StreamExt as _, stream};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use support::{Gate, Nodes, eventually, on_both_stores, soon};
use tokio::sync::Notify;

/// Two functions that call each other, each after its gate.
#[derive(Clone)]
struct Cycle {
    cache: Cache,
    first: Gate,
    second: Gate,
}

#[cached(ttl = 60, skip(cycle), cache = &cycle.cache)]
async fn owned_first(cycle: Cycle, id: u32) -> u32 {
    cycle.first.pass().await;
    Box::pin(owned_second(cycle, id)).await
}

#[cached(ttl = 60, skip(cycle), cache = &cycle.cache)]
async fn owned_second(cycle: Cycle, id: u32) -> u32 {
    cycle.second.pass().await;
    Box::pin(owned_first(cycle, id)).await
}

#[cached(ttl = 60, skip(cycle), cache = &cycle.cache)]
async fn borrowed_first(cycle: &Cycle, id: u32) -> u32 {
    cycle.first.pass().await;
    Box::pin(borrowed_second(cycle, id)).await
}

#[cached(ttl = 60, skip(cycle), cache = &cycle.cache)]
async fn borrowed_second(cycle: &Cycle, id: u32) -> u32 {
    cycle.second.pass().await;
    Box::pin(borrowed_first(cycle, id)).await
}

/// Returns the result of `future` while time advances.
pub(super) async fn in_time<T>(nodes: &Nodes, what: &str, future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    soon(what, async {
        loop {
            if let Ok(value) = tokio::time::timeout(Duration::from_millis(5), &mut future).await {
                return value;
            }
            if let Nodes::Embedded(_, clock) = nodes {
                clock.advance(Duration::from_millis(50));
            }
        }
    })
    .await
}

/// Returns the panic message of a call.
async fn panic_of<T>(call: impl Future<Output = T>) -> Option<String> {
    let payload = AssertUnwindSafe(call).catch_unwind().await.err()?;
    let text = payload.downcast_ref::<String>().cloned();
    text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()))
}

/// A value whose serialization can be made to panic.
#[derive(Debug, Clone, PartialEq)]
struct Fragile(u32);

/// `Serialize` panics for this value.
const NOT_WRITTEN: u32 = 13;
/// `Deserialize` panics for these values once enabled: one for each store.
const NOT_READ: [u32; 2] = [14, 15];
static IS_NOT_READ: [AtomicBool; 2] = [const { AtomicBool::new(false) }; 2];

impl Serialize for Fragile {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        assert_ne!(self.0, NOT_WRITTEN, "a Serialize that panics");
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Fragile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u32::deserialize(deserializer)?;
        let is_not_read =
            NOT_READ.iter().zip(&IS_NOT_READ).any(|(not_read, on)| number == *not_read && on.load(Ordering::SeqCst));
        assert!(!is_not_read, "a Deserialize that panics");
        Ok(Self(number))
    }
}

#[cached(ttl = 60, skip(cache, gate), cache = &cache, version = 1)]
async fn fragile(cache: Cache, gate: Gate, id: u32) -> Fragile {
    let _ = &cache;
    gate.pass().await;
    Fragile(id)
}

#[cached(ttl = |_: &u32| -> Duration { panic!("a ttl that panics") }, skip(cache, gate), cache = &cache)]
async fn with_ttl(cache: Cache, gate: Gate, id: u32) -> u32 {
    let _ = &cache;
    gate.pass().await;
    id
}

#[cached(ttl = 60, cache_if = |_: &u32| -> bool { panic!("a cache_if that panics") }, skip(cache, gate), cache = cache)]
async fn with_cache_if(cache: &Cache, gate: &Gate, id: u32) -> u32 {
    let _ = cache;
    gate.pass().await;
    id
}

/// Returns the results of this many callers, all of which wait for one run.
pub(super) async fn all_of<T, F>(cache: &Cache, gate: &Gate, callers: u64, call: impl Fn() -> F) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let joined = cache.stats().joined + callers - 1;
    let calls: Vec<_> = (0..callers).map(|_| tokio::spawn(call())).collect();
    gate.arrival().await;
    eventually("the callers have joined", || async { cache.stats().joined >= joined }).await;
    gate.let_through(1);
    let mut values = Vec::new();
    for call in calls {
        values.push(soon("every caller returns", call).await.unwrap());
    }
    values
}

tokio::task_local! {
    static TENANT: u32;
}

fn tenant() -> Option<u32> {
    TENANT.try_with(|tenant| *tenant).ok()
}

#[cached(ttl = 60, skip(cache, gate), cache = &cache)]
async fn owned_tenant(cache: Cache, gate: Gate, id: u32) -> Option<u32> {
    let _ = (&cache, id);
    let first = tenant();
    gate.pass().await;
    first.or(tenant())
}

#[cached(ttl = 60, skip(cache, gate), cache = cache)]
async fn borrowed_tenant(cache: &Cache, gate: &Gate, id: u32) -> Option<u32> {
    let _ = (cache, id);
    gate.pass().await;
    tenant()
}

#[derive(Debug, Clone, PartialEq)]
enum Failed {
    Late,
}

impl From<DeadlineExceeded> for Failed {
    fn from(_: DeadlineExceeded) -> Self {
        Self::Late
    }
}

#[cached(ttl = 60, skip(cache, runs), cache = cache, deadline = "300ms")]
async fn held(cache: &Cache, runs: &AtomicU32, id: u32) -> Result<u32, Failed> {
    let _ = cache;
    if runs.fetch_add(1, Ordering::SeqCst) == 0 {
        // Only the first run is held, by a caller that does not poll it.
        std::future::pending::<()>().await;
    }
    Ok(id)
}

#[cached(ttl = 60, skip(cache, runs), cache = cache)]
async fn held_without_error(cache: &Cache, runs: &AtomicU32, id: u32) -> u32 {
    let _ = cache;
    if runs.fetch_add(1, Ordering::SeqCst) == 0 {
        std::future::pending::<()>().await;
    }
    id
}

/// Returns the result of `call`, while waiters on the signal are woken repeatedly.
async fn while_let_through<T>(signal: &Notify, call: impl Future<Output = T>) -> T {
    let mut call = std::pin::pin!(call);
    loop {
        signal.notify_waiters();
        tokio::select! {
            biased;
            done = &mut call => return done,
            () = tokio::task::yield_now() => {}
        }
    }
}

/// Waits once for the signal of its id, if there is one.
#[cached(ttl = 60, skip(cache, signals, runs), cache = cache)]
async fn signalled(cache: &Cache, signals: &[Notify], runs: &AtomicU32, id: usize) -> usize {
    let _ = cache;
    runs.fetch_add(1, Ordering::SeqCst);
    if let Some(signal) = signals.get(id) {
        signal.notified().await;
    }
    id
}

#[cached(ttl = 60, skip(cache, runs), cache = cache)]
async fn woken_often(cache: &Cache, runs: &AtomicU32, id: u32) -> u32 {
    let _ = cache;
    runs.fetch_add(1, Ordering::SeqCst);
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    id
}

#[cached(ttl = 60, skip(cache), cache = &cache)]
async fn owned_depth(cache: Cache, n: u32) -> u32 {
    if n == 0 { 0 } else { Box::pin(owned_depth(cache, n - 1)).await + 1 }
}

#[cached(ttl = 60, skip(cache), cache = cache)]
async fn borrowed_depth(cache: &Cache, n: u32) -> u32 {
    if n == 0 { 0 } else { Box::pin(borrowed_depth(cache, n - 1)).await + 1 }
}

#[cached(ttl = 60, skip(cache, gate), cache = &cache, single_flight = "process", tags("mine"))]
async fn tagged(cache: Cache, gate: Gate, id: u32) -> u32 {
    let _ = &cache;
    gate.pass().await;
    id
}

/// The stack size of a tokio worker thread.
const STACK: usize = 2 * 1024 * 1024;

/// Runs `work` on a runtime whose threads have the stack of a worker.
fn on_workers<F: Future<Output = ()> + Send + 'static>(work: impl FnOnce() -> F) {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).thread_stack_size(STACK).enable_all().build().unwrap();
    let work = runtime.spawn(work());
    runtime.block_on(work).unwrap();
}

#[test]
fn a_recursion_of_ten_thousand_owned_runs_needs_no_stack() {
    on_workers(|| async {
        let cache = Cache::in_memory();
        assert_eq!(owned_depth(cache.clone(), 10_000).await, 10_000);
        assert_eq!(cache.stats().computes, 10_001);
    });
}

#[test]
fn two_hundred_levels_of_borrowed_runs_fit_on_the_stack_of_a_worker() {
    on_workers(|| async {
        let cache = Cache::in_memory();
        assert_eq!(borrowed_depth(&cache, 200).await, 200);
        assert_eq!(cache.stats().computes, 201);
    });
}

on_both_stores! {
    // S9
    async fn runs_that_wait_for_each_other_end_by_a_panic_that_names_both(nodes: &Nodes) {
        for owned in [true, false] {
            let cycle = Cycle { cache: nodes.node().await, first: Gate::shut(), second: Gate::shut() };
            let id = u32::from(owned);
            let call = |is_first: bool| -> BoxFuture<'static, u32> {
                let cycle = cycle.clone();
                match (owned, is_first) {
                    (true, true) => Box::pin(owned_first(cycle, id)),
                    (true, false) => Box::pin(owned_second(cycle, id)),
                    (false, true) => Box::pin(async move { borrowed_first(&cycle, id).await }),
                    (false, false) => Box::pin(async move { borrowed_second(&cycle, id).await }),
                }
            };
            let calls = [true, false].map(|is_first| tokio::spawn(panic_of(call(is_first))));
            // Both runs have started before either calls the other.
            cycle.first.arrival().await;
            cycle.second.arrival().await;
            cycle.first.let_through(10);
            cycle.second.let_through(10);
            let mut texts = Vec::new();
            for call in calls {
                texts.push(soon("both end", call).await.unwrap().expect("neither has a value"));
            }
            let name = if owned { "owned_" } else { "borrowed_" };
            let names_both = |text: &String| {
                text.contains(&format!("{name}first")) && text.contains(&format!("{name}second")) &&
                    text.contains("wait forever")
            };
            assert!(texts.iter().all(names_both), "{texts:?}");
        }
    }

    // S9: two processes.
    async fn a_cycle_over_two_processes_ends_at_the_deadline(nodes: &Nodes) {
        let gates = (Gate::shut(), Gate::shut());
        let cycle = |cache: Cache| Cycle { cache, first: gates.0.clone(), second: gates.1.clone() };
        let node = || nodes.node_with(Cache::builder().jitter(0.0).deadline(Duration::from_millis(300)));
        let (one, other) = (cycle(node().await), cycle(node().await));
        let (first, second) = (one.clone(), other.clone());
        let calls = [
            tokio::spawn(panic_of(async move { borrowed_first(&first, 7).await })),
            tokio::spawn(panic_of(async move { borrowed_second(&second, 7).await })),
        ];
        one.first.arrival().await;
        one.second.arrival().await;
        one.first.let_through(10);
        one.second.let_through(10);
        for call in calls {
            let text = in_time(nodes, "it ends", call).await.unwrap().expect("there is no value");
            assert!(text.contains("forever"), "{text}");
        }
    }

    // S10
    async fn a_panic_beside_the_function_costs_no_caller_its_value(nodes: &Nodes) {
        let (cache, gate) = (nodes.node().await, Gate::shut());
        let mut told = cache.subscribe();
        let values = all_of(&cache, &gate, 40, || with_ttl(cache.clone(), gate.clone(), 1)).await;
        assert_eq!(values, [1; 40]);
        let values = all_of(&cache, &gate, 40, || {
            let (cache, gate) = (cache.clone(), gate.clone());
            async move { with_cache_if(&cache, &gate, 2).await }
        });
        assert_eq!(values.await, [2; 40]);
        for _ in 0..2 {
            support::event(&mut told, "the panic is reported", |event| matches!(event, Event::FillPanicked { .. })).await;
        }
        let values = all_of(&cache, &gate, 40, || fragile(cache.clone(), gate.clone(), NOT_WRITTEN)).await;
        assert_eq!(values, vec![Fragile(NOT_WRITTEN); 40]);
        support::event(&mut told, "the panic is reported", |event| matches!(event, Event::EncodeFailed { .. })).await;
        assert_eq!(gate.runs(), 3);
    }

    // S10, V7
    async fn a_stored_value_whose_deserialize_panics_is_a_miss(nodes: &Nodes) {
        let at = usize::from(matches!(nodes, Nodes::Redis(_)));
        // One process stores a value that the other cannot read.
        let (writer, reader, gate) = (nodes.node().await, nodes.node().await, Gate::open());
        assert_eq!(fragile(writer.clone(), gate.clone(), NOT_READ[at]).await, Fragile(NOT_READ[at]));
        IS_NOT_READ[at].store(true, Ordering::SeqCst);
        let mut told = reader.subscribe();
        let calls = join_all((0..10).map(|_| tokio::spawn(fragile(reader.clone(), gate.clone(), NOT_READ[at]))));
        for value in soon("all return", calls).await {
            assert_eq!(value.unwrap(), Fragile(NOT_READ[at]));
        }
        support::event(&mut told, "it is reported", |event| matches!(event, Event::Undecodable { .. })).await;
    }

    // S11
    async fn a_run_sees_no_context_of_another_caller(nodes: &Nodes) {
        let (cache, gate) = (nodes.node().await, Gate::shut());
        let number = AtomicU32::new(1);
        let seen = all_of(&cache, &gate, 10, || {
            let tenant = number.fetch_add(1, Ordering::SeqCst);
            TENANT.scope(tenant, owned_tenant(cache.clone(), gate.clone(), 1))
        });
        assert_eq!(seen.await, [None; 10], "an owned run sees no caller's context");
        gate.let_through(1);
        let own = TENANT.scope(7, async { borrowed_tenant(&cache, &gate, 2).await });
        assert_eq!(soon("it runs", own).await, Some(7), "a borrowed one sees its own caller's");
    }

    // S12
    async fn a_follower_of_an_unpolled_caller_waits_at_most_for_the_deadline(nodes: &Nodes) {
        let cache = nodes.node_with(Cache::builder().jitter(0.0).deadline(Duration::from_millis(300))).await;
        let runs = AtomicU32::new(0);
        let mut first = Box::pin(held(&cache, &runs, 7));
        eventually("the first runs", || {
            let _pending = (&mut first).now_or_never();
            let is_running = runs.load(Ordering::SeqCst) == 1;
            async move { is_running }
        })
        .await;
        // It shares the deadline of the first caller.
        assert_eq!(in_time(nodes, "the follower returns", held(&cache, &runs, 7)).await, Err(Failed::Late));
        assert_eq!(soon("it is called again", held(&cache, &runs, 7)).await, Ok(7));
        drop(first);

        let runs = AtomicU32::new(0);
        let mut first = Box::pin(held_without_error(&cache, &runs, 7));
        eventually("the first runs", || {
            let _pending = (&mut first).now_or_never();
            let is_running = runs.load(Ordering::SeqCst) == 1;
            async move { is_running }
        })
        .await;
        assert_eq!(in_time(nodes, "the follower leads", held_without_error(&cache, &runs, 7)).await, 7);
        assert_eq!(runs.load(Ordering::SeqCst), 2);
    }

    // S12
    async fn a_call_behind_an_unpolled_leader_of_its_own_task_leads_at_once(nodes: &Nodes) {
        // No deadline would end the wait.
        let cache = nodes.node_with(Cache::builder().deadline(None)).await;
        let (signals, runs) = ([const { Notify::const_new() }; 8], AtomicU32::new(0));
        // The loop body waits for a value whose future is held by the surrounding stream.
        let walk = async {
            let mut ids = stream::iter(0..7).map(|id| signalled(&cache, &signals, &runs, id)).buffered(2);
            for id in 0..7 {
                assert_eq!(while_let_through(&signals[id], ids.next()).await, Some(id));
                let next = signalled(&cache, &signals, &runs, id + 1);
                assert_eq!(while_let_through(&signals[id + 1], next).await, id + 1);
            }
        };
        soon("the walk ends", walk).await;

        // A future held by a `select!`.
        let cache = nodes.node_with(Cache::builder().namespace("other").deadline(None)).await;
        let runs = AtomicU32::new(0);
        let mut first = Box::pin(signalled(&cache, &signals, &runs, 0));
        eventually("the first runs", || {
            let _pending = (&mut first).now_or_never();
            let is_running = runs.load(Ordering::SeqCst) == 1;
            async move { is_running }
        })
        .await;
        let second = while_let_through(&signals[0], signalled(&cache, &signals, &runs, 0));
        assert_eq!(soon("the second returns", second).await, 0);
        assert_eq!(runs.load(Ordering::SeqCst), 2);
        assert_eq!(soon("the first returns", first).await, 0, "its function goes on for it alone");
    }

    // S1, S12
    async fn callers_of_one_task_that_are_all_polled_share_one_run(nodes: &Nodes) {
        let cache = nodes.node().await;
        let runs = AtomicU32::new(0);
        let call = |id| woken_often(&cache, &runs, id);
        soon("they return", async { tokio::join!(call(1), call(1), call(1)) }).await;
        soon("they return", join_all((0..100).map(|_| call(2)))).await;
        soon("they return", stream::iter(0..100).map(|_| call(3)).buffer_unordered(50).collect::<Vec<_>>()).await;
        soon("one returns", futures::future::select(Box::pin(call(4)), Box::pin(call(4)))).await;
        assert_eq!(runs.load(Ordering::SeqCst), 4);
    }

    // S1, R19
    async fn a_version_that_a_value_does_not_depend_on_detaches_no_run(nodes: &Nodes) {
        let (cache, other, gate) = (nodes.node().await, nodes.node().await, Gate::shut());
        let call = || tokio::spawn(tagged(cache.clone(), gate.clone(), 7));
        let mut calls = vec![call()];
        gate.arrival().await;
        for round in 1..=8 {
            other.invalidate_tag("theirs").await.unwrap();
            cache.invalidate_tag("theirs").await.unwrap();
            calls.push(call());
            eventually("it has joined", || async { cache.stats().joined >= round }).await;
        }
        assert_eq!(gate.runs(), 1);
        cache.invalidate_tag("mine").await.unwrap();
        calls.push(call());
        gate.arrival().await;
        gate.let_through(2);
        for call in calls {
            assert_eq!(soon("every caller returns", call).await.unwrap(), 7);
        }
        assert_eq!(gate.runs(), 2, "its own tag detaches it");
    }
}

#[tokio::test]
// S10
async fn an_observer_that_panics_ends_nothing() {
    let seen = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&seen);
    let observer = move |_: &Event| {
        counted.fetch_add(1, Ordering::SeqCst);
        panic!("an observer that panics");
    };
    let cache = Cache::builder().on_event(observer).in_memory();
    let gate = Gate::open();
    assert_eq!(with_ttl(cache.clone(), gate.clone(), 1).await, 1);
    assert_eq!(with_ttl(cache.clone(), gate.clone(), 1).await, 1);
    assert!(seen.load(Ordering::SeqCst) >= 2);
}
