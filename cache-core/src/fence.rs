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
//! reader loaded before the commit is not served after `lift` has returned (R22). Fences of several writers stand side by side, each with
//! its token: none ends another (R27). What the last `withdraw` brings back, nothing has replaced meanwhile: one of them stood in its
//! place at any time, and each was withdrawn.

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
use crate::events::Event;
use crate::history::What;
use crate::key::EntryKey;
use crate::sabotage::{self, Guard};
use crate::store::{Operation, Token};
use crate::tag;

/// How long a fence stands whose holder has died.
const LIMIT: Duration = Duration::from_secs(30);
/// How many entries are fenced at a time.
const AT_A_TIME: usize = 64;

impl Cache {
    /// A write fence, for a transaction: raised before the write, lifted after the commit, so that no reader stores the row from before.
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

/// What a fence is to stand on, from [`Cache::fence`].
#[must_use = "nothing is fenced before `raise`"]
pub struct FenceBuilder {
    cache: Cache,
    on: On,
    /// What it stands on already.
    entries: HashSet<Arc<str>>,
    tags: HashSet<String>,
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
        Self { cache, on: On::default(), entries: HashSet::new(), tags: HashSet::new(), limit: LIMIT }
    }

    /// An entry that the write changes. It has to be an entry of this cache.
    pub fn entry<R>(mut self, entry: &CachedEntry<R>) -> Self {
        let key = entry.plan_key();
        if self.entries.insert(Arc::clone(&key.value_key)) {
            self.on.entries.push(key.clone());
        }
        self
    }

    /// A tag whose entries the write changes.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        let tag = tag.into();
        if self.tags.insert(tag.clone()) {
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
    /// One round trip, for entries and for tags at the same time. If the call is dropped or fails, the fence is lifted as soon as the store can be reached.
    ///
    /// # Errors
    /// Faults of the store: then nothing may be fenced.
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

    /// As [`raise`](Self::raise), and if that fails, the fence that may stand in part. It can only be lifted.
    pub(crate) async fn try_raise(self) -> (Fence, Result<()>) {
        let Self { cache, on, limit, .. } = self;
        // Made before the first request: dropped while that is under way, some of it may stand.
        let token = Token::random();
        let mut fence = Fence { engine: Some(Arc::clone(&cache.0)), on: Arc::new(on), token, raised: None };
        let raised = raise(&cache.0, &fence.on, token, limit).await.map(|raised| fence.raised = Some(raised));
        (fence, raised)
    }
}

/// A fence that stands. Dropped, it is lifted as soon as the store can be reached, from any thread.
#[must_use = "a fence that is dropped is lifted"]
pub struct Fence {
    engine: Option<Arc<Engine>>,
    on: Arc<On>,
    token: Token,
    /// `None`: it may stand in part.
    raised: Option<Raised>,
}

/// A fence as it was raised: the keys of each entry, in every build.
struct Raised(Vec<Vec<String>>);

impl Fence {
    /// Lifts it, after the commit. What was stored before or begun under it ends: once this has returned, no value from before the
    /// commit is served by this process, and by others as soon as they are told.
    ///
    /// One round trip. If the call is dropped or fails, what the fence covered is invalidated first thing when the store can be reached
    /// again, as long as this process lives.
    ///
    /// # Errors
    /// Faults of the store: then values are computed without being stored until the store can be reached again, or the fence's time ends.
    pub async fn lift(mut self) -> Result<()> {
        let Some(engine) = self.engine.clone() else { return Ok(()) };
        lift(&engine, &self.on, self.token).await?;
        // Only now: a lift that is dropped half way is done again.
        self.engine = None;
        Ok(())
    }

    /// Takes it away after a write that did not happen: entries and tags are served again as they stood before it, with the ttl they have
    /// left. What was invalidated, set or fenced by others since then, and what the fence's time has ended, stays as it is.
    ///
    /// Not to be called if the write may have happened, as after an error while it was committed: then [`lift`](Self::lift) is right.
    ///
    /// One round trip. If the call is dropped or fails, the fence is lifted as soon as the store can be reached.
    ///
    /// # Errors
    /// Faults of the store: then entries may be misses, or computed without being stored until the fence's time ends.
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
        // After the shutdown its time ends by itself.
        if let Some(engine) = self.engine.take() {
            lift_later(&engine, &self.on, self.token);
        }
    }
}

async fn raise(engine: &Engine, on: &On, token: Token, limit: Duration) -> Result<Raised> {
    let entries = on.entries.iter().map(|key| engine.detached(key, engine.builds.raise(key, token, limit)));
    let keys = tag::keys_of_tags(&engine.namespace, &on.tags);
    // The kinds, too: a run that has not told its tags yet stores nothing.
    let (kinds, tags) = kinds_and_tags(&keys, on);
    let tags = engine.versions.forgetting(&keys, async {
        if sabotage::is(Guard::FenceRefusesFills) {
            return engine.store.renew_versions(&keys).await;
        }
        if !tags.is_empty() && engine.store.fence_versions(token, limit, kinds, tags).await? {
            engine.events.emit(Event::TooManyFences { name: None });
        }
        tags.iter().for_each(|tag| engine.history.note(tag, What::FenceRaised));
        Ok(())
    });
    let (entries, ()) = futures::future::try_join(few_at_a_time(entries), tags).await?;
    Ok(Raised(entries))
}

/// Also where the fence's time has ended, and something was stored since.
async fn lift(engine: &Engine, on: &On, token: Token) -> Result<()> {
    let entries = on.entries.iter().map(|key| engine.detached(key, engine.builds.lift(key, token)));
    let keys = tag::keys_of_tags(&engine.namespace, &on.tags);
    let (kinds, tags) = kinds_and_tags(&keys, on);
    // The kinds before the tags, as with every invalidation of tags.
    let renewed = if sabotage::is(Guard::LiftRenewsKinds) { &[] } else { kinds };
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

/// As [`lift`], as soon as the store can be reached.
fn lift_later(engine: &Engine, on: &On, token: Token) {
    for key in &on.entries {
        engine.forget(key);
        engine.store.later(Operation::Remove(engine.builds.removal(key, Some(token))));
    }
    let keys = tag::keys_of_tags(&engine.namespace, &on.tags);
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
    let keys = tag::keys_of_tags(&engine.namespace, &on.tags);
    // The kinds are new again: what was computed under the fence may have seen the write, and is not stored after it either.
    let (kinds, tags) = kinds_and_tags(&keys, on);
    let tags = engine.versions.forgetting(&keys, async {
        if tags.is_empty() { Ok(()) } else { engine.store.withdraw_versions(token, kinds, tags).await }
    });
    futures::future::try_join(few_at_a_time(entries), tags).await.map(drop)
}

/// As `try_join_all`, for any number: all at once they would fill the connection's queue.
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
