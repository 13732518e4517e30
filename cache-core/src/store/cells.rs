//! What cells need of a store: bytes that are read with the time they have left, made where nothing
//! stands, swapped over exactly what was read, prolonged and removed; and, for what a session is
//! beyond one key, one key in the place of another, indexes whose members end by themselves, marks
//! of what has ended, and a list of all keys.
//!
//! Invariant: what is written into a cell and its entry in an index are written in one step, so
//! neither ever stands without the other, and a limit to the entries holds whatever happens at the
//! same time.

use bytes::Bytes;
use futures::future::BoxFuture;

use super::{Expiry, Loaded, Swapped};
use crate::clock::Timestamp;
use crate::error::Result;

/// The answer to [`CellStore::replace`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Replaced {
    /// The new key stands, the old one is gone.
    Done,
    /// Other bytes stood under the old key; nothing was changed.
    Conflict,
    /// Nothing stood under the old key; nothing was changed.
    Gone,
    /// Something stood under the new key; nothing was changed.
    Taken,
}

/// A key that is left behind by one that ends, for so long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark<'a> {
    pub key: &'a str,
    pub lasts: Expiry,
}

/// A write of one key together with its entry in an index.
#[derive(Clone, Copy)]
pub(crate) struct Entering<'a> {
    pub key: &'a str,
    pub bytes: &'a Bytes,
    pub expiry: Option<Expiry>,
    /// The key and the bytes that it is made from; another key is deleted with that. `None`: from nothing.
    pub over: Option<(&'a str, &'a Bytes)>,
    /// Deleted along with it, whatever stands there.
    pub deletes: &'a [String],
    pub index: &'a str,
    pub member: &'a str,
    /// How long the entry stays, counted from the write by the store.
    pub lasts: Expiry,
    /// A member that leaves an index, this one or another.
    pub leaves: Option<(&'a str, &'a str)>,
    pub limit: Option<Limit<'a>>,
    pub mark: Option<Mark<'a>>,
}

/// How many members of the index may stand: those whose key does, which is `prefix` and the member. One that leaves does not count.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit<'a> {
    pub prefix: &'a str,
    /// At least one.
    pub most: usize,
    pub then: OverLimit,
}

/// What becomes of an entry that is one too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OverLimit {
    /// Nothing is written.
    Refuse,
    /// The keys of those that end first are deleted.
    EndFirst,
}

/// The answer to [`CellStore::enter`].
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Entered {
    /// Key and entry stand. These members were ended for it.
    Done(Vec<String>),
    /// These bytes stood under the key that it was to be made from; nothing was changed.
    Conflict(Bytes),
    /// Nothing stood there; nothing was changed.
    Gone,
    /// Something stood under the new key; nothing was changed.
    Taken,
    /// It would be one too many; nothing was changed.
    Full,
}

/// Which keys are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Bytes,
    Index,
}

pub(crate) trait CellStore: Send + Sync + 'static {
    /// The server's time, as well as it is known here.
    fn now(&self) -> Timestamp;

    /// Whether it is in this process, and answers without waiting.
    fn is_at_hand(&self) -> bool;

    /// Whether [`list`](Self::list) can be asked.
    fn lists(&self) -> bool {
        true
    }

    /// The bytes and the time left (`None`: no expiry) of a key of objects or plain values. A wrong
    /// type is [`ErrorKind::Refused`](crate::ErrorKind::Refused).
    fn load<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Loaded>>>;

    /// Writes only if nothing stands there.
    fn create<'a>(&'a self, key: &'a str, bytes: Bytes, expiry: Option<Expiry>) -> BoxFuture<'a, Result<bool>>;

    /// Replaces exactly `expected`. `expiry` `None`: the time left stays as it is.
    fn swap<'a>(
        &'a self,
        key: &'a str,
        expected: Bytes,
        bytes: Bytes,
        expiry: Option<Expiry>,
    ) -> BoxFuture<'a, Result<Swapped>>;

    /// Sets the time left. `None`: removes the expiry. `false`: nothing stands there.
    fn expire<'a>(&'a self, key: &'a str, expiry: Option<Expiry>) -> BoxFuture<'a, Result<bool>>;

    /// Deletes. `false`: nothing stood there.
    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<bool>>;

    /// As [`load`](Self::load), and whether something stands under `mark`, in the same trip.
    fn load_marked<'a>(&'a self, key: &'a str, mark: &'a str) -> BoxFuture<'a, Result<(Option<Loaded>, bool)>>;

    /// Leaves the mark and deletes the key, in this order and in one trip. `false`: nothing stood there.
    fn delete_marked<'a>(&'a self, key: &'a str, mark: Mark<'a>) -> BoxFuture<'a, Result<bool>>;

    /// Puts `bytes` under `key`, where nothing may stand, in the place of exactly `expected` under `old`, which is deleted.
    fn replace<'a>(
        &'a self,
        old: &'a str,
        expected: Bytes,
        key: &'a str,
        bytes: Bytes,
        expiry: Option<Expiry>,
        mark: Option<Mark<'a>>,
    ) -> BoxFuture<'a, Result<Replaced>>;

    /// All of it or nothing.
    fn enter<'a>(&'a self, entering: Entering<'a>) -> BoxFuture<'a, Result<Entered>>;

    /// The members of an index with when each ends, the first to end at the head. Those that have ended are removed.
    fn index_members<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Vec<(String, Timestamp)>>>;

    /// Puts a member into an index for so long, counted by the store. The index lives as long as
    /// its last member.
    fn index_put<'a>(&'a self, key: &'a str, member: &'a str, lasts: Expiry) -> BoxFuture<'a, Result<()>>;

    /// Removes members of an index; the number that stood there.
    fn index_remove<'a>(&'a self, key: &'a str, members: &'a [String]) -> BoxFuture<'a, Result<u64>>;

    /// Some keys of this kind that begin with `prefix`, and where to go on; zero: begin, and over. What stands all the time is listed at least
    /// once. A step looks at a bounded part of the store.
    fn list<'a>(&'a self, prefix: &'a str, kind: Kind, from: u64) -> BoxFuture<'a, Result<(Vec<String>, u64)>>;
}

impl Limit<'_> {
    /// How many of the others go, if there are so many; `None`: the new one is refused.
    pub(crate) fn surplus(&self, others: usize) -> Option<usize> {
        match others.saturating_add(1).saturating_sub(self.most) {
            0 => Some(0),
            _ if self.then == OverLimit::Refuse => None,
            surplus => Some(surplus),
        }
    }
}

/// What a mark holds: it only stands.
pub(crate) const MARK: &[u8] = b"1";
