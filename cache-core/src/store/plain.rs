//! Store operations for objects and for values shared with other programs, in addition to those
//! of cells.

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;

use super::Expiry;
use super::cells::Loaded;
use super::token::{Token, lease_key};
use crate::error::Result;

/// How [`PlainStore::put_plain`] writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Put {
    /// `None`: without expiry.
    pub(crate) expiry: Option<Expiry>,
    /// Keeps the present value's time to live.
    pub(crate) keep_expiry: bool,
    pub(crate) when: When,
}

/// The condition of a write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum When {
    /// No condition.
    #[default]
    Always,
    /// The key does not exist.
    Absent,
    /// The key exists.
    Present,
}

/// The reply to a command.
#[derive(Clone, PartialEq)]
pub(crate) enum Reply {
    Nil,
    Integer(i64),
    Double(f64),
    Boolean(bool),
    Bytes(Vec<u8>),
    Array(Vec<Self>),
    Map(Vec<(Self, Self)>),
}

/// A computed value for a plain key, to be stored by [`PlainStore::fill_plain`].
pub(crate) struct PlainFill<'a> {
    pub(crate) key: &'a str,
    /// The lease of the compute: see [`plain_lease_key`].
    pub(crate) lease: &'a str,
    pub(crate) token: Token,
    /// The content of the key when the compute began; `None`: the key was absent.
    pub(crate) over: Option<Bytes>,
    pub(crate) bytes: Bytes,
    pub(crate) expiry: Expiry,
}

/// The operations on objects and plain values.
pub(crate) trait PlainStore: Send + Sync + 'static {
    /// Writes the key and replaces any content. `None`: without expiry.
    fn put<'a>(&'a self, key: &'a str, bytes: Bytes, expiry: Option<Expiry>) -> BoxFuture<'a, Result<()>>;

    /// Returns the time to live of a key of any type. `None`: there is no such key; `Some(None)`:
    /// it has no expiry.
    fn time_left<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Option<Duration>>>>;

    /// Writes, and ends the lease of a compute for this key. Returns `false` if the condition was
    /// not met.
    fn put_plain<'a>(&'a self, key: &'a str, lease: &'a str, bytes: Bytes, put: Put) -> BoxFuture<'a, Result<bool>>;

    /// Removes a key of any type, and ends the lease of a compute for it. Returns `false` if the
    /// key was absent.
    fn remove_plain<'a>(&'a self, key: &'a str, lease: &'a str) -> BoxFuture<'a, Result<bool>>;

    /// Adds to a whole number and returns the sum. The time to live does not change.
    fn increment<'a>(&'a self, key: &'a str, by: i64) -> BoxFuture<'a, Result<i64>>;

    /// Sends a command unchanged.
    fn command(&self, words: Vec<Vec<u8>>) -> BoxFuture<'_, Result<Reply>>;

    /// Like [`load`](super::CellStore::load). `true`: the listeners are notified of the next change
    /// of the key.
    fn load_tracked<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<(Option<Loaded>, bool)>>;

    /// Stores if the lease still belongs to this compute, and the key still has exactly the content
    /// from when it began. The lease is released. Returns `false` if nothing was stored.
    fn fill_plain<'a>(&'a self, fill: PlainFill<'a>) -> BoxFuture<'a, Result<bool>>;
}

/// Returns the key of the lease of a compute for a plain key. The name is separate, so that no
/// other program reads it, and in the slot of the key, whether that has a hash tag or not.
pub(crate) fn plain_lease_key(key: &str) -> String {
    match hash_tag(key) {
        Some(tag) => format!("{{{tag}}}:l:{key}"),
        None => lease_key(key),
    }
}

/// Returns the part of a key that Redis Cluster derives the slot from, if that is not the whole
/// key.
fn hash_tag(key: &str) -> Option<&str> {
    let (_, rest) = key.split_once('{')?;
    let (tag, _) = rest.split_once('}')?;
    (!tag.is_empty()).then_some(tag)
}

/// Returns the plain key of this lease, if that has a hash tag.
pub(crate) fn plain_key_of(lease: &str) -> Option<&str> {
    let (_tag, key) = lease.strip_prefix('{')?.split_once("}:l:")?;
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    // K4
    fn the_lease_of_a_plain_key_is_in_its_slot_and_under_another_name() {
        for (key, lease) in [
            ("user:7", "{user:7}:l"),
            ("{shop}:user:7", "{shop}:l:{shop}:user:7"),
            ("user:{7}", "{7}:l:user:{7}"),
            ("user:{}7", "{user:{}7}:l"),
        ] {
            assert_eq!(plain_lease_key(key), lease);
        }
        assert_eq!(plain_key_of("{7}:l:user:{7}"), Some("user:{7}"));
        assert_eq!(plain_key_of("{user:7}:l"), None);
        for key in ["user:7", "{shop}:user:7", "user:{7}", "a{b}c{d}"] {
            let slot_of = |key: &str| hash_tag(key).map_or_else(|| key.to_owned(), str::to_owned);
            assert_eq!(slot_of(key), slot_of(&plain_lease_key(key)), "{key}");
        }
    }
}
