//! How the cost of a hit grows with callers, with the size of values, with keys and with tags.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use cache_core::Cache;
use peers::measure::{Contest, Plan, Results, ServerClock};
use peers::plot::{Chart, Series};
use peers::posts::{self, Post};
use tokio::runtime::Runtime;

use crate::l2::{Clients, KEYS, spread, spread_over};

const BYTES: usize = 1_000;
const CALLERS: usize = 32;

#[cache_core::cached(ttl = "1h", skip(cache), cache = cache)]
async fn number(cache: &Cache, id: u64) -> u64 {
    let _ = cache;
    id
}

#[cache_core::cached(ttl = "1h", local = false, skip(cache), cache = cache)]
async fn no_tags(cache: &Cache, id: u64, group: u64) -> Arc<Post> {
    let _ = (cache, group);
    Arc::new(Post::long(id, BYTES))
}

#[cache_core::cached(ttl = "1h", local = false, skip(cache), cache = cache, tags("a:{group}", "b:{group}"))]
async fn two_tags(cache: &Cache, id: u64, group: u64) -> Arc<Post> {
    let _ = (cache, group);
    Arc::new(Post::long(id, BYTES))
}

#[cache_core::cached(
    ttl = "1h",
    local = false,
    skip(cache),
    cache = cache,
    tags("a:{group}", "b:{group}", "c:{group}", "d:{group}", "e:{group}", "f:{group}", "g:{group}", "h:{group}")
)]
async fn eight_tags(cache: &Cache, id: u64, group: u64) -> Arc<Post> {
    let _ = (cache, group);
    Arc::new(Post::long(id, BYTES))
}

/// Runs all contests. Returns them with their charts.
pub fn hold(runtime: &Runtime, url: &str, clock: &ServerClock, plan: Plan) -> (Vec<Results>, Vec<Chart>) {
    let clients = Arc::new(runtime.block_on(Clients::connect(url)));
    runtime.block_on(clients.fill(KEYS, BYTES));
    let callers = [1, 4, 16, 64, 256, 1_024, 4_096];
    let by_callers = callers.map(|callers| by_callers(runtime, &clients, clock, callers, plan));
    let by_size = [100, 1_000, 10_000, 100_000, 1_000_000].map(|bytes| by_size(runtime, &clients, clock, bytes, plan));
    let by_keys = [1_000, 10_000, 100_000, 1_000_000].map(|keys| by_keys(keys, plan));
    let by_tags = by_tags(runtime, &clients, clock, plan);
    let tagged = |which: [usize; 3]| which.map(|line| by_tags.lines[line].time.median).to_vec();
    let charts = vec![
        chart("L2 hit, 1 KB, by number of callers", &callers.map(|callers| callers.to_string()), &by_callers),
        chart("L2 hit, 32 callers, by bytes of a value", &["100 B", "1 KB", "10 KB", "100 KB", "1 MB"], &by_size),
        chart("L1 hit, u64 key, by number of keys", &["1,000", "10,000", "100,000", "1,000,000"], &by_keys),
        Chart {
            title: "L2 hit, 1 KB, 32 callers, by number of tags".into(),
            marks: ["0", "2", "8"].map(Into::into).into(),
            series: vec![
                Series { name: "redis GET and decode".into(), values: tagged([0, 0, 0]) },
                Series { name: "cache-core, L1 off".into(), values: tagged([1, 2, 3]) },
            ],
        },
    ];
    let results = by_callers.into_iter().chain(by_size).chain(by_keys).chain([by_tags]);
    (results.collect(), charts)
}

fn chart(title: &str, marks: &[impl ToString], results: &[Results]) -> Chart {
    let series = results[0].lines.iter().enumerate().map(|(line, first)| Series {
        name: first.name.clone(),
        values: results.iter().map(|contest| contest.lines[line].time.median).collect(),
    });
    let series = series.collect();
    Chart { title: title.to_owned(), marks: marks.iter().map(ToString::to_string).collect(), series }
}

