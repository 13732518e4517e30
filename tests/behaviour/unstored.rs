//! A result that is not stored makes no process wait for another.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use cache_core::{Cache, CacheBuilder, EntryOptions, Key, cached};
use futures::FutureExt as _;
use support::{Gate, Nodes, eventually, on_both_stores, soon};
use tokio::task::JoinHandle;

/// The outcome of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Outcome {
    Stored,
    Error,
    Absent,
    RefusedByCacheIf,
    TooLarge,
    Panic,
}

/// The outcomes that store nothing.
const UNSTORED: [Outcome; 5] =
    [Outcome::Error, Outcome::Absent, Outcome::RefusedByCacheIf, Outcome::TooLarge, Outcome::Panic];

#[cached(name = "row", ttl = 60, key = "{id}", skip(cache, gate, outcome), cache_if = |value| value != "refused", cache = cache)]
async fn row(cache: &Cache, gate: &Gate, id: u32, outcome: Outcome) -> Result<Option<String>, String> {
    let _ = (cache, id);
    gate.pass().await;
    match outcome {
        Outcome::Stored => Ok(Some("stored".to_owned())),
        Outcome::Error => Err("error".to_owned()),
        Outcome::Absent => Ok(None),
        Outcome::RefusedByCacheIf => Ok(Some("refused".to_owned())),
        Outcome::TooLarge => Ok(Some("x".repeat(2000))),
        Outcome::Panic => panic!("for the test"),
    }
}

/// Its record exists for an hour after its ttl. The local tier's clock has steps of a few
/// milliseconds, so it keeps none of it.
#[cached(name = "ended", ttl = "1ms", stale_if_error = "1h", local = false, key = "{id}", skip(cache), cache = cache)]
async fn kept(cache: &Cache, id: u32) -> Result<u32, String> {
    let _ = cache;
    Ok(id)
}

/// This function cannot serve a record past its ttl, only replace it.
#[cached(name = "ended", ttl = "1ms", local = false, key = "{id}", skip(cache, gate, is_error), cache = cache)]
async fn ended(cache: &Cache, gate: &Gate, id: u32, is_error: bool) -> Result<u32, String> {
    let _ = cache;
    gate.pass().await;
    if is_error { Err("error".to_owned()) } else { Ok(id) }
}

fn settings() -> CacheBuilder {
    // A caller that waited for the lease to expire would exceed the test's timeout.
    Cache::builder().jitter(0.0).max_value_bytes(1000).lease(Duration::from_secs(60)).deadline(None)
}

async fn several(nodes: &Nodes, count: usize) -> Vec<Cache> {
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(nodes.node_with(settings()).await);
    }
    all
}

fn start(cache: &Cache, gate: &Gate, outcome: Outcome) -> JoinHandle<Result<Option<String>, String>> {
    let (cache, gate) = (cache.clone(), gate.clone());
    tokio::spawn(async move { row(&cache, &gate, 7, outcome).await })
}

async fn all_wait(caches: &[Cache]) {
    eventually("all of them wait", || async { caches.iter().all(|cache| cache.stats().waited > 0) }).await;
}

