//! A hit in the process.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use cache_core::Cache;
use cached::macros::concurrent_cached;
use hitbox_fn::prelude::PolicyConfig;
use hitbox_moka::MokaBackend;
use peers::measure::{Contest, Plan, Results};
use peers::posts::{self, Post};
use tokio::runtime::Runtime;

const KEYS: u64 = 10_000;
const MOST: u64 = 32_768;
const TTL: Duration = Duration::from_secs(3_600);

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

#[hitbox_fn::cached]
async fn of_hitbox(id: u64) -> Post {
    Post::long(id, 160)
}

#[concurrent_cached]
async fn unbounded_by_number(id: u64) -> Arc<Post> {
    Post::of(id)
}

#[concurrent_cached(key = "String", convert = r##"{ name.to_owned() }"##)]
async fn unbounded_by_name(name: &str) -> Arc<Post> {
    Post::of(posts::number(name))
}

/// Makes a runtime for the calling thread.
pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Returns a contender that awaits a call for each key. All keys are filled first.
macro_rules! calls {
    ($keys:expr, $call:expr) => {{
        let keys = Arc::clone(&$keys);
        runtime().block_on(async {
            // The embedded store keeps a value in the local tier from its second call on.
            for key in keys.iter().chain(&keys[..]) {
                black_box($call(key).await);
            }
        });
        move |times| {
            runtime().block_on(async {
                for key in keys.iter().cycle().take(times) {
                    black_box($call(black_box(key)).await);
                }
            });
        }
    }};
}

/// Returns a contender that looks up each key.
macro_rules! gets {
    ($keys:expr, $get:expr) => {{
        let keys = Arc::clone(&$keys);
        move |times| {
            for key in keys.iter().cycle().take(times) {
                black_box($get(black_box(key)));
            }
        }
    }};
}

/// Runs all contests.
pub fn hold(plan: Plan) -> Vec<Results> {
    Cache::install(Cache::in_memory()).expect("the first");
    [1, 2].into_iter().flat_map(|threads| [by_number(threads, plan), by_name(threads, plan)]).collect()
}

fn by_number(threads: usize, plan: Plan) -> Results {
    let keys = posts::numbers(KEYS);
    let quick = quick_cache::sync::Cache::new(MOST as usize);
    let moka = moka::sync::Cache::builder().max_capacity(MOST).time_to_live(TTL).build();
    let waits = moka::future::Cache::builder().max_capacity(MOST).time_to_live(TTL).build();
    let policy = PolicyConfig::builder().ttl(TTL).build();
    let hitbox = MokaBackend::builder().max_entries(MOST).build();
    let hitbox = hitbox_fn::Cache::builder().backend(hitbox).policy(policy).build();
    for key in 0..KEYS {
        quick.insert(key, Post::of(key));
        moka.insert(key, Post::of(key));
    }
    Contest::new(format!("L1 hit, `u64` key, {threads} thread(s)"))
        .threads(threads)
        .enter("quick_cache get, no ttl", gets!(keys, |key: &u64| quick.get(key)))
        .enter("**cache-core**", calls!(keys, |key: &u64| ours_by_number(*key)))
        .enter("moka sync get", gets!(keys, |key: &u64| moka.get(key)))
        .enter(
            "moka `get_with`",
            calls!(keys, |key: &u64| {
                let key = *key;
                let waits = &waits;
                async move { waits.get_with(key, async { Post::of(key) }).await }
            }),
        )
        .enter("cached, `max_size` and ttl", calls!(keys, |key: &u64| bounded_by_number(*key)))
        .enter("cached, neither", calls!(keys, |key: &u64| unbounded_by_number(*key)))
        .enter(
            "hitbox on moka",
            calls!(keys, |key: &u64| {
                let (key, hitbox) = (*key, &hitbox);
                async move { of_hitbox(key).cache(hitbox).await }
            }),
        )
        .hold(plan)
}

fn by_name(threads: usize, plan: Plan) -> Results {
    let keys: Arc<[String]> = posts::numbers(KEYS).iter().map(|number| posts::name(*number)).collect();
    let quick = quick_cache::sync::Cache::new(MOST as usize);
    let moka = moka::sync::Cache::builder().max_capacity(MOST).time_to_live(TTL).build();
    for number in 0..KEYS {
        quick.insert(posts::name(number), Post::of(number));
        moka.insert(posts::name(number), Post::of(number));
    }
    Contest::new(format!("L1 hit, `&str` key of 24 bytes, {threads} thread(s)"))
        .threads(threads)
        .enter("quick_cache get, no ttl", gets!(keys, |key: &String| quick.get(key.as_str())))
        .enter("**cache-core**", calls!(keys, |key| ours_by_name(key)))
        .enter("moka sync get", gets!(keys, |key: &String| moka.get(key.as_str())))
        .enter("cached, `max_size` and ttl", calls!(keys, |key| bounded_by_name(key)))
        .enter("cached, neither", calls!(keys, |key| unbounded_by_name(key)))
        .hold(plan)
}
