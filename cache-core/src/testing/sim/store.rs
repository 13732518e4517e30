//! What a node sees of the simulated store.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::{self, BoxFuture};
use futures::stream::BoxStream;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::{LATE_MS, RESPONSE_TIMEOUT_MS, World, request};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::store::memory::MemoryStore;
use crate::store::{
    Acquired, Entered, Entering, Expiry, Fenced, Filled, Kind, Listener, Loaded, Mark, Message, Over, Raised, Replaced,
    SessionStore, Siblings, Slot, Store, Swapped, Token, Trust, Version, Versioned, Wake,
};

/// How long a waiter sleeps where too many wait already.
const POLL: Duration = Duration::from_millis(100);

/// One node's side of its link.
pub(super) struct SimStore {
    world: World,
    node: usize,
}

impl SimStore {
    pub(super) fn new(world: World, node: usize) -> Self {
        Self { world, node }
    }

    /// One trip: `run` is executed at the store when it arrives there, for this connection.
    async fn call<T: Send + 'static>(
        &self,
        step: &'static str,
        run: impl FnOnce(&World, &MemoryStore, usize) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let current = self.world.state().nodes[self.node].current;
        let Some(connection) = current else { return Err(unavailable(step)) };
        let (answer, answered) = oneshot::channel();
        let run = move |world: &World, store: &MemoryStore| run(world, store, connection);
        self.world.send(connection, step, request(run, answer));
        let answered = timeout(Duration::from_millis(RESPONSE_TIMEOUT_MS), answered).await;
        // The task is woken, and runs later: what follows the answer on the connection is handled before it.
        if self.world.draw(4) == 0 {
            self.world.pause(self.world.draw(LATE_MS)).await;
        }
        match answered {
            Ok(Ok(result)) => result,
            Ok(Err(_lost)) => Err(unavailable(step)),
            Err(_elapsed) => {
                self.world.check(connection);
                Err(unavailable(step))
            }
        }
    }

    /// A trip that does nothing but one operation of the embedded store.
    fn pass<'a, T: Send + 'static>(
        &'a self,
        step: &'static str,
        run: impl FnOnce(&MemoryStore) -> Result<T> + Send + 'static,
    ) -> BoxFuture<'a, Result<T>> {
        self.call(step, move |_, store, _| run(store)).boxed()
    }
}

/// The embedded store has every answer at once.
fn now<T>(answer: BoxFuture<'_, Result<T>>) -> Result<T> {
    answer.now_or_never().unwrap_or_else(|| Err(unavailable("simulated")))
}

fn unavailable(step: &'static str) -> Error {
    Error::new(ErrorKind::Unavailable, step)
}

/// What the simulation has no use for yet.
fn refused<T: Send + 'static>() -> BoxFuture<'static, Result<T>> {
    let refusal = Error::new(ErrorKind::Refused, "simulated").detail("the simulated store cannot do this");
    future::ready(Err(refusal)).boxed()
}

impl Store for SimStore {
    fn now(&self) -> Timestamp {
        self.world.0.clock.wall()
    }

    fn is_at_hand(&self) -> bool {
        false
    }

    fn read_now(&self, _key: &str) -> Option<Slot> {
        None
    }

    fn read<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Slot>> {
        let key = key.to_owned();
        self.pass("read", move |store| now(store.read(&key)))
    }

    fn read_tracked<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<(Slot, bool)>> {
        let key = key.to_owned();
        let run = move |world: &World, store: &MemoryStore, connection| {
            let slot = now(store.read(&key))?;
            world.track(&key, connection);
            Ok((slot, true))
        };
        self.call("tracked read", run).boxed()
    }