on_both_stores! {
    // X7, R18
    async fn waiters_for_a_compute_that_stored_nothing_compute_at_once(nodes: &Nodes) {
        for outcome in UNSTORED {
            let (caches, gate) = (several(nodes, 6).await, Gate::shut());
            let first = start(&caches[0], &gate, outcome);
            gate.arrival().await;
            let others: Vec<_> = caches[1..].iter().flat_map(|cache| [cache, cache]).collect();
            let others: Vec<_> = others.into_iter().map(|cache| start(cache, &gate, outcome)).collect();
            all_wait(&caches[1..]).await;
            gate.let_through(1);
            // None of them is let through: they run concurrently, one in each process.
            for _ in 1..caches.len() {
                gate.arrival().await;
            }
            assert_eq!(gate.runs(), caches.len(), "{outcome:?}");
            gate.let_through(caches.len() - 1);
            for call in std::iter::once(first).chain(others) {
                drop(soon("each has its answer", call).await);
            }
            assert_eq!(gate.runs(), caches.len(), "{outcome:?}");
            row::entry(7).on(&caches[0]).invalidate().await.unwrap();
        }
    }

    // X7
    async fn a_success_after_an_error_is_stored(nodes: &Nodes) {
        let (caches, gate) = (several(nodes, 3).await, Gate::open());
        let call = |cache, outcome| row(cache, &gate, 7, outcome);
        assert_eq!(call(&caches[0], Outcome::Error).await, Err("error".to_owned()));
        assert_eq!(call(&caches[1], Outcome::Stored).await.unwrap().unwrap(), "stored");
        assert_eq!(caches[1].stats().fills, 1);
        assert_eq!(call(&caches[2], Outcome::Error).await.unwrap().unwrap(), "stored");
        assert_eq!(gate.runs(), 2);
    }

    // X7
    async fn while_one_runs_after_an_error_the_others_run_at_once_and_do_not_overwrite_it(nodes: &Nodes) {
        let (caches, gate) = (several(nodes, 3).await, Gate::shut());
        let failed = start(&caches[0], &gate, Outcome::Error);
        gate.arrival().await;
        gate.let_through(1);
        failed.await.unwrap().unwrap_err();
        let second = start(&caches[1], &gate, Outcome::Stored);
        gate.arrival().await;
        // The second is slow. No caller waits for it.
        let at_once = row(&caches[2], &Gate::open(), 7, Outcome::Stored).now_or_never();
        let at_once = match at_once {
            Some(answer) => answer,
            None => soon("it does not wait", row(&caches[2], &Gate::open(), 7, Outcome::Stored)).await,
        };
        assert_eq!(at_once.unwrap().unwrap(), "stored");
        assert_eq!(caches[2].stats().fills, 0);
        gate.let_through(1);
        assert_eq!(second.await.unwrap().unwrap().unwrap(), "stored");
        assert_eq!(caches[1].stats().fills, 1);
    }

    // X7, R1: the run that follows one that stored nothing is guarded like any other.
    async fn an_invalidation_ends_the_lease_that_was_taken_after_an_error(nodes: &Nodes) {
        let (caches, gate) = (several(nodes, 2).await, Gate::shut());
        let failed = start(&caches[0], &gate, Outcome::Error);
        gate.arrival().await;
        gate.let_through(1);
        failed.await.unwrap().unwrap_err();
        let run = start(&caches[1], &gate, Outcome::Stored);
        gate.arrival().await;
        row::entry(7).on(&caches[0]).invalidate().await.unwrap();
        gate.let_through(1);
        assert_eq!(run.await.unwrap().unwrap().unwrap(), "stored");
        let stats = caches[1].stats();
        assert_eq!((stats.fills, stats.refused_fills), (0, 1));
    }

    // X7, R20
    async fn a_dropped_compute_is_taken_over_by_a_waiter(nodes: &Nodes) {
        let (caches, gate) = (several(nodes, 3).await, Gate::shut());
        let dropped = start(&caches[0], &gate, Outcome::Stored);
        gate.arrival().await;
        let others = [start(&caches[1], &gate, Outcome::Stored), start(&caches[2], &gate, Outcome::Stored)];
        all_wait(&caches[1..]).await;
        dropped.abort();
        gate.arrival().await;
        gate.let_through(1);
        for call in others {
            assert_eq!(soon("both have it", call).await.unwrap().unwrap().unwrap(), "stored");
        }
        assert_eq!(gate.runs(), 2, "the compute was dropped, so it left no mark that it stores nothing");
    }

    // X7: with a record that can no longer be served.
    async fn waiters_for_a_failed_compute_beside_an_ended_record_compute_at_once(nodes: &Nodes) {
        let (caches, gate) = (several(nodes, 4).await, Gate::shut());
        let call = |cache: &Cache, gate: &Gate, is_error: bool| {
            let (cache, gate) = (cache.clone(), gate.clone());
            tokio::spawn(async move { ended(&cache, &gate, 7, is_error).await })
        };
        kept(&caches[0], 7).await.unwrap();
        if let Nodes::Embedded(_, clock) = nodes {
            clock.advance(Duration::from_secs(1));
        }
        let entry = ended::entry(7).on(&caches[0]);
        eventually("it is past its ttl", || async { entry.get().await.unwrap().is_none() }).await;
        let first = call(&caches[0], &gate, true);
        gate.arrival().await;
        let others: Vec<_> = caches[1..].iter().map(|cache| call(cache, &gate, true)).collect();
        all_wait(&caches[1..]).await;
        gate.let_through(1);
        for _ in 1..caches.len() {
            gate.arrival().await;
        }
        gate.let_through(3);
        for call in std::iter::once(first).chain(others) {
            soon("each has its answer", call).await.unwrap().unwrap_err();
        }
    }

    // X7, B3
    async fn waiters_compute_the_ids_of_a_failed_batch_at_once(nodes: &Nodes) {
        let (caches, gate) = (several(nodes, 4).await, Gate::shut());
        let batch = |cache: &Cache, ids: Vec<u32>| {
            let (cache, gate) = (cache.clone(), gate.clone());
            tokio::spawn(async move {
                let options = EntryOptions::new().ttl(Duration::from_secs(60));
                let compute = |ids: Vec<u32>| {
                    let gate = gate.clone();
                    async move {
                        gate.pass().await;
                        if ids.is_empty() { Ok(HashMap::<u32, u32>::new()) } else { Err("error") }
                    }
                };
                cache.get_or_compute_many(&ids, |id| Key::new("id").part(id), &options, compute).await
            })
        };
        let first = batch(&caches[0], vec![1, 2, 3]);
        gate.arrival().await;
        let others: Vec<_> = caches[1..].iter().map(|cache| batch(cache, vec![1, 2, 3])).collect();
        eventually("all of them wait", || async { caches[1..].iter().all(|cache| cache.stats().waited == 3) }).await;
        gate.let_through(1);
        for _ in 1..caches.len() {
            gate.arrival().await;
        }
        // An id may become free before the others. Then it has another run.
        gate.let_through(100);
        for call in std::iter::once(first).chain(others) {
            assert_eq!(soon("each has its answer", call).await.unwrap(), Err(Arc::new("error")));
        }
    }

    // R13, B1
    async fn every_lease_of_a_batch_is_renewed(nodes: &Nodes) {
        let lease = Duration::from_secs(3);
        let cache = nodes.node_with(Cache::builder().lease(lease).deadline(None)).await;
        let gate = Gate::shut();
        let (of_call, of_run) = (cache.clone(), gate.clone());
        let call = tokio::spawn(async move {
            let options = EntryOptions::new().ttl(Duration::from_secs(60));
            let compute = |ids: Vec<u32>| {
                let gate = of_run.clone();
                async move {
                    gate.pass().await;
                    Ok::<_, String>(ids.into_iter().map(|id| (id, id)).collect::<HashMap<u32, u32>>())
                }
            };
            of_call.get_or_compute_many(&[1, 2, 3], |id| Key::new("id").part(id), &options, compute).await
        });
        gate.arrival().await;
        // Each round renews all of them.
        for renewals in [3, 6] {
            if let Nodes::Embedded(_, clock) = nodes {
                clock.advance(lease / 3);
            }
            eventually("all are renewed", || async { cache.stats().renewals == renewals }).await;
        }
        gate.let_through(1);
        assert_eq!(soon("the run ends", call).await.unwrap().unwrap().len(), 3);
        assert_eq!((cache.stats().fills, cache.stats().refused_fills), (3, 0));
    }
}
