//! Sessions in a store of the application's own, in which every step covers one key.
//!
//! Invariant: an operation on several keys is done in steps, and the state after each step is
//! valid. A session that changes its id is stored under one of the two ids or, after a fault
//! between the steps, under none; never under both. A login is in its user's index before its
//! session is stored, and leaves the index only when the session no longer exists.
//! ```text
//! another id   swap(old, what I read -> null) ── create(new) ── remove(old)
//!                   │ on a conflict nothing was changed
//! login        index: entry, pending ── the session ── index: entry, and the old one leaves
//! ```
//!
//! `null` counts as no session, here and for an Express peer. An index is one cell: a JSON list
//! that is changed by swaps.

use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, try_join_all};
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::object::CellHost;
use crate::session::store::{SessionStore, SessionSwap, StoredSession};
use crate::store::cells::OverLimit;
use crate::store::{CellStore, Entered, Entering, Expiry, Kind, Loaded, MARK, Replaced, Replacing, Swapped, Tombstone};

/// The value under a key whose session is being moved to another key.
const MOVED: &[u8] = b"null";
/// How long a login may take from its index entry to its stored session.
const PENDING: Duration = Duration::from_secs(60);
/// How many times a change of an index is tried against conflicting ones.
const ATTEMPTS: u32 = 1000;

/// The application's store with all operations that sessions need.
pub(in crate::session) struct CustomStore<S> {
    store: S,
    /// Provides the time.
    host: CellHost,
}

/// The result of moving a session to another key.
enum Moved {
    Done,
    Conflict(Bytes),
    Gone,
    Taken,
}

/// The members of an index.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
struct Index(Vec<Member>);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Member {
    /// The session's key.
    k: String,
    /// When the entry ends.
    e: u64,
    /// Until when its session may still be about to be stored; zero once it is stored.
    #[serde(default, skip_serializing_if = "is_zero")]
    p: u64,
    /// It is marked to be ended, to make room for another session.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    d: bool,
}

impl<S: SessionStore> CustomStore<S> {
    pub(in crate::session) fn new(store: S, host: CellHost) -> Self {
        Self { store, host }
    }

    async fn get(&self, key: &str) -> Result<Option<Loaded>> {
        let found = self.store.load(key).await.map_err(|error| failed("load", error))?;
        Ok(found.filter(|found| found.bytes != MOVED).map(|StoredSession { bytes, ttl }| (bytes.into(), ttl)))
    }

    async fn make(&self, key: &str, bytes: &[u8], expiry: Option<Expiry>) -> Result<bool> {
        self.store.create(key, bytes, expiry).await.map_err(|error| failed("create", error))
    }

    async fn exchange(&self, key: &str, expected: &[u8], bytes: &[u8], expiry: Option<Expiry>) -> Result<Swapped> {
        let swap = self.store.swap(key, expected, bytes, expiry).await.map_err(|error| failed("swap", error))?;
        Ok(match swap {
            SessionSwap::Done => Swapped::Done,
            SessionSwap::Conflict(found) if found == MOVED => Swapped::Gone,
            SessionSwap::Conflict(found) => Swapped::Conflict(found.into()),
            SessionSwap::Gone => Swapped::Gone,
        })
    }

    async fn prolong(&self, key: &str, lasts: Expiry) -> Result<bool> {
        self.store.touch(key, lasts).await.map_err(|error| failed("touch", error))
    }

    async fn take_away(&self, key: &str) -> Result<bool> {
        self.store.remove(key).await.map_err(|error| failed("remove", error))
    }

    async fn leave(&self, mark: Option<Tombstone<'_>>) -> Result<()> {
        if let Some(Tombstone { key, lasts }) = mark
            && !self.make(key, MARK, Some(lasts)).await?
        {
            self.prolong(key, lasts).await?;
        }
        Ok(())
    }

    async fn end(&self, key: &str, mark: Option<Tombstone<'_>>) -> Result<bool> {
        // A failure to leave the mark is ignored: the removal may still succeed, and it is what
        // counts.
        drop(self.leave(mark).await);
        self.take_away(key).await
    }

