//! How much does a hit in Redis cost through `#[cached]`, compared to a bare GET and decode on one
//! multiplexed connection?
//!
//! Starts its own `redis-server` on a free loopback port.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "a benchmark: it reads the clock, prints, and panics on errors"
)]

mod harness;
mod posts;
#[path = "../../tests/support/server.rs"]
mod server;

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use cache_core::{Cache, cached};
use harness::Contest;
use posts::Post;
use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;
use server::RedisServer;
use tokio::runtime::Runtime;

/// Few enough for the server's memory, and many enough that concurrent callers ask for different
/// keys.
const KEYS: u64 = 2_048;

#[cached(ttl = "1h", skip(cache), cache = cache)]
async fn post(cache: &Cache, id: u64, bytes: usize) -> Arc<Post> {
    let _ = cache;
    Arc::new(Post::long(id, bytes))
}

fn main() {
    let server = RedisServer::start();
    let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = Arc::new(threads.expect("a runtime"));
    for bytes in [1_000, 4_000] {
        for callers in callers() {
            contest(&runtime, &server, bytes, callers).hold(1, if callers == 1 { 4_000 } else { 20_000 });
        }
    }
}

/// Returns `BENCH_CALLERS` as the only number, or a few default numbers.
fn callers() -> Vec<usize> {
    let wanted = std::env::var("BENCH_CALLERS").ok().and_then(|callers| callers.parse().ok());
    wanted.map_or_else(|| vec![1, 32, 256], |callers| vec![callers])
}

fn contest(runtime: &Arc<Runtime>, server: &RedisServer, bytes: usize, callers: usize) -> Contest {
    let url = server.url();
    let untracked = runtime.block_on(Cache::builder().url(&url).local_limit_bytes(0).connect()).expect("a cache");
    // Values are tracked and stored as usual, but their local time ends at once, so each read is a
    // first read.
    let tracked = runtime.block_on(Cache::builder().url(&url).local_ttl(Duration::ZERO).connect()).expect("a cache");
    let connection = runtime.block_on(async {
        let client = redis::Client::open(format!("{url}?protocol=resp3")).expect("a URL");
        let mut connection = client.get_multiplexed_async_connection().await.expect("a connection");
        for id in 0..KEYS {
            post(&untracked, id, bytes).await;
            let encoded = bincode::serde::encode_to_vec(Post::long(id, bytes), bincode::config::standard());
            // With a ttl, as ours: the server looks such a key up twice.
            let _: () = connection.set_ex(raw_key(id, bytes), encoded.expect("a post"), 3600).await.expect("a reply");
        }
        connection
    });
    Contest::new(format!("{bytes} bytes, {callers} caller(s)"))
        .enter("redis GET + decode", run(runtime, callers, move |id| raw(connection.clone(), id, bytes)))
        .enter("#[cached], L1 off", run(runtime, callers, move |id| ours(untracked.clone(), id, bytes)))
        .enter("#[cached], first read of a process", run(runtime, callers, move |id| ours(tracked.clone(), id, bytes)))
}

fn raw_key(id: u64, bytes: usize) -> String {
    format!("raw:post:{id},{bytes}")
}

async fn raw(mut connection: MultiplexedConnection, id: u64, bytes: usize) {
    let encoded: Vec<u8> = connection.get(raw_key(id, bytes)).await.expect("a reply");
    let decoded = bincode::serde::decode_from_slice::<Post, _>(&encoded, bincode::config::standard());
    black_box(Arc::new(decoded.expect("a post").0));
}

async fn ours(cache: Cache, id: u64, bytes: usize) {
    black_box(post(&cache, id, bytes).await);
}

/// Shares the reads among this many tasks, each with its own keys.
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
        let tasks = (0..callers).map(|caller| {
            let read = read.clone();
            runtime.spawn(async move {
                for id in (caller..).step_by(callers).take(times / callers) {
                    read(id as u64 % KEYS).await;
                }
            })
        });
        let tasks: Vec<_> = tasks.collect();
        runtime.block_on(async {
            for task in tasks {
                task.await.expect("a caller");
            }
        });
    }
}
