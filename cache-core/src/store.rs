//! The byte operations of every second-tier store: embedded ([`memory`]) and Redis
//! ([`redis`](self::redis)).
//!
//! Invariant: each operation is atomic in the store, and its outcome is either known or reported as
//! [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable). No operation blocks for longer than
//! the store's response timeout.
//!
//! ```text
//! value key  k        absent | lease "L" + 32 hex digits | fences | record (envelope)
//!                     | foreign bytes | not a string
//!                     | mark "N" + 32 hex digits: a compute stored nothing a moment ago
//!                     | lease "U" + 32 hex digits, taken over that mark: other callers do not wait
//! lease key  {k}:l    absent | lease 32 hex digits | "F" (the last refresh failed)
//!                     | "N.." and "U.." as above   (exists in addition to a record)
//! aside key  {k}:f    absent | the record that the fences under k replaced; ignored without one
//! builds     {v}:builds, where v is the function's version key: a set of fingerprints, whose
//!            records an invalidation has to unlink
//! plain key  whatever other programs write; this library writes only the values themselves there
//! its lease  {k}:l, or {tag}:l:k if the key has a hash tag: as in a value key
//! versions   32 hex digits, one key each for namespace, function, tag; a tag may also hold fences;
//!            other bytes count by their hash
//! fences     "F" + the 32 digits of what was there before + for each fence: its token, 32 hex
//!            digits, and its end, 15: see [`fences`]
//! ```

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use xxhash_rust::xxh3::xxh3_128;

use crate::error::Result;
pub(crate) use crate::store::batch::{Claim, Fill, Place, ReadMany, Want};
pub(crate) use crate::store::cells::{CellStore, Entered, Entering, Kind, MARK, Mark, Replaced};
pub(crate) use crate::store::outstanding::{Operation, Removal};
pub(crate) use crate::store::plain::{PlainFill, PlainStore, Put, Reply, When, plain_key_of, plain_lease_key};
pub(crate) use crate::store::pushes::Listener;
use crate::store::sweep::SweepStore;
pub(crate) use crate::value::envelope::FILL_ID_AT;

pub(crate) mod address;
pub(crate) mod batch;
pub(crate) mod cells;
pub(crate) mod fences;
pub(crate) mod memory;
pub(crate) mod outstanding;
pub(crate) mod plain;
pub(crate) mod pushes;
#[cfg(feature = "redis")]
pub(crate) mod redis;
#[cfg(any(feature = "redis", feature = "testing", test))]
pub(crate) mod supervisor;
pub(crate) mod sweep;

/// A read in progress: yields the slot, and whether the next change of the key is notified.
pub(crate) enum Reading<'a> {
    Boxed(BoxFuture<'a, Result<(Slot, bool)>>),
    /// The read waits to be sent together with others.
    #[cfg(feature = "redis")]
    Waits(redis::Queued<'a>),
}

impl Future for Reading<'_> {
    type Output = Result<(Slot, bool)>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Reading::Boxed(read) => read.as_mut().poll(context),
            #[cfg(feature = "redis")]
            Reading::Waits(waiting) => Pin::new(waiting).poll(context),
        }
    }
}

/// The content of a value key.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Slot {
    /// Nothing.
    Absent,
    /// Another caller computes the value. The lease ends after this time unless it is renewed;
    /// `None` if the time is not known.
    Leased(Option<Duration>),
    /// Like [`Leased`](Self::Leased), but other callers do not wait for it: the compute before it
    /// stored nothing (X7).
    Unawaited(Option<Duration>),
    /// The compute with this token stored nothing a moment ago.
    Unstored(Token),
    /// A write is in progress: nothing is stored here until it is over.
    Fenced,
    /// Bytes that are not a lease. The envelope decides whether they are a record.
    Bytes(Bytes),
    /// A value of another Redis type.
    WrongType,
}

