//! Operations that failed in the store and must be done as soon as it can be reached again.
//!
//! ```text
//! add(operation) ──> list ──> settle: before the next connection is used; on this connection
//!                      │              at once, or at its next heartbeat
//!                      └────> a lease that has expired is dropped
//! ```
//!
//! Invariant: the list is bounded, and an operation leaves it only when the store has answered it,
//! when it has expired, or when the list is full. Each operation may be executed twice and at any
//! later time: a release compares its token; a removal and a new version only cause misses. So an
//! operation that may have been executed already is added without a check.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::Notify;

use super::{Claim, Siblings, Store, Token};
use crate::clock::{Clock, millis};
use crate::error::{Error, ErrorKind, Result};
use crate::mutants::{self, Invariant};
use crate::observe::events::{Event, Events};

/// How many operations are kept. About 200 bytes each.
const MOST: usize = 10_000;
/// How many leases go in one round trip.
const MOST_LEASES_IN_A_TRIP: usize = 1000;
/// How many removals are in progress at a time.
const MOST_REMOVALS_AT_ONCE: usize = 100;

/// An operation in the store, now or later.
#[derive(Clone)]
pub(crate) enum Operation {
    /// Releases a lease that expires by itself after this time.
    Release(Claim, Duration),
    /// Removes an entry, or lifts a fence on it.
    Remove(Removal),
    /// Gives each of these versions a new value, then lifts this fence on these tags, in this
    /// order.
    Lift(Token, Vec<Arc<str>>, Vec<Arc<str>>),
    /// Gives each of these versions a new value, in this order.
    Renew(Vec<Arc<str>>),
}

/// An entry to remove, with the records of all builds.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Removal {
    /// The value key without the fingerprint at its end.
    pub(crate) base: Arc<str>,
    /// The function's registry of builds.
    pub(crate) registry: Arc<str>,
    /// The function's version.
    pub(crate) version: Arc<str>,
    /// The builds that are known here.
    pub(crate) builds: Vec<Arc<str>>,
    /// If set, only this fence on the entry is lifted; other fences stay.
    pub(crate) fence: Option<Token>,
}

/// The waiting operations. One list for each link to a store.
pub(crate) struct Outstanding {
    waiting: Mutex<Waiting>,
    /// Held while operations run, so that the next settle waits for their answers.
    settling: tokio::sync::Mutex<()>,
    added: Notify,
    clock: Clock,
    events: Events,
}

#[derive(Default)]
struct Waiting {
    leases: VecDeque<Lease>,
    invalidations: VecDeque<Invalidation>,
    /// The list was full since it was last empty, and that was reported.
    is_told: bool,
}

struct Lease {
    claim: Claim,
    /// On the coarse clock.
    ends_at: u64,
}

enum Invalidation {
    Entry(Removal),
    Versions(Vec<Arc<str>>),
    Lift(Token, Vec<Arc<str>>, Vec<Arc<str>>),
}

impl Invalidation {
    fn versions(&self) -> &[Arc<str>] {
        match self {
            Self::Versions(versions) => versions,
            Self::Entry(_) | Self::Lift(..) => &[],
        }
    }
}

impl Outstanding {
    pub(crate) fn new(clock: Clock, events: Events) -> Self {
        Self { waiting: Mutex::default(), settling: tokio::sync::Mutex::default(), added: Notify::new(), clock, events }
    }

    /// Keeps an operation until it is done.
    pub(crate) fn add(&self, operation: Operation) {
        let is_full = {
            let mut waiting = self.waiting();
            match operation {
                Operation::Release(claim, lease) => {
                    let ends_at = self.clock.coarse().saturating_add(millis(lease));
                    waiting.leases.push_back(Lease { claim, ends_at });
                }
                Operation::Remove(removal) => waiting.invalidations.push_back(Invalidation::Entry(removal)),
                Operation::Renew(versions) => waiting.invalidations.push_back(Invalidation::Versions(versions)),
                Operation::Lift(fence, versions, tags) => {
                    waiting.invalidations.push_back(Invalidation::Lift(fence, versions, tags));
                }
            }
            waiting.keep_bound()
        };
        if is_full {
            self.events.emit(Event::OutstandingDropped);
        }
        self.added.notify_one();
    }

