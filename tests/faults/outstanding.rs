//! Leases that could not be given back and fences that could not be lifted are handled first when
//! the store is available again.

use std::cell::Cell;
use std::time::Duration;

use cache_core::events::Event;
use cache_core::{Cache, CacheBuilder, ErrorKind, cached};
use futures::future::join_all;
use support::{Gate, Loss, Proxy, RedisServer, eventually, soon};

const OPTIONS: &str = "?response_timeout=200ms&connect_timeout=500ms&heartbeat=50ms";
/// Longer than a test waits for anything, so a lease that is not given back makes the test fail.
const LEASE: Duration = Duration::from_secs(60);

#[cached(name = "row", ttl = 60, key = "{id}", skip(cache, gate), tags("rows"), cache = cache)]
async fn row(cache: &Cache, gate: &Gate, id: u32) -> Result<u32, String> {
    let _ = cache;
    gate.pass().await;
    Ok(id)
}

fn settings(url: &str) -> CacheBuilder {
    Cache::builder().url(format!("{url}{OPTIONS}")).lease(LEASE).deadline(None)
}

async fn cache_at(url: &str) -> Cache {
    settings(url).connect().await.unwrap()
}

async fn is_up(cache: &Cache) {
    eventually("the connection is up", || async { cache.is_available() }).await;
}

/// Returns the number of leases under the keys of the function.
fn leases(server: &RedisServer) -> usize {
    let keys = server.cli(&["KEYS", "cache:row:*"]);
    let values = keys.lines().filter(|key| !key.is_empty() && !key.ends_with("@builds") && !key.ends_with("@version"));
    values.filter(|key| server.cli(&["GETRANGE", key, "0", "0"]).trim() == "L").count()
}

