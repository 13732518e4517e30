//! The estimated weight of values in the local tier, compared to what they allocate.
//!
//! One test in its own program, since memory is measured for the whole process.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and prints its measurements"
)]

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use cache_core::testing::weight;
use cache_core::value::{CacheValue, Weigh};
use cache_core::{Cache, cached};
use peak_alloc::PeakAlloc;
use serde::{Deserialize, Serialize};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

#[derive(Clone, Serialize, Deserialize)]
struct Post {
    id: u64,
    title: String,
    body: String,
    tags: Vec<String>,
    author: Option<Box<Author>>,
    score: Option<f64>,
    state: State,
}

#[derive(Clone, Serialize, Deserialize)]
struct Author {
    id: u32,
    name: String,
    addresses: Vec<(u32, String)>,
}

#[derive(Clone, Serialize, Deserialize)]
enum State {
    Draft,
    Published { by: String, at: u64 },
}

fn text(length: usize) -> String {
    "x".repeat(length)
}

fn post(id: u64) -> Post {
    let author = Author { id: 7, name: text(12), addresses: vec![(1, text(30)), (2, text(30))] };
    Post {
        id,
        title: text(40),
        body: text(500),
        tags: (0..5).map(|_| text(9)).collect(),
        author: id.is_multiple_of(2).then(|| Box::new(author)),
        score: Some(0.5),
        state: if id.is_multiple_of(3) { State::Draft } else { State::Published { by: text(10), at: id } },
    }
}

/// Checks the weight of a value against the memory it takes.
#[track_caller]
fn holds_within<T: CacheValue>(factor: f64, make: impl Fn() -> T) {
    let before = ALLOCATOR.current_usage();
    let value = make();
    let taken = ALLOCATOR.current_usage() - before + size_of::<T>();
    let weight = weight(&value);
    let of = std::any::type_name::<T>();
    println!("{of}: {weight} for {taken}");
    assert!(weight as f64 <= taken as f64 * factor, "{of}: {weight} for {taken}");
    assert!(weight as f64 >= taken as f64 / factor, "{of}: {weight} for {taken}");
}

#[test]
// C5
fn weights_are_close_to_the_memory_used_and_the_limit_holds() {
    texts_and_sequences();
    structures();
    maps();
    the_limit_holds();
    the_users_own_weight_counts();
}

fn texts_and_sequences() {
    let within = 1.5;
    for length in [0, 5, 16, 40, 1000, 100_000] {
        holds_within(within, || text(length));
        holds_within(within, || vec![0_u8; length]);
        holds_within(within, || vec![0_u64; length]);
        holds_within(within, || vec![0_i128; length]);
        holds_within(within, || vec![(0_u64, 0.5_f64); length.min(1000)]);
        holds_within(within, || vec![(0_u8, 0_u32); length.min(1000)]);
        holds_within(within, || vec![[0_u16; 5]; length.min(1000)]);
        holds_within(within, || (0..length.min(1000)).collect::<VecDeque<_>>());
        holds_within(within, || Some(text(length)));
        holds_within(within, || (text(length), text(length)));
        holds_within(within, || vec![Some(7_u64); length.min(1000)]);
    }
    holds_within(within, || 7_u64);
    holds_within(within, || None::<String>);
    holds_within(within, || vec![String::new(); 4000]);
    holds_within(within, || (0..1000).map(|_| text(5)).collect::<Vec<_>>());
    holds_within(within, || (0..1000).map(|_| text(30)).collect::<Vec<_>>());
    holds_within(within, || (0..100).map(|n| Some(text(n)).filter(|_| n % 3 > 0)).collect::<Vec<_>>());
    holds_within(within, || vec![Vec::<u8>::new(); 4000]);
    holds_within(within, || (0..1000).map(|n| vec![0_u8; n % 50]).collect::<Vec<_>>());
    holds_within(within, || (0..100).map(|_| vec![text(20); 10]).collect::<Vec<_>>());
    holds_within(within, || vec![vec![vec![1_u32; 10]; 10]; 10]);
}

fn structures() {
    let within = 1.5;
    holds_within(within, || post(1));
    holds_within(within, || post(2));
    holds_within(within, || (0..100).map(post).collect::<Vec<_>>());
    holds_within(within, || Box::new(post(1)));
    holds_within(within, || (0..100).map(|id| Box::new(post(id))).collect::<Vec<_>>());
    holds_within(within, || Some(Arc::new(post(1))));
    holds_within(within, || (text(20).into_boxed_str(), vec![0_u64; 20].into_boxed_slice()));
    holds_within(within, || (Arc::<str>::from(text(20)), Arc::<[u64]>::from(vec![0_u64; 20])));
    holds_within(within, || Ok::<_, String>(text(100)) as Result<String, String>);
}