    fn read_versioned<'a>(&'a self, key: &'a str, versions: &'a [Arc<str>]) -> BoxFuture<'a, Result<Versioned>> {
        let (key, versions) = (key.to_owned(), versions.to_vec());
        let run = move |world: &World, store: &MemoryStore, connection| {
            let (slot, found, _) = now(store.read_versioned(&key, &versions))?;
            world.track(&key, connection);
            versions.iter().for_each(|version| world.track(version, connection));
            Ok((slot, found, true))
        };
        self.call("versioned read", run).boxed()
    }

    fn read_versions<'a>(
        &'a self,
        versions: &'a [Arc<str>],
        make: bool,
    ) -> BoxFuture<'a, Result<(Vec<Option<Version>>, bool)>> {
        let versions = versions.to_vec();
        let run = move |world: &World, store: &MemoryStore, connection| {
            let (found, _) = now(store.read_versions(&versions, make))?;
            versions.iter().for_each(|version| world.track(version, connection));
            Ok((found, true))
        };
        self.call("read of versions", run).boxed()
    }

    fn renew_versions<'a>(&'a self, versions: &'a [Arc<str>]) -> BoxFuture<'a, Result<()>> {
        let versions = versions.to_vec();
        self.pass("renewal of versions", move |store| now(store.renew_versions(&versions)))
    }

    fn listen(&self, listener: Weak<dyn Listener>) {
        self.world.state().nodes[self.node].pushes.listen(listener);
    }

    fn trust(&self) -> Arc<Trust> {
        Arc::clone(&self.world.state().nodes[self.node].trust)
    }

    fn read_and_watch<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<(Slot, Wake)>> {
        async move {
            let pushes = Arc::clone(&self.world.state().nodes[self.node].pushes);
            let waiter = pushes.register(key);
            let (slot, _) = self.read_tracked(key).await?;
            let wake = match waiter {
                Some(waiter) => waiter.boxed(),
                None => tokio::time::sleep(POLL).boxed(),
            };
            Ok((slot, wake))
        }
        .boxed()
    }

    fn acquire<'a>(
        &'a self,
        key: &'a str,
        token: Token,
        lease: Duration,
        over: Over,
    ) -> BoxFuture<'a, Result<Acquired>> {
        let key = key.to_owned();
        self.pass("acquire", move |store| now(store.acquire(&key, token, lease, over)))
    }

    fn acquire_in_place<'a>(
        &'a self,
        key: &'a str,
        token: Token,
        lease: Duration,
        fill_id: u64,
    ) -> BoxFuture<'a, Result<Acquired>> {
        let key = key.to_owned();
        self.pass("acquire in place", move |store| now(store.acquire_in_place(&key, token, lease, fill_id)))
    }

    fn fill<'a>(
        &'a self,
        key: &'a str,
        token: Token,
        over: Over,
        record: Bytes,
        expiry: Expiry,
    ) -> BoxFuture<'a, Result<Filled>> {
        let key = key.to_owned();
        let run = move |world: &World, store: &MemoryStore, connection| {
            let filled = now(store.fill(&key, token, over, record, expiry))?;
            // Now and then the read that registers the key is refused, or finds that somebody else has written.
            if filled == Filled::Tracked && world.draw(8) == 0 {
                return Ok(Filled::Stored);
            }
            if filled == Filled::Tracked {
                world.track(&key, connection);
            }
            Ok(filled)
        };
        self.call("fill", run).boxed()
    }

    fn renew<'a>(&'a self, key: &'a str, token: Token, over: Over, lease: Duration) -> BoxFuture<'a, Result<bool>> {
        let key = key.to_owned();
        self.pass("renew", move |store| now(store.renew(&key, token, over, lease)))
    }

    fn release<'a>(&'a self, key: &'a str, token: Token, over: Over) -> BoxFuture<'a, Result<()>> {
        let key = key.to_owned();
        self.pass("release", move |store| now(store.release(&key, token, over)))
    }

    fn rewrite_head<'a>(
        &'a self,
        key: &'a str,
        token: Token,
        fill_id: u64,
        head: Bytes,
        expiry: Expiry,
    ) -> BoxFuture<'a, Result<bool>> {
        let key = key.to_owned();
        self.pass("rewrite", move |store| now(store.rewrite_head(&key, token, fill_id, head, expiry)))
    }

    fn throttle<'a>(&'a self, key: &'a str, token: Token, throttle: Duration) -> BoxFuture<'a, Result<bool>> {
        let key = key.to_owned();
        self.pass("throttle", move |store| now(store.throttle(&key, token, throttle)))
    }

    fn discard<'a>(&'a self, key: &'a str, what: &'a Slot) -> BoxFuture<'a, Result<()>> {
        let (key, what) = (key.to_owned(), what.clone());
        self.pass("discard", move |store| now(store.discard(&key, &what)))
    }

    fn write<'a>(
        &'a self,
        key: &'a str,
        record: Bytes,
        expiry: Expiry,
        siblings: Siblings<'a>,
    ) -> BoxFuture<'a, Result<Vec<String>>> {
        let (key, keys, builds) = (key.to_owned(), siblings.keys.to_vec(), siblings.builds.to_owned());
        self.pass("write", move |store| {
            now(store.write(&key, record, expiry, Siblings { keys: &keys, builds: &builds }))
        })
    }

    fn remove<'a>(&'a self, siblings: Siblings<'a>) -> BoxFuture<'a, Result<Vec<String>>> {
        let (keys, builds) = (siblings.keys.to_vec(), siblings.builds.to_owned());
        self.pass("remove", move |store| now(store.remove(Siblings { keys: &keys, builds: &builds })))
    }

    fn raise<'a>(&'a self, fence: Token, limit: Expiry, siblings: Siblings<'a>) -> BoxFuture<'a, Result<Raised>> {
        let (keys, builds) = (siblings.keys.to_vec(), siblings.builds.to_owned());
        self.pass("fence", move |store| {
            now(Store::raise(store, fence, limit, Siblings { keys: &keys, builds: &builds }))
        })
    }

    fn withdraw<'a>(&'a self, fence: Token, fenced: &'a [Fenced]) -> BoxFuture<'a, Result<()>> {
        let fenced = fenced.to_vec();
        self.pass("withdrawal", move |store| now(Store::withdraw(store, fence, &fenced)))
    }

    fn fence_versions<'a>(
        &'a self,
        fence: Token,
        limit: Expiry,
        kinds: &'a [Arc<str>],
        tags: &'a [Arc<str>],
    ) -> BoxFuture<'a, Result<Vec<Option<Version>>>> {
        let (kinds, tags) = (kinds.to_vec(), tags.to_vec());
        self.pass("fence of versions", move |store| now(Store::fence_versions(store, fence, limit, &kinds, &tags)))
    }

    fn withdraw_versions<'a>(
        &'a self,
        fence: Token,
        kinds: &'a [Arc<str>],
        tags: &'a [(Arc<str>, Version)],
    ) -> BoxFuture<'a, Result<()>> {
        let (kinds, tags) = (kinds.to_vec(), tags.to_vec());
        self.pass("withdrawal of versions", move |store| now(Store::withdraw_versions(store, fence, &kinds, &tags)))
    }

    fn register_build<'a>(
        &'a self,
        builds: &'a str,
        fingerprint: &'a str,
        expiry: Expiry,
    ) -> BoxFuture<'a, Result<()>> {
        let (builds, fingerprint) = (builds.to_owned(), fingerprint.to_owned());
        self.pass("register", move |store| now(store.register_build(&builds, &fingerprint, expiry)))
    }

    fn load<'a>(&'a self, _key: &'a str) -> BoxFuture<'a, Result<Option<Loaded>>> {
        refused()
    }

    fn put<'a>(&'a self, key: &'a str, bytes: Bytes, expiry: Option<Expiry>) -> BoxFuture<'a, Result<()>> {
        let key = key.to_owned();
        self.pass("put", move |store| now(store.put(&key, bytes, expiry)))
    }

    fn create<'a>(&'a self, _key: &'a str, _bytes: Bytes, _expiry: Option<Expiry>) -> BoxFuture<'a, Result<bool>> {
        refused()
    }

    fn swap<'a>(
        &'a self,
        _key: &'a str,
        _old: Bytes,
        _new: Bytes,
        _expiry: Option<Expiry>,
    ) -> BoxFuture<'a, Result<Swapped>> {
        refused()
    }

    fn expire<'a>(&'a self, _key: &'a str, _expiry: Option<Expiry>) -> BoxFuture<'a, Result<bool>> {
        refused()
    }

    fn delete<'a>(&'a self, _key: &'a str) -> BoxFuture<'a, Result<bool>> {
        refused()
    }

    fn hash_set<'a>(&'a self, _key: &'a str, _fields: Vec<(String, Bytes)>) -> BoxFuture<'a, Result<()>> {
        refused()
    }

    fn hash_get<'a>(&'a self, _key: &'a str, _field: &'a str) -> BoxFuture<'a, Result<Option<Bytes>>> {
        refused()
    }

    fn hash_all<'a>(&'a self, _key: &'a str) -> BoxFuture<'a, Result<Vec<(String, Bytes)>>> {
        refused()
    }

    fn hash_keys<'a>(&'a self, _key: &'a str) -> BoxFuture<'a, Result<Vec<String>>> {
        refused()
    }

    fn hash_remove<'a>(&'a self, _key: &'a str, _fields: &'a [String]) -> BoxFuture<'a, Result<u64>> {
        refused()
    }

    fn publish<'a>(&'a self, _channel: &'a str, _message: Bytes) -> BoxFuture<'a, Result<u64>> {
        refused()
    }

    fn subscribe<'a>(&'a self, _channel: &'a str) -> BoxFuture<'a, Result<BoxStream<'static, Message>>> {
        refused()
    }

    fn is_available(&self) -> bool {
        self.world.state().nodes[self.node].current.is_some()
    }

    fn epoch(&self) -> u64 {
        self.world.state().nodes[self.node].epoch
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        future::ready(()).boxed()
    }
}

