//! Write fences: while a write is in progress, no value from before the write is stored.
//!
//! ```text
//! raise ── the entries and tags are fenced: no fills, each caller computes its own value
//!   write
//!   ├─ committed ──> lift: removes the fence and all values from before it and under it
//!   └─ rolled back ─> withdraw: removes the fence; what was stored before it is served again
//! ```
//!
//! Invariant: between the return of `raise` and the end of the fence (or its time limit), no reader
//! stores a fenced entry. What a reader loaded before the commit is not served after `lift` has
//! returned (R22). Fences of several writers coexist, each with its own token; none ends another
//! (R27). The value that the last `withdraw` brings back was not replaced in the meantime: at every
//! moment at least one fence covered it, and each of those fences was withdrawn.

use std::collections::HashSet;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::future::try_join_all;

use crate::cache::Cache;
use crate::engine::Engine;
use crate::entry::CachedEntry;
use crate::error::{ErrorKind, Result};
use crate::key::EntryKey;
use crate::mutants::{self, Invariant};
use crate::observe::events::Event;
use crate::observe::history::HistoryEvent;
use crate::store::{Operation, Token};
use crate::versions::keys;

/// How long a fence stays raised after its holder has died.
const LIMIT: Duration = Duration::from_secs(30);
/// How many entries are fenced concurrently.
const AT_A_TIME: usize = 64;

impl Cache {
    /// Returns a builder for a write fence around a transaction. Raise the fence before the write
    /// and lift it after the commit. In between, no reader stores a value from before the write.
    ///
    /// ```
    /// # use cache_core::{Cache, cached};
    /// # #[cached] async fn user(id: u64) -> u64 { id }
    /// # async fn write() -> Result<(), cache_core::Error> { Ok(()) }
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let fence = Cache::global().fence().entry(&user::entry(7)).tag("users").raise().await?;
    /// write().await?; // begin, update, commit
    /// fence.lift().await?;
    /// # Ok::<(), cache_core::Error>(())
    /// # }).unwrap();
    /// ```
    pub fn fence(&self) -> FenceBuilder {
        FenceBuilder::new(self.clone())
    }
}

/// The entries and tags to fence, from [`Cache::fence`].
#[must_use = "nothing is fenced before `raise`"]
pub struct FenceBuilder {
    cache: Cache,
    on: On,
    /// The keys and tags already added, to skip duplicates.
    entries: HashSet<Arc<str>>,
    tags: HashSet<String>,
    limit: Duration,
}

#[derive(Default)]
struct On {
    entries: Vec<EntryKey>,
    tags: Vec<String>,
    /// The versions of whole functions. They are not fenced, but renewed when the fence is lifted.
    functions: Vec<Arc<str>>,
}

impl FenceBuilder {
    pub(crate) fn new(cache: Cache) -> Self {
        Self { cache, on: On::default(), entries: HashSet::new(), tags: HashSet::new(), limit: LIMIT }
    }

    /// Adds an entry that the write changes. It must be an entry of this cache.
    pub fn entry<R>(mut self, entry: &CachedEntry<R>) -> Self {
        let key = entry.plan_key();
        if self.entries.insert(Arc::clone(&key.value_key)) {
            self.on.entries.push(key.clone());
        }
        self
    }