fn maps() {
    let within = 3.0;
    for entries in [1_u64, 3, 10, 14, 15, 100, 1000, 10_000] {
        holds_within(within, || (0..entries).map(|n| (n, n)).collect::<HashMap<_, _>>());
        holds_within(within, || (0..entries).map(|n| (n, text(n as usize % 30))).collect::<HashMap<_, _>>());
        holds_within(within, || (0..entries).map(|n| (n.to_string(), vec![n as u32; 5])).collect::<HashMap<_, _>>());
        holds_within(within, || (0..entries).map(|n| (n, n)).collect::<BTreeMap<_, _>>());
        holds_within(within, || (0..entries).map(|n| (n.to_string(), text(20))).collect::<BTreeMap<_, _>>());
        holds_within(within, || (0..entries).collect::<HashSet<_>>());
        holds_within(within, || (0..entries).map(|n| n.to_string()).collect::<HashSet<_>>());
        // A set is encoded like a sequence, and a tree of one or two elements has room for eleven.
        holds_within(within, || (0..entries.max(3)).map(|n| n.to_string()).collect::<BTreeSet<_>>());
        let object =
            |n| serde_json::json!({ "id": n, "name": text(10), "none": null, "list": [n, n, n], "in": { "a": 1 } });
        holds_within(within, || (0..entries).map(object).collect::<serde_json::Value>());
    }
}

/// A value of 4,000 empty texts takes 4,000 bytes encoded, and 96,000 in memory.
#[cached(skip(cache), cache = cache)]
async fn empty_texts(cache: &Cache, id: u64) -> Arc<Vec<String>> {
    let _ = (cache, id);
    Arc::new(vec![String::new(); 4000])
}

#[cached(skip(cache), cache = cache)]
async fn texts(cache: &Cache, id: u64) -> Vec<String> {
    let _ = cache;
    (0..100).map(|_| text(id as usize % 40)).collect()
}

#[cached(skip(cache), cache = cache, tags("one:{id}"))]
async fn tagged(cache: &Cache, id: u64) -> u64 {
    let _ = cache;
    id
}

/// Returns the memory of a process whose local tier has this limit and was filled with far more.
/// The store has room for little more than the versions.
fn taken(limit: usize, keys: u64, call: impl AsyncFn(&Cache, u64)) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let cache = Cache::builder().local_limit_bytes(limit).memory_limit_bytes(STORE).in_memory();
    let before = ALLOCATOR.current_usage();
    runtime.block_on(async {
        // Computed, then read from the store into the local tier.
        for id in (0..keys).flat_map(|id| [id, id]) {
            call(&cache, id).await;
        }
    });
    ALLOCATOR.current_usage() - before
}

/// The memory that the store may take. The history and other parts that do not grow with the local
/// tier add to it.
const STORE: usize = 4 << 20;
const BESIDE: usize = STORE * 3 / 2;

fn the_limit_holds() {
    const LIMIT: usize = 12 << 20;
    let (least, most) = (LIMIT / 2, LIMIT * 3 / 2 + BESIDE);
    let of = [
        ("empty texts", taken(LIMIT, 300, async |cache, id| drop(empty_texts(cache, id).await))),
        ("texts", taken(LIMIT, 4000, async |cache, id| drop(texts(cache, id).await))),
        ("own tags", taken(LIMIT, 25_000, async |cache, id| assert_eq!(tagged(cache, id).await, id))),
    ];
    for (what, taken) in of {
        println!("{what}: {taken} of {LIMIT}");
    }
    for (what, taken) in of {
        assert!((least..=most).contains(&taken), "{what}: {taken} of {LIMIT}");
    }
}

/// Most of it is not serialized.
#[derive(Clone, Serialize, Deserialize)]
struct Hidden {
    id: u64,
    #[serde(skip, default = "made_again")]
    cached: Vec<u8>,
}

fn made_again() -> Vec<u8> {
    vec![0; 50_000]
}

impl Weigh for Hidden {
    fn held_bytes(&self) -> usize {
        self.cached.capacity()
    }
}

#[cached(skip(cache), cache = cache)]
async fn hidden(cache: &Cache, id: u64) -> Arc<Hidden> {
    let _ = cache;
    Arc::new(Hidden { id, cached: made_again() })
}

fn the_users_own_weight_counts() {
    const LIMIT: usize = 4 << 20;
    let taken = taken(LIMIT, 400, async |cache, id| drop(hidden(cache, id).await));
    println!("own weight: {taken} of {LIMIT}");
    assert!((LIMIT / 2..=LIMIT * 3 / 2 + BESIDE).contains(&taken), "{taken} of {LIMIT}");
}
