//! Write fences: nothing is stored from before a write that is under way.
//!
//! ```text
//! raise ── the entries and tags hold a fence: nobody fills them, each caller computes for itself
//!   write
//!   ├─ it happened (commit) ──> lift: the fence goes, and with it what stood before it and whatever came under it
//!   └─ it did not (rollback) ─> withdraw: the fence goes, and what stood before it stands again
//! ```
//!
//! Invariant: between the return of `raise` and an end, or the time limit, no reader stores a fenced entry; and what a
//! reader loaded before the commit is not served after `lift` has returned (R22). What `withdraw` brings back, nothing has replaced
//! meanwhile: the fence's own token stood in its place from first to last.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::future::try_join_all;

use crate::cache::{Cache, Inner};
use crate::entry::{CachedEntry, EntryKey};
use crate::error::Result;
use crate::history::What;
use crate::sabotage::{self, Guard};
use crate::store::{Fenced, Token, Version};
use crate::tag;

/// How long a fence stands whose holder has died.
const LIMIT: Duration = Duration::from_secs(30);

/// What a fence is to stand on, from [`Cache::fence`].
#[must_use = "nothing is fenced before `raise`"]
pub struct FenceBuilder {
    cache: Cache,
    on: On,
    limit: Duration,
}

#[derive(Default)]
struct On {
    entries: Vec<EntryKey>,
    tags: Vec<String>,
    /// The versions of whole functions: not fenced, and renewed when it is lifted.
    functions: Vec<Arc<str>>,
}

impl FenceBuilder {
    pub(crate) fn new(cache: Cache) -> Self {
        Self { cache, on: On::default(), limit: LIMIT }
    }

    /// An entry that the write changes. It has to be an entry of this cache.
    pub fn entry<R>(mut self, entry: &CachedEntry<R>) -> Self {
        let key = entry.plan_key();
        // Raised twice, the second would find the first in the record's place.
        if self.on.entries.iter().all(|known| known.value_key != key.value_key) {
            self.on.entries.push(key.clone());
        }
        self
    }

    /// A tag whose entries the write changes.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        let tag = tag.into();
        if !self.on.tags.contains(&tag) {
            self.on.tags.push(tag);
        }
        self
    }

    /// A function all of whose entries end when the fence is lifted.
    pub(crate) fn function(mut self, name: &str) -> Self {
        self.on.functions.push(tag::function_key(&self.cache.0.namespace, name).into());
        self
    }

    /// How long the fence stands if nobody lifts it, because its holder has died: longer than the write takes. Default: 30 s.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    pub(crate) fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Raises it: what is stored is out of sight, what is being computed is not stored, and nothing can be until it is lifted. To be called
    /// before the write. Callers go on getting values: each computes its own.
    ///
    /// One round trip, for entries and for tags at the same time. If the call is dropped or fails, the fence is lifted in the background.
    ///
    /// # Errors
    /// Faults of the store: then nothing may be fenced.
    pub async fn raise(self) -> Result<Fence> {
        let (fence, raised) = self.try_raise().await;
        raised.map(|()| fence)
    }

    /// As [`raise`](Self::raise), and if that fails, the fence that may stand in part. It can only be lifted.
    pub(crate) async fn try_raise(self) -> (Fence, Result<()>) {
        let Self { cache, on, limit } = self;
        // Made before the first request: dropped while that is under way, some of it may stand.
        let mut fence = Fence { inner: Some(Arc::clone(&cache.0)), on: Arc::new(on), raised: None };
        let raised = raise(&cache.0, &fence.on, limit).await.map(|raised| fence.raised = Some(raised));
        (fence, raised)
    }
}

/// A fence that stands. Dropped, it is lifted in the background.
#[must_use = "a fence that is dropped is lifted"]
pub struct Fence {
    inner: Option<Arc<Inner>>,
    on: Arc<On>,
    /// `None`: it may stand in part.
    raised: Option<Raised>,
}

/// A fence as it was raised, with what stood in its places.
struct Raised {
    token: Token,
    entries: Vec<Vec<Fenced>>,
    tags: Vec<Option<Version>>,
}

impl Fence {
    /// Lifts it, after the commit. What was stored before or begun under it ends: once this has returned, no value from before the
    /// commit is served by this process, and by others as soon as they are told.
    ///
    /// One round trip. If the call is dropped or fails as unavailable, the fence stands for the rest of its time at most.
    ///
    /// # Errors
    /// Faults of the store: then values may be computed without being stored, until the fence's time ends.
    pub async fn lift(mut self) -> Result<()> {
        let Some(inner) = self.inner.clone() else { return Ok(()) };
        lift(&inner, &self.on).await?;
        // Only now: a lift that is dropped half way is done again in the background.
        self.inner = None;
        Ok(())
    }