/// Identifies one attempt to compute, never a client: 128 random bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Token {
    bits: u128,
    /// The lease is written in the form that tells other callers not to wait.
    is_unawaited: bool,
}

/// The version of a namespace, function or tag: 128 random bits, so that no version is ever
/// repeated. Versions have no order.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Version(u128);

const DAY: Duration = Duration::from_secs(24 * 3600);

/// How long a version lives after it was made or renewed. Readers renew a version that is in use,
/// so entries of any ttl can live on. When an unused version expires, its entries become misses.
pub(crate) const VERSION_EXPIRY: Duration = DAY.saturating_mul(90);

/// A version that is read with less than this time left is renewed. Each process reads the versions
/// in use again within half of it: see [`tag`](crate::versions::snapshot).
pub(crate) const VERSION_RENEWED_BELOW: Duration = DAY.saturating_mul(60);

/// The longest lifetime of a record, whatever its ttl. The registry of builds outlives it.
pub(crate) const RECORD_EXPIRY_MAX: Duration = DAY.saturating_mul(365);

/// Lifetime of the registry of builds. A build registers before each record that it stores, at most
/// ten minutes earlier (R21).
pub(crate) const REGISTRY_EXPIRY: Duration = DAY.saturating_mul(400);

/// The content of a value key, its versions in the order of their keys, and whether the listeners
/// are notified of the next change of each.
pub(crate) type Versioned = (Slot, Vec<Option<Version>>, bool);

/// Which record a fill may replace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Replaces {
    /// None: there was no record, and the lease is in the value key itself.
    Nothing,
    /// A stale record with this fill id. The lease is in the lease key.
    Stale(u64),
}

/// The result of [`Store::acquire`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Acquired {
    /// This attempt holds the lease.
    Ours,
    /// For a refresh: this attempt holds the lease, with [`Token::unawaited`], because the last
    /// compute stored nothing.
    Unawaited,
    /// The key is taken: use this content instead. For a refresh: the content that replaced the
    /// record, or [`Slot::Leased`] or [`Slot::Unawaited`] if the record is still there and another
    /// caller refreshes it.
    Found(Slot),
    /// For a refresh: the record is still there, its last refresh failed, and the next one must
    /// wait this long.
    Throttled(Option<Duration>),
}

/// The result of [`Store::fill`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Filled {
    /// The lease was lost; nothing was stored.
    Refused,
    /// Stored. Changes of the key may not be notified.
    Stored,
    /// Stored, and the next change of the key is notified.
    Tracked,
}

/// Until when tracked reads may be served, in milliseconds of the coarse clock.
///
/// Every change so far has been notified, or is notified within that time. A half-open connection
/// or a stopped process delivers no notifications, so trust ends by itself.
#[derive(Debug, Default)]
pub(crate) struct Trust(AtomicU64);

impl Trust {
    /// Makes trust without an end, for a store that notifies changes within the process.
    pub(crate) fn absolute() -> Self {
        Self(AtomicU64::new(u64::MAX))
    }

    pub(crate) fn extend(&self, until: u64) {
        self.0.store(until, Ordering::Release);
    }

    pub(crate) fn revoke(&self) {
        self.0.store(0, Ordering::Release);
    }

    #[inline]
    pub(crate) fn holds(&self, now: u64) -> bool {
        now < self.until()
    }

