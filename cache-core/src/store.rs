//! The byte operations every tier-two store has: embedded ([`memory`]) and Redis ([`redis`](self::redis)).
//!
//! Invariant: each operation is atomic in the store, and what it did is either known or reported as
//! [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable). No operation blocks for longer than the store's response timeout.
//!
//! ```text
//! value key  k        absent | lease "L" + 32 hex digits | fences | record (envelope) | foreign bytes | not a string
//!                     | mark "N" + 32 hex digits: a run stored nothing a moment ago | lease "U" + 32 hex digits, taken over that mark:
//!                     nobody waits for it
//! lease key  {k}:l    absent | lease 32 hex digits | "F" (the last refresh failed) | "N.." and "U.." as above   (beside a record)
//! aside      {k}:f    absent | the record that the fences under k were put in the place of; means nothing under anything else
//! builds     {v}:builds, where v is the function's version key: a set of fingerprints, whose records an invalidation has to unlink
//! plain key  whatever other programs write; nothing of ours ever stands there but the values themselves
//! its lease  {k}:l, or {tag}:l:k where the key has a hash tag: as in a value key
//! versions   32 hex digits, one key each for namespace, function, tag; of a tag also fences: other bytes count by their hash
//! fences     "F" + what stood there before, 32 + for each: its token, 32 hex digits, and its end, 15: see [`fences`]
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

pub(crate) use crate::envelope::FILL_ID_AT;
use crate::error::Result;
pub(crate) use crate::store::batch::{Claim, Fill, Place, ReadMany, Want};
pub(crate) use crate::store::cells::{CellStore, Entered, Entering, Kind, MARK, Mark, Replaced};
pub(crate) use crate::store::outstanding::{Operation, Removal};
pub(crate) use crate::store::plain::{PlainFill, PlainStore, Put, Reply, When, plain_key_of, plain_lease_key};
pub(crate) use crate::store::pushes::Listener;
use crate::store::sweep::SweepStore;

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

/// A read that was begun: the slot, and whether its next change is told.
pub(crate) enum Reading<'a> {
    Boxed(BoxFuture<'a, Result<(Slot, bool)>>),
    /// It waits for others to go with.
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

/// What stands under a value key.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Slot {
    /// Nothing.
    Absent,
    /// Somebody computes the value; the lease ends after this long unless it is renewed. `None`: not known.
    Leased(Option<Duration>),
    /// As [`Leased`](Self::Leased), but nobody waits for it: the run before it stored nothing (X7).
    Unawaited(Option<Duration>),
    /// The run with this token stored nothing a moment ago.
    Unstored(Token),
    /// A write is under way: nothing is stored here until it is over.
    Fenced,
    /// Bytes that are not a lease. Whether they are a record is for the envelope to say.
    Bytes(Bytes),
    /// A value of another Redis type.
    WrongType,
}

/// Identifies one attempt to compute, never a client: 128 random bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Token {
    bits: u128,
    /// Its lease tells others not to wait for it.
    is_unawaited: bool,
}

/// What a namespace, function or tag is at: 128 random bits, so that none ever comes back. There is no order among them.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Version(u128);

const DAY: Duration = Duration::from_secs(24 * 3600);

/// How long a version stands after it was made or renewed. One that is in use is renewed by whoever reads it, so that entries of any ttl live on;
/// one that is not makes its entries misses when it goes.
pub(crate) const VERSION_EXPIRY: Duration = DAY.saturating_mul(90);

/// A version that is read with less than this left is renewed. Each process reads those in use again within half of it: see [`tag`](crate::tag).
pub(crate) const VERSION_RENEWED_BELOW: Duration = DAY.saturating_mul(60);

/// No record stands for longer, whatever its ttl: so the registry of builds outlasts it.
pub(crate) const RECORD_EXPIRY_MAX: Duration = DAY.saturating_mul(365);

/// A build says that it stores before each of its records, at most ten minutes earlier (R21).
pub(crate) const REGISTRY_EXPIRY: Duration = DAY.saturating_mul(400);

/// What stands under a value key, its versions in the order of their keys, and whether the next change of each is told to the listeners.
pub(crate) type Versioned = (Slot, Vec<Option<Version>>, bool);

