//! The consistency meter reports staleness if there is any, and nothing otherwise.

use std::time::{Duration, Instant};

use cache_core::clock::Clock;
use cache_core::events::Event;
use cache_core::testing::sim::{Invariant, without};
use cache_core::{Cache, EntryOptions, Key, cached};
use support::{Nodes, Proxy, RedisServer, event, eventually, on_both_stores, soon};
use tokio::task::JoinSet;

#[cached(name = "metered", ttl = 60, key = "{id}", skip(cache, text), cache = cache, tags("rows"))]
async fn row(cache: &Cache, id: u32, text: &str) -> String {
    let _ = (cache, id);
    text.to_owned()
}

/// Reads until the local tier answers.
async fn is_kept(cache: &Cache) {
    eventually("it is kept", || async {
        let hits = cache.stats().local_hits;
        row(cache, 7, "computed").await;
        cache.stats().local_hits > hits
    })
    .await;
}

const BOUND: Duration = Duration::from_secs(2);

/// Runs `work` with two nodes on one embedded store and a manual clock. `deaf`: pushes do not drop
/// entries.
fn with_two_nodes<F: Future<Output = ()>>(deaf: bool, work: impl FnOnce(Clock, Cache, Cache) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let clock = Clock::manual();
    let settings = || Cache::builder().clock(clock.clone()).jitter(0.0).early(0.0);
    let there = settings().in_memory();
    let here = settings().consistency_meter(1.0).max_staleness(BOUND).share_store(&there).in_memory();
    without(deaf.then_some(Invariant::PushDropsEntry), || runtime.block_on(work(clock, here, there)));
}

#[test]
// T5
fn a_value_that_a_push_should_have_dropped_is_reported_after_the_bound() {
    with_two_nodes(true, |clock, here, there| async move {
        is_kept(&here).await;
        eventually("what was served so far is right", || async { here.stats().meter_samples > 0 }).await;
        let mut events = here.subscribe();
        row::entry(7).on(&there).set("new".to_owned()).await.unwrap();
        let before = here.stats().meter_samples;
        assert_eq!(row(&here, 7, "computed").await, "computed", "the push is not heard");
        // The sample has read the store and waits.
        tokio::task::yield_now().await;
        clock.advance(BOUND - Duration::from_millis(1));
        tokio::task::yield_now().await;
        assert_eq!((here.stats().meter_samples, here.stats().meter_stale), (before, 0), "a push may still come");
        clock.advance(Duration::from_millis(1));
        let found = event(&mut events, "it is reported", |event| matches!(event, Event::StaleBeyondBound { .. })).await;
        let Event::StaleBeyondBound { name, after } = found else { unreachable!("it was asked for") };
        assert_eq!((&*name, after), ("metered", BOUND));
        assert_eq!((here.stats().meter_samples, here.stats().meter_stale), (before + 1, 1));
    });
}

#[test]
// T5
fn a_change_that_is_told_before_the_bound_is_not_reported() {
    with_two_nodes(true, |clock, here, there| async move {
        is_kept(&here).await;
        row::entry(7).on(&there).set("new".to_owned()).await.unwrap();
        let before = here.stats().meter_samples;
        assert_eq!(row(&here, 7, "computed").await, "computed");
        tokio::task::yield_now().await;
        // The late effect of the push.
        row::entry(7).on(&here).set("new".to_owned()).await.unwrap();
        clock.advance(BOUND);
        eventually("it is compared", || async { here.stats().meter_samples > before }).await;
        assert_eq!(here.stats().meter_stale, 0);
    });
}

