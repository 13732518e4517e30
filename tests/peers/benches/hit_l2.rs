//! Compares a hit in Redis with a hit of `cached`. Starts a separate `redis-server` on a free
//! loopback port.

#![allow(dead_code, reason = "shared with other benches")]

#[path = "../../../cache-core/benches/harness.rs"]
mod harness;
#[path = "../../../cache-core/benches/posts.rs"]
mod posts;
#[path = "../../support/server.rs"]
mod server;

use std::hint::black_box;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use cache_core::Cache;
use cached::AsyncRedisCache;
use cached::macros::concurrent_cached;
use harness::Contest;
use posts::Post;
use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;
use server::RedisServer;
use tokio::runtime::Runtime;

const KEYS: u64 = 2_048;
const BYTES: usize = 1_000;

static URL: OnceLock<String> = OnceLock::new();

fn url() -> &'static str {
    URL.get().expect("the server's")
}

#[cache_core::cached(ttl = "1h", skip(cache), cache = cache)]
async fn ours(cache: &Cache, id: u64) -> Arc<Post> {
    let _ = cache;
    Arc::new(Post::long(id, BYTES))
}

#[concurrent_cached(
    map_error = r##"|error| error.to_string()"##,
    ty = "AsyncRedisCache<u64, Post>",
    create = r##" {
        let cache = AsyncRedisCache::builder("post").connection_string(url()).ttl(Duration::from_secs(3600));
        cache.build().await.expect("a cache")
    } "##
)]
async fn of_cached(id: u64) -> Result<Post, String> {
    Ok(Post::long(id, BYTES))
}

fn main() {
    let server = RedisServer::start();
    URL.set(server.url()).expect("once");
    let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = Arc::new(threads.expect("a runtime"));
    for callers in [1, 256] {
        contest(&runtime, callers).hold(1, if callers == 1 { 4_000 } else { 20_000 });
    }
}

fn contest(runtime: &Arc<Runtime>, callers: usize) -> Contest {
    let untracked = runtime.block_on(Cache::builder().url(url()).local_limit_bytes(0).connect()).expect("a cache");
    let tracked = runtime.block_on(Cache::builder().url(url()).local_ttl(Duration::ZERO).connect()).expect("a cache");
    let connection = runtime.block_on(async {
        let client = redis::Client::open(format!("{}?protocol=resp3", url())).expect("a URL");
        let mut connection = client.get_multiplexed_async_connection().await.expect("a connection");
        for id in 0..KEYS {
            ours(&untracked, id).await;
            of_cached(id).await.expect("a post");
            let encoded = bincode::serde::encode_to_vec(Post::long(id, BYTES), bincode::config::standard());
            let _: () = connection.set(format!("raw:{id}"), encoded.expect("a post")).await.expect("a reply");
        }
        connection
    });
    Contest::new(format!("{BYTES} bytes, {callers} caller(s)"))
        .enter("redis GET + decode", run(runtime, callers, move |id| raw(connection.clone(), id)))
        .enter("cache-core, L1 off", run(runtime, callers, move |id| read(untracked.clone(), id)))
        .enter("cache-core, first read of a process", run(runtime, callers, move |id| read(tracked.clone(), id)))
        .enter(
            "cached on Redis",
            run(runtime, callers, |id| async move {
                black_box(of_cached(id).await.expect("a post"));
            }),
        )
}

async fn read(cache: Cache, id: u64) {
    black_box(ours(&cache, id).await);
}

async fn raw(mut connection: MultiplexedConnection, id: u64) {
    let encoded: Vec<u8> = connection.get(format!("raw:{id}")).await.expect("a reply");
    let decoded = bincode::serde::decode_from_slice::<Post, _>(&encoded, bincode::config::standard());
    black_box(Arc::new(decoded.expect("a post").0));
}

/// Splits the reads among this many tasks, each with keys of its own.
fn run<F>(
    runtime: &Arc<Runtime>,
    callers: usize,
    read: impl Fn(u64) -> F + Clone + Send + Sync + 'static,
) -> impl Fn(usize) + Send + Sync + 'static
where
    F: Future<Output = ()> + Send + 'static,
{
    let runtime = Arc::clone(runtime);
    move |times| {
        let tasks: Vec<_> = (0..callers)
            .map(|caller| {
                let read = read.clone();
                runtime.spawn(async move {
                    for id in (caller..).step_by(callers).take(times / callers) {
                        read(id as u64 % KEYS).await;
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