    /// Stores `bytes` under `key`, replacing exactly `expected` under `old`.
    async fn take_place(
        &self,
        (old, expected): (&str, &[u8]),
        (key, bytes): (&str, &[u8]),
        expiry: Option<Expiry>,
        mark: Option<Tombstone<'_>>,
    ) -> Result<Moved> {
        match self.exchange(old, expected, MOVED, None).await? {
            Swapped::Done => {}
            Swapped::Conflict(found) => return Ok(Moved::Conflict(found)),
            Swapped::Gone => return Ok(Moved::Gone),
        }
        if !self.make(key, bytes, expiry).await? {
            self.exchange(old, MOVED, expected, None).await?;
            return Ok(Moved::Taken);
        }
        // The old key already counts as absent, and expires by itself.
        drop(self.end(old, mark).await);
        Ok(Moved::Done)
    }

    async fn index(&self, key: &str) -> Result<(Option<Bytes>, Index)> {
        let Some((bytes, _)) = self.get(key).await? else { return Ok((None, Index::default())) };
        let index = serde_json::from_slice(&bytes).map_err(|_broken| {
            Error::new(ErrorKind::Decode, "index").detail("the stored bytes are not the session list of a user")
        })?;
        Ok((Some(bytes), index))
    }

    /// Changes an index. A `change` that returns `None` leaves it as it is.
    async fn change<T>(&self, key: &str, mut change: impl FnMut(&mut Index) -> Option<T>) -> Result<Option<T>> {
        let (mut before, mut index) = self.index(key).await?;
        for _ in 0..ATTEMPTS {
            let old = index.clone();
            let now = self.now();
            index.0.retain(|member| now.as_millis() < member.e);
            let Some(done) = change(&mut index) else { return Ok(None) };
            if index == old {
                return Ok(Some(done));
            }
            let bytes =
                serde_json::to_vec(&index).map_err(|error| Error::new(ErrorKind::Encode, "index").source(error))?;
            // An empty index has no end of its own, and nothing worth keeping.
            let lasts =
                index.0.iter().map(|member| now.until(Timestamp::from_millis(member.e))).max().unwrap_or(PENDING);
            let swapped = match &before {
                None if self.make(key, &bytes, Some(lasts)).await? => Swapped::Done,
                None => Swapped::Gone,
                Some(before) => self.exchange(key, before, &bytes, Some(lasts)).await?,
            };
            if swapped == Swapped::Done {
                return Ok(Some(done));
            }
            (before, index) = self.index(key).await?;
        }
        Err(Error::new(ErrorKind::Limit, "index")
            .detail("too many other requests changed the user's session list at the same time"))
    }

    /// Returns those of these members whose session exists.
    async fn current(&self, members: Vec<Member>) -> Result<Vec<Member>> {
        let found = try_join_all(members.iter().map(|member| self.get(&member.k))).await?;
        Ok(members.into_iter().zip(found).filter_map(|(member, found)| found.map(|_| member)).collect())
    }

    /// Adds a member whose session is about to be stored. Returns `None` if the index is full;
    /// otherwise whether the member is new.
    async fn reserve(&self, entering: &Entering<'_>) -> Result<Option<bool>> {
        let now = self.now().as_millis();
        let (ends, pending) = (self.now().plus(entering.lasts).as_millis(), self.now().plus(PENDING).as_millis());
        let refuses = entering.limit.filter(|limit| limit.then == OverLimit::Refuse);
        loop {
            let (_, seen) = self.index(entering.index).await?;
            if let Some(limit) = refuses {
                let others = others(&seen, entering).into_iter().partition::<Vec<_>, _>(|member| now < member.p);
                let count = others.0.len().saturating_add(self.current(others.1).await?.len());
                if limit.surplus(count).is_none() {
                    return Ok(None);
                }
            }
            let entered = self.change(entering.index, |index| {
                // The members have changed since they were counted.
                if refuses.is_some() && others(index, entering).iter().any(|member| !seen.has(&member.k)) {
                    return None;
                }
                let is_new = !index.has(entering.member);
                index.enter(Member {
                    k: entering.member.to_owned(),
                    e: ends,
                    p: if is_new { pending } else { 0 },
                    d: false,
                });
                Some(is_new)
            });
            if let Some(is_new) = entered.await? {
                return Ok(Some(is_new));
            }
        }
    }