/// Which record a fill may replace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    /// The lease stands in the value key itself: there was no record.
    Nothing,
    /// A stale record with this fill id; the lease stands in the second key.
    Record(u64),
}

/// The answer to [`Store::acquire`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Acquired {
    /// The lease is ours.
    Ours,
    /// For a refresh: the lease is ours, with [`Token::unawaited`], since the last run stored nothing.
    Unawaited,
    /// There is something already: look at it instead. For a refresh: what stands in the record's place now, or
    /// [`Slot::Leased`] or [`Slot::Unawaited`] if the record still stands and somebody else refreshes it.
    Found(Slot),
    /// For a refresh: the record still stands, the last refresh of it failed, and the next one is to wait that long.
    Throttled(Option<Duration>),
}

/// The answer to [`Store::fill`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Filled {
    /// The lease was lost; nothing was stored.
    Refused,
    /// Stored. Changes of the key may not be told.
    Stored,
    /// Stored, and the next change of the key is told.
    Tracked,
}

/// Until when what was read tracked may be served, in milliseconds of the coarse clock: so far every change has been told, or
/// is told within that time. A link that is half open, and a process that was stopped, tell nothing; this ends by itself.
#[derive(Debug, Default)]
pub(crate) struct Trust(AtomicU64);

impl Trust {
    /// Without end: changes are told by the process itself.
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

    /// When it ends, on the coarse clock.
    #[inline]
    pub(crate) fn until(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// The answer to [`CellStore::swap`].
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Swapped {
    /// The new bytes stand.
    Done,
    /// These bytes stood there; nothing was changed.
    Conflict(Bytes),
    /// Nothing stood there; nothing was changed.
    Gone,
}

/// An expiry for [`Store`] writes. Redis counts milliseconds; zero is not allowed and is rounded up to one.
pub(crate) type Expiry = Duration;

/// Bytes and the time they have left; `None`: no expiry.
pub(crate) type Loaded = (Bytes, Option<Duration>);

/// Resolves when the key it watches may have changed, or when the store can no longer tell.
pub(crate) type Wake = BoxFuture<'static, ()>;

/// What an explicit write or removal touches besides its own key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Siblings<'a> {
    /// Value keys of the same entry in other builds; they and their lease keys are unlinked.
    pub keys: &'a [String],
    /// The function's registry of builds, read in the same trip.
    pub builds: &'a str,
}

/// The answer to [`Store::raise`].
#[derive(Debug)]
pub(crate) struct Raised {
    /// The known builds.
    pub(crate) builds: Vec<String>,
    /// At one of the keys there were too many fences to tell this one apart: that key is fenced until the last of them would end.
    pub(crate) crowded: bool,
}

/// A tier-two store.
pub(crate) trait Store: CellStore + SweepStore + PlainStore {
    /// The slot, if it can be told without waiting. Redis: always `None`. Its next change is told to the listeners.
    fn read_now(&self, key: &str) -> Option<Slot>;

    /// One plain read, one round trip.
    fn read<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Slot>>;

    /// As [`read_tracked`](Self::read_tracked) if `track`, else as [`read`](Self::read), asked for
    /// at once. For a hit, which should need no memory for it.
    fn begin_read<'a>(&'a self, key: &'a str, track: bool) -> Reading<'a> {
        Reading::Boxed(if track {
            self.read_tracked(key)
        } else {
            Box::pin(async move { self.read(key).await.map(|slot| (slot, false)) })
        })
    }

    /// Whether the record under the key has this fill id, without reading all of it. Nobody is told of the key's changes for this.
    fn holds<'a>(&'a self, key: &'a str, fill_id: u64) -> BoxFuture<'a, Result<bool>> {
        Box::pin(async move {
            let slot = self.read(key).await?;
            Ok(matches!(slot, Slot::Bytes(bytes) if has_fill_id(&bytes, fill_id)))
        })
    }

    /// A read after which the next change of the key is told to the listeners. `false`: it may not be, so the value must not be kept.
    fn read_tracked<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<(Slot, bool)>>;

