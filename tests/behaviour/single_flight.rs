//! One run per key in a process.

use std::convert::Infallible;
use std::sync::Arc;

use cache_core::{Cache, EntryOptions, Key, cached};
use support::{Gate, eventually, on_both_stores, soon};
use tokio::task::JoinSet;

type Text = Result<String, Arc<Infallible>>;

fn key() -> Key {
    Key::new("flight").part(&7)
}

/// Returns a call whose run waits at the gate.
fn call(cache: &Cache, gate: &Gate, key: Key) -> impl Future<Output = Text> + Send + 'static {
    let (cache, gate) = (cache.clone(), gate.clone());
    async move {
        let compute = || async {
            gate.pass().await;
            Ok("value".to_owned())
        };
        cache.get_or_compute(key, &EntryOptions::new(), compute).await
    }
}

/// Waits until this many calls of the cache have joined another call's run.
async fn joined(cache: &Cache, calls: u64) {
    eventually("the callers have joined", || async { cache.stats().joined >= calls }).await;
}

/// Owns its arguments, so its run is shared by all callers that wait for it.
#[cached(name = "owned", ttl = 60, key = "{id}", skip(cache, gate), cache = &cache, single_flight = "cluster")]
async fn owned(cache: Cache, gate: Gate, id: u32) -> Result<u32, String> {
    let _ = &cache;
    gate.pass().await;
    Ok(id)
}

#[derive(Debug, Clone, PartialEq)]
struct Refused(u32);

#[cached(name = "by_message", ttl = 60, skip(cache, gate), cache = &cache)]
async fn by_message(cache: Cache, gate: Gate) -> anyhow::Result<u32> {
    let _ = &cache;
    gate.pass().await;
    Err(anyhow::anyhow!("connection refused").context("no row"))
}

/// An error that implements `ShareError` itself.
enum AppError {
    NotFound,
}

impl cache_core::value::ShareError for AppError {
    fn share(&self) -> Self {
        match self {
            Self::NotFound => Self::NotFound,
        }
    }
}

impl std::fmt::Display for AppError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotFound => f.write_str("not found"),
        }
    }
}

#[cached(name = "by_own_copy", ttl = 60, skip(cache, gate), cache = &cache)]
async fn by_own_copy(cache: Cache, gate: Gate) -> Result<u32, AppError> {
    let _ = &cache;
    gate.pass().await;
    Err(AppError::NotFound)
}

/// Returns the errors of ten callers that wait for one failing run.
async fn failures<F, E>(cache: &Cache, gate: &Gate, function: impl Fn(Cache, Gate) -> F) -> Vec<String>
where
    F: Future<Output = Result<u32, E>> + Send + 'static,
    E: std::fmt::Display + Send + 'static,
{
    let before = cache.stats().joined;
    let calls: Vec<_> = (0..10).map(|_| tokio::spawn(function(cache.clone(), gate.clone()))).collect();
    gate.arrival().await;
    joined(cache, before + 9).await;
    gate.let_through(1);
    let mut texts = Vec::new();
    for call in calls {
        match soon("it fails", call).await.unwrap() {
            Ok(_) => panic!("it fails"),
            Err(error) => texts.push(format!("{error:#}")),
        }
    }
    texts
}

