//! Leases: the right to fill a key, and fills under it.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;

use super::Expiry;
use super::slot::Slot;
use super::token::{Replaces, Token, lease_key};
use crate::error::Result;

/// A lease to take.
#[derive(Clone)]
pub(crate) struct Want {
    pub(crate) key: Arc<str>,
    pub(crate) token: Token,
    pub(crate) target: LeaseTarget,
}

/// Where to put a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeaseTarget {
    /// In the value key, if that is absent.
    Empty,
    /// In the value key, in the place of the record with this fill id, which may no longer be
    /// served.
    Instead(u64),
    /// In the lease key, next to the record with this fill id, if that very record is still there.
    Beside(u64),
    /// In the value key, in the place of the mark that the compute with this token left.
    OverMark(Token),
}

/// A lease that was taken.
#[derive(Clone)]
pub(crate) struct Claim {
    pub(crate) key: Arc<str>,
    pub(crate) token: Token,
    pub(crate) over: Replaces,
}

/// A record to store under a lease.
#[derive(Clone)]
pub(crate) struct Fill {
    pub(crate) claim: Claim,
    pub(crate) record: Bytes,
    pub(crate) expiry: Expiry,
    /// Whether to track the next change of the key, because the caller keeps the value, too.
    pub(crate) track: bool,
}

/// New first bytes for the record that a refresh would replace.
pub(crate) struct Rewrite<'a> {
    pub(crate) key: &'a str,
    pub(crate) token: Token,
    pub(crate) fill_id: u64,
    pub(crate) head: Bytes,
    pub(crate) expiry: Expiry,
}

/// The result of [`LeaseStore::acquire`].
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

/// The result of [`LeaseStore::fill`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Filled {
    /// The lease was lost; nothing was stored.
    Refused,
    /// Stored. Changes of the key may not be notified.
    Stored,
    /// Stored, and the next change of the key is notified.
    Tracked,
}

/// The operations on leases.
pub(crate) trait LeaseStore: Send + Sync + 'static {
    /// Takes the lease for one attempt, if the key is as its [`LeaseTarget`] requires. The record
    /// of a refresh is then kept for at least as long as the lease (R28). A lease in the place of a
    /// mark is one of [`Token::unawaited`]: other callers do not wait for it.
    fn acquire<'a>(&'a self, want: &'a Want, lease: Duration) -> BoxFuture<'a, Result<Acquired>>;

    /// Stores the record if this attempt still holds the lease and, for a refresh, the record it
    /// replaces is still there. The lease is released. The listeners are notified of the next
    /// change of the key, if that was requested and the result says so.
    fn fill<'a>(&'a self, fill: &'a Fill) -> BoxFuture<'a, Result<Filled>>;

    /// Like [`fill`](Self::fill) of a refresh, but replaces only the first bytes of the record and
    /// keeps the payload. `false`: refused.
    fn rewrite_head<'a>(&'a self, rewrite: Rewrite<'a>) -> BoxFuture<'a, Result<bool>>;

    /// Extends the lease if this attempt still holds it. The record of a refresh is kept for at
    /// least as long (R28).
    fn renew<'a>(&'a self, claim: &'a Claim, lease: Duration) -> BoxFuture<'a, Result<bool>>;

    /// Releases the lease, in either form, if this attempt still holds it. Callers that wait for a
    /// change of the key are woken. `unstored`: the compute ended and stored nothing; a mark
    /// records that for this long.
    fn release<'a>(&'a self, claim: &'a Claim, unstored: Option<Duration>) -> BoxFuture<'a, Result<()>>;

    /// Releases the lease of a refresh after a failure, if this attempt still holds it, and blocks
    /// the next lease for `throttle`. Callers that wait for a change of the key are woken. `false`:
    /// the lease was lost and nothing was changed.
    fn throttle<'a>(&'a self, key: &'a str, token: Token, throttle: Duration) -> BoxFuture<'a, Result<bool>>;

    /// Takes a lease for each, in one round trip. Each is atomic; all together are not.
    fn acquire_many<'a>(&'a self, wants: &'a [Want], lease: Duration) -> BoxFuture<'a, Result<Vec<Result<Acquired>>>> {
        Box::pin(acquire_each(self, wants, lease))
    }

    /// Like [`fill`](Self::fill) for each, in one round trip.
    fn fill_many<'a>(&'a self, fills: &'a [Fill]) -> BoxFuture<'a, Result<Vec<Result<Filled>>>> {
        Box::pin(fill_each(self, fills))
    }

    /// Like [`renew`](Self::renew) for each, in one round trip.
    fn renew_many<'a>(&'a self, claims: &'a [Claim], lease: Duration) -> BoxFuture<'a, Result<Vec<Result<bool>>>> {
        Box::pin(renew_each(self, claims, lease))
    }

    /// Like [`release`](Self::release) for each, in one round trip.
    fn release_many<'a>(&'a self, claims: &'a [Claim], unstored: Option<Duration>) -> BoxFuture<'a, Result<()>> {
        Box::pin(release_each(self, claims, unstored))
    }
}

impl Claim {
    /// Returns the key that holds the lease.
    pub(super) fn lease_key(&self) -> Cow<'_, str> {
        match self.over {
            Replaces::Nothing => Cow::Borrowed(&*self.key),
            Replaces::Stale(_) => Cow::Owned(lease_key(&self.key)),
        }
    }
}

impl LeaseTarget {
    /// Returns what a fill under this lease replaces.
    pub(crate) fn over(self) -> Replaces {
        match self {
            Self::Empty | Self::Instead(_) | Self::OverMark(_) => Replaces::Nothing,
            Self::Beside(fill_id) => Replaces::Stale(fill_id),
        }
    }
}

// Runs one operation after the other, for stores without round trips to save.

async fn acquire_each<S: LeaseStore + ?Sized>(
    store: &S,
    wants: &[Want],
    lease: Duration,
) -> Result<Vec<Result<Acquired>>> {
    let mut answers = Vec::with_capacity(wants.len());
    for want in wants {
        answers.push(store.acquire(want, lease).await);
    }
    Ok(answers)
}

async fn fill_each<S: LeaseStore + ?Sized>(store: &S, fills: &[Fill]) -> Result<Vec<Result<Filled>>> {
    let mut answers = Vec::with_capacity(fills.len());
    for fill in fills {
        answers.push(store.fill(fill).await);
    }
    Ok(answers)
}

async fn renew_each<S: LeaseStore + ?Sized>(store: &S, claims: &[Claim], lease: Duration) -> Result<Vec<Result<bool>>> {
    let mut answers = Vec::with_capacity(claims.len());
    for claim in claims {
        answers.push(store.renew(claim, lease).await);
    }
    Ok(answers)
}

async fn release_each<S: LeaseStore + ?Sized>(store: &S, claims: &[Claim], unstored: Option<Duration>) -> Result<()> {
    for claim in claims {
        store.release(claim, unstored).await?;
    }
    Ok(())
}
