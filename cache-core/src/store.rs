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

//!
//! There is a trait for each noun ([`leases`], [`versions`], [`values`], [`fences`], [`channels`],
//! ..), in one file with the types of its arguments. Each store implements it in its file of that
//! noun, for example `redis/leases.rs`. [`Store`] is all of them, and what concerns the store
//! itself.

use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;

use crate::error::Result;
pub(crate) use crate::store::cells::{
    CellStore, Entered, Entering, Kind, Loaded, MARK, Replaced, Replacing, Swapped, Tombstone,
};
pub(crate) use crate::store::channels::{ChannelStore, Message};
pub(crate) use crate::store::fences::{FenceStore, Raised, aside_key};
pub(crate) use crate::store::hashes::HashStore;
pub(crate) use crate::store::leases::{Acquired, Claim, Fill, Filled, LeaseStore, LeaseTarget, Rewrite, Want};
pub(crate) use crate::store::outstanding::{Operation, Removal};
pub(crate) use crate::store::plain::{PlainFill, PlainStore, Put, Reply, When, plain_key_of, plain_lease_key};
pub(crate) use crate::store::pushes::Listener;
pub(crate) use crate::store::slot::{Slot, has_fill_id};
use crate::store::sweep::SweepStore;
#[cfg(test)]
pub(crate) use crate::store::token::LEASE_MARK;
pub(crate) use crate::store::token::{Replaces, THROTTLE_MARK, Token, is_unawaited, lease_key};
pub(crate) use crate::store::trust::Trust;
#[cfg(any(feature = "redis", feature = "testing"))]
pub(crate) use crate::store::values::ReadMany;
pub(crate) use crate::store::values::{RECORD_EXPIRY_MAX, Siblings, ValueStore, Versioned, Wake};
pub(crate) use crate::store::versions::{
    REGISTRY_EXPIRY, VERSION_EXPIRY, VERSION_RENEWED_BELOW, Version, VersionStore,
};
#[cfg(any(feature = "redis", feature = "testing"))]
pub(crate) use crate::value::envelope::FILL_ID_AT;

pub(crate) mod address;
pub(crate) mod cells;
mod channels;
mod fences;
mod hashes;
mod leases;
pub(crate) mod memory;
pub(crate) mod outstanding;
mod plain;
pub(crate) mod pushes;
#[cfg(feature = "redis")]
pub(crate) mod redis;
mod slot;
#[cfg(any(feature = "redis", feature = "testing", test))]
pub(crate) mod supervisor;
pub(crate) mod sweep;
mod token;
mod trust;
mod values;
mod versions;

/// A second-tier store: the operations of every noun, and what concerns the store itself.
pub(crate) trait Store:
    CellStore + ChannelStore + FenceStore + HashStore + LeaseStore + PlainStore + SweepStore + ValueStore
{
    /// Notifies this listener of changes and gaps from now on.
    fn listen(&self, listener: Weak<dyn Listener>);

    /// Returns until when tracked reads may be served.
    fn trust(&self) -> Arc<Trust>;

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

    /// Returns how many keys the store has evicted since its start. `None`: the store does not
    /// report it, or does not evict keys that are in use here.
    fn evictions(&self) -> BoxFuture<'_, Result<Option<u64>>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    /// Ends connections and background work. Operations fail with
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed) afterwards.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// An expiry for [`Store`] writes. Redis counts milliseconds; zero is not allowed and is rounded up
/// to one.
pub(crate) type Expiry = Duration;

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