async fn no_lease_stands(server: &RedisServer) {
    eventually("no lease is held", || async { leases(server) == 0 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// R11
async fn a_lease_whose_answer_was_lost_is_given_back_on_the_next_connection() {
    for loss in [Loss::Answer, Loss::Silence] {
        let server = RedisServer::start();
        let proxy = Proxy::start(server.port()).await;
        let (cache, other) = (cache_at(&proxy.url()).await, cache_at(&server.url()).await);
        // From here on, a call costs one read and one lease.
        row(&cache, &Gate::open(), 1).await.unwrap();
        let gate = Gate::shut();
        proxy.lose(1, loss);
        let call = row(&cache, &gate, 7);
        let met = async {
            gate.arrival().await;
            assert!(proxy.has_lost());
            // The run continues, and its key is free for others.
            assert_eq!(soon("another process does not wait", row(&other, &Gate::open(), 7)).await, Ok(7));
            gate.let_through(1);
        };
        let (value, ()) = futures::future::join(call, met).await;
        assert_eq!(value, Ok(7));
        no_lease_stands(&server).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// R11, D5
async fn killed_connections_leave_no_lease_behind() {
    let server = RedisServer::start();
    let cache = cache_at(&server.url()).await;
    for round in 0..5 {
        is_up(&cache).await;
        let ids: Vec<u32> = (0..64).map(|id| round * 100 + id).collect();
        let gate = Gate::open();
        let calls = join_all(ids.iter().map(|id| row(&cache, &gate, *id)));
        let kill = async {
            // At some point between reads, leases and fills.
            for _ in 0..round {
                tokio::task::yield_now().await;
            }
            server.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
        };
        let (values, ()) = soon("each call has its value", futures::future::join(calls, kill)).await;
        assert!(values.into_iter().eq(ids.iter().map(|id| Ok(*id))));
        no_lease_stands(&server).await;
        is_up(&cache).await;
        let again = join_all(ids.iter().map(|id| row(&cache, &gate, *id)));
        soon("no call waits for a lease's end", again).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// R11, D2
async fn after_a_pause_of_writes_no_caller_waits_for_the_lease() {
    let server = RedisServer::start();
    let (cache, other) = (cache_at(&server.url()).await, cache_at(&server.url()).await);
    let gate = Gate::shut();
    let run = async {
        gate.arrival().await;
        server.cli(&["CLIENT", "PAUSE", "1500", "WRITE"]);
        gate.let_through(1);
    };
    let (value, ()) = soon("its own caller has the value", futures::future::join(row(&cache, &gate, 7), run)).await;
    assert_eq!(value, Ok(7));
    let open = Gate::open();
    let (own, others) = futures::future::join(row(&cache, &open, 7), row(&other, &open, 7)).await;
    assert_eq!((own, others), (Ok(7), Ok(7)));
    no_lease_stands(&server).await;
}

#[test]
// R11, D9: the runtime that ran it has ended; the one with the connection lives.
fn a_run_that_ends_with_its_runtime_gives_its_lease_back() {
    let server = RedisServer::start();
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (home, away) = (runtime(), runtime());
    let cache = home.block_on(cache_at(&server.url()));
    let gate = Gate::shut();
    let (of_call, of_run) = (cache.clone(), gate.clone());
    let call = away.spawn(async move { row(&of_call, &of_run, 7).await });
    home.block_on(gate.arrival());
    assert_eq!(leases(&server), 1);
    away.shutdown_background();
    home.block_on(async {
        soon("the call ends with its runtime", call).await.unwrap_err();
        assert_eq!(soon("no caller waits", row(&cache, &Gate::open(), 7)).await, Ok(7));
    });
}

#[test]
// R11
fn a_call_that_is_dropped_outside_of_a_runtime_gives_its_lease_back() {
    let server = RedisServer::start();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let cache = runtime.block_on(cache_at(&server.url()));
    let gate = Gate::shut();
    let mut call = Box::pin(row(&cache, &gate, 7));
    runtime.block_on(async {
        tokio::select! {
            _ = &mut call => panic!("it waits at the gate"),
            () = gate.arrival() => {}
        }
    });
    drop(call);
    runtime.block_on(no_lease_stands(&server));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// R11, D7
async fn a_shutdown_gives_back_the_leases_of_what_it_ends() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port()).await;
    let cache = cache_at(&proxy.url()).await;
    let gate = Gate::shut();
    let (of_call, of_run) = (cache.clone(), gate.clone());
    let call = tokio::spawn(async move { row(&of_call, &of_run, 7).await });
    gate.arrival().await;
    // The connection's own task is giving it back when the shutdown comes.
    proxy.delay(Duration::from_millis(50));
    call.abort();
    soon("it ends", call).await.unwrap_err();
    soon("the shutdown ends", cache.shutdown()).await;
    assert_eq!(leases(&server), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// R22, I3
async fn a_fence_whose_lift_failed_is_lifted_on_the_next_connection() {
    for by_tag in [false, true] {
        let server = RedisServer::start();
        let proxy = Proxy::start(server.port()).await;
        let (cache, other) = (cache_at(&proxy.url()).await, cache_at(&server.url()).await);
        let (open, runs) = (Gate::open(), Cell::new(0));
        row(&cache, &open, 7).await.unwrap();
        let fence = cache.fence().limit(LEASE);
        let fence = if by_tag { fence.tag("rows") } else { fence.entry(&row::entry(7).on(&cache)) };
        let fence = fence.raise().await.unwrap();
        proxy.cut();
        let error = fence.lift().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        row(&other, &open, 7).await.unwrap();
        row(&other, &open, 7).await.unwrap();
        assert_eq!(open.runs(), 3, "the fence is still raised, so nothing is stored");
        proxy.heal();
        is_up(&cache).await;
        // From here on a value is stored again, long before the fence would end by itself.
        eventually("the row is stored", || async {
            row(&other, &open, 7).await.unwrap();
            runs.replace(open.runs()) == open.runs()
        })
        .await;
        row(&cache, &open, 7).await.unwrap();
        assert_eq!(open.runs(), runs.get());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// R22: dropped while the store is down, as by a program that ends its transaction with an error.
async fn a_fence_that_is_dropped_while_the_store_is_away_is_lifted_when_it_is_back() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port()).await;
    let cache = cache_at(&proxy.url()).await;
    let entry = row::entry(7).on(&cache);
    let fence = cache.fence().limit(LEASE).entry(&entry).raise().await.unwrap();
    let stands = || server.cli(&["GETRANGE", entry.key(), "0", "0"]).trim() == "F";
    assert!(stands());
    proxy.cut();
    eventually("the store is away", || async { !cache.is_available() }).await;
    drop(fence);
    proxy.heal();
    eventually("it is lifted", || async { !stands() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// R11: a request that never left the process needs no cleanup.
async fn calls_without_a_connection_leave_nothing_to_give_back() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port()).await;
    let cache = cache_at(&proxy.url()).await;
    proxy.cut();
    eventually("the store is away", || async { !cache.is_available() }).await;
    let (mut events, open) = (cache.subscribe(), Gate::open());
    // More than are kept.
    for id in 0..10_100 {
        row(&cache, &open, id).await.unwrap();
    }
    proxy.heal();
    is_up(&cache).await;
    while let Ok(event) = events.try_recv() {
        assert!(!matches!(event, Event::OutstandingDropped), "{event:?}");
    }
}
