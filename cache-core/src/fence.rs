//! Write fences: nothing is stored from before a write that is under way.
//!
//! ```text
//! raise ── the entries and tags hold a fence: nobody fills them, each caller computes for itself
//!   write, commit
//! lift  ── the fence goes, and with it whatever came under it
//! ```
//!
//! Invariant: between the return of `raise` and that of `lift`, or the time limit, no reader stores a fenced entry; and what a
//! reader loaded before the commit is not served after `lift` has returned (R22).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::future::try_join_all;

use crate::cache::{Cache, Inner};
use crate::entry::{CachedEntry, EntryKey};
use crate::error::Result;
use crate::sabotage::{self, Guard};
use crate::store::Token;
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
}

impl FenceBuilder {
    pub(crate) fn new(cache: Cache) -> Self {
        Self { cache, on: On::default(), limit: LIMIT }
    }

    /// An entry that the write changes. It has to be an entry of this cache.
    pub fn entry<R>(mut self, entry: &CachedEntry<R>) -> Self {
        self.on.entries.push(entry.plan_key().clone());
        self
    }

    /// A tag whose entries the write changes.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.on.tags.push(tag.into());
        self
    }

    /// How long the fence stands if nobody lifts it, because its holder has died: longer than the write takes. Default: 30 s.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Raises it: ends what is stored and what is being computed, and lets nothing be stored until it is lifted. To be called before the
    /// write. Callers go on getting values: each computes its own.
    ///
    /// Two round trips for entries, one for tags. If the call is dropped or fails, the fence is lifted in the background.
    ///
    /// # Errors
    /// Faults of the store: then nothing may be fenced.
    pub async fn raise(self) -> Result<Fence> {
        let Self { cache, on, limit } = self;
        let inner = Arc::clone(&cache.0);
        // Made before the first request: dropped while that is under way, some of it may stand.
        let fence = Fence { inner: Some(inner), on: Arc::new(on) };
        raise(&cache.0, &fence.on, limit).await?;
        Ok(fence)
    }
}

/// A fence that stands. Dropped, it is lifted in the background.
#[must_use = "a fence that is dropped is lifted"]
pub struct Fence {
    inner: Option<Arc<Inner>>,
    on: Arc<On>,
}

impl Fence {
    /// Lifts it, after the commit. What was stored or begun under it ends: once this has returned, no value from before the commit is
    /// served by this process, and by others as soon as they are told.
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

async fn raise(inner: &Inner, on: &On, limit: Duration) -> Result<()> {
    let mark = bytes::Bytes::from(Token::random().fence());
    let entries = on.entries.iter().map(|key| inner.detached(key, inner.builds.fence(inner, key, mark.clone(), limit)));
    let keys = tag::keys_of_tags(&inner.namespace, &on.tags);
    let tags = inner.forgetting(&keys, async {
        // The kinds first, and new: a run that has not told its tags yet stores nothing.
        let (kinds, tags) = keys.split_at(keys.len().saturating_sub(on.tags.len()));
        if !kinds.is_empty() {
            inner.store.renew_versions(kinds).await?;
        }
        if sabotage::is(Guard::FenceRefusesFills) {
            return inner.store.renew_versions(tags).await;
        }
        try_join_all(tags.iter().map(|tag| inner.store.put(tag, mark.clone(), Some(limit)))).await.map(drop)
    });
    futures::future::try_join(try_join_all(entries), tags).await.map(drop)
}

/// Also where the fence's time has ended, and something was stored since.
async fn lift(inner: &Inner, on: &On) -> Result<()> {
    let entries = on.entries.iter().map(|key| inner.detached(key, inner.builds.remove(inner, key)));
    let keys = tag::keys_of_tags(&inner.namespace, &on.tags);
    let tags = async { if keys.is_empty() { Ok(()) } else { inner.renew_versions(&keys).await } };
    futures::future::try_join(try_join_all(entries), tags).await.map(drop)
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
