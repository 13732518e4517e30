//! Hashes, which other programs read and write, too.

use bytes::Bytes;
use futures::future::BoxFuture;

use crate::error::Result;

/// The operations on hashes.
pub(crate) trait HashStore: Send + Sync + 'static {
    /// Sets fields of a hash.
    fn hash_set<'a>(&'a self, key: &'a str, fields: Vec<(String, Bytes)>) -> BoxFuture<'a, Result<()>>;

    /// Returns one field of a hash.
    fn hash_get<'a>(&'a self, key: &'a str, field: &'a str) -> BoxFuture<'a, Result<Option<Bytes>>>;

    /// Returns all fields of a hash with their values, in no particular order.
    fn hash_all<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Vec<(String, Bytes)>>>;

    /// Returns the field names of a hash, in no particular order.
    fn hash_keys<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Vec<String>>>;

    /// Removes fields of a hash. Returns how many of them existed.
    fn hash_remove<'a>(&'a self, key: &'a str, fields: &'a [String]) -> BoxFuture<'a, Result<u64>>;

    /// Adds to a whole number in a field of a hash and returns the sum.
    fn hash_increment<'a>(&'a self, key: &'a str, field: &'a str, by: i64) -> BoxFuture<'a, Result<i64>>;
}
