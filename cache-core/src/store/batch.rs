//! The types of operations on several keys, and a default implementation that runs them one after
//! the other, for stores without round trips to save.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{Acquired, Expiry, Filled, Replaces, Slot, Store, Token, Version};
use crate::error::Result;

/// The content of each key, the versions in the order of their keys, and whether changes of all of
/// it are notified.
pub(crate) type ReadMany = (Vec<Slot>, Vec<Option<Version>>, bool);

/// A lease to take.
#[derive(Clone)]
pub(crate) struct Want {
    pub(crate) key: Arc<str>,
    pub(crate) token: Token,
    pub(crate) place: Place,
}

/// Where to put a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the value key, if that is absent.
    Empty,
    /// In the value key, in the place of the record with this fill id.
    Instead(u64),
    /// In the lease key, next to the record with this fill id.
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

impl Place {
    /// Returns what a fill under this lease replaces.
    pub(crate) fn over(self) -> Replaces {
        match self {
            Self::Empty | Self::Instead(_) | Self::OverMark(_) => Replaces::Nothing,
            Self::Beside(fill_id) => Replaces::Stale(fill_id),
        }
    }
}

pub(super) async fn read_each<S: Store + ?Sized>(
    store: &S,
    keys: &[Arc<str>],
    versions: &[Arc<str>],
    track: bool,
) -> Result<ReadMany> {
    // The versions first: values stored afterwards under older versions do not agree with them.
    let (found, mut tracked) =
        if versions.is_empty() { (Vec::new(), true) } else { store.read_versions(versions, true).await? };
    let mut slots = Vec::with_capacity(keys.len());
    for key in keys {
        if track {
            let (slot, told) = store.read_tracked(key).await?;
            tracked &= told;
            slots.push(slot);
        } else {
            slots.push(store.read(key).await?);
        }
    }
    Ok((slots, found, tracked))
}

pub(super) async fn acquire_one<S: Store + ?Sized>(store: &S, want: &Want, lease: Duration) -> Result<Acquired> {
    let Want { key, token, place } = want;
    match place {
        Place::Empty | Place::Beside(_) => store.acquire(key, *token, lease, place.over()).await,
        Place::Instead(fill_id) => store.acquire_in_place(key, *token, lease, *fill_id).await,
        Place::OverMark(mark) => store.acquire_over_mark(key, *token, lease, *mark).await,
    }
}

pub(super) async fn acquire_each<S: Store + ?Sized>(
    store: &S,
    wants: &[Want],
    lease: Duration,
) -> Result<Vec<Result<Acquired>>> {
    let mut answers = Vec::with_capacity(wants.len());
    for want in wants {
        answers.push(acquire_one(store, want, lease).await);
    }
    Ok(answers)
}

pub(super) async fn fill_each<S: Store + ?Sized>(store: &S, fills: &[Fill]) -> Result<Vec<Result<Filled>>> {
    let mut answers = Vec::with_capacity(fills.len());
    for fill in fills {
        answers.push(store.fill(fill).await);
    }
    Ok(answers)
}

pub(super) async fn renew_each<S: Store + ?Sized>(
    store: &S,
    claims: &[Claim],
    lease: Duration,
) -> Result<Vec<Result<bool>>> {
    let mut answers = Vec::with_capacity(claims.len());
    for Claim { key, token, over } in claims {
        answers.push(store.renew(key, *token, *over, lease).await);
    }
    Ok(answers)
}

pub(super) async fn release_each<S: Store + ?Sized>(
    store: &S,
    claims: &[Claim],
    unstored: Option<Duration>,
) -> Result<()> {
    for Claim { key, token, over } in claims {
        store.release(key, *token, *over, unstored).await?;
    }
    Ok(())
}
