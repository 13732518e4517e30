//! The cost of each operation: round trips as seen by the network, commands as counted by the
//! server.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cache_core::options::LocalTier;
use cache_core::{Cache, CacheBuilder, EntryOptions, Key, cached, invalidates};
use support::{Proxy, RedisServer};

#[cached(name = "post", ttl = 60, skip(cache), cache = cache)]
async fn post(cache: &Cache, id: u32) -> Arc<u32> {
    let _ = cache;
    Arc::new(id)
}

#[cached(batch, name = "posts", ttl = 60, skip(node, computed), cache = &node.cache)]
async fn posts(node: &Node, computed: &AtomicU64, ids: &[u32]) -> BTreeMap<u32, u32> {
    computed.store(node.network.sendings(), Ordering::SeqCst);
    ids.iter().map(|id| (*id, *id)).collect()
}

/// A server. Each cache has its own proxy in front of it.
struct Counted(RedisServer);

struct Node {
    cache: Cache,
    network: Proxy,
}

type Commands = BTreeMap<String, u64>;

impl Counted {
    fn start() -> Self {
        Self(RedisServer::start())
    }

    async fn node(&self) -> Node {
        self.node_with(Cache::builder()).await
    }

    async fn node_with(&self, settings: CacheBuilder) -> Node {
        let network = Proxy::start(self.0.port()).await;
        // No heartbeat happens during the test.
        let settings = settings.max_staleness(Duration::from_secs(1200));
        let url = format!("{}?heartbeat=600s&response_timeout=60s&connect_timeout=60s", network.url());
        Node { cache: settings.url(&url).connect().await.unwrap(), network }
    }

    /// Returns the round trips and commands of an operation.
    async fn cost<T>(&self, node: &Node, operation: impl Future<Output = T>) -> (u64, String) {
        let (trips, before) = (node.network.sendings(), self.0.commandstats());
        operation.await;
        let trips = node.network.sendings() - trips;
        (trips, spent(&before, &self.0.commandstats()))
    }

    /// Returns the round trips before and after the compute.
    async fn cost_of_miss(&self, node: &Node, id: u32) -> (u64, u64) {
        let (start, computed) = (node.network.sendings(), AtomicU64::new(0));
        let compute = || async {
            computed.store(node.network.sendings(), Ordering::SeqCst);
            Ok::<_, Infallible>(id)
        };
        node.cache.get_or_compute(Key::new("miss").part(&id), &EntryOptions::new(), compute).await.unwrap();
        let computed = computed.into_inner();
        (computed - start, node.network.sendings() - computed)
    }
}

/// Returns the round trips of a batch before and after its function runs.
async fn cost_of_batch(node: &Node, ids: &[u32]) -> (u64, u64) {
    let (start, computed) = (node.network.sendings(), AtomicU64::new(0));
    assert_eq!(posts(node, &computed, ids).await.len(), ids.len());
    let computed = computed.into_inner();
    (computed - start, node.network.sendings() - computed)
}

/// Returns the commands in between, such as `get 1, set 2`.
fn spent(before: &Commands, after: &Commands) -> String {
    let own = |(name, calls): (&String, &u64)| {
        let calls = calls - before.get(name).unwrap_or(&0);
        // The command that reads the counts is counted too.
        (calls > 0 && name != "info").then(|| format!("{name} {calls}"))
    };
    after.iter().filter_map(own).collect::<Vec<_>>().join(", ")
}

#[tokio::test]
async fn a_hit_in_the_process_costs_no_round_trip() {
    let server = Counted::start();
    let node = server.node().await;
    post(&node.cache, 1).await;
    let cost = server.cost(&node, async {
        for _ in 0..100 {
            post(&node.cache, 1).await;
        }
    });
    assert_eq!(cost.await, (0, String::new()));
    assert_eq!(node.cache.stats().local_hits, 100);
}