    /// Adds a tag whose entries the write changes.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        let tag = tag.into();
        if self.tags.insert(tag.clone()) {
            self.on.tags.push(tag);
        }
        self
    }

    /// Adds a function whose entries are all invalidated when the fence is lifted.
    pub(crate) fn function(mut self, name: &str) -> Self {
        self.on.functions.push(keys::function_key(&self.cache.0.namespace, name).into());
        self
    }

    /// Sets when the fence ends by itself if its holder dies before lifting it. Must be longer than
    /// the write takes. Default: 30 s.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    pub(crate) fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Raises the fence. Call it before the write.
    ///
    /// What is stored under the entries and tags is no longer served, and what is being computed is
    /// not stored. Nothing can be stored until the fence is lifted. Callers still get values: each
    /// computes its own.
    ///
    /// One round trip; entries and tags are sent at the same time. If the call is dropped or fails,
    /// the fence is lifted as soon as the store can be reached.
    ///
    /// # Errors
    /// Store errors: the fence may then be missing or incomplete, so do not write.
    pub async fn raise(self) -> Result<Fence> {
        let was_available = self.cache.0.store.is_available();
        let (mut fence, raised) = self.try_raise().await;
        if let Err(error) = &raised
            && error.kind() == ErrorKind::Unavailable
            && !was_available
            && !error.may_have_happened()
        {
            // Nothing was sent, and the caller does not write: there is nothing to lift.
            fence.engine = None;
        }
        raised.map(|()| fence)
    }

    /// Runs a write behind the fence: raises it, awaits `write`, and lifts it.
    ///
    /// The fence is lifted whatever `write` returns, since an error of a commit does not say
    /// whether it happened. Where it certainly did not, [`raise`](Self::raise) and
    /// [`withdraw`](Fence::withdraw) keep what was stored.
    ///
    /// `write` runs even if the store cannot be reached: an event says so, and everything that the
    /// fence covers is invalidated after `write`, or before the next connection is used, as long as
    /// this process lives. Until then a reader may store the row from before the write.
    ///
    /// Two round trips. If the call is dropped, the fence is lifted as soon as the store can be
    /// reached.
    ///
    /// # Errors
    /// Those of `write`.
    pub async fn around<T, E>(self, write: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let engine = Arc::clone(&self.cache.0);
        let (fence, raised) = self.try_raise().await;
        if let Err(error) = raised {
            engine.store_failed(&error);
        }
        let written = write.await;
        // A lift that fails is repeated when the fence is dropped.
        if let Err(error) = fence.lift().await {
            engine.store_failed(&error);
        }
        written
    }

    /// Like [`raise`](Self::raise), but also returns the fence on failure, since it may be raised
    /// in part. Such a fence can only be lifted.
    pub(crate) async fn try_raise(self) -> (Fence, Result<()>) {
        let Self { cache, on, limit, .. } = self;
        // Made before the first request: if the call is dropped during the request, the fence may
        // be raised in part.
        let token = Token::random();
        let mut fence = Fence { engine: Some(Arc::clone(&cache.0)), on: Arc::new(on), token, raised: None };
        let raised = raise(&cache.0, &fence.on, token, limit).await.map(|raised| fence.raised = Some(raised));
        (fence, raised)
    }
}

/// A raised fence. If it is dropped, it is lifted as soon as the store can be reached, from any
/// thread.
#[must_use = "a fence that is dropped is lifted"]
pub struct Fence {
    engine: Option<Arc<Engine>>,
    on: Arc<On>,
    token: Token,
    /// `None` if it may be raised only in part.
    raised: Option<Raised>,
}

/// The fenced keys of each entry, one per build.
struct Raised(Vec<Vec<String>>);

impl Fence {
    /// Lifts the fence. Call it after the commit.
    ///
    /// What was stored before the fence, or begun under it, is invalidated. Once this has returned,
    /// this process serves no value from before the commit; other processes follow as soon as they
    /// are notified.
    ///
    /// One round trip. If the call is dropped or fails, everything the fence covered is invalidated
    /// as soon as the store can be reached again, as long as this process lives.
    ///
    /// # Errors
    /// Store errors: values are then computed without being stored until the store can be reached
    /// again, or the fence's time limit ends.
    pub async fn lift(mut self) -> Result<()> {
        let Some(engine) = self.engine.clone() else { return Ok(()) };
        lift(&engine, &self.on, self.token).await?;
        // Cleared only now: a lift that is dropped half-way is repeated.
        self.engine = None;
        Ok(())
    }

    /// Removes the fence after a write that did not happen. Entries and tags are served again as
    /// before the fence, with the ttl they have left. What others have invalidated, set or fenced
    /// in the meantime stays as it is, and so does what the fence's time limit has ended.
    ///
    /// Do not call this if the write may have happened, for example after an error during the
    /// commit; call [`lift`](Self::lift) instead.
    ///
    /// One round trip. If the call is dropped or fails, the fence is lifted as soon as the store
    /// can be reached.
    ///
    /// # Errors
    /// Store errors: entries may then be misses, or be computed without being stored until the
    /// fence's time limit ends.
    pub async fn withdraw(mut self) -> Result<()> {
        let Some(engine) = self.engine.clone() else { return Ok(()) };
        match &self.raised {
            Some(raised) => withdraw(&engine, &self.on, self.token, raised).await?,
            None => lift(&engine, &self.on, self.token).await?,
        }
        self.engine = None;
        Ok(())
    }
}

impl Drop for Fence {
    fn drop(&mut self) {
        // After the shutdown, the fence ends by its time limit.
        if let Some(engine) = self.engine.take() {
            lift_later(&engine, &self.on, self.token);
        }
    }
}

