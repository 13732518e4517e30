//! Compares a hit in the local tier with a hit of `cached`.

#[path = "../../../cache-core/benches/harness.rs"]
mod harness;
#[path = "../../../cache-core/benches/posts.rs"]
mod posts;

use std::hint::black_box;
use std::sync::Arc;

use cache_core::Cache;
use cached::macros::concurrent_cached;
use harness::Contest;
use posts::Post;

#[cache_core::cached(ttl = "1h")]
async fn ours_by_number(id: u64) -> Arc<Post> {
    Post::of(id)
}

#[cache_core::cached(ttl = "1h")]
async fn ours_by_name(name: &str) -> Arc<Post> {
    Post::of(posts::number(name))
}

#[concurrent_cached(max_size = 32768, ttl_secs = 3600)]
async fn bounded_by_number(id: u64) -> Arc<Post> {
    Post::of(id)
}

#[concurrent_cached(max_size = 32768, ttl_secs = 3600, key = "String", convert = r##"{ name.to_owned() }"##)]
async fn bounded_by_name(name: &str) -> Arc<Post> {
    Post::of(posts::number(name))
}

#[concurrent_cached]
async fn unbounded_by_number(id: u64) -> Arc<Post> {
    Post::of(id)
}

#[concurrent_cached(key = "String", convert = r##"{ name.to_owned() }"##)]
async fn unbounded_by_name(name: &str) -> Arc<Post> {
    Post::of(posts::number(name))
}

macro_rules! contender {
    ($keys:ident, $call:expr) => {{
        let keys = Arc::clone(&$keys);
        harness::runtime().block_on(async {
            for key in &posts::as_they_came(&keys) {
                black_box($call(key).await);
            }
        });
        move |times| {
            harness::runtime().block_on(async {
                for key in keys.iter().cycle().take(times) {
                    black_box($call(black_box(key)).await);
                }
            });
        }
    }};
}

fn main() {
    Cache::install(Cache::in_memory()).expect("the first");
    let numbers = posts::numbers();
    let numbers = Contest::new(format!("u64 key of {}, value in Arc", numbers.len()))
        .enter("cache-core", contender!(numbers, |key: &u64| ours_by_number(*key)))
        .enter("cached, sharded, no limit, no ttl", contender!(numbers, |key: &u64| unbounded_by_number(*key)))
        .enter("cached, sharded, max_size, ttl", contender!(numbers, |key: &u64| bounded_by_number(*key)));
    let names = posts::names();
    let names = Contest::new(format!("&str key of {}, value in Arc", names.len()))
        .enter("cache-core", contender!(names, |key| ours_by_name(key)))
        .enter("cached, sharded, no limit, no ttl", contender!(names, |key| unbounded_by_name(key)))
        .enter("cached, sharded, max_size, ttl", contender!(names, |key| bounded_by_name(key)));
    for threads in [1, 2] {
        numbers.hold(threads, 400_000);
        names.hold(threads, 400_000);
    }
}
