//! The store operations of cells, objects and sessions.
//!
//! A cell is bytes under one key: loaded with their time to live, created if absent, swapped over
//! exactly the bytes that were read, prolonged and removed. Sessions need more than one key: one
//! key in the place of another, indexes whose members expire, marks of ended sessions, and a list
//! of all keys.
//!
//! Invariant: a cell and its entry in an index are written in one step, so neither exists without
//! the other, and a limit on the entries holds under concurrency.

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;

use super::Expiry;
use crate::clock::Timestamp;
use crate::error::Result;

/// Bytes and their remaining time to live; `None`: no expiry.
pub(crate) type Loaded = (Bytes, Option<Duration>);

/// The result of [`CellStore::swap`].
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Swapped {
    /// The new bytes were written.
    Done,
    /// These other bytes were found; nothing was changed.
    Conflict(Bytes),
    /// The key was absent; nothing was changed.
    Gone,
}

/// The result of [`CellStore::replace`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Replaced {
    /// The new key was written and the old one deleted.
    Done,
    /// The old key had other bytes; nothing was changed.
    Conflict,
    /// The old key was absent; nothing was changed.
    Gone,
    /// The new key already existed; nothing was changed.
    Taken,
}

/// A key that is left behind when another one ends, for this time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tombstone<'a> {
    pub key: &'a str,
    pub lasts: Expiry,
}

/// A write of `bytes` under `key`, which must be absent. `old` is deleted, which must have exactly
/// the bytes `expected`.
#[derive(Clone, Copy)]
pub(crate) struct Replacing<'a> {
    pub old: &'a str,
    pub expected: &'a Bytes,
    pub key: &'a str,
    pub bytes: &'a Bytes,
    pub expiry: Option<Expiry>,
    pub mark: Option<Tombstone<'a>>,
}

/// A write of one key together with its entry in an index.
#[derive(Clone, Copy)]
pub(crate) struct Entering<'a> {
    pub key: &'a str,
    pub bytes: &'a Bytes,
    pub expiry: Option<Expiry>,
    /// The key and the bytes that the new one is made from. If that is another key, it is deleted.
    /// `None`: the key is new.
    pub over: Option<(&'a str, &'a Bytes)>,
    /// Keys that are deleted in the same step, whatever they contain.
    pub deletes: &'a [String],
    pub index: &'a str,
    pub member: &'a str,
    /// How long the entry stays, counted by the store from the write.
    pub lasts: Expiry,
    /// A member to remove from an index, this one or another.
    pub leaves: Option<(&'a str, &'a str)>,
    pub limit: Option<Limit<'a>>,
    pub mark: Option<Tombstone<'a>>,
}

/// A limit on the live members of the index. A member is live if its key exists, which is `prefix`
/// and the member. A member removed in the same step does not count.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit<'a> {
    pub prefix: &'a str,
    /// At least one.
    pub most: usize,
    pub then: OverLimit,
}

/// What to do if the entry exceeds the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OverLimit {
    /// Write nothing.
    Refuse,
    /// Delete the keys of the members that end first.
    EndFirst,
}

/// The result of [`CellStore::enter`].
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Entered {
    /// Key and entry were written. These members were ended to make room.
    Done(Vec<String>),
    /// The key that it is made from had these other bytes; nothing was changed.
    Conflict(Bytes),
    /// The key that it is made from was absent; nothing was changed.
    Gone,
    /// The new key already existed; nothing was changed.
    Taken,
    /// The entry would exceed the limit; nothing was changed.
    Full,
}

/// Which keys are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Bytes,
    Index,
}

pub(crate) trait CellStore: Send + Sync + 'static {
    /// Returns the server's time, as well as it is known here.
    fn now(&self) -> Timestamp;

    /// Returns whether the store is in this process and answers without waiting.
    fn reads_synchronously(&self) -> bool;

    /// Returns whether [`list`](Self::list) is supported.
    fn lists(&self) -> bool {
        true
    }

    /// Returns the bytes and the time to live (`None`: no expiry) of a key of objects or plain
    /// values. A wrong type is [`ErrorKind::Refused`](crate::ErrorKind::Refused).
    fn load<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Loaded>>>;

    /// Writes the key if it is absent. Returns whether it did.
    fn create<'a>(&'a self, key: &'a str, bytes: Bytes, expiry: Option<Expiry>) -> BoxFuture<'a, Result<bool>>;

    /// Replaces exactly `expected`. `expiry` `None`: the time to live does not change.
    fn swap<'a>(
        &'a self,
        key: &'a str,
        expected: Bytes,
        bytes: Bytes,
        expiry: Option<Expiry>,
    ) -> BoxFuture<'a, Result<Swapped>>;

    /// Sets the time to live; `None` removes the expiry. Returns `false` if the key is absent.
    fn expire<'a>(&'a self, key: &'a str, expiry: Option<Expiry>) -> BoxFuture<'a, Result<bool>>;

    /// Deletes the key. Returns `false` if it was absent.
    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<bool>>;

    /// Like [`load`](Self::load), and returns whether `mark` exists, in the same round trip.
    fn load_marked<'a>(&'a self, key: &'a str, mark: &'a str) -> BoxFuture<'a, Result<(Option<Loaded>, bool)>>;

    /// Writes the mark and deletes the key, in this order and in one round trip. Returns `false` if
    /// the key was absent.
    fn delete_marked<'a>(&'a self, key: &'a str, mark: Tombstone<'a>) -> BoxFuture<'a, Result<bool>>;

    /// Writes one key in the place of another.
    fn replace<'a>(&'a self, replacing: Replacing<'a>) -> BoxFuture<'a, Result<Replaced>>;

    /// Executes all of the write or nothing.
    fn enter<'a>(&'a self, entering: Entering<'a>) -> BoxFuture<'a, Result<Entered>>;

    /// Returns the members of an index and when each ends, in that order. Members that have ended
    /// are removed.
    fn index_members<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Vec<(String, Timestamp)>>>;

    /// Puts a member into an index for this time, counted by the store. The index lives as long as
    /// its last member.
    fn index_put<'a>(&'a self, key: &'a str, member: &'a str, lasts: Expiry) -> BoxFuture<'a, Result<()>>;

    /// Removes members of an index. Returns how many of them existed.
    fn index_remove<'a>(&'a self, key: &'a str, members: &'a [String]) -> BoxFuture<'a, Result<u64>>;

    /// Returns some keys of this kind that begin with `prefix`, and the position to continue from.
    /// Zero is the start, and the end. A key that exists all the time is listed at least once. One
    /// step looks at a bounded part of the store.
    fn list<'a>(&'a self, prefix: &'a str, kind: Kind, from: u64) -> BoxFuture<'a, Result<(Vec<String>, u64)>>;
}

impl Limit<'_> {
    /// Returns how many of `others` must be removed; `None`: the new entry is refused.
    pub(crate) fn surplus(&self, others: usize) -> Option<usize> {
        match others.saturating_add(1).saturating_sub(self.most) {
            0 => Some(0),
            _ if self.then == OverLimit::Refuse => None,
            surplus => Some(surplus),
        }
    }
}

/// The content of a mark: only its existence matters.
pub(crate) const MARK: &[u8] = b"1";