    /// As [`read_tracked`](Self::read_tracked), with the versions under these keys in the same trip. A version that does not exist is
    /// made first, one that has little time left is renewed. `None`: it could not be made, or is fenced; then no entry agrees with it.
    fn read_versioned<'a>(&'a self, key: &'a str, versions: &'a [Arc<str>]) -> BoxFuture<'a, Result<Versioned>>;

    /// The versions under these keys, none read before those that stand before it in this order, tracked as by
    /// [`read_versioned`](Self::read_versioned); `make`: those that do not exist are made first, and
    /// those that have little time left are renewed.
    fn read_versions<'a>(
        &'a self,
        versions: &'a [Arc<str>],
        make: bool,
    ) -> BoxFuture<'a, Result<(Vec<Option<Version>>, bool)>>;

    /// Gives each of these keys that has a version a new one, in this order, in one trip.
    fn renew_versions<'a>(&'a self, versions: &'a [Arc<str>]) -> BoxFuture<'a, Result<()>>;

    /// Tells this listener of changes and gaps from now on.
    fn listen(&self, listener: Weak<dyn Listener>);

    /// Until when what was read tracked may be served.
    fn trust(&self) -> Arc<Trust>;

    /// A read that also registers the key: the wake-up resolves at the first change after it, at the latest when
    /// the store loses track (a lost connection), never too late. Registered before the read is sent.
    fn read_and_watch<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<(Slot, Wake)>>;

    /// Takes the lease for one attempt if nobody has it.
    /// `Over::Nothing`: only if the value key is absent. `Over::Record(id)`: only if that very record still stands; it is kept for
    /// at least as long as the lease (R28).
    fn acquire<'a>(
        &'a self,
        key: &'a str,
        token: Token,
        lease: Duration,
        over: Over,
    ) -> BoxFuture<'a, Result<Acquired>>;

    /// Takes the lease for one attempt in the place of the record with this fill id, which nobody may use any more: from then on
    /// it is a lease `Over::Nothing`.
    fn acquire_in_place<'a>(
        &'a self,
        key: &'a str,
        token: Token,
        lease: Duration,
        fill_id: u64,
    ) -> BoxFuture<'a, Result<Acquired>>;

    /// Takes the lease for one attempt in the place of the mark that the run with the token `mark` left: from then on it is a lease
    /// `Over::Nothing` of `token.unawaited()`, and others do not wait for it.
    fn acquire_over_mark<'a>(
        &'a self,
        key: &'a str,
        token: Token,
        lease: Duration,
        mark: Token,
    ) -> BoxFuture<'a, Result<Acquired>>;

    /// Stores the record if the lease is still this attempt's and, for a refresh, the record it was to replace still stands.
    /// The lease is gone afterwards. The next change of the key is told to the listeners, if that was asked for and it says so.
    fn fill<'a>(&'a self, fill: &'a Fill) -> BoxFuture<'a, Result<Filled>>;

    /// As [`fill`](Self::fill) of a refresh, where only the first bytes of the record change and the payload stays. `false`: refused.
    fn rewrite_head<'a>(
        &'a self,
        key: &'a str,
        token: Token,
        fill_id: u64,
        head: Bytes,
        expiry: Expiry,
    ) -> BoxFuture<'a, Result<bool>>;

    /// Extends the lease if it is still this attempt's. The record beside it is kept for at least as long (R28).
    fn renew<'a>(&'a self, key: &'a str, token: Token, over: Over, lease: Duration) -> BoxFuture<'a, Result<bool>>;

    /// Gives the lease back if it is still this attempt's, in whichever form. Whoever waits for a change of the key is woken.
    /// `unstored`: the run ended and stored nothing; a mark says so for that long.
    fn release<'a>(
        &'a self,
        key: &'a str,
        token: Token,
        over: Over,
        unstored: Option<Duration>,
    ) -> BoxFuture<'a, Result<()>>;

    /// Gives the lease of a refresh back after a failure if it is still this attempt's: nobody takes the next one for that long.
    /// Whoever waits for a change of the key is woken. `false`: it was not; nothing was changed.
    fn throttle<'a>(&'a self, key: &'a str, token: Token, throttle: Duration) -> BoxFuture<'a, Result<bool>>;

    /// As [`read_versioned`](Self::read_versioned) for several values, in one trip. `track`: the values' changes are to be told; those of the
    /// versions are in any case. The `bool`: whether all that was to be told is. A value of another type may look absent.
    fn read_many<'a>(
        &'a self,
        keys: &'a [Arc<str>],
        versions: &'a [Arc<str>],
        track: bool,
    ) -> BoxFuture<'a, Result<ReadMany>> {
        Box::pin(batch::read_each(self, keys, versions, track))
    }

    /// Takes a lease for each, in one trip. Each is atomic, all of them are not.
    fn acquire_many<'a>(&'a self, wants: &'a [Want], lease: Duration) -> BoxFuture<'a, Result<Vec<Result<Acquired>>>> {
        Box::pin(batch::acquire_each(self, wants, lease))
    }

    /// As [`fill`](Self::fill) for each, in one trip.
    fn fill_many<'a>(&'a self, fills: &'a [Fill]) -> BoxFuture<'a, Result<Vec<Result<Filled>>>> {
        Box::pin(batch::fill_each(self, fills))
    }

    /// As [`renew`](Self::renew) for each, in one trip.
    fn renew_many<'a>(&'a self, claims: &'a [Claim], lease: Duration) -> BoxFuture<'a, Result<Vec<Result<bool>>>> {
        Box::pin(batch::renew_each(self, claims, lease))
    }

    /// As [`release`](Self::release) for each, in one trip.
    fn release_many<'a>(&'a self, claims: &'a [Claim], unstored: Option<Duration>) -> BoxFuture<'a, Result<()>> {
        Box::pin(batch::release_each(self, claims, unstored))
    }

    /// Tells the store that these keys are in use, so that it does not take them for cold. It changes nothing.
    fn touch<'a>(&'a self, keys: &'a [Arc<str>]) -> BoxFuture<'a, Result<()>> {
        let _in_use = keys;
        Box::pin(std::future::ready(Ok(())))
    }

    /// How many keys the store has evicted since it was started. `None`: it does not tell, or does not evict what is in use here.
    fn evictions(&self) -> BoxFuture<'_, Result<Option<u64>>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    /// Removes what stands under the key if it still is exactly this: for bytes that are no record.
    fn discard<'a>(&'a self, key: &'a str, what: &'a Slot) -> BoxFuture<'a, Result<()>>;

    /// Writes unconditionally, ends every lease on the key, unlinks the siblings, returns the known builds.
    fn write<'a>(
        &'a self,
        key: &'a str,
        record: Bytes,
        expiry: Expiry,
        siblings: Siblings<'a>,
    ) -> BoxFuture<'a, Result<Vec<String>>>;

    /// Unlinks the siblings (which include the own key) with their leases and what is put aside for a fence, returns the known builds.
    fn remove<'a>(&'a self, siblings: Siblings<'a>) -> BoxFuture<'a, Result<Vec<String>>>;

    /// Puts this fence under each of the siblings' keys, beside those that stand there, one atomic step each, and ends their leases. A record
    /// that stands there is put aside, no longer than each of the fences stands.
    fn raise<'a>(&'a self, fence: Token, limit: Expiry, siblings: Siblings<'a>) -> BoxFuture<'a, Result<Raised>>;

    /// Takes this fence away from each of the siblings' keys, and unlinks what is put aside, their leases, and whatever stands there but
    /// other fences; the known builds.
    fn lift<'a>(&'a self, fence: Token, siblings: Siblings<'a>) -> BoxFuture<'a, Result<Vec<String>>>;

    /// Takes this fence away from each of these keys. Where it was the last, and none was lifted or has run out before, what was put aside
    /// is put back with its old end.
    fn withdraw<'a>(&'a self, fence: Token, keys: &'a [String]) -> BoxFuture<'a, Result<()>>;

    /// Gives each of these kinds a new version, then puts this fence in the place of each of these tags, beside those that stand there, in
    /// this order, in one trip. `true`: as [`Raised::crowded`].
    fn fence_versions<'a>(
        &'a self,
        fence: Token,
        limit: Expiry,
        kinds: &'a [Arc<str>],
        tags: &'a [Arc<str>],
    ) -> BoxFuture<'a, Result<bool>>;

    /// Gives each of these versions a new one, then takes this fence away from each of these tags: a tag without other fences is at none of
    /// the versions that it had. In this order, in one trip.
    fn lift_versions<'a>(
        &'a self,
        fence: Token,
        versions: &'a [Arc<str>],
        tags: &'a [Arc<str>],
    ) -> BoxFuture<'a, Result<()>>;

    /// Gives each of these kinds a new version, then takes this fence away from each of these tags. Where it was the last, and none was
    /// lifted or has run out before, the tag is at the version again that stood before all of them. In this order, in one trip.
    fn withdraw_versions<'a>(
        &'a self,
        fence: Token,
        kinds: &'a [Arc<str>],
        tags: &'a [Arc<str>],
    ) -> BoxFuture<'a, Result<()>>;

    /// Adds a build's fingerprint to a function's registry. `expiry` outlasts every entry; it is set anew. Where there is no registry, the
    /// function's version, which is in the same slot, is another one first: what was stored by builds that a lost registry knew of ends
    /// with it (R25). Atomic; the version then.
    fn register_build<'a>(
        &'a self,
        builds: &'a str,
        version: &'a str,
        fingerprint: &'a str,
        expiry: Expiry,
    ) -> BoxFuture<'a, Result<Option<Version>>>;

    /// Writes, replacing whatever stood there. `None`: without expiry.
    fn put<'a>(&'a self, key: &'a str, bytes: Bytes, expiry: Option<Expiry>) -> BoxFuture<'a, Result<()>>;

    /// Sets fields of a hash.
    fn hash_set<'a>(&'a self, key: &'a str, fields: Vec<(String, Bytes)>) -> BoxFuture<'a, Result<()>>;

    /// One field of a hash.
    fn hash_get<'a>(&'a self, key: &'a str, field: &'a str) -> BoxFuture<'a, Result<Option<Bytes>>>;

    /// All fields of a hash with their values, in no particular order.
    fn hash_all<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Vec<(String, Bytes)>>>;

    /// The field names of a hash, in no particular order.
    fn hash_keys<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Vec<String>>>;

    /// Removes fields of a hash; the number that stood there.
    fn hash_remove<'a>(&'a self, key: &'a str, fields: &'a [String]) -> BoxFuture<'a, Result<u64>>;

    /// Sends a message; the number of subscribers that the server handed it to.
    fn publish<'a>(&'a self, channel: &'a str, message: Bytes) -> BoxFuture<'a, Result<u64>>;

    /// Messages of a channel from now on. The stream ends when the store is closed; a lost connection is reported
    /// as [`Message::Interrupted`], at once and again when the subscription has been taken up by itself: what is looked up after the
    /// second one cannot be missed.
    fn subscribe<'a>(&'a self, channel: &'a str)
    -> BoxFuture<'a, Result<futures::stream::BoxStream<'static, Message>>>;

    /// Does this as soon as the store can be reached: see [`outstanding`]. Never waits.
    fn later(&self, operation: Operation);

    /// Does what is outstanding now, if the store can be reached; bounded by its response timeout for each trip.
    fn settle(&self) -> BoxFuture<'_, ()>;

    /// Whether the store can be used right now.
    fn is_available(&self) -> bool;

    /// Changes whenever the store may have lost keys without telling: a new connection, a flush. What was registered
    /// under an older number (a build, a subscription) has to be registered again.
    fn epoch(&self) -> u64;

    /// Ends connections and background work. Operations fail with [`ErrorKind::Closed`](crate::ErrorKind::Closed) afterwards.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// One thing that arrived on a subscription.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Message {
    /// A payload somebody published.
    Payload(Bytes),
    /// Messages may have been lost here: the connection broke, or the reader was too slow.
    Interrupted,
}