    /// Resolves when an operation was added.
    #[cfg(feature = "redis")]
    pub(crate) async fn added(&self) {
        self.added.notified().await;
    }

    /// Returns how many operations wait.
    #[cfg(feature = "testing")]
    pub(crate) fn len(&self) -> usize {
        let waiting = self.waiting();
        waiting.leases.len().saturating_add(waiting.invalidations.len())
    }

    pub(crate) fn is_empty(&self) -> bool {
        let waiting = self.waiting();
        waiting.leases.is_empty() && waiting.invalidations.is_empty()
    }

    /// Runs all waiting operations: invalidations, then leases, the oldest first. Operations of a
    /// concurrent call are done, too, when this returns.
    ///
    /// If it is cancelled or the store becomes unavailable, operations without an answer stay in
    /// the list. A lease that the store refuses to release is left to expire; an invalidation that
    /// it refuses waits for the next settle.
    pub(crate) async fn settle(&self, store: &dyn Store) -> Result<()> {
        let _settling = self.settling.lock().await;
        if self.is_empty() {
            return Ok(());
        }
        let mut taken = Taken { from: self, left: std::mem::take(&mut *self.waiting()), refused: VecDeque::new() };
        taken.renew_versions(store).await?;
        taken.remove_entries(store).await?;
        taken.release_leases(store).await
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// Drops an operation if the list is too long. A lease expires by itself, so leases are dropped
    /// first. Returns whether this is the first time since the list was last empty.
    fn keep_bound(&mut self) -> bool {
        if self.leases.len().saturating_add(self.invalidations.len()) <= MOST {
            return false;
        }
        if self.leases.pop_front().is_none() {
            self.invalidations.pop_front();
        }
        !std::mem::replace(&mut self.is_told, true)
    }
}

/// The operations in progress. When dropped, the remaining ones go back to the front of the list.
struct Taken<'a> {
    from: &'a Outstanding,
    left: Waiting,
    refused: VecDeque<Invalidation>,
}