on_both_stores! {
    // T5
    async fn a_healthy_cache_under_writes_reports_nothing(nodes: &Nodes) {
        let bound = Duration::from_millis(1000);
        let metered = || Cache::builder().consistency_meter(1.0).response_timeout(bound / 2).max_staleness(bound);
        let both = [nodes.node_with(metered()).await, nodes.node_with(metered()).await];
        let mut tasks = JoinSet::new();
        for (index, node) in both.iter().enumerate() {
            let (reads, writes) = (node.clone(), node.clone());
            tasks.spawn(async move {
                for round in 0..300 {
                    row(&reads, round % 5, "computed").await;
                    if round % 20 == 0 {
                        tokio::task::yield_now().await;
                    }
                }
            });
            tasks.spawn(async move {
                for round in 0..60 {
                    match round % 3 {
                        0 => row::entry(round % 5).on(&writes).set(format!("{index}.{round}")).await.unwrap(),
                        1 => row::entry(round % 5).on(&writes).invalidate().await.unwrap(),
                        _ => writes.invalidate_tag("rows").await.unwrap(),
                    }
                }
            });
        }
        soon("readers and writers", tasks.join_all()).await;
        // Wait until the differences caused by pushes in transit have been checked again.
        let began = Instant::now();
        match nodes {
            Nodes::Embedded(_, clock) => clock.advance(bound),
            Nodes::Redis(_) => eventually("the bound", || async { began.elapsed() > bound }).await,
        }
        for node in &both {
            is_kept(node).await;
            eventually("hits are compared", || async {
                row(node, 7, "computed").await;
                node.stats().meter_samples > 20
            })
            .await;
            assert_eq!(node.stats().meter_stale, 0, "{:?}", node.stats());
        }
    }

    async fn it_is_off_by_default_and_compares_by_hand_keys_too(nodes: &Nodes) {
        let (off, on) = (nodes.node().await, nodes.node_with(Cache::builder().consistency_meter(1.0)).await);
        let compute = || async { Ok::<_, String>(1) };
        for _ in 0..20 {
            off.get_or_compute(Key::new("k"), &EntryOptions::new(), compute).await.unwrap();
        }
        assert_eq!(off.stats().meter_samples, 0);
        eventually("it is compared", || async {
            on.get_or_compute(Key::new("k"), &EntryOptions::new(), compute).await.unwrap();
            on.stats().meter_samples > 0
        })
        .await;
    }
}

/// Each write happens while a sample of the old value is on its way to Redis. The sample finds a
/// difference. The second look, after the bound, finds that the push has already dropped the old
/// value.
#[tokio::test]
// T5
async fn writes_while_samples_are_under_way_are_not_reported() {
    const ROUNDS: u64 = 20;
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port()).await;
    let bound = Duration::from_millis(1000);
    let metered = Cache::builder().url(proxy.url()).consistency_meter(1.0).max_staleness(bound);
    let here = metered.connect().await.unwrap();
    let there = Cache::connect(&server.url()).await.unwrap();
    is_kept(&here).await;
    for round in 0..ROUNDS {
        proxy.freeze();
        let hits = here.stats().local_hits;
        let old = row(&here, 7, "computed").await;
        assert_eq!(here.stats().local_hits, hits + 1, "a hit, and its sample under way");
        let new = format!("{round}");
        soon("the write", row::entry(7).on(&there).set(new.clone())).await.unwrap();
        assert_eq!(row(&here, 7, "computed").await, old, "its push is held up as well");
        proxy.heal();
        eventually("the write arrives and is kept", || async {
            let hits = here.stats().local_hits;
            row(&here, 7, "computed").await == new && here.stats().local_hits > hits
        })
        .await;
    }
    let last = Instant::now();
    eventually("each sample has been checked again", || async {
        last.elapsed() > bound && here.stats().meter_samples >= 2 * ROUNDS
    })
    .await;
    assert_eq!(here.stats().meter_stale, 0, "{:?}", here.stats());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
// T5: a change that Redis does not push
async fn a_swap_of_databases_is_found() {
    let server = RedisServer::start();
    let bound = Duration::from_millis(400);
    let settings = Cache::builder().url(server.url()).response_timeout(Duration::from_millis(100));
    let here = settings.consistency_meter(1.0).max_staleness(bound).connect().await.unwrap();
    is_kept(&here).await;
    let mut events = here.subscribe();
    server.cli(&["SWAPDB", "0", "1"]);
    row(&here, 7, "new").await;
    event(
        &mut events,
        "it is found",
        |event| matches!(event, Event::StaleBeyondBound { after, .. } if *after >= bound),
    )
    .await;
    assert!(here.stats().meter_stale > 0);
}