/// Whether a record holds this fill id.
pub(crate) fn has_fill_id(record: &[u8], fill_id: u64) -> bool {
    record.get(FILL_ID_AT).is_some_and(|bytes| bytes == fill_id.to_le_bytes())
}

/// The first byte of a lease in a value key. A record starts with another one.
pub(crate) const LEASE_MARK: u8 = b'L';
/// The first byte of a lease that nobody waits for, in a value key or a second key.
pub(crate) const UNAWAITED_MARK: u8 = b'U';
/// The first byte of the mark of a run that stored nothing, in a value key or a second key.
pub(crate) const UNSTORED_MARK: u8 = b'N';
/// What stands in the second key after a refresh that failed. No token looks like it.
pub(crate) const THROTTLE_MARK: &str = "F";
/// `L`, `U` or `N`, and 32 hex digits.
pub(crate) const LEASE_LEN: usize = 33;

/// Whether this is a lease that nobody waits for.
pub(crate) fn is_unawaited(bytes: &[u8]) -> bool {
    bytes.len() == LEASE_LEN && bytes.first() == Some(&UNAWAITED_MARK)
}

impl Slot {
    /// What these bytes of a value key mean. `left`: the key's time to live, where known.
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

/// The second key of an entry: the lease of a refresh, in the slot of its value key.
pub(crate) fn lease_key(key: &str) -> String {
    format!("{{{key}}}:l")
}

/// Where the record stands that a fence has put aside, in the slot of its value key.
pub(crate) fn aside_key(key: &str) -> String {
    format!("{{{key}}}:f")
}

impl Version {
    /// One that nothing was ever at.
    pub(crate) fn random() -> Self {
        Self(crate::random::u128())
    }

