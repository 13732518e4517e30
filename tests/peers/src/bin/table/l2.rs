//! A hit in Redis.

use std::hint::black_box;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use cache_core::Cache;
use cached::AsyncRedisCache;
use cached::macros::concurrent_cached;
use hitbox_fn::prelude::PolicyConfig;
use hitbox_redis::{ConnectionMode, RedisBackend};
use peers::measure::{Contest, Plan, Results, ServerClock};
use peers::posts::Post;
use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;
use tokio::runtime::Runtime;

/// Few enough for the server's memory, and many enough that concurrent callers ask for different
/// keys.
pub const KEYS: u64 = 2_048;
const HOUR: u64 = 3_600;

static URL: OnceLock<String> = OnceLock::new();

#[cache_core::cached(ttl = "1h", local = false, skip(cache), cache = cache)]
async fn ours(cache: &Cache, id: u64, bytes: usize) -> Arc<Post> {
    let _ = cache;
    Arc::new(Post::long(id, bytes))
}

#[cache_core::cached(ttl = "1h", skip(cache), cache = cache)]
async fn tracked(cache: &Cache, id: u64, bytes: usize) -> Arc<Post> {
    let _ = cache;
    Arc::new(Post::long(id, bytes))
}

#[concurrent_cached(
    map_error = r##"|error| error.to_string()"##,
    ty = "AsyncRedisCache<String, Post>",
    key = "String",
    convert = r##"{ format!("{id}:{bytes}") }"##,
    create = r##" {
        let cache = AsyncRedisCache::builder("post").connection_string(URL.get().expect("set before the first call"));
        cache.ttl(Duration::from_secs(HOUR)).build().await.expect("a cache")
    } "##
)]
async fn of_cached(id: u64, bytes: usize) -> Result<Post, String> {
    Ok(Post::long(id, bytes))
}

#[hitbox_fn::cached]
async fn of_hitbox(id: u64, bytes: usize) -> Post {
    Post::long(id, bytes)
}

type Hitbox = hitbox_fn::Cache<RedisBackend>;

/// The clients of all contenders, connected to one server.
pub struct Clients {
    pub cache: Cache,
    first_reads: Cache,
    pub raw: MultiplexedConnection,
    hitbox: Arc<Hitbox>,
}

impl Clients {
    /// Connects all of them.
    pub async fn connect(url: &str) -> Self {
        URL.get_or_init(|| url.to_owned());
        let cache = Cache::connect(url).await.expect("a cache");
        // Values are tracked and stored as usual, but their local time ends at once, so each read
        // is a first read.
        let first_reads = Cache::builder().url(url).local_ttl(Duration::ZERO).connect().await.expect("a cache");
        let client = redis::Client::open(format!("{url}?protocol=resp3")).expect("a URL");
        let raw = client.get_multiplexed_async_connection().await.expect("a connection");
        let backend = RedisBackend::builder().connection(ConnectionMode::single(url)).build().expect("a backend");
        let policy = PolicyConfig::builder().ttl(Duration::from_secs(HOUR)).build();
        let hitbox = Arc::new(hitbox_fn::Cache::builder().backend(backend).policy(policy).build());
        Self { cache, first_reads, raw, hitbox }
    }

    /// Stores `keys` posts of `bytes` bytes in the way of each contender.
    pub async fn fill(&self, keys: u64, bytes: usize) {
        for id in 0..keys {
            self.ours(id, bytes).await;
            self.tracked(id, bytes).await;
            self.of_cached(id, bytes).await;
            self.of_hitbox(id, bytes).await;
            let (mut raw, value) = (self.raw.clone(), Post::long(id, bytes).encode());
            let _: () = raw.set_ex(raw_key(id, bytes), value, HOUR).await.expect("a reply");
        }
    }

    /// Reads one post with a bare `GET`.
    pub async fn raw(&self, id: u64, bytes: usize) {
        let value: Vec<u8> = self.raw.clone().get(raw_key(id, bytes)).await.expect("a reply");
        black_box(Post::decode(&value));
    }

    /// Calls our function, with L1 off.
    pub async fn ours(&self, id: u64, bytes: usize) {
        black_box(ours(&self.cache, id, bytes).await);
    }

    async fn tracked(&self, id: u64, bytes: usize) {
        black_box(tracked(&self.first_reads, id, bytes).await);
    }

    /// Calls the function of `cached`.
    pub async fn of_cached(&self, id: u64, bytes: usize) {
        black_box(of_cached(id, bytes).await.expect("a post"));
    }

    /// Calls the function of hitbox.
    pub async fn of_hitbox(&self, id: u64, bytes: usize) {
        black_box(of_hitbox(id, bytes).cache(&*self.hitbox).await);
    }
}

/// Returns the key of a post in the rows with raw `redis`.
pub fn raw_key(id: u64, bytes: usize) -> String {
    format!("raw:post:{id},{bytes}")
}

/// Makes a runtime of two threads, as the benches have.
pub fn runtime() -> Runtime {
    let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    threads.expect("a runtime")
}

/// Runs a contest for each number of callers.
pub fn hold(runtime: &Runtime, clients: &Arc<Clients>, clock: &ServerClock, plan: Plan) -> Vec<Results> {
    const BYTES: usize = 1_000;
    runtime.block_on(clients.fill(KEYS, BYTES));
    let contest = |callers: usize| {
        Contest::new(format!("L2 hit, 1 KB, {callers} caller(s)"))
            .server(clock)
            .grain(callers)
            .enter(
                "redis `GET` and decode",
                spread(runtime, clients, callers, |c, id| async move { c.raw(id, BYTES).await }),
            )
            .enter(
                "**cache-core**, L1 off",
                spread(runtime, clients, callers, |c, id| async move { c.ours(id, BYTES).await }),
            )
            .enter(
                "**cache-core**, first read of a process",
                spread(runtime, clients, callers, |c, id| async move { c.tracked(id, BYTES).await }),
            )
            .enter("cached", spread(runtime, clients, callers, |c, id| async move { c.of_cached(id, BYTES).await }))
            .enter("hitbox", spread(runtime, clients, callers, |c, id| async move { c.of_hitbox(id, BYTES).await }))
            .hold(plan)
    };
    [1, 32, 256, 1_024].map(contest).into()
}

/// Splits the reads among this many tasks, each with keys of its own.
pub fn spread<F>(
    runtime: &Runtime,
    clients: &Arc<Clients>,
    callers: usize,
    read: impl Fn(Arc<Clients>, u64) -> F + Copy + Send + Sync + 'static,
) -> impl Fn(usize) + Send + Sync
where
    F: Future<Output = ()> + Send + 'static,
{
    spread_over(runtime, clients, callers, KEYS, read)
}

/// Like [`spread`], with another number of keys.
pub fn spread_over<F>(
    runtime: &Runtime,
    clients: &Arc<Clients>,
    callers: usize,
    keys: u64,
    read: impl Fn(Arc<Clients>, u64) -> F + Copy + Send + Sync + 'static,
) -> impl Fn(usize) + Send + Sync
where
    F: Future<Output = ()> + Send + 'static,
{
    let clients = Arc::clone(clients);
    move |times| {
        let tasks: Vec<_> = (0..callers)
            .map(|caller| {
                let clients = Arc::clone(&clients);
                runtime.spawn(async move {
                    for id in (caller..).step_by(callers).take(times / callers) {
                        read(Arc::clone(&clients), id as u64 % keys).await;
                    }
                })
            })
            .collect();
        runtime.block_on(async {
            for task in tasks {
                task.await.expect("a caller");
            }
        });
    }
}