on_both_stores! {
    // S1
    async fn any_number_of_callers_share_one_run(nodes: &Nodes) {
        for (round, callers) in [10, 100, 1000].into_iter().enumerate() {
            let (cache, gate) = (nodes.node().await, Gate::shut());
            let mut calls = JoinSet::new();
            for _ in 0..callers {
                calls.spawn(call(&cache, &gate, Key::new("many").part(&round)));
            }
            gate.arrival().await;
            joined(&cache, callers - 1).await;
            gate.let_through(callers as usize);
            while let Some(value) = soon("all callers return", calls.join_next()).await {
                assert_eq!(value.unwrap().unwrap(), "value");
            }
            assert_eq!(gate.runs(), 1, "{callers} callers");
        }
    }

    // S2, R18
    async fn an_error_reaches_every_waiter_of_its_run_once(nodes: &Nodes) {
        let (cache, gate) = (nodes.node().await, Gate::shut());
        let mut calls = JoinSet::new();
        for _ in 0..100 {
            let (cache, gate) = (cache.clone(), gate.clone());
            calls.spawn(async move {
                let compute = || async {
                    gate.pass().await;
                    Err::<String, _>(Refused(7))
                };
                cache.get_or_compute(key(), &EntryOptions::new(), compute).await
            });
        }
        gate.arrival().await;
        joined(&cache, 99).await;
        gate.let_through(100);
        let mut errors = 0;
        while let Some(result) = soon("all callers return", calls.join_next()).await {
            assert_eq!(*result.unwrap().unwrap_err(), Refused(7));
            errors += 1;
        }
        assert_eq!((errors, gate.runs()), (100, 1));
    }

    // S2
    async fn errors_that_cannot_be_cloned_reach_every_waiter_in_their_own_way(nodes: &Nodes) {
        let (cache, gate) = (nodes.node().await, Gate::shut());
        let texts: Vec<Vec<String>> = vec![
            failures(&cache, &gate, by_message).await,
            failures(&cache, &gate, by_own_copy).await,
        ];
        assert_eq!(texts[0], ["no row: connection refused"; 10]);
        assert_eq!(texts[1], ["not found"; 10]);
        assert_eq!(gate.runs(), 2);
    }

    // S3, R19
    async fn after_a_failure_newcomers_share_one_run_again(nodes: &Nodes) {
        let (cache, gate) = (nodes.node().await, Gate::shut());
        let failing = |gate: Gate| {
            let cache = cache.clone();
            async move {
                let compute = || async {
                    gate.pass().await;
                    Err::<String, _>(Refused(1))
                };
                cache.get_or_compute(key(), &EntryOptions::new(), compute).await
            }
        };
        for round in 1..=3_u64 {
            let calls: JoinSet<_> = (0..20).map(|_| failing(gate.clone())).collect();
            gate.arrival().await;
            joined(&cache, 19 * round).await;
            gate.let_through(1);
            let results = soon("all callers return", calls.join_all()).await;
            assert!(results.iter().all(Result::is_err));
            assert_eq!(gate.runs() as u64, round);
        }
    }

    // S4, R20
    async fn dropped_callers_leave_the_run_to_the_others(nodes: &Nodes) {
        let (cache, gate) = (nodes.node().await, Gate::shut());
        let leader = tokio::spawn(owned(cache.clone(), gate.clone(), 1));
        gate.arrival().await;
        let mut calls: Vec<_> = (0..9).map(|_| tokio::spawn(owned(cache.clone(), gate.clone(), 1))).collect();
        joined(&cache, 9).await;
        leader.abort();
        assert!(soon("it is dropped", leader).await.unwrap_err().is_cancelled());
        let stay = calls.split_off(4);
        for call in &calls {
            call.abort();
        }
        for call in calls {
            assert!(soon("it is dropped", call).await.unwrap_err().is_cancelled());
        }
        gate.let_through(1);
        for call in stay {
            assert_eq!(soon("the others return", call).await.unwrap(), Ok(1));
        }
        assert_eq!(gate.runs(), 1, "the same run");
    }

    // S4
    async fn a_dropped_borrowing_caller_is_followed_by_another(nodes: &Nodes) {
        let (cache, gate) = (nodes.node().await, Gate::shut());
        let leader = tokio::spawn(call(&cache, &gate, key()));
        gate.arrival().await;
        let followers: Vec<_> = (0..5).map(|_| tokio::spawn(call(&cache, &gate, key()))).collect();
        joined(&cache, 5).await;
        leader.abort();
        assert!(soon("it is dropped", leader).await.unwrap_err().is_cancelled());
        gate.let_through(10);
        for follower in followers {
            assert_eq!(soon("a follower runs it", follower).await.unwrap().unwrap(), "value");
        }
        assert_eq!(gate.runs(), 2, "one run was dropped, one returned");
    }

    // S5
    async fn a_compute_without_callers_is_dropped(nodes: &Nodes) {
        struct Told(Arc<tokio::sync::Notify>);
        impl Drop for Told {
            fn drop(&mut self) {
                self.0.notify_one();
            }
        }
        #[cached(name = "abandoned", ttl = 60, skip(cache, gate, dropped), cache = &cache)]
        async fn watched(cache: Cache, gate: Gate, dropped: Arc<tokio::sync::Notify>) -> u32 {
            let _told = Told(dropped);
            let _ = &cache;
            gate.pass().await;
            1
        }
        let (cache, gate, dropped) = (nodes.node().await, Gate::shut(), Arc::new(tokio::sync::Notify::new()));
        let calls: Vec<_> =
            (0..5).map(|_| tokio::spawn(watched(cache.clone(), gate.clone(), Arc::clone(&dropped)))).collect();
        gate.arrival().await;
        joined(&cache, 4).await;
        for call in &calls {
            call.abort();
        }
        soon("the run is dropped", dropped.notified()).await;
    }

    // S6
    async fn a_panic_frees_the_key_and_reaches_every_waiter(nodes: &Nodes) {
        let (cache, gate) = (nodes.node().await, Gate::shut());
        let mut calls = JoinSet::new();
        for _ in 0..10 {
            let (cache, gate) = (cache.clone(), gate.clone());
            calls.spawn(async move {
                let compute = || async {
                    gate.pass().await;
                    if gate.runs() == 1 {
                        panic!("the first run");
                    }
                    Ok::<_, Infallible>("second".to_owned())
                };
                cache.get_or_compute(key(), &EntryOptions::new(), compute).await
            });
        }
        gate.arrival().await;
        joined(&cache, 9).await;
        gate.let_through(1);
        let mut panics = 0;
        while let Some(result) = soon("all callers return", calls.join_next()).await {
            assert!(result.unwrap_err().is_panic());
            panics += 1;
        }
        assert_eq!(panics, 10);
        gate.let_through(1);
        assert_eq!(soon("the key is free", call(&cache, &gate, key())).await.unwrap(), "value");
    }

    // S7
    async fn recursion_on_the_same_key_panics_instead_of_hanging(nodes: &Nodes) {
        let cache = nodes.node().await;
        let recursive = tokio::spawn({
            let cache = cache.clone();
            async move {
                let inner = cache.clone();
                let compute = || async move {
                    let again = || async { Ok::<_, Infallible>(1_u32) };
                    Ok(*inner.get_or_compute(key(), &EntryOptions::new(), again).await.as_ref().unwrap())
                };
                cache.get_or_compute::<u32, Infallible, _, _>(key(), &EntryOptions::new(), compute).await
            }
        });
        let panic = soon("it returns", recursive).await.unwrap_err().into_panic();
        let text = panic.downcast_ref::<String>().unwrap();
        assert!(text.contains("`flight` calls itself"), "{text}");
        // Another key from inside is not a recursion.
        let compute = || async { Ok::<_, Infallible>(*cache.get_or_compute(Key::new("other"), &EntryOptions::new(), || async { Ok::<_, Infallible>(2_u32) }).await.as_ref().unwrap()) };
        assert_eq!(soon("it returns", cache.get_or_compute(Key::new("outer"), &EntryOptions::new(), compute)).await.unwrap(), 2);
    }

    // S8
    async fn different_keys_never_wait_for_each_other(nodes: &Nodes) {
        let (cache, shut) = (nodes.node().await, Gate::shut());
        let blocked = tokio::spawn(call(&cache, &shut, key()));
        shut.arrival().await;
        for other in 0..200 {
            let value = soon("another key", call(&cache, &Gate::open(), Key::new("flight").part(&(other, "x")))).await;
            assert_eq!(value.unwrap(), "value");
        }
        assert!(!blocked.is_finished());
        shut.let_through(1);
        assert_eq!(soon("the first returns", blocked).await.unwrap().unwrap(), "value");
        // The same for runs that are driven by their waiters.
        let blocked = tokio::spawn(owned(cache.clone(), shut.clone(), 0));
        shut.arrival().await;
        for other in 1..200 {
            assert_eq!(soon("another key", owned(cache.clone(), Gate::open(), other)).await, Ok(other));
        }
        assert!(!blocked.is_finished());
        shut.let_through(1);
        assert_eq!(soon("the first returns", blocked).await.unwrap(), Ok(0));
    }
}
