//! How much does a local hit cost through `#[cached]`, compared to a bare lookup in a map?

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
use quick_cache::sync::{Cache as Map, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, UnitWeighter};

#[cached(ttl = "1h")]
async fn by_number(id: u64) -> Arc<Post> {
    Post::of(id)
}

#[cached(ttl = "1h")]
async fn by_name(name: &str) -> Arc<Post> {
    Post::of(posts::number(name))
}

#[cached(ttl = "1h")]
async fn count_of(id: u64) -> u64 {
    id
}

#[cached(ttl = "1h")]
async fn by_two_numbers(shop: u64, id: u64) -> Arc<Post> {
    let _ = shop;
    Post::of(id)
}

#[cached(ttl = "1h")]
async fn by_three_numbers(shop: u64, shelf: u64, id: u64) -> Arc<Post> {
    let _ = (shop, shelf);
    Post::of(id)
}

#[cached(ttl = "1h")]
async fn by_name_and_number(name: &str, page: u64) -> Arc<Post> {
    let _ = page;
    Post::of(posts::number(name))
}

#[cached(ttl = "1h", key = "{shop}:{id}")]
async fn by_template(shop: u64, id: u64) -> Arc<Post> {
    let _ = shop;
    Post::of(id)
}

fn main() {
    Cache::install(Cache::in_memory()).expect("the first");
    for threads in [1, 2] {
        numbers().hold(threads, 400_000);
        names().hold(threads, 400_000);
        composed_numbers().hold(threads, 400_000);
        composed_names().hold(threads, 400_000);
    }
}

/// Keys of several arguments, beside a key of one.
fn composed_numbers() -> Contest {
    let keys = posts::numbers();
    harness::runtime().block_on(async {
        // Each in a loop of its own, so that the entries of each lie together in memory. The first
        // ones take what earlier contests have freed, which is scattered.
        for key in posts::as_they_came(&keys) {
            black_box(by_template(7, key).await);
        }
        for key in posts::as_they_came(&keys) {
            black_box(by_two_numbers(7, key).await);
        }
        for key in posts::as_they_came(&keys) {
            black_box(by_three_numbers(7, 3, key).await);
        }
    });
    let (two, three, template, one) = (keys.clone(), keys.clone(), keys.clone(), keys.clone());
    Contest::new(format!("several numbers, {} keys, value in Arc", keys.len()))
        .enter("#[cached] fn(u64)", move |times| {
            harness::runtime().block_on(async {
                for key in one.iter().cycle().take(times) {
                    black_box(by_number(black_box(*key)).await);
                }
            });
        })
        .enter("#[cached] fn(u64, u64)", move |times| {
            harness::runtime().block_on(async {
                for key in two.iter().cycle().take(times) {
                    black_box(by_two_numbers(black_box(7), black_box(*key)).await);
                }
            });
        })
        .enter("#[cached] fn(u64, u64, u64)", move |times| {
            harness::runtime().block_on(async {
                for key in three.iter().cycle().take(times) {
                    black_box(by_three_numbers(black_box(7), black_box(3), black_box(*key)).await);
                }
            });
        })
        .enter("#[cached(key = \"{shop}:{id}\")]", move |times| {
            harness::runtime().block_on(async {
                for key in template.iter().cycle().take(times) {
                    black_box(by_template(black_box(7), black_box(*key)).await);
                }
            });
        })
}

/// A text and a number, beside a text.
fn composed_names() -> Contest {
    let keys = posts::names();
    harness::runtime().block_on(async {
        for key in posts::as_they_came(&keys) {
            black_box((by_name(&key).await, by_name_and_number(&key, 3).await));
        }
    });
    let one = keys.clone();
    Contest::new(format!("a text and a number, {} keys, value in Arc", keys.len()))
        .enter("#[cached] fn(&str)", move |times| {
            harness::runtime().block_on(async {
                for key in one.iter().cycle().take(times) {
                    black_box(by_name(black_box(key)).await);
                }
            });
        })
        .enter("#[cached] fn(&str, u64)", move |times| {
            harness::runtime().block_on(async {
                for key in keys.iter().cycle().take(times) {
                    black_box(by_name_and_number(black_box(key), black_box(3)).await);
                }
            });
        })
}

