//! How often does a hit in Redis allocate, compared with a bare GET and decode?
//!
//! Starts a `redis-server` of its own on a free loopback port. Counts the allocations of the whole
//! process, with the callers on one thread, and divides them by the number of hits.

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
    reason = "a program that measures: it prints, and ends where something is wrong"
)]

mod posts;
#[path = "../../tests/support/server.rs"]
mod server;

use std::alloc::System;
use std::hint::black_box;
use std::sync::Arc;

use cache_core::{Cache, cached};
use posts::Post;
use redis::AsyncCommands as _;
use server::RedisServer;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const KEYS: u64 = 2_048;
const HITS: u64 = 20_480;
const BYTES: usize = 1_000;

#[cached(ttl = "1h", skip(cache), cache = cache)]
async fn post(cache: &Cache, id: u64) -> Arc<Post> {
    let _ = cache;
    Arc::new(Post::long(id, BYTES))
}

fn main() {
    let server = RedisServer::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let url = server.url();
        let cache = Cache::builder().url(&url).local_limit_bytes(0).connect().await.expect("a cache");
        let client = redis::Client::open(format!("{url}?protocol=resp3")).expect("a URL");
        let mut connection = client.get_multiplexed_async_connection().await.expect("a connection");
        for id in 0..KEYS {
            post(&cache, id).await;
            let encoded = bincode::serde::encode_to_vec(Post::long(id, BYTES), bincode::config::standard());
            let _: () = connection.set(id, encoded.expect("a post")).await.expect("a reply");
        }
        for callers in [1, 32, 256] {
            println!("{callers} caller(s), {BYTES} bytes, allocations of a hit");
            let bare = connection.clone();
            count("redis GET + decode", callers, move |id| {
                let mut connection = bare.clone();
                async move {
                    let encoded: Vec<u8> = connection.get(id).await.expect("a reply");
                    let decoded = bincode::serde::decode_from_slice::<Post, _>(&encoded, bincode::config::standard());
                    black_box(Arc::new(decoded.expect("a post").0));
                }
            })
            .await;
            let cache = cache.clone();
            count("#[cached], L1 off", callers, move |id| {
                let cache = cache.clone();
                async move { drop(black_box(post(&cache, id).await)) }
            })
            .await;
        }
    });
}

/// Prints how often `hit` allocates, less what a task for each caller costs.
async fn count<F>(name: &str, callers: u64, hit: impl Fn(u64) -> F + Clone + Send + 'static)
where
    F: Future<Output = ()> + Send + 'static,
{
    // Once more than is counted, so that what is made once is there.
    for is_counted in [false, true] {
        let before = Region::new(ALLOCATOR);
        let tasks = (0..callers).map(|caller| {
            let hit = hit.clone();
            tokio::spawn(async move {
                for id in (caller..HITS).step_by(callers as usize) {
                    hit(id % KEYS).await;
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.expect("a caller");
        }
        let change = before.change();
        if is_counted {
            let (hits, all) = (HITS as f64, (change.allocations + change.reallocations) as f64);
            println!("  {name:<24} {:>6.1}", all / hits);
        }
    }
}
