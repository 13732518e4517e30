//! How much does recording the history of keys cost for calls that go beyond the local tier?
//!
//! Uses the embedded store, where nothing else takes long.

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

use std::hint::black_box;
use std::sync::Arc;

use cache_core::{Cache, cached};
use harness::Contest;
use posts::Post;

const KEYS: u64 = 1024;

#[cached(ttl = "1h", skip(cache), cache = cache)]
async fn post(cache: &Cache, id: u64) -> Arc<Post> {
    let _ = cache;
    Post::of(id)
}

fn main() {
    for threads in [1, 2] {
        let hits = Contest::new("a hit in the embedded store, without the tier in the process");
        let (without, with) = (embedded(0), embedded(4096));
        hits.enter("history(0)", move |times| hit(&without, times))
            .enter("history(4096)", move |times| hit(&with, times))
            .hold(threads, 40_000);
        let misses = Contest::new("a miss: removed, looked up, computed, stored, five steps and one");
        let (without, with) = (embedded(0), embedded(4096));
        misses
            .enter("history(0)", move |times| miss(&without, times))
            .enter("history(4096)", move |times| miss(&with, times))
            .hold(threads, 10_000);
    }
}

fn embedded(steps: usize) -> Cache {
    Cache::builder().local_limit_bytes(0).history(steps).in_memory()
}

fn hit(cache: &Cache, times: usize) {
    harness::runtime().block_on(async {
        for id in (0..KEYS).cycle().take(times) {
            black_box(post(cache, black_box(id)).await);
        }
    });
}

fn miss(cache: &Cache, times: usize) {
    harness::runtime().block_on(async {
        for id in (0..KEYS).cycle().take(times) {
            post::entry(id).on(cache).invalidate().await.expect("the embedded store takes it");
            black_box(post(cache, black_box(id)).await);
        }
    });
}
