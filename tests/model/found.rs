//! What the simulation has found, step by step.

use cache_core::testing::sim::World;
use cache_core::{Cache, cached};
use support::{Gate, soon};

#[cached(name = "row", ttl = 60, key = "{id}", cache = cache)]
async fn row(cache: &Cache, gate: &Gate, id: u32, text: &str) -> Result<String, String> {
    let _ = (cache, id);
    let text = text.to_owned();
    gate.pass().await;
    Ok(text)
}

/// A call on a task of its own, whose run waits at the gate.
async fn start(cache: &Cache, gate: &Gate, text: &'static str) -> tokio::task::JoinHandle<Result<String, String>> {
    let (cache, own) = (cache.clone(), gate.clone());
    let call = tokio::spawn(async move { row(&cache, &own, 7, text).await });
    gate.arrival().await;
    call
}

#[tokio::test(start_paused = true)]
// T7: found by seed 53 of the first version, in which a run without a lease was joined for as long as it lasted.
async fn a_run_without_a_lease_is_not_joined_beyond_the_staleness_bound() {
    // Nobody drives this world: nothing ever arrives.
    let (world, gate) = (World::new(0, false), Gate::shut());
    let cache = world.node().cache(Cache::builder());
    let old = start(&cache, &gate, "v1").await;
    world.pause(2001).await;
    assert_eq!(soon("a new run", row(&cache, &Gate::open(), 7, "v2")).await.unwrap(), "v2");
    gate.let_through(1);
    assert_eq!(old.await.unwrap().unwrap(), "v1", "who waited for it gets its value");
}

#[tokio::test(start_paused = true)]
// T7
async fn a_run_whose_lease_cannot_be_renewed_is_not_joined_beyond_the_staleness_bound() {
    let (world, gate) = (World::new(0, false), Gate::shut());
    let driver = tokio::spawn({
        let world = world.clone();
        async move { world.drive().await }
    });
    let cache = world.node().cache(Cache::builder());
    world.pause(1000).await;
    assert!(cache.is_available());
    let old = start(&cache, &gate, "v1").await;
    driver.abort();
    world.pause(2001).await;
    assert_eq!(soon("a new run", row(&cache, &Gate::open(), 7, "v2")).await.unwrap(), "v2");
    gate.let_through(1);
    assert_eq!(old.await.unwrap().unwrap(), "v1");
}

#[tokio::test(start_paused = true)]
// T7, I2: an invalidation of everything leaves the lease alone, and was told on a link that is gone.
async fn a_run_that_may_have_been_invalidated_while_the_link_was_lost_is_not_joined() {
    for seed in 0..20 {
        let (world, gate) = (World::new(seed, false), Gate::shut());
        let driver = tokio::spawn({
            let world = world.clone();
            async move { world.drive().await }
        });
        let (node, other) = (world.node(), world.node());
        let (cache, elsewhere) = (node.cache(Cache::builder()), other.cache(Cache::builder()));
        world.pause(1000).await;
        let old = start(&cache, &gate, "v1").await;
        node.cut();
        elsewhere.clear().await.unwrap();
        world.pause(2001).await;
        let new = tokio::spawn(async move { row(&cache, &Gate::open(), 7, "v2").await });
        world.pause(1).await;
        gate.let_through(1);
        assert_eq!(soon("the old run", old).await.unwrap().unwrap(), "v1");
        assert_eq!(soon("a new run", new).await.unwrap().unwrap(), "v2", "seed {seed}");
        driver.abort();
    }
}