    /// Returns when trust ends, on the coarse clock.
    #[inline]
    pub(crate) fn until(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

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

/// An expiry for [`Store`] writes. Redis counts milliseconds; zero is not allowed and is rounded up
/// to one.
pub(crate) type Expiry = Duration;

/// Bytes and their remaining time to live; `None`: no expiry.
pub(crate) type Loaded = (Bytes, Option<Duration>);

/// Resolves when the watched key may have changed, or when the store has lost track of it.
pub(crate) type Wake = BoxFuture<'static, ()>;

/// What an explicit write or removal changes in addition to its own key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Siblings<'a> {
    /// Value keys of the same entry in other builds. They and their lease keys are unlinked.
    pub keys: &'a [String],
    /// The function's registry of builds, read in the same round trip.
    pub builds: &'a str,
}

/// The result of [`Store::raise`].
#[derive(Debug)]
pub(crate) struct Raised {
    /// The known builds.
    pub(crate) builds: Vec<String>,
    /// One of the keys had too many fences to track this one separately: that key is fenced until
    /// the last of them would expire.
    pub(crate) crowded: bool,
}

/// A second-tier store.
pub(crate) trait Store: CellStore + SweepStore + PlainStore {
    /// Returns the slot if it can be read without waiting. Redis always returns `None`. The
    /// listeners are notified of its next change.
    fn read_now(&self, key: &str) -> Option<Slot>;

    /// Reads the key: one plain read, one round trip.
    fn read<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Slot>>;

    /// Starts [`read_tracked`](Self::read_tracked) if `track`, else [`read`](Self::read). The
    /// request is sent at once. Made for hits, which should not need to allocate for it.
    fn begin_read<'a>(&'a self, key: &'a str, track: bool) -> Reading<'a> {
        Reading::Boxed(if track {
            self.read_tracked(key)
        } else {
            Box::pin(async move { self.read(key).await.map(|slot| (slot, false)) })
        })
    }

    /// Returns whether the record under the key has this fill id, without reading all of it. Does
    /// not track the key.
    fn holds<'a>(&'a self, key: &'a str, fill_id: u64) -> BoxFuture<'a, Result<bool>> {
        Box::pin(async move {
            let slot = self.read(key).await?;
            Ok(matches!(slot, Slot::Bytes(bytes) if has_fill_id(&bytes, fill_id)))
        })
    }

    /// Reads the key and tracks it: the listeners are notified of its next change. `false`: they
    /// may not be, so the value must not be kept.
    fn read_tracked<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<(Slot, bool)>>;

    /// Like [`read_tracked`](Self::read_tracked), and also reads the versions under these keys in
    /// the same round trip. A missing version is made first, and one with little time left is
    /// renewed. `None`: it could not be made, or it is fenced; then no entry agrees with it.
    fn read_versioned<'a>(&'a self, key: &'a str, versions: &'a [Arc<str>]) -> BoxFuture<'a, Result<Versioned>>;

