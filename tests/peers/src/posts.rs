//! The value that all contenders cache.

use std::sync::Arc;

use hitbox_fn::CacheableResponse;
use serde::{Deserialize, Serialize};

/// A blog post with a body of a given length.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, CacheableResponse)]
pub struct Post {
    pub id: u64,
    pub title: String,
    pub body: String,
}

impl Post {
    /// Makes a post with a body of this many bytes.
    pub fn long(id: u64, bytes: usize) -> Self {
        Self { id, title: format!("Post number {id}"), body: "text ".repeat(bytes / 5) }
    }

    /// Makes a post of about 200 bytes.
    pub fn of(id: u64) -> Arc<Self> {
        Arc::new(Self::long(id, 160))
    }

    /// Returns the post in the encoding of the rows with raw `redis`.
    pub fn encode(&self) -> Vec<u8> {
        bincode::serde::encode_to_vec(self, bincode::config::standard()).expect("a post can be encoded")
    }

    /// Returns the post of these bytes.
    pub fn decode(bytes: &[u8]) -> Arc<Self> {
        let decoded = bincode::serde::decode_from_slice(bytes, bincode::config::standard());
        Arc::new(decoded.expect("an encoded post").0)
    }
}

/// Returns the numbers below `keys` in an order that no prefetcher guesses.
pub fn numbers(keys: u64) -> Arc<[u64]> {
    // A prime step visits all keys, unless their number is a multiple of it.
    (0..keys).map(|at| at * 7_919 % keys).collect()
}

/// Returns the name of a number: text of 24 bytes.
pub fn name(number: u64) -> String {
    format!("user-account-no-{number:08}")
}

/// Returns the number of a [`name`].
pub fn number(name: &str) -> u64 {
    name.rsplit('-').next().and_then(|digits| digits.parse().ok()).expect("a name")
}
