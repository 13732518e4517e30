//! The values that the benches cache.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Returns the number of keys: `BENCH_KEYS`; 10,000 by default. The cost of a hit depends on
/// whether the keys fit into the CPU caches.
pub fn keys() -> u64 {
    std::env::var("BENCH_KEYS").ok().and_then(|keys| keys.parse().ok()).unwrap_or(10_000).max(1)
}

/// A blog post of about 200 bytes, or of a given length.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Post {
    pub id: u64,
    pub title: String,
    pub body: String,
}

impl Post {
    pub fn of(id: u64) -> Arc<Self> {
        Arc::new(Self::long(id, 160))
    }

    /// Makes a post with a body of this many bytes.
    pub fn long(id: u64, bytes: usize) -> Self {
        Self { id, title: format!("Post number {id}"), body: "text ".repeat(bytes / 5) }
    }
}

/// Returns the keys in an order that no prefetcher guesses, if they were stored
/// [in another](as_they_came).
pub fn numbers() -> Arc<[u64]> {
    let keys = keys();
    // A prime step visits all keys, unless their number is a multiple of it.
    (0..keys).map(|at| at * 7_919 % keys).collect()
}

/// Returns the same keys as text of 24 bytes.
pub fn names() -> Arc<[String]> {
    numbers().iter().map(|number| format!("user-account-no-{number:08}")).collect()
}

/// Returns the order in which to store the keys: entries lie in memory in this order, and are read
/// in another.
pub fn as_they_came<K: Ord + Clone>(keys: &[K]) -> Vec<K> {
    let mut keys = keys.to_vec();
    keys.sort_unstable();
    keys
}

/// Returns the number of a name.
pub fn number(name: &str) -> u64 {
    name.rsplit('-').next().and_then(|digits| digits.parse().ok()).expect("one of `names`")
}