#[tokio::test]
async fn a_hit_in_redis_costs_one_round_trip() {
    let server = Counted::start();
    let (writer, reader) = (server.node().await, server.node().await);
    post(&writer.cache, 1).await;
    post(&writer.cache, 2).await;
    // The first call of a function in a process also loads its versions and registers that this
    // build may store under its name.
    let introduced = "evalsha 1, exists 1, get 1, mget 1, pexpire 1";
    let with_versions = (1, format!("client|caching 1, {introduced}, pttl 2, sadd 1, set 2"));
    assert_eq!(server.cost(&reader, post(&reader.cache, 1)).await, with_versions);
    assert_eq!(server.cost(&reader, post(&reader.cache, 2)).await, (1, "client|caching 1, get 1".to_owned()));
    // No value is kept, so none is tracked.
    let without_local = server.node_with(Cache::builder().local_limit_bytes(0)).await;
    let apart = introduced.replace("mget 1", "mget 2");
    let with_versions = (1, format!("client|caching 1, {apart}, pttl 2, sadd 1, set 2"));
    assert_eq!(server.cost(&without_local, post(&without_local.cache, 1)).await, with_versions);
    assert_eq!(server.cost(&without_local, post(&without_local.cache, 2)).await, (1, "get 1".to_owned()));
    let options = EntryOptions::new().local(LocalTier::Off);
    let call = |node: &Node| {
        let cache = node.cache.clone();
        let options = options.clone();
        async move {
            let compute = || async { Ok::<_, Infallible>(1_u32) };
            cache.get_or_compute(Key::new("by hand"), &options, compute).await.unwrap()
        }
    };
    call(&writer).await;
    let one_version = (1, format!("client|caching 1, {apart}, pttl 1, sadd 1, set 1"));
    assert_eq!(server.cost(&reader, call(&reader)).await, one_version);
    assert_eq!(server.cost(&reader, call(&reader)).await, (1, "get 1".to_owned()));
    assert_eq!(reader.cache.stats().hits, 4);
}

#[tokio::test]
async fn a_miss_costs_two_round_trips_before_the_compute_and_one_after() {
    let server = Counted::start();
    let node = server.node().await;
    // The first call of a function anywhere: this build is registered once more, under the version
    // that was created in between.
    assert_eq!(server.cost_of_miss(&node, 1).await, (3, 1));
    assert_eq!(server.cost_of_miss(&server.node().await, 11).await, (2, 1), "the first in another process");
    assert_eq!(server.cost_of_miss(&node, 2).await, (2, 1));
    let (_, commands) = server.cost(&node, server.cost_of_miss(&node, 3)).await;
    // Commands within a script count too: it compares the lease and stores the record.
    assert_eq!(commands, "client|caching 2, evalsha 1, get 1, getrange 2, set 2");
}

#[tokio::test]
async fn a_set_costs_one_round_trip() {
    let server = Counted::start();
    let node = server.node().await;
    post(&node.cache, 1).await;
    let entry = post::entry(2).on(&node.cache);
    let expected = (1, "set 1, smembers 1, unlink 1".to_owned());
    assert_eq!(server.cost(&node, async { entry.set(Arc::new(2)).await.unwrap() }).await, expected);
}

#[tokio::test]
async fn an_invalidation_costs_one_round_trip_and_one_more_where_a_build_is_new_to_it() {
    let server = Counted::start();
    let node = server.node().await;
    post(&node.cache, 1).await;
    let entry = post::entry(1).on(&node.cache);
    let invalidate = || async { entry.invalidate().await.unwrap() };
    assert_eq!(server.cost(&node, invalidate()).await, (1, "smembers 1, unlink 1".to_owned()));
    let (function, _) = entry.key().split_once(":1@").unwrap();
    server.0.cli(&["SADD", &format!("{{{function}@version}}:builds"), "ffffffffffffffff"]);
    assert_eq!(server.cost(&node, invalidate()).await, (2, "smembers 2, unlink 2".to_owned()));
    assert_eq!(server.cost(&node, invalidate()).await, (1, "smembers 1, unlink 1".to_owned()));
}

#[tokio::test]
// B1
async fn a_batch_costs_the_round_trips_of_one_id() {
    let server = Counted::start();
    let (writer, reader) = (server.node().await, server.node().await);
    // The first call of a function anywhere.
    assert_eq!(cost_of_batch(&writer, &[0]).await, (3, 1));
    let ids: Vec<u32> = (1..=100).collect();
    let commands = server.cost(&writer, async { assert_eq!(cost_of_batch(&writer, &ids).await, (2, 1)) }).await.1;
    // Each script gets and sets.
    assert_eq!(commands, "client|caching 101, evalsha 100, getrange 200, mget 1, set 200");
    let unused = AtomicU64::new(0);
    let hit = server.cost(&writer, async { assert_eq!(posts(&writer, &unused, &ids).await.len(), 100) });
    assert_eq!(hit.await, (0, String::new()), "in the process");
    let hit = server.cost(&reader, async { assert_eq!(posts(&reader, &unused, &ids).await.len(), 100) });
    let introduced = "client|caching 1, evalsha 1, exists 1, get 1, mget 1, pexpire 1, pttl 2, sadd 1, set 2";
    assert_eq!(hit.await, (1, introduced.to_owned()), "with the versions");
    // Some more ids, and some that are kept in the local tier and not read again.
    let more: Vec<u32> = (51..=150).collect();
    let (trips, commands) = server.cost(&reader, posts(&reader, &unused, &more)).await;
    assert_eq!(trips, 3);
    assert!(commands.starts_with("client|caching 51, evalsha 50, getrange 100, mget 1"), "{commands}");
    // More than fit into one round trip.
    let many: Vec<u32> = (1000..3500).collect();
    let (_, commands) = server.cost(&writer, posts(&writer, &unused, &many)).await;
    assert_eq!(commands, "client|caching 2503, evalsha 2500, getrange 5000, mget 3, set 5000");
}