    /// Reads the versions under these keys, tracked as by [`read_versioned`](Self::read_versioned).
    ///
    /// They are read in this order: none is read before an earlier one. `make`: missing versions
    /// are made first, and those with little time left are renewed.
    fn read_versions<'a>(
        &'a self,
        versions: &'a [Arc<str>],
        make: bool,
    ) -> BoxFuture<'a, Result<(Vec<Option<Version>>, bool)>>;

    /// Gives each of these keys that has a version a new one, in this order, in one round trip.
    fn renew_versions<'a>(&'a self, versions: &'a [Arc<str>]) -> BoxFuture<'a, Result<()>>;

    /// Notifies this listener of changes and gaps from now on.
    fn listen(&self, listener: Weak<dyn Listener>);

    /// Returns until when tracked reads may be served.
    fn trust(&self) -> Arc<Trust>;

    /// Reads the key and watches it. The wake-up resolves at the first change after the read, or
    /// when the store loses track (a lost connection), never too late. The watch is registered
    /// before the read is sent.
    fn read_and_watch<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<(Slot, Wake)>>;

    /// Takes the lease for one attempt unless another attempt holds it.
    ///
    /// `Replaces::Nothing`: only if the value key is absent. `Replaces::Stale(id)`: only if that very
    /// record is still there; it is then kept for at least as long as the lease (R28).
    fn acquire<'a>(
        &'a self,
        key: &'a str,
        token: Token,
        lease: Duration,
        over: Replaces,
    ) -> BoxFuture<'a, Result<Acquired>>;

    /// Takes the lease for one attempt and replaces the record with this fill id, which may no
    /// longer be served. The lease is then an `Replaces::Nothing` lease.
    fn acquire_in_place<'a>(
        &'a self,
        key: &'a str,
        token: Token,
        lease: Duration,
        fill_id: u64,
    ) -> BoxFuture<'a, Result<Acquired>>;

    /// Takes the lease for one attempt and replaces the mark that the compute with the token `mark`
    /// left. The lease is then an `Replaces::Nothing` lease of `token.unawaited()`, and other callers
    /// do not wait for it.
    fn acquire_over_mark<'a>(
        &'a self,
        key: &'a str,
        token: Token,
        lease: Duration,
        mark: Token,
    ) -> BoxFuture<'a, Result<Acquired>>;

    /// Stores the record if this attempt still holds the lease and, for a refresh, the record it
    /// replaces is still there. The lease is released. The listeners are notified of the next
    /// change of the key, if that was requested and the result says so.
    fn fill<'a>(&'a self, fill: &'a Fill) -> BoxFuture<'a, Result<Filled>>;

    /// Like [`fill`](Self::fill) of a refresh, but replaces only the first bytes of the record and
    /// keeps the payload. `false`: refused.
    fn rewrite_head<'a>(
        &'a self,
        key: &'a str,
        token: Token,
        fill_id: u64,
        head: Bytes,
        expiry: Expiry,
    ) -> BoxFuture<'a, Result<bool>>;

    /// Extends the lease if this attempt still holds it. The record of a refresh is kept for at
    /// least as long (R28).
    fn renew<'a>(&'a self, key: &'a str, token: Token, over: Replaces, lease: Duration) -> BoxFuture<'a, Result<bool>>;

    /// Releases the lease, in either form, if this attempt still holds it. Callers that wait for a
    /// change of the key are woken. `unstored`: the compute ended and stored nothing; a mark
    /// records that for this long.
    fn release<'a>(
        &'a self,
        key: &'a str,
        token: Token,
        over: Replaces,
        unstored: Option<Duration>,
    ) -> BoxFuture<'a, Result<()>>;

    /// Releases the lease of a refresh after a failure, if this attempt still holds it, and blocks
    /// the next lease for `throttle`. Callers that wait for a change of the key are woken. `false`:
    /// the lease was lost and nothing was changed.
    fn throttle<'a>(&'a self, key: &'a str, token: Token, throttle: Duration) -> BoxFuture<'a, Result<bool>>;

    /// Like [`read_versioned`](Self::read_versioned) for several values, in one round trip.
    ///
    /// `track`: changes of the values are to be notified; those of the versions are in any case.
    /// The `bool` says whether everything that was to be tracked is. A value of another type may
    /// look absent.
    fn read_many<'a>(
        &'a self,
        keys: &'a [Arc<str>],
        versions: &'a [Arc<str>],
        track: bool,
    ) -> BoxFuture<'a, Result<ReadMany>> {
        Box::pin(batch::read_each(self, keys, versions, track))
    }

    /// Takes a lease for each, in one round trip. Each is atomic; all together are not.
    fn acquire_many<'a>(&'a self, wants: &'a [Want], lease: Duration) -> BoxFuture<'a, Result<Vec<Result<Acquired>>>> {
        Box::pin(batch::acquire_each(self, wants, lease))
    }

    /// Like [`fill`](Self::fill) for each, in one round trip.
    fn fill_many<'a>(&'a self, fills: &'a [Fill]) -> BoxFuture<'a, Result<Vec<Result<Filled>>>> {
        Box::pin(batch::fill_each(self, fills))
    }

    /// Like [`renew`](Self::renew) for each, in one round trip.
    fn renew_many<'a>(&'a self, claims: &'a [Claim], lease: Duration) -> BoxFuture<'a, Result<Vec<Result<bool>>>> {
        Box::pin(batch::renew_each(self, claims, lease))
    }

    /// Like [`release`](Self::release) for each, in one round trip.
    fn release_many<'a>(&'a self, claims: &'a [Claim], unstored: Option<Duration>) -> BoxFuture<'a, Result<()>> {
        Box::pin(batch::release_each(self, claims, unstored))
    }

    /// Marks these keys as used, so that the store does not evict them as cold. Changes nothing
    /// else.
    fn touch<'a>(&'a self, keys: &'a [Arc<str>]) -> BoxFuture<'a, Result<()>> {
        let _in_use = keys;
        Box::pin(std::future::ready(Ok(())))
    }

    /// Returns how many keys the store has evicted since its start. `None`: the store does not
    /// report it, or does not evict keys that are in use here.
    fn evictions(&self) -> BoxFuture<'_, Result<Option<u64>>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    /// Removes the content of the key if it still is exactly this. For bytes that are not a record.
    fn discard<'a>(&'a self, key: &'a str, what: &'a Slot) -> BoxFuture<'a, Result<()>>;

    /// Writes unconditionally, ends every lease on the key, unlinks the siblings and returns the
    /// known builds.
    fn write<'a>(
        &'a self,
        key: &'a str,
        record: Bytes,
        expiry: Expiry,
        siblings: Siblings<'a>,
    ) -> BoxFuture<'a, Result<Vec<String>>>;

    /// Unlinks the siblings (which include the key itself) with their leases and the records put
    /// aside for fences. Returns the known builds.
    fn remove<'a>(&'a self, siblings: Siblings<'a>) -> BoxFuture<'a, Result<Vec<String>>>;

    /// Adds this fence to each of the siblings' keys, in one atomic step per key, and ends their
    /// leases. Fences that are already there stay. A record that is there is put aside, for no
    /// longer than each of the fences lasts.
    fn raise<'a>(&'a self, fence: Token, limit: Expiry, siblings: Siblings<'a>) -> BoxFuture<'a, Result<Raised>>;

    /// Removes this fence from each of the siblings' keys, and unlinks the record put aside, the
    /// leases, and any content except other fences. Returns the known builds.
    fn lift<'a>(&'a self, fence: Token, siblings: Siblings<'a>) -> BoxFuture<'a, Result<Vec<String>>>;

    /// Removes this fence from each of these keys. If it was the last one, and none was lifted or
    /// expired before, the record put aside is restored with its old expiry.
    fn withdraw<'a>(&'a self, fence: Token, keys: &'a [String]) -> BoxFuture<'a, Result<()>>;

    /// Gives each of these kinds a new version, then adds this fence to each of these tags, in this
    /// order, in one round trip. Fences that are already there stay. `true`: as
    /// [`Raised::crowded`].
    fn fence_versions<'a>(
        &'a self,
        fence: Token,
        limit: Expiry,
        kinds: &'a [Arc<str>],
        tags: &'a [Arc<str>],
    ) -> BoxFuture<'a, Result<bool>>;

    /// Replaces each of these versions, then removes this fence from each of these tags, in this
    /// order, in one round trip. A tag without other fences is then at none of the versions that it
    /// had.
    fn lift_versions<'a>(
        &'a self,
        fence: Token,
        versions: &'a [Arc<str>],
        tags: &'a [Arc<str>],
    ) -> BoxFuture<'a, Result<()>>;

    /// Gives each of these kinds a new version, then removes this fence from each of these tags, in
    /// this order, in one round trip. If it was the last one, and none was lifted or expired
    /// before, the tag gets back the version it had before all of them.
    fn withdraw_versions<'a>(
        &'a self,
        fence: Token,
        kinds: &'a [Arc<str>],
        tags: &'a [Arc<str>],
    ) -> BoxFuture<'a, Result<()>>;

    /// Adds a build's fingerprint to a function's registry and sets its expiry, which outlives
    /// every entry. Atomic; returns the version afterwards.
    ///
    /// If there is no registry, the function's version, which is in the same slot, is replaced
    /// first: this invalidates what builds stored that only a lost registry knew of (R25).
    fn register_build<'a>(
        &'a self,
        builds: &'a str,
        version: &'a str,
        fingerprint: &'a str,
        expiry: Expiry,
    ) -> BoxFuture<'a, Result<Option<Version>>>;

    /// Writes the key and replaces any content. `None`: without expiry.
    fn put<'a>(&'a self, key: &'a str, bytes: Bytes, expiry: Option<Expiry>) -> BoxFuture<'a, Result<()>>;

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

    /// Sends a message. Returns the number of subscribers that the server delivered it to.
    fn publish<'a>(&'a self, channel: &'a str, message: Bytes) -> BoxFuture<'a, Result<u64>>;

    /// Returns the messages of a channel from now on.
    ///
    /// The stream ends when the store is closed. A lost connection is reported as
    /// [`Message::Interrupted`], at once and again when the subscription has been restored:
    /// whatever is looked up after the second one cannot be missed.
    fn subscribe<'a>(&'a self, channel: &'a str)
    -> BoxFuture<'a, Result<futures::stream::BoxStream<'static, Message>>>;

    /// Runs this operation as soon as the store can be reached: see [`outstanding`]. Never waits.
    fn later(&self, operation: Operation);

    /// Runs the outstanding operations now, if the store can be reached. Each round trip is bounded
    /// by the response timeout.
    fn settle(&self) -> BoxFuture<'_, ()>;

    /// Returns whether the store can be used right now.
    fn is_available(&self) -> bool;

    /// Returns a number that changes whenever the store may have lost keys without a notification:
    /// a new connection, a flush. Whatever was registered under an older number (a build, a
    /// subscription) must be registered again.
    fn epoch(&self) -> u64;

    /// Ends connections and background work. Operations fail with
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed) afterwards.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// One item of a subscription.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Message {
    /// A published payload.
    Payload(Bytes),
    /// Messages may have been lost here: the connection broke, or the reader was too slow.
    Interrupted,
}