// The simulation has no sessions.
impl SessionStore for SimStore {
    fn load_marked<'a>(&'a self, _key: &'a str, _mark: &'a str) -> BoxFuture<'a, Result<(Option<Loaded>, bool)>> {
        refused()
    }

    fn delete_marked<'a>(&'a self, _key: &'a str, _mark: Mark<'a>) -> BoxFuture<'a, Result<bool>> {
        refused()
    }

    fn replace<'a>(
        &'a self,
        _old: &'a str,
        _expected: Bytes,
        _key: &'a str,
        _bytes: Bytes,
        _expiry: Option<Expiry>,
        _mark: Option<Mark<'a>>,
    ) -> BoxFuture<'a, Result<Replaced>> {
        refused()
    }

    fn enter<'a>(&'a self, _entering: Entering<'a>) -> BoxFuture<'a, Result<Entered>> {
        refused()
    }

    fn index_members<'a>(&'a self, _key: &'a str) -> BoxFuture<'a, Result<Vec<(String, Timestamp)>>> {
        refused()
    }

    fn index_put<'a>(&'a self, _key: &'a str, _member: &'a str, _ends: Timestamp) -> BoxFuture<'a, Result<()>> {
        refused()
    }

    fn index_remove<'a>(&'a self, _key: &'a str, _members: &'a [String]) -> BoxFuture<'a, Result<u64>> {
        refused()
    }

    fn list<'a>(&'a self, _prefix: &'a str, _kind: Kind, _from: u64) -> BoxFuture<'a, Result<(Vec<String>, u64)>> {
        refused()
    }
}