async fn raise(engine: &Engine, on: &On, token: Token, limit: Duration) -> Result<Raised> {
    let entries = on.entries.iter().map(|key| engine.detached(key, engine.builds.raise(key, token, limit)));
    let keys = keys::keys_of_tags(&engine.namespace, &on.tags);
    // The kinds too: a run whose tags are not known yet must not store anything.
    let (kinds, tags) = kinds_and_tags(&keys, on);
    let tags = engine.versions.forgetting(&keys, async {
        if mutants::removed(Invariant::FenceRefusesFills) {
            return engine.store.renew_versions(&keys).await;
        }
        if !tags.is_empty() && engine.store.fence_versions(token, limit, kinds, tags).await? {
            engine.events.emit(Event::TooManyFences { name: None });
        }
        tags.iter().for_each(|tag| engine.history.note(tag, HistoryEvent::FenceRaised));
        Ok(())
    });
    let (entries, ()) = futures::future::try_join(few_at_a_time(entries), tags).await?;
    Ok(Raised(entries))
}

/// Lifts the fence. Also correct if the fence's time limit has ended and something was stored
/// since.
async fn lift(engine: &Engine, on: &On, token: Token) -> Result<()> {
    let entries = on.entries.iter().map(|key| engine.detached(key, engine.builds.lift(key, token)));
    let keys = keys::keys_of_tags(&engine.namespace, &on.tags);
    let (kinds, tags) = kinds_and_tags(&keys, on);
    // The kinds before the tags, as in every invalidation of tags.
    let renewed = if mutants::removed(Invariant::LiftRenewsKinds) { &[] } else { kinds };
    let versions: Vec<Arc<str>> = renewed.iter().chain(&on.functions).cloned().collect();
    let all: Vec<Arc<str>> = versions.iter().chain(tags).cloned().collect();
    let tags = async {
        if all.is_empty() {
            return Ok(());
        }
        let lifted =
            engine.versions.forgetting(&all, async { engine.store.lift_versions(token, &versions, tags).await }).await;
        engine.versions.note_invalidated(&all, &lifted);
        lifted
    };
    futures::future::try_join(few_at_a_time(entries), tags).await.map(drop)
}

/// Does what [`lift`] does, as soon as the store can be reached.
fn lift_later(engine: &Engine, on: &On, token: Token) {
    for key in &on.entries {
        engine.forget(key);
        engine.store.later(Operation::Remove(engine.builds.removal(key, Some(token))));
    }
    let keys = keys::keys_of_tags(&engine.namespace, &on.tags);
    let (kinds, tags) = kinds_and_tags(&keys, on);
    let versions: Vec<Arc<str>> = kinds.iter().chain(&on.functions).cloned().collect();
    let all: Vec<Arc<str>> = versions.iter().chain(tags).cloned().collect();
    if !all.is_empty() {
        engine.versions.forget(&all);
        engine.store.later(match tags {
            [] => Operation::Renew(versions),
            tags => Operation::Lift(token, versions, tags.to_vec()),
        });
    }
}

async fn withdraw(engine: &Engine, on: &On, token: Token, Raised(fenced): &Raised) -> Result<()> {
    let entries = on.entries.iter().zip(fenced);
    let entries = entries.map(|(key, fenced)| engine.detached(key, engine.builds.withdraw(key, token, fenced)));
    let keys = keys::keys_of_tags(&engine.namespace, &on.tags);
    // The kinds are renewed here as well: what was computed under the fence may have seen the
    // write, so it must not be stored after the fence either.
    let (kinds, tags) = kinds_and_tags(&keys, on);
    let tags = engine.versions.forgetting(&keys, async {
        if tags.is_empty() { Ok(()) } else { engine.store.withdraw_versions(token, kinds, tags).await }
    });
    futures::future::try_join(few_at_a_time(entries), tags).await.map(drop)
}

/// Awaits all futures like `try_join_all`, in chunks: all at once would fill the connection's
/// queue.
async fn few_at_a_time<T>(mut all: impl Iterator<Item = impl Future<Output = Result<T>>>) -> Result<Vec<T>> {
    let mut done = Vec::new();
    loop {
        let some = try_join_all(all.by_ref().take(AT_A_TIME)).await?;
        if some.is_empty() {
            return Ok(done);
        }
        done.extend(some);
    }
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