/// Returns whether a record holds this fill id.
pub(crate) fn has_fill_id(record: &[u8], fill_id: u64) -> bool {
    record.get(FILL_ID_AT).is_some_and(|bytes| bytes == fill_id.to_le_bytes())
}

/// The first byte of a lease in a value key. A record starts with another byte.
pub(crate) const LEASE_MARK: u8 = b'L';
/// The first byte of a lease that other callers do not wait for, in a value key or a lease key.
pub(crate) const UNAWAITED_MARK: u8 = b'U';
/// The first byte of the mark of a compute that stored nothing, in a value key or a lease key.
pub(crate) const UNSTORED_MARK: u8 = b'N';
/// The content of the lease key after a failed refresh. No token looks like it.
pub(crate) const THROTTLE_MARK: &str = "F";
/// The length of `L`, `U` or `N` and 32 hex digits.
pub(crate) const LEASE_LEN: usize = 33;

/// Returns whether this is a lease that other callers do not wait for.
pub(crate) fn is_unawaited(bytes: &[u8]) -> bool {
    bytes.len() == LEASE_LEN && bytes.first() == Some(&UNAWAITED_MARK)
}

impl Slot {
    /// Interprets the bytes of a value key. `left`: the key's time to live, where known.
    pub(crate) fn of(bytes: Option<Bytes>, left: Option<Duration>) -> Self {
        match bytes {
            None => Self::Absent,
            Some(bytes) if bytes.len() == LEASE_LEN && bytes.first() == Some(&LEASE_MARK) => Self::Leased(left),
            Some(bytes) if fences::is_fence(&bytes) => Self::Fenced,
            Some(bytes) if is_unawaited(&bytes) => Self::Unawaited(left),
            Some(bytes) => match Token::of_unstored(&bytes) {
                Some(token) => Self::Unstored(token),
                None => Self::Bytes(bytes),
            },
        }
    }
}