    /// Marks the entry as no longer pending after its session was stored. In the same swap, as many
    /// other entries are marked to end as exceed the limit. So each of several concurrent logins
    /// sees those confirmed before it, and a login that is itself marked marks no others. Returns
    /// the marked members.
    async fn confirm(&self, entering: &Entering<'_>) -> Result<Vec<String>> {
        let limit = entering.limit.filter(|limit| limit.then == OverLimit::EndFirst);
        loop {
            let now = self.now().as_millis();
            let counts = |member: &Member| !member.d && member.p <= now;
            let (_, seen) = self.index(entering.index).await?;
            let mut before = if limit.is_some() { others(&seen, entering) } else { Vec::new() };
            before.retain(counts);
            let current = self.current(before).await?;
            let surplus = limit.and_then(|limit| limit.surplus(current.len())).unwrap_or(0);
            let confirmed = self.change(entering.index, |index| {
                let come =
                    |member: &Member| counts(member) && !seen.0.iter().any(|old| old.k == member.k && counts(old));
                // The members have changed since they were counted.
                if limit.is_some() && others(index, entering).iter().any(come) {
                    return None;
                }
                let own = index.0.iter_mut().find(|member| member.k == entering.member);
                if let Some(own) = own.filter(|own| !own.d) {
                    own.p = 0;
                    let ending: Vec<&str> = current.iter().take(surplus).map(|member| member.k.as_str()).collect();
                    index.0.iter_mut().for_each(|member| member.d |= ending.contains(&member.k.as_str()));
                }
                // Includes members that another login has marked but not ended yet.
                let marked = index.0.iter().filter(|member| member.d && member.k != entering.member);
                Some(marked.map(|member| member.k.clone()).collect())
            });
            if let Some(marked) = confirmed.await? {
                return Ok(marked);
            }
        }
    }

    /// Confirms the entry of a stored session, and ends the sessions that exceed the limit. Returns
    /// the ended members.
    async fn settle(&self, entering: &Entering<'_>) -> Result<Vec<String>> {
        let marked = self.confirm(entering).await?;
        let mut ended = Vec::new();
        for key in &marked {
            if self.take_away(key).await? {
                ended.push(key.clone());
            }
        }
        let leaves = entering.leaves.filter(|(index, _)| *index == entering.index).map(|(_, member)| member);
        self.change(entering.index, |index| {
            index.0.retain(|member| Some(member.k.as_str()) != leaves && !marked.contains(&member.k));
            Some(())
        })
        .await?;
        if let Some((index, member)) = entering.leaves.filter(|(index, _)| *index != entering.index) {
            self.index_remove(index, &[member.to_owned()]).await?;
        }
        Ok(ended)
    }

    async fn enter_all(&self, entering: Entering<'_>) -> Result<Entered> {
        let Some(is_new) = self.reserve(&entering).await? else { return Ok(Entered::Full) };
        let (key, bytes, expiry) = (entering.key, entering.bytes.as_ref(), entering.expiry);
        let entered = match entering.over {
            None if self.make(key, bytes, expiry).await? => None,
            None => Some(Entered::Taken),
            Some((from, expected)) if from == key => match self.exchange(key, expected, bytes, expiry).await? {
                Swapped::Done => None,
                Swapped::Conflict(found) => Some(Entered::Conflict(found)),
                Swapped::Gone => Some(Entered::Gone),
            },
            Some((from, expected)) => {
                match self.take_place((from, expected), (key, bytes), expiry, entering.mark).await? {
                    Moved::Done => None,
                    Moved::Conflict(found) => Some(Entered::Conflict(found)),
                    Moved::Gone => Some(Entered::Gone),
                    Moved::Taken => Some(Entered::Taken),
                }
            }
        };
        if let Some(not_done) = entered {
            if is_new {
                let withdrawn = self.change(entering.index, |index| {
                    index.0.retain(|member| member.k != entering.member || member.p == 0);
                    Some(())
                });
                // If this fails, the entry expires by itself.
                drop(withdrawn.await);
            }
            return Ok(not_done);
        }
        if entering.over.is_none() {
            self.leave(entering.mark).await?;
        }
        for key in entering.deletes {
            self.take_away(key).await?;
        }
        // The session is stored and in the index. The next look at the list completes the rest.
        Ok(Entered::Done(self.settle(&entering).await.unwrap_or_default()))
    }
}

impl Index {
    fn has(&self, key: &str) -> bool {
        self.0.iter().any(|member| member.k == key)
    }

    /// Inserts a member, ordered by end.
    fn enter(&mut self, member: Member) {
        self.0.retain(|other| other.k != member.k);
        let at = self.0.partition_point(|other| other.e <= member.e);
        self.0.insert(at, member);
    }
}

/// Returns all members but the entering one and the one it replaces.
fn others(index: &Index, entering: &Entering<'_>) -> Vec<Member> {
    let leaves = |member: &str| entering.leaves == Some((entering.index, member));
    let others = index.0.iter().filter(|member| member.k != entering.member && !leaves(&member.k));
    others.cloned().collect()
}