fn by_callers(runtime: &Runtime, clients: &Arc<Clients>, clock: &ServerClock, callers: usize, plan: Plan) -> Results {
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
        .enter("cached", spread(runtime, clients, callers, |c, id| async move { c.of_cached(id, BYTES).await }))
        .enter("hitbox", spread(runtime, clients, callers, |c, id| async move { c.of_hitbox(id, BYTES).await }))
        .hold(plan)
}

fn by_size(runtime: &Runtime, clients: &Arc<Clients>, clock: &ServerClock, bytes: usize, plan: Plan) -> Results {
    // At most 64 MB for each contender.
    let keys = KEYS.min(64_000_000 / bytes as u64);
    runtime.block_on(clients.fill(keys, bytes));
    Contest::new(format!("L2 hit, {bytes} bytes, {CALLERS} callers"))
        .server(clock)
        .grain(CALLERS)
        .enter(
            "redis `GET` and decode",
            spread_over(runtime, clients, CALLERS, keys, move |c, id| async move { c.raw(id, bytes).await }),
        )
        .enter(
            "**cache-core**, L1 off",
            spread_over(runtime, clients, CALLERS, keys, move |c, id| async move { c.ours(id, bytes).await }),
        )
        .enter(
            "cached",
            spread_over(runtime, clients, CALLERS, keys, move |c, id| async move { c.of_cached(id, bytes).await }),
        )
        .enter(
            "hitbox",
            spread_over(runtime, clients, CALLERS, keys, move |c, id| async move { c.of_hitbox(id, bytes).await }),
        )
        .hold(plan)
}

fn by_keys(keys: u64, plan: Plan) -> Results {
    const ROOM: u64 = 1 << 21;
    let ttl = Duration::from_secs(3_600);
    let order = posts::numbers(keys);
    let cache = Cache::builder().memory_limit_bytes(2 << 30).local_limit_bytes(1 << 30).in_memory();
    let quick = quick_cache::sync::Cache::new(ROOM as usize);
    let moka = moka::sync::Cache::builder().max_capacity(ROOM).time_to_live(ttl).build();
    for key in 0..keys {
        quick.insert(key, key);
        moka.insert(key, key);
    }
    crate::l1::runtime().block_on(async {
        // The embedded store keeps a value in the local tier from its second call on.
        for key in (0..keys).chain(0..keys) {
            black_box(number(&cache, key).await);
        }
    });
    Contest::new(format!("L1 hit, `u64` key, {keys} keys"))
        .enter("quick_cache get, no ttl", |times| {
            for key in order.iter().cycle().take(times) {
                black_box(quick.get(black_box(key)));
            }
        })
        .enter("**cache-core**", |times| {
            crate::l1::runtime().block_on(async {
                for key in order.iter().cycle().take(times) {
                    black_box(number(&cache, black_box(*key)).await);
                }
            });
        })
        .enter("moka sync get", |times| {
            for key in order.iter().cycle().take(times) {
                black_box(moka.get(black_box(key)));
            }
        })
        // Every key once, whatever a slice has time for.
        .grain(keys as usize)
        .hold(plan)
}

fn by_tags(runtime: &Runtime, clients: &Arc<Clients>, clock: &ServerClock, plan: Plan) -> Results {
    const GROUPS: u64 = 64;
    Contest::new(format!("L2 hit, 1 KB, {CALLERS} callers, tags of {GROUPS} groups"))
        .server(clock)
        .grain(CALLERS)
        .enter(
            "redis `GET` and decode",
            spread(runtime, clients, CALLERS, |c, id| async move { c.raw(id, BYTES).await }),
        )
        .enter(
            "**cache-core**, 0 tags",
            spread(runtime, clients, CALLERS, |c, id| async move {
                black_box(no_tags(&c.cache, id, id % GROUPS).await);
            }),
        )
        .enter(
            "**cache-core**, 2 tags",
            spread(runtime, clients, CALLERS, |c, id| async move {
                black_box(two_tags(&c.cache, id, id % GROUPS).await);
            }),
        )
        .enter(
            "**cache-core**, 8 tags",
            spread(runtime, clients, CALLERS, |c, id| async move {
                black_box(eight_tags(&c.cache, id, id % GROUPS).await);
            }),
        )
        .hold(plan)
}