/// Returns the lease key of an entry, which holds the lease of a refresh. It is in the slot of the
/// value key.
pub(crate) fn lease_key(key: &str) -> String {
    format!("{{{key}}}:l")
}

/// Returns the key of the record that a fence has put aside. It is in the slot of the value key.
pub(crate) fn aside_key(key: &str) -> String {
    format!("{{{key}}}:f")
}

impl Version {
    /// Makes a version that was never used before.
    pub(crate) fn random() -> Self {
        Self(crate::random::u128())
    }

    /// Reads the version from the content of a version key; `None` if that is a fence.
    pub(crate) fn of(bytes: &[u8]) -> Option<Self> {
        if fences::is_fence(bytes) {
            return None;
        }
        // Bytes that this library did not write count as a version of their own.
        Some(Self::written(bytes).unwrap_or_else(|| Self(xxh3_128(bytes))))
    }

    /// Parses bytes that this library wrote.
    pub(crate) fn written(bytes: &[u8]) -> Option<Self> {
        let digits = std::str::from_utf8(bytes).ok().filter(|digits| digits.len() == 32)?;
        u128::from_str_radix(digits, 16).ok().map(Self)
    }

    /// Returns the form stored in the version key.
    pub(crate) fn hex(self) -> String {
        format!("{:032x}", self.0)
    }