    /// Takes it away after a write that did not happen: entries and tags are served again as they stood before it, with the ttl they have
    /// left. What was invalidated, set or fenced by others since then, and what the fence's time has ended, stays as it is.
    ///
    /// Not to be called if the write may have happened, as after an error while it was committed: then [`lift`](Self::lift) is right.
    ///
    /// One round trip. If the call is dropped or fails, the fence is lifted in the background.
    ///
    /// # Errors
    /// Faults of the store: then entries may be misses, or computed without being stored until the fence's time ends.
    pub async fn withdraw(mut self) -> Result<()> {
        let Some(inner) = self.inner.clone() else { return Ok(()) };
        match &self.raised {
            Some(raised) => withdraw(&inner, &self.on, raised).await?,
            None => lift(&inner, &self.on).await?,
        }
        self.inner = None;
        Ok(())
    }
}

impl Drop for Fence {
    fn drop(&mut self) {
        let Some(inner) = self.inner.take() else { return };
        let on = Arc::clone(&self.on);
        let of_task = Arc::clone(&inner);
        // Outside a runtime or after the shutdown nobody can: then its time ends by itself.
        let _spawned = inner.background.work(async move {
            if let Err(error) = lift(&of_task, &on).await {
                of_task.store_failed(&error);
            }
        });
    }
}

async fn raise(inner: &Inner, on: &On, limit: Duration) -> Result<Raised> {
    let token = Token::random();
    let entries = on.entries.iter().map(|key| inner.detached(key, inner.builds.raise(inner, key, token, limit)));
    let keys = tag::keys_of_tags(&inner.namespace, &on.tags);
    // The kinds, too: a run that has not told its tags yet stores nothing.
    let (kinds, tags) = kinds_and_tags(&keys, on);
    let tags = inner.forgetting(&keys, async {
        if sabotage::is(Guard::FenceRefusesFills) {
            return inner.store.renew_versions(&keys).await.map(|()| Vec::new());
        }
        let raised =
            if tags.is_empty() { Vec::new() } else { inner.store.fence_versions(token, limit, kinds, tags).await? };
        tags.iter().for_each(|tag| inner.history.note(tag, What::FenceRaised));
        Ok(raised)
    });
    let (entries, tags) = futures::future::try_join(try_join_all(entries), tags).await?;
    Ok(Raised { token, entries, tags })
}

/// Also where the fence's time has ended, and something was stored since.
async fn lift(inner: &Inner, on: &On) -> Result<()> {
    let entries = on.entries.iter().map(|key| inner.detached(key, inner.builds.lift(inner, key)));
    let mut keys = tag::keys_of_tags(&inner.namespace, &on.tags);
    keys.extend(on.functions.iter().cloned());
    let tags = async { if keys.is_empty() { Ok(()) } else { inner.renew_versions(&keys).await } };
    futures::future::try_join(try_join_all(entries), tags).await.map(drop)
}

async fn withdraw(inner: &Inner, on: &On, raised: &Raised) -> Result<()> {
    let entries = on.entries.iter().zip(&raised.entries);
    let entries =
        entries.map(|(key, fenced)| inner.detached(key, inner.builds.withdraw(inner, key, raised.token, fenced)));
    let keys = tag::keys_of_tags(&inner.namespace, &on.tags);
    // The kinds are new again: what was computed under the fence may have seen the write, and is not stored after it either.
    let (kinds, tags) = kinds_and_tags(&keys, on);
    // Where nothing stood, or somebody else's fence, there is nothing to return to.
    let before = raised.tags.iter().map(|before| before.unwrap_or_else(Version::random));
    let tags: Vec<(Arc<str>, Version)> = tags.iter().cloned().zip(before).collect();
    let tags = inner.forgetting(&keys, async {
        if tags.is_empty() { Ok(()) } else { inner.store.withdraw_versions(raised.token, kinds, &tags).await }
    });
    futures::future::try_join(try_join_all(entries), tags).await.map(drop)
}

fn kinds_and_tags<'a>(keys: &'a [Arc<str>], on: &On) -> (&'a [Arc<str>], &'a [Arc<str>]) {
    keys.split_at(keys.len().saturating_sub(on.tags.len()))
}

impl fmt::Debug for FenceBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FenceBuilder")
            .field("entries", &self.on.entries)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fence").field("entries", &self.on.entries).finish_non_exhaustive()
    }
}