impl Taken<'_> {
    /// Renews the versions in one round trip, in the order in which they were added.
    async fn renew_versions(&mut self, store: &dyn Store) -> Result<()> {
        let mut seen = BTreeSet::new();
        let versions: Vec<Arc<str>> = self.versions().filter(|key| seen.insert(*key)).cloned().collect();
        if versions.is_empty() {
            return Ok(());
        }
        let is_refused = is_refused(store.renew_versions(&versions).await)?;
        let (versions, others) = std::mem::take(&mut self.left.invalidations)
            .into_iter()
            .partition(|invalidation| matches!(invalidation, Invalidation::Versions(_)));
        self.left.invalidations = others;
        if is_refused {
            self.refused = versions;
        }
        Ok(())
    }

    fn versions(&self) -> impl Iterator<Item = &Arc<str>> {
        self.left.invalidations.iter().flat_map(Invalidation::versions)
    }

    async fn remove_entries(&mut self, store: &dyn Store) -> Result<()> {
        while !self.left.invalidations.is_empty() {
            let chunk = self.left.invalidations.len().min(MOST_REMOVALS_AT_ONCE);
            let removals = self.left.invalidations.iter().take(chunk).map(|invalidation| async {
                match invalidation {
                    Invalidation::Entry(removal) => is_refused(removal.run(store).await),
                    Invalidation::Lift(fence, versions, tags) => {
                        is_refused(store.lift_versions(*fence, versions, tags).await)
                    }
                    Invalidation::Versions(_) => Ok(false),
                }
            });
            let answers: Vec<Result<bool>> = join_all(removals).await;
            let mut failed = None;
            let mut unanswered = VecDeque::new();
            for (invalidation, answer) in self.left.invalidations.drain(..chunk).zip(answers) {
                match answer {
                    Ok(false) if !mutants::removed(Invariant::DoneIsTakenOff) => {}
                    Ok(_) => self.refused.push_back(invalidation),
                    Err(error) => {
                        unanswered.push_back(invalidation);
                        failed = Some(error);
                    }
                }
            }
            unanswered.append(&mut self.left.invalidations);
            self.left.invalidations = unanswered;
            if let Some(error) = failed {
                return Err(error);
            }
        }
        Ok(())
    }

    async fn release_leases(&mut self, store: &dyn Store) -> Result<()> {
        let now = self.from.clock.coarse();
        self.left.leases.retain(|lease| now < lease.ends_at);
        while !self.left.leases.is_empty() {
            let chunk = self.left.leases.len().min(MOST_LEASES_IN_A_TRIP);
            let claims: Vec<Claim> = self.left.leases.iter().take(chunk).map(|lease| lease.claim.clone()).collect();
            // A refused lease is left to expire.
            is_refused(store.release_many(&claims, None).await)?;
            self.left.leases.drain(..chunk);
        }
        Ok(())
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let mut waiting = self.from.waiting();
        let mut left = std::mem::take(&mut self.left);
        left.invalidations.append(&mut self.refused);
        left.invalidations.append(&mut waiting.invalidations);
        left.leases.append(&mut waiting.leases);
        left.is_told = (left.is_told || waiting.is_told) && !(left.leases.is_empty() && left.invalidations.is_empty());
        *waiting = left;
        while waiting.leases.len().saturating_add(waiting.invalidations.len()) > MOST {
            waiting.keep_bound();
        }
    }
}

/// Returns whether the store refused; an error if it gave no answer.
fn is_refused(answer: Result<()>) -> Result<bool> {
    match answer.map_err(|error: Error| (error.kind(), error)) {
        // Executed on the primary.
        Ok(()) | Err((ErrorKind::NotReplicated, _)) => Ok(false),
        Err((ErrorKind::Unavailable | ErrorKind::Closed, error)) => Err(error),
        Err(_) => Ok(true),
    }
}

impl Operation {
    /// Runs the operation now.
    pub(crate) async fn run(&self, store: &dyn Store) -> Result<()> {
        match self {
            Self::Release(claim, _) => store.release(claim, None).await,
            Self::Remove(removal) => removal.run(store).await,
            Self::Renew(versions) => store.renew_versions(versions).await,
            Self::Lift(fence, versions, tags) => store.lift_versions(*fence, versions, tags).await,
        }
    }
}

impl Removal {
    /// Removes the records of all builds. Terminates, since each round removes builds that this
    /// call did not know before.
    async fn run(&self, store: &dyn Store) -> Result<()> {
        let mut sent: BTreeSet<Arc<str>> = BTreeSet::new();
        let mut builds = self.builds.clone();
        loop {
            builds.retain(|build| sent.insert(Arc::clone(build)));
            let keys: Vec<String> = builds.iter().map(|build| format!("{}{build}", self.base)).collect();
            if keys.is_empty() && !sent.is_empty() {
                return Ok(());
            }
            let siblings = Siblings { keys: &keys, builds: &self.registry };
            let found = match self.fence {
                Some(fence) => store.lift(fence, siblings).await?,
                None => store.remove(siblings).await?,
            };
            if found.is_empty() {
                // Which builds have stored something is unknown (R25).
                store.renew_versions(std::slice::from_ref(&self.version)).await?;
            }
            builds = found.iter().map(|build| Arc::from(build.as_str())).collect();
            if builds.iter().all(|build| sent.contains(build)) {
                return Ok(());
            }
        }
    }
}