    pub(crate) fn bits(self) -> u128 {
        self.0
    }
}

impl Token {
    /// Makes a new token from the operating system's random source.
    pub(crate) fn random() -> Self {
        Self::from_bits(crate::random::u128())
    }

    /// Makes a token that a test chose.
    pub(crate) fn from_bits(bits: u128) -> Self {
        Self { bits, is_unawaited: false }
    }

    /// Returns the token of the same attempt whose lease tells other callers not to wait.
    pub(crate) fn unawaited(self) -> Self {
        Self { is_unawaited: true, ..self }
    }

    /// Returns the form stored in the lease key.
    pub(crate) fn hex(self) -> String {
        if self.is_unawaited { self.mark() } else { format!("{:032x}", self.bits) }
    }

    /// Returns the form stored in the value key.
    pub(crate) fn mark(self) -> String {
        format!("{}{:032x}", if self.is_unawaited { 'U' } else { 'L' }, self.bits)
    }

    /// Returns the mark of this attempt if its compute stored nothing.
    pub(crate) fn unstored(self) -> String {
        format!("N{:032x}", self.bits)
    }

    /// Returns the token of the compute that left this mark.
    pub(crate) fn of_unstored(bytes: &[u8]) -> Option<Self> {
        let digits = bytes.strip_prefix(&[UNSTORED_MARK]).filter(|_| bytes.len() == LEASE_LEN)?;
        let bits = u128::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        Some(Self::from_bits(bits))
    }

    /// Returns the forms that this attempt's lease may have in its key.
    pub(crate) fn forms(self, over: Replaces) -> [String; 2] {
        let awaited = Self::from_bits(self.bits);
        match over {
            Replaces::Nothing => [awaited.mark(), self.unawaited().mark()],
            Replaces::Stale(_) => [awaited.hex(), self.unawaited().hex()],
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Version({:032x})", self.0)
    }
}

// Payloads stay out of logs: only their sizes are shown.
impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("Absent"),
            Self::Leased(left) => f.debug_tuple("Leased").field(left).finish(),
            Self::Unawaited(left) => f.debug_tuple("Unawaited").field(left).finish(),
            Self::Unstored(token) => f.debug_tuple("Unstored").field(token).finish(),
            Self::Bytes(bytes) => write!(f, "Bytes({} bytes)", bytes.len()),
            Self::Fenced => f.write_str("Fenced"),
            Self::WrongType => f.write_str("WrongType"),
        }
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Payload(bytes) => write!(f, "Payload({} bytes)", bytes.len()),
            Self::Interrupted => f.write_str("Interrupted"),
        }
    }
}