impl<S: SessionStore> CellStore for CustomStore<S> {
    fn now(&self) -> Timestamp {
        self.host.now()
    }

    fn reads_synchronously(&self) -> bool {
        false
    }

    fn lists(&self) -> bool {
        false
    }

    fn load<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Loaded>>> {
        Box::pin(self.get(key))
    }

    fn create<'a>(&'a self, key: &'a str, bytes: Bytes, expiry: Option<Expiry>) -> BoxFuture<'a, Result<bool>> {
        Box::pin(async move { self.make(key, &bytes, expiry).await })
    }

    fn swap<'a>(
        &'a self,
        key: &'a str,
        expected: Bytes,
        bytes: Bytes,
        expiry: Option<Expiry>,
    ) -> BoxFuture<'a, Result<Swapped>> {
        Box::pin(async move { self.exchange(key, &expected, &bytes, expiry).await })
    }

    fn expire<'a>(&'a self, key: &'a str, expiry: Option<Expiry>) -> BoxFuture<'a, Result<bool>> {
        Box::pin(async move {
            match expiry {
                Some(expiry) => self.prolong(key, expiry).await,
                None => Err(cannot("remove an expiry")),
            }
        })
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<bool>> {
        Box::pin(self.take_away(key))
    }

    fn load_marked<'a>(&'a self, key: &'a str, mark: &'a str) -> BoxFuture<'a, Result<(Option<Loaded>, bool)>> {
        // The mark is read second, because it is written first when a session ends.
        Box::pin(async move { Ok((self.get(key).await?, self.get(mark).await?.is_some())) })
    }

    fn delete_marked<'a>(&'a self, key: &'a str, mark: Tombstone<'a>) -> BoxFuture<'a, Result<bool>> {
        Box::pin(self.end(key, Some(mark)))
    }

    fn replace<'a>(&'a self, replacing: Replacing<'a>) -> BoxFuture<'a, Result<Replaced>> {
        let Replacing { old, expected, key, bytes, expiry, mark } = replacing;
        Box::pin(async move {
            Ok(match self.take_place((old, expected), (key, bytes), expiry, mark).await? {
                Moved::Done => Replaced::Done,
                Moved::Conflict(_) => Replaced::Conflict,
                Moved::Gone => Replaced::Gone,
                Moved::Taken => Replaced::Taken,
            })
        })
    }

    fn enter<'a>(&'a self, entering: Entering<'a>) -> BoxFuture<'a, Result<Entered>> {
        Box::pin(self.enter_all(entering))
    }

    fn index_members<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Vec<(String, Timestamp)>>> {
        Box::pin(async move {
            let (_, index) = self.index(key).await?;
            let now = self.now().as_millis();
            let members = index.0.into_iter().filter(|member| now < member.e);
            Ok(members.map(|member| (member.k, Timestamp::from_millis(member.e))).collect())
        })
    }

    fn index_put<'a>(&'a self, key: &'a str, member: &'a str, lasts: Expiry) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let ends = self.now().plus(lasts).as_millis();
            let put = |index: &mut Index| {
                index.enter(Member { k: member.to_owned(), e: ends, p: 0, d: false });
                Some(())
            };
            self.change(key, put).await.map(drop)
        })
    }

    /// Keeps members whose session may still be about to be stored.
    fn index_remove<'a>(&'a self, key: &'a str, members: &'a [String]) -> BoxFuture<'a, Result<u64>> {
        Box::pin(async move {
            let now = self.now().as_millis();
            let removed = self.change(key, |index| {
                let before = index.0.len();
                index.0.retain(|member| now < member.p || !members.contains(&member.k));
                Some(before.saturating_sub(index.0.len()) as u64)
            });
            Ok(removed.await?.unwrap_or_default())
        })
    }

    fn list<'a>(&'a self, _prefix: &'a str, _kind: Kind, _from: u64) -> BoxFuture<'a, Result<(Vec<String>, u64)>> {
        Box::pin(std::future::ready(Err(cannot("list its keys"))))
    }
}

fn failed(step: &'static str, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(ErrorKind::Unavailable, step).source(error)
}

fn cannot(what: &str) -> Error {
    Error::new(ErrorKind::Refused, "session").detail(format!("a store given by `SessionBuilder::store` cannot {what}"))
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde requires")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}
