//! Cells: stored bytes that cannot be computed again: objects and sessions. Loads, creates, changes
//! and removes them.
//!
//! Invariant: a change replaces exactly the bytes that it was made from, or creates a key that does
//! not exist. So no change is lost, and what has ended is not recreated. Each change that is
//! reported as successful is applied exactly once.
//!
//! ```text
//! load ── apply the change to the current object ── prepare ── write over exactly its bytes ── done
//!                          ▲                                              │
//!                          └────────────── the bytes stored now ──────────┘ on a conflict: at once
//! ```
//!
//! [`swap`] is the only compare-and-swap loop of the cache. It does not pause before a retry:
//! backing off would starve this process under contention. A conflict brings the bytes that are
//! stored instead, so a retry costs one round trip.
//!
//! | part | defines |
//! |---|---|
//! | [`ObjectForm`] | key form and codec of one type |
//! | [`CellKind`] | what a write of this type includes: time to live, another key, an index entry |
//! | `shared` | how the changes of many callers to one key go out in one swap |

#[cfg_attr(not(feature = "sessions"), allow(dead_code, reason = "needed only by sessions"))]
mod cells;
mod form;
#[cfg(feature = "sessions")]
mod gather;
#[cfg(feature = "sessions")]
mod shared;

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;

pub(crate) use self::cells::{Cells, Draft, Entry, Put};
pub use self::form::ObjectForm;
pub(crate) use self::form::{open_record, seal_record};
#[cfg(feature = "sessions")]
pub(crate) use self::{
    cells::Marked,
    shared::{Gathered, SharedKind, change},
};
use crate::clock::Timestamp;
use crate::error::Error;
pub(crate) use crate::store::{CellStore, Loaded};
#[cfg(feature = "sessions")]
pub(crate) use crate::store::{Kind as Listed, cells::OverLimit};

/// How many times a change is tried against conflicting ones.
pub(crate) const ATTEMPTS: u32 = 1000;

/// What a write of one type of objects includes, besides the change itself.
pub(crate) trait CellKind: Sized + Send + Sync + 'static {
    type Form: ObjectForm;
    /// What a stored object is found by, in addition to its key.
    type At: Clone + Send + Sync;
    /// What a write does besides applying its changes, such as giving the object another key.
    type StalenessPolicy: Send + Sync;
    type Error: From<Error> + Send;

    fn form(&self) -> &Self::Form;

    fn cells(&self) -> &Cells;

    /// Decides what to write for a value. Called before each attempt. `alone`: the value contains
    /// one change only.
    fn prepare(
        &self,
        current: &Stored<Self>,
        object: Object<Self>,
        terms: &Self::StalenessPolicy,
        alone: bool,
    ) -> impl Future<Output = Result<Plan<Object<Self>>, Self::Error>> + Send;

    /// Returns what is stored now. Called after a conflict that did not bring it. `taken`: another
    /// object is stored under the key that was to be written.
    fn look_again(
        &self,
        current: &Stored<Self>,
        terms: &Self::StalenessPolicy,
        taken: bool,
    ) -> impl Future<Output = Result<Option<Stored<Self>>, Self::Error>> + Send;

    /// Keeps the index in order when a write meets its limit. Default: there is no limit.
    fn limit_met(&self, _met: LimitMet<'_, Object<Self>>) -> impl Future<Output = Result<(), Self::Error>> + Send {
        std::future::ready(Ok(()))
    }

    /// Called for each attempt that met the bytes of another write.
    fn conflict(&self) {}

    /// Returns the error for a change that met [`ATTEMPTS`] conflicts.
    fn too_many_conflicts(&self) -> Self::Error;
}

/// The objects of a kind.
pub(crate) type Object<K> = <<K as CellKind>::Form as ObjectForm>::Object;

/// An object as it was read.
pub(crate) struct Stored<K: CellKind> {
    pub(crate) at: K::At,
    pub(crate) key: String,
    /// Exactly the bytes that were read. A swap compares them.
    pub(crate) bytes: Bytes,
    pub(crate) object: Object<K>,
    /// The time it had left when it was read; `None`: it has no end.
    pub(crate) left: Option<Duration>,
    pub(crate) read_at: Timestamp,
}

impl<K: CellKind> Clone for Stored<K> {
    fn clone(&self) -> Self {
        Self {
            at: self.at.clone(),
            key: self.key.clone(),
            bytes: self.bytes.clone(),
            object: self.object.clone(),
            left: self.left,
            read_at: self.read_at,
        }
    }
}