fn numbers() -> Contest {
    let keys = posts::numbers();
    let (map, table) = (bare(&keys), table(&keys));
    harness::runtime().block_on(async {
        for key in posts::as_they_came(&keys) {
            black_box((by_number(key).await, count_of(key).await));
        }
    });
    let (of_map, of_table, ours, cooperative) = (keys.clone(), keys.clone(), keys.clone(), keys.clone());
    Contest::new(format!("u64 key of {}, value in Arc", keys.len()))
        .enter("quick_cache get, u64 key", move |times| {
            for key in of_map.iter().cycle().take(times) {
                black_box(map.get(black_box(key)));
            }
        })
        .enter("papaya get, u64 key", move |times| {
            for key in of_table.iter().cycle().take(times) {
                black_box(table.pin().get(black_box(key)).cloned());
            }
        })
        .enter("#[cached] fn(u64) -> Arc<Post>", move |times| {
            harness::runtime().block_on(async {
                for key in ours.iter().cycle().take(times) {
                    black_box(by_number(black_box(*key)).await);
                }
            });
        })
        .enter("the same, with tokio's consume_budget", move |times| {
            harness::runtime().block_on(async {
                for key in cooperative.iter().cycle().take(times) {
                    black_box(by_number(black_box(*key)).await);
                    tokio::task::consume_budget().await;
                }
            });
        })
        .enter("#[cached] fn(u64) -> u64", move |times| {
            harness::runtime().block_on(async {
                for key in keys.iter().cycle().take(times) {
                    black_box(count_of(black_box(*key)).await);
                }
            });
        })
}

fn names() -> Contest {
    let keys = posts::names();
    let (map, table) = (bare(&keys), table(&keys));
    harness::runtime().block_on(async {
        for key in posts::as_they_came(&keys) {
            black_box(by_name(&key).await);
        }
    });
    let (of_map, of_table) = (keys.clone(), keys.clone());
    Contest::new(format!("&str key of {}, value in Arc", keys.len()))
        .enter("quick_cache get, &str key", move |times| {
            for key in of_map.iter().cycle().take(times) {
                black_box(map.get(black_box(key.as_str())));
            }
        })
        .enter("papaya get, &str key", move |times| {
            for key in of_table.iter().cycle().take(times) {
                black_box(table.pin().get(black_box(key.as_str())).cloned());
            }
        })
        .enter("#[cached] fn(&str) -> Arc<Post>", move |times| {
            harness::runtime().block_on(async {
                for key in keys.iter().cycle().take(times) {
                    black_box(by_name(black_box(key)).await);
                }
            });
        })
}

/// Makes the table that the cache uses, with its hasher.
fn table<K: std::hash::Hash + Ord + Clone>(keys: &[K]) -> papaya::HashMap<K, Arc<Post>, foldhash::fast::RandomState> {
    let table = papaya::HashMap::builder().hasher(foldhash::fast::RandomState::default()).build();
    for (number, key) in (0..).zip(posts::as_they_came(keys)) {
        table.pin().insert(key, Post::of(number));
    }
    table
}

/// Makes a bounded map with 128 locks: what the cache used before, and the baseline of its goal.
fn bare<K: std::hash::Hash + Ord + Clone>(keys: &[K]) -> Map<K, Arc<Post>> {
    let mut options = OptionsBuilder::new();
    options.shards(128).estimated_items_capacity(32_768).weight_capacity(1 << 20);
    let options = options.build().expect("valid options");
    let map = Map::with_options(options, UnitWeighter, DefaultHashBuilder::default(), DefaultLifecycle::default());
    for (number, key) in (0..).zip(posts::as_they_came(keys)) {
        map.insert(key, Post::of(number));
    }
    map
}
