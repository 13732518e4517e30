//! How much does a batch cost through `#[cached(batch)]`, compared to MGET, or MGET and a pipeline
//! of SET, by hand?
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

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cache_core::{Cache, cached};
use harness::Contest;
use posts::Post;
use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;
use server::RedisServer;
use tokio::runtime::Runtime;

/// The size of a value.
const BYTES: usize = 200;
/// How many ids a round reads in all.
const IDS: usize = 20_000;

#[cached(batch, ttl = "1h", skip(cache), cache = cache)]
async fn posts_of(cache: &Cache, ids: &[u64]) -> HashMap<u64, Arc<Post>> {
    let _ = cache;
    ids.iter().map(|id| (*id, Arc::new(Post::long(*id, BYTES)))).collect()
}

fn main() {
    let server = RedisServer::start();
    let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = Arc::new(threads.expect("a runtime"));
    for ids in [10, 100, 1_000, 10_000] {
        hits(&runtime, &server, ids).hold(1, IDS / ids);
    }
    for ids in [10, 100, 1_000, 10_000] {
        misses(&runtime, &server, ids).hold(1, (IDS / ids / 4).max(1));
    }
}

fn hits(runtime: &Arc<Runtime>, server: &RedisServer, count: usize) -> Contest {
    let (cache, connection) = runtime.block_on(connect(server));
    let ids: Vec<u64> = (0..count as u64).collect();
    runtime.block_on(async {
        posts_of(&cache, &ids).await;
        store(connection.clone(), &ids, &found(&ids)).await;
    });
    let (of_hand, of_runtime) = (ids.clone(), Arc::clone(runtime));
    let runtime = Arc::clone(runtime);
    Contest::new(format!("{count} ids, all stored"))
        .enter("MGET + decode", move |times| {
            of_runtime.block_on(async {
                for _ in 0..times {
                    black_box(read(connection.clone(), &of_hand).await);
                }
            });
        })
        .enter("#[cached(batch)], L1 off", move |times| {
            runtime.block_on(async {
                for _ in 0..times {
                    black_box(posts_of(&cache, &ids).await);
                }
            });
        })
}

/// Each run reads ids that were not read before.
fn misses(runtime: &Arc<Runtime>, server: &RedisServer, count: usize) -> Contest {
    let (cache, connection) = runtime.block_on(connect(server));
    let next = move |from: &AtomicU64| -> Vec<u64> {
        let first = from.fetch_add(count as u64, Ordering::Relaxed);
        (first..first + count as u64).collect()
    };
    let first = (count as u64) << 32;
    let (of_hand, ours) = (AtomicU64::new(first), AtomicU64::new(first));
    let of_runtime = Arc::clone(runtime);
    let runtime = Arc::clone(runtime);
    Contest::new(format!("{count} ids, none stored"))
        .enter("MGET, pipeline of SET", move |times| {
            of_runtime.block_on(async {
                for _ in 0..times {
                    let ids = next(&of_hand);
                    assert!(read(connection.clone(), &ids).await.is_empty(), "they are new");
                    let posts = found(&ids);
                    store(connection.clone(), &ids, &posts).await;
                    black_box(posts);
                }
            });
        })
        .enter("#[cached(batch)], L1 off", move |times| {
            runtime.block_on(async {
                for _ in 0..times {
                    black_box(posts_of(&cache, &next(&ours)).await);
                }
            });
        })
}

async fn connect(server: &RedisServer) -> (Cache, MultiplexedConnection) {
    let url = server.url();
    let client = redis::Client::open(format!("{url}?protocol=resp3")).expect("a URL");
    let connection = client.get_multiplexed_async_connection().await.expect("a connection");
    (Cache::builder().url(url).local_limit_bytes(0).connect().await.expect("a cache"), connection)
}

fn found(ids: &[u64]) -> HashMap<u64, Arc<Post>> {
    ids.iter().map(|id| (*id, Arc::new(Post::long(*id, BYTES)))).collect()
}

fn key(id: u64) -> String {
    format!("raw:post:{id}")
}

async fn read(mut connection: MultiplexedConnection, ids: &[u64]) -> HashMap<u64, Arc<Post>> {
    let keys: Vec<String> = ids.iter().map(|id| key(*id)).collect();
    let stored: Vec<Option<Vec<u8>>> = connection.mget(keys).await.expect("a reply");
    let decode = |bytes: Vec<u8>| {
        let decoded = bincode::serde::decode_from_slice::<Post, _>(&bytes, bincode::config::standard());
        Arc::new(decoded.expect("a post").0)
    };
    ids.iter().zip(stored).filter_map(|(id, bytes)| Some((*id, decode(bytes?)))).collect()
}

async fn store(mut connection: MultiplexedConnection, ids: &[u64], posts: &HashMap<u64, Arc<Post>>) {
    let mut pipeline = redis::pipe();
    for id in ids {
        let encoded = bincode::serde::encode_to_vec(&*posts[id], bincode::config::standard());
        pipeline.set_ex(key(*id), encoded.expect("a post"), 3600).ignore();
    }
    let _: () = pipeline.query_async(&mut connection).await.expect("replies");
}