#[tokio::test]
// B3
async fn a_batch_that_fails_gives_all_leases_back_in_one_round_trip() {
    #[cached(batch, name = "failing", ttl = 60, skip(node), cache = &node.cache)]
    async fn failing(node: &Node, ids: &[u32]) -> Result<BTreeMap<u32, u32>, String> {
        let _ = node;
        Err(format!("none of {}", ids.len()))
    }
    let server = Counted::start();
    let node = server.node().await;
    failing(&node, &[0]).await.unwrap_err();
    let ids: Vec<u32> = (1..=50).collect();
    let (trips, commands) = server.cost(&node, async { failing(&node, &ids).await.unwrap_err() }).await;
    assert_eq!((trips, &*commands), (3, "client|caching 1, evalsha 50, getrange 50, mget 1, set 100"));
}

#[invalidates(post(id), cache = &node.cache)]
async fn write_entry(node: &Node, id: u32, happens: bool, before: &AtomicU64) -> Result<(), ()> {
    before.store(node.network.sendings(), Ordering::SeqCst);
    if happens { Ok(()) } else { Err(()) }
}

#[invalidates(tags("posts", "post:{id}"), cache = &node.cache)]
async fn write_tags(node: &Node, id: u32, happens: bool, before: &AtomicU64) -> Result<(), ()> {
    before.store(node.network.sendings(), Ordering::SeqCst);
    if happens { Ok(()) } else { Err(()) }
}

#[invalidates(all(post), cache = &node.cache)]
async fn write_all(node: &Node, happens: bool, before: &AtomicU64) -> Result<(), ()> {
    before.store(node.network.sendings(), Ordering::SeqCst);
    if happens { Ok(()) } else { Err(()) }
}

#[tokio::test]
async fn a_fenced_write_costs_one_round_trip_before_it_and_one_after() {
    let server = Counted::start();
    let node = server.node().await;
    post(&node.cache, 1).await;
    for happens in [true, false] {
        let before = AtomicU64::new(0);
        let mut costs = Vec::new();
        for what in ["entry", "tags", "all"] {
            post(&node.cache, 1).await;
            let start = node.network.sendings();
            let write = async {
                let written = match what {
                    "entry" => write_entry(&node, 1, happens, &before).await,
                    "tags" => write_tags(&node, 1, happens, &before).await,
                    _ => write_all(&node, happens, &before).await,
                };
                assert_eq!(written.is_ok(), happens);
            };
            let (trips, commands) = server.cost(&node, write).await;
            let before = before.load(Ordering::SeqCst) - start;
            costs.push(format!("{what}: {before} + {}: {commands}", trips - before));
        }
        // Commands within a script count too. There are two versions of tags, and one of their
        // kind.
        let raised = "pexpire 1, pexpiretime 1, pttl 1, rename 1, set 1, smembers";
        let expected = if happens {
            let lifted = format!("entry: 1 + 1: evalsha 2, getrange 2, {raised} 2, time 2, unlink 3");
            [lifted, "tags: 1 + 1: evalsha 4, getrange 4, set 4, time 4, unlink 2".into(), "all: 0 + 1: set 1".into()]
        } else {
            let withdrawn = "evalsha 2, exists 1, getrange 2, pexpire 1, pexpireat 1, pexpiretime 1, pttl 1, rename 2, set 1, smembers 1, time 2, unlink 1";
            // Nothing was stored under them since they were lifted, so there is no version to
            // return to.
            let tags = "tags: 1 + 1: evalsha 4, getrange 4, set 4, time 4, unlink 2";
            [format!("entry: 1 + 1: {withdrawn}"), tags.into(), "all: 0 + 0: ".into()]
        };
        assert_eq!(costs, expected);
    }
}
