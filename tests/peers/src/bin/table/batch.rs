//! Many ids in one call, all of them stored in Redis.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;

use cache_core::Cache;
use futures::future::join_all;
use peers::measure::{Contest, Plan, Results, ServerClock};
use peers::posts::Post;
use redis::AsyncCommands as _;
use tokio::runtime::Runtime;

use crate::l2::{Clients, KEYS, raw_key};

const BYTES: usize = 1_000;

#[cache_core::cached(batch, ttl = "1h", local = false, skip(cache), cache = cache)]
async fn posts(cache: &Cache, ids: &[u64]) -> HashMap<u64, Arc<Post>> {
    let _ = cache;
    ids.iter().map(|id| (*id, Arc::new(Post::long(*id, BYTES)))).collect()
}

/// Runs a contest for each number of ids, with one caller. [`crate::l2::hold`] has filled the keys
/// of the peers.
pub fn hold(runtime: &Runtime, clients: &Arc<Clients>, clock: &ServerClock, plan: Plan) -> Vec<Results> {
    let ids: Vec<u64> = (0..KEYS).collect();
    runtime.block_on(posts(&clients.cache, &ids));
    [100, 1_000].map(|size| contest(runtime, clients, clock, size).hold(plan)).into()
}

fn contest<'a>(runtime: &'a Runtime, clients: &'a Arc<Clients>, clock: &'a ServerClock, size: u64) -> Contest<'a> {
    // Each batch starts at another id.
    let batch = move |turn: usize| {
        let first = turn as u64 * 97 % (KEYS - size);
        (first..first + size).collect::<Vec<u64>>()
    };
    Contest::new(format!("batch of {size} ids, 1 KB, all hits"))
        .server(clock)
        .enter("redis `MGET` and decode", move |times| {
            runtime.block_on(async {
                for turn in 0..times {
                    let keys: Vec<String> = batch(turn).into_iter().map(|id| raw_key(id, BYTES)).collect();
                    let values: Vec<Vec<u8>> = clients.raw.clone().mget(keys).await.expect("a reply");
                    black_box(values.iter().map(|value| Post::decode(value)).collect::<Vec<_>>());
                }
            });
        })
        .enter("**cache-core** batch, L1 off", move |times| {
            runtime.block_on(async {
                for turn in 0..times {
                    black_box(posts(&clients.cache, &batch(turn)).await);
                }
            });
        })
        .enter("cached, a call for each id", move |times| {
            runtime.block_on(async {
                for turn in 0..times {
                    join_all(batch(turn).into_iter().map(|id| clients.of_cached(id, BYTES))).await;
                }
            });
        })
        .enter("hitbox, a call for each id", move |times| {
            runtime.block_on(async {
                for turn in 0..times {
                    join_all(batch(turn).into_iter().map(|id| clients.of_hitbox(id, BYTES))).await;
                }
            });
        })
}