/// What to do with a changed object.
#[cfg_attr(not(feature = "sessions"), allow(dead_code, reason = "needed only by sessions"))]
pub(crate) enum Plan<O> {
    Write(Box<Draft>, O),
    /// Its time has ended: it is to be removed.
    Remove,
    /// The changes cannot be written together: each one is tried by itself.
    Apart,
}

/// What has become of a change.
#[cfg_attr(not(feature = "sessions"), allow(dead_code, reason = "needed only by sessions"))]
pub(crate) enum Verdict<K: CellKind> {
    Written {
        /// What the change was made from.
        before: Stored<K>,
        object: Object<K>,
        draft: Box<Draft>,
    },
    /// Nothing was written. By its changed value, this object is to be removed.
    Over(Stored<K>),
    /// Nothing was written: the object no longer exists.
    Gone,
    /// Nothing was written: the index is full.
    Full,
}

/// A write has met the limit of its index.
#[cfg_attr(not(feature = "sessions"), allow(dead_code, reason = "needed only by sessions"))]
pub(crate) enum LimitMet<'a, O> {
    /// Nothing was written for this object. The write is tried once more if there is room then.
    Full(&'a O),
    /// It was written, and these keys were deleted to make room.
    Ended(&'a [String]),
}

/// Loads the object under a key.
pub(crate) async fn load<K: CellKind>(kind: &K, at: K::At, key: String) -> Result<Option<Stored<K>>, K::Error> {
    match kind.cells().load(&key).await? {
        Some(loaded) => open(kind, at, key, loaded),
        None => Ok(None),
    }
}

/// Decodes the bytes under a key. Returns `None` if they count as no object.
pub(crate) fn open<K: CellKind>(
    kind: &K,
    at: K::At,
    key: String,
    (bytes, left): Loaded,
) -> Result<Option<Stored<K>>, K::Error> {
    let object = kind.form().decode(&key, &bytes)?;
    Ok(object.map(|object| Stored { at, key, bytes, object, left, read_at: kind.cells().now() }))
}

/// Makes one attempt to write, and a second one after making room if the index was full.
pub(crate) async fn put<K: CellKind>(kind: &K, draft: &Draft, object: &Object<K>) -> Result<Put, K::Error> {
    let (mut put, mut ended) = kind.cells().attempt(draft).await?;
    if matches!(put, Put::Full) {
        kind.limit_met(LimitMet::Full(object)).await?;
        (put, ended) = kind.cells().attempt(draft).await?;
    }
    if !ended.is_empty() {
        kind.limit_met(LimitMet::Ended(&ended)).await?;
    }
    Ok(put)
}

/// Replaces an object with what `apply` makes of the one that is stored at the time of the write.
///
/// `apply` also returns whether the new object contains one change only, and `None` if there is
/// nothing left to write. Returns `None` then, and if no single write fits all changes.
///
/// If it is dropped half-way, the change may have been made or not, as with a store error.
pub(crate) async fn swap<K: CellKind>(
    kind: &K,
    mut current: Stored<K>,
    terms: &K::StalenessPolicy,
    mut apply: impl FnMut(Object<K>) -> Option<(Object<K>, bool)>,
) -> Result<Option<Verdict<K>>, K::Error> {
    let key = current.key.clone();
    for _ in 0..ATTEMPTS {
        let Some((object, alone)) = apply(current.object.clone()) else { return Ok(None) };
        let (draft, object) = match kind.prepare(&current, object, terms, alone).await? {
            Plan::Write(draft, object) => (draft, object),
            Plan::Remove => return Ok(Some(Verdict::Over(current))),
            Plan::Apart => return Ok(None),
        };
        let found = match put(kind, &draft, &object).await? {
            Put::Done => return Ok(Some(Verdict::Written { before: current, object, draft })),
            Put::Full => return Ok(Some(Verdict::Full)),
            Put::Conflict(bytes) => open(kind, current.at.clone(), current.key.clone(), (bytes, current.left))?,
            Put::Look => kind.look_again(&current, terms, false).await?,
            Put::Taken => kind.look_again(&current, terms, true).await?,
        };
        kind.conflict();
        current = match found {
            None => return Ok(Some(Verdict::Gone)),
            // The object has moved. Each change follows it by itself.
            Some(found) if !alone && found.key != key => return Ok(None),
            Some(found) => found,
        };
    }
    Err(kind.too_many_conflicts())
}
