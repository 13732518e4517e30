//! Redis fails, and the callers of a function do not notice: they get a computed value, in bounded
//! time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cache_core::events::Event;
use cache_core::{Cache, ErrorKind, cached};
use futures::FutureExt as _;
use support::{Gate, RedisServer, event, eventually, soon};
use tokio::task::JoinSet;
use tokio::time::timeout;

const OPTIONS: &str = "?response_timeout=100ms&connect_timeout=200ms&heartbeat=50ms";
/// A call during a fault takes at most a response timeout for each of its steps. The rest is room
/// for a busy machine.
const BOUND: Duration = Duration::from_secs(3);

#[cached(name = "row", ttl = 60, key = "{id}", skip(cache, gate), cache = cache)]
async fn row(cache: &Cache, gate: &Gate, id: u32) -> Result<u32, String> {
    let _ = cache;
    gate.pass().await;
    Ok(id)
}

async fn answers(cache: &Cache, gate: &Gate, id: u32) {
    let value = timeout(BOUND, row(cache, gate, id)).await.expect("a call ends within its bound");
    assert_eq!(value, Ok(id));
}

/// Waits until a stored value is found again, without a restart of the cache.
async fn recovers(cache: &Cache) {
    eventually("the cache stores again", || async {
        let gate = Gate::open();
        answers(cache, &gate, 4711).await;
        row::entry(4711).on(cache).get().await.is_ok_and(|value| value == Some(4711))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// D1, X6
async fn redis_down_at_start_up_the_application_starts_and_recovers_by_itself() {
    let server = RedisServer::start();
    server.kill();
    let connected =
        timeout(BOUND, Cache::connect(&format!("{}{OPTIONS}", server.url()))).await.expect("it starts in time");
    let (cache, gate) = (connected.expect("Redis being down is not an error"), Gate::open());
    let mut events = cache.subscribe();
    for id in 0..20 {
        answers(&cache, &gate, id).await;
    }
    assert_eq!(gate.runs(), 20);
    // Without a store there is still one run per key in this process.
    let shut = Gate::shut();
    let calls: JoinSet<_> = (0..50)
        .map(|_| {
            let (cache, gate) = (cache.clone(), shut.clone());
            async move { row(&cache, &gate, 1000).await }
        })
        .collect();
    shut.arrival().await;
    eventually("the callers share the run", || async { cache.stats().joined >= 49 }).await;
    shut.let_through(1);
    assert!(soon("they return", calls.join_all()).await.iter().all(|value| *value == Ok(1000)));
    assert_eq!(shut.runs(), 1);
    // An explicit operation returns an error instead.
    assert_eq!(row::entry(1).on(&cache).invalidate().await.unwrap_err().kind(), ErrorKind::Unavailable);
    server.restart();
    event(&mut events, "it connects", |event| matches!(event, Event::Connected)).await;
    recovers(&cache).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// D2
async fn redis_killed_under_load_every_call_ends_in_time_with_its_value() {
    fault_under_load(RedisServer::kill, RedisServer::restart).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// D2
async fn redis_paused_under_load_every_call_ends_in_time_with_its_value() {
    fault_under_load(RedisServer::pause, RedisServer::resume).await;
}

async fn fault_under_load(fail: impl Fn(&RedisServer), mend: impl Fn(&RedisServer)) {
    let server = RedisServer::start();
    // A lease whose reply was lost with the connection may still exist, and the next caller waits
    // for its expiry.
    let settings = Cache::builder().url(format!("{}{OPTIONS}", server.url())).lease(Duration::from_secs(1));
    let cache = settings.connect().await.unwrap();
    let mut events = cache.subscribe();
    let stop = Arc::new(AtomicBool::new(false));
    let mut load = JoinSet::new();
    for worker in 0..8_u32 {
        let (cache, stop, gate) = (cache.clone(), Arc::clone(&stop), Gate::open());
        load.spawn(async move {
            let mut id = worker;
            while !stop.load(Ordering::SeqCst) {
                id = id.wrapping_mul(31).wrapping_add(7) % 500;
                answers(&cache, &gate, id).await;
                tokio::task::yield_now().await;
            }
        });
    }
    for _ in 0..2 {
        eventually("the load runs on Redis", || async { cache.is_available() && cache.stats().fills > 0 }).await;
        fail(&server);
        event(&mut events, "the fault is reported", |event| matches!(event, Event::Disconnected { .. })).await;
        // Calls continue without the store for a while.
        let computed = cache.stats().computes;
        eventually("calls compute", || async { cache.stats().computes > computed + 500 }).await;
        mend(&server);
        event(&mut events, "it is back", |event| matches!(event, Event::Connected)).await;
    }
    recovers(&cache).await;
    stop.store(true, Ordering::SeqCst);
    while let Some(worker) = soon("the load ends", load.join_next()).await {
        worker.expect("every call ended in time with its value");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// D2
async fn redis_full_or_read_only_every_call_ends_in_time_with_its_value() {
    let full = (["CONFIG", "SET", "maxmemory", "500kb"].as_slice(), ["CONFIG", "SET", "maxmemory", "0"].as_slice());
    let read_only = (["REPLICAOF", "127.0.0.1", "1"].as_slice(), ["REPLICAOF", "NO", "ONE"].as_slice());
    for (fail, mend) in [full, read_only] {
        let server = RedisServer::start();
        let cache = Cache::connect(&format!("{}{OPTIONS}", server.url())).await.unwrap();
        answers(&cache, &Gate::open(), 1).await;
        let (mut events, gate) = (cache.subscribe(), Gate::open());
        server.cli(fail);
        for id in 2..50 {
            answers(&cache, &gate, id).await;
        }
        assert_eq!(gate.runs(), 48);
        event(&mut events, "it is reported", |event| matches!(event, Event::StoreFailed { .. })).await;
        server.cli(mend);
        recovers(&cache).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// D2
async fn a_value_computed_while_redis_dies_reaches_its_caller() {
    for fault in [RedisServer::kill, RedisServer::pause] {
        let server = RedisServer::start();
        let cache = Cache::connect(&format!("{}{OPTIONS}", server.url())).await.unwrap();
        let gate = Gate::shut();
        let call = tokio::spawn({
            let (cache, gate) = (cache.clone(), gate.clone());
            async move { row(&cache, &gate, 7).await }
        });
        gate.arrival().await;
        fault(&server);
        gate.let_through(1);
        assert_eq!(soon("it returns", call).await.unwrap(), Ok(7));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// D5
async fn calls_dropped_at_any_await_leave_no_waiters() {
    let server = RedisServer::start();
    let cache = Cache::connect(&server.patient_url()).await.unwrap();
    for round in 0..200_u64 {
        let gate = Gate::open();
        // Dropped after a time that differs from round to round, so at different awaits.
        let _dropped_or_done = timeout(Duration::from_micros(round * 7), row(&cache, &gate, 7)).await;
        let value =
            timeout(BOUND, row(&cache, &gate, 7)).await.expect("the next caller does not wait for the lease's end");
        assert_eq!(value, Ok(7));
        row::entry(7).on(&cache).invalidate().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// D7
async fn after_shutdown_functions_run_uncached() {
    let server = RedisServer::start();
    let (cache, gate) = (Cache::connect(&server.url()).await.unwrap(), Gate::open());
    answers(&cache, &gate, 1).await;
    timeout(BOUND, cache.shutdown()).await.expect("bounded");
    answers(&cache, &gate, 1).await;
    assert_eq!(gate.runs(), 2);
    assert_eq!(row::entry(1).on(&cache).invalidate().await.unwrap_err().kind(), ErrorKind::Closed);
}

#[cached(name = "due", ttl = "40ms", stale_while_revalidate = "1h", early = false, key = "{id}", skip(cache, gate, value), cache = &cache)]
async fn due(cache: Cache, gate: Gate, id: u32, value: u32) -> u32 {
    let _ = id;
    gate.pass().await;
    value
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// D7
async fn a_shutdown_waits_for_the_refresh_in_the_background_and_it_is_stored() {
    let server = RedisServer::start();
    let (cache, gate) = (Cache::connect(&server.url()).await.unwrap(), Gate::shut());
    assert_eq!(due(cache.clone(), Gate::open(), 7, 1).await, 1);
    eventually("a refresh begins", || async {
        assert_eq!(due(cache.clone(), gate.clone(), 7, 2).await, 1);
        cache.stats().refreshes > 0
    })
    .await;
    gate.arrival().await;
    let mut closing = std::pin::pin!(cache.shutdown());
    for _ in 0..200 {
        assert!(closing.as_mut().now_or_never().is_none(), "it has begun, and waits");
        tokio::task::yield_now().await;
    }
    gate.let_through(1);
    soon("it has shut down", closing).await;
    assert_eq!(cache.stats().fills, 2);
    let next = Cache::connect(&server.url()).await.unwrap();
    assert_eq!(soon("the value is there", due(next, Gate::shut(), 7, 3)).await, 2);
}