    /// Of what stands under a version key; none if that is a fence.
    pub(crate) fn of(bytes: &[u8]) -> Option<Self> {
        if fences::is_fence(bytes) {
            return None;
        }
        // Written by somebody else: another version than any other bytes.
        Some(Self::written(bytes).unwrap_or_else(|| Self(xxh3_128(bytes))))
    }

    /// Of bytes that this library wrote.
    pub(crate) fn written(bytes: &[u8]) -> Option<Self> {
        let digits = std::str::from_utf8(bytes).ok().filter(|digits| digits.len() == 32)?;
        u128::from_str_radix(digits, 16).ok().map(Self)
    }

    /// As it stands in its key.
    pub(crate) fn hex(self) -> String {
        format!("{:032x}", self.0)
    }

    pub(crate) fn bits(self) -> u128 {
        self.0
    }
}

impl Token {
    /// A new one from the operating system's random source.
    pub(crate) fn random() -> Self {
        Self::from_bits(crate::random::u128())
    }

    /// A token that a test chose.
    pub(crate) fn from_bits(bits: u128) -> Self {
        Self { bits, is_unawaited: false }
    }

    /// The same attempt, whose lease tells others not to wait for it.
    pub(crate) fn unawaited(self) -> Self {
        Self { is_unawaited: true, ..self }
    }

    /// As it stands in the second key.
    pub(crate) fn hex(self) -> String {
        if self.is_unawaited { self.mark() } else { format!("{:032x}", self.bits) }
    }

    /// As it stands in the value key.
    pub(crate) fn mark(self) -> String {
        format!("{}{:032x}", if self.is_unawaited { 'U' } else { 'L' }, self.bits)
    }

    /// The mark of its run, if that stored nothing.
    pub(crate) fn unstored(self) -> String {
        format!("N{:032x}", self.bits)
    }

    /// The run that left this mark.
    pub(crate) fn of_unstored(bytes: &[u8]) -> Option<Self> {
        let digits = bytes.strip_prefix(&[UNSTORED_MARK]).filter(|_| bytes.len() == LEASE_LEN)?;
        let bits = u128::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        Some(Self::from_bits(bits))
    }

    /// What its lease may look like in its key.
    pub(crate) fn forms(self, over: Over) -> [String; 2] {
        let awaited = Self::from_bits(self.bits);
        match over {
            Over::Nothing => [awaited.mark(), self.unawaited().mark()],
            Over::Record(_) => [awaited.hex(), self.unawaited().hex()],
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

// Payloads stay out of logs: only their sizes show.
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
