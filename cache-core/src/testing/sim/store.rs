//! The simulated store as seen by one node.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::{self, BoxFuture};
use futures::stream::BoxStream;
use tokio::sync::oneshot;

use super::{LATE_MS, RESPONSE_TIMEOUT_MS, World, request};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::store::cells::Limit;
use crate::store::memory::MemoryStore;
use crate::store::sweep::{Heads, Standing, SweepStore};
use crate::store::{
    Acquired, CellStore, ChannelStore, Claim, Entered, Entering, Expiry, FenceStore, Fill, Filled, HashStore, Kind,
    LeaseStore, Listener, Loaded, Mark, Message, Operation, PlainFill, PlainStore, Put, Raised, ReadMany, Replaced,
    Replacing, Reply, Rewrite, Siblings, Slot, Store, Swapped, Token, Trust, ValueStore, Version, VersionStore,
    Versioned, Wake, Want,
};

/// How long a waiter sleeps if too many are waiting already.
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

    /// Makes one round trip: `run` is executed at the store when it arrives there, for this
    /// connection.
    async fn call<T: Send + 'static>(
        &self,
        step: &'static str,
        run: impl FnOnce(&World, &MemoryStore, usize) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        // Held until the reply has arrived: a connection that was given up still delivers its
        // replies.
        let session = self.world.state().nodes[self.node].current.clone();
        let Some(session) = session else { return Err(unavailable(step).unsent()) };
        let (connection, (answer, answered)) = (session.connection, oneshot::channel());
        let run = move |world: &World, store: &MemoryStore| run(world, store, connection);
        self.world.send(connection, step, request(run, answer));
        let answered = self.world.bounded(self.node, RESPONSE_TIMEOUT_MS, answered).await;
        // The task is woken but runs later: what follows the reply on the connection is handled
        // first.
        if self.world.draw_for(connection, 4) == 0 {
            self.world.pause(self.world.draw_for(connection, LATE_MS)).await;
        }
        match answered {
            Some(Ok(result)) => result,
            Some(Err(_lost)) => Err(unavailable(step)),
            None => {
                self.world.state().nodes[self.node].doubt.notify_one();
                Err(unavailable(step))
            }
        }
    }

    /// Sometimes splits several versions into two round trips, the second after the reply to the
    /// first. They then have an order, but were not read at the same moment.
    fn apart<'a>(&self, versions: &'a [Arc<str>]) -> (&'a [Arc<str>], &'a [Arc<str>]) {
        let connection = self.world.state().connection_of(self.node);
        let draw = |limit| connection.map_or(1, |connection| self.world.draw_for(connection, limit));
        let all = versions.len() as u64;
        let first = if all > 1 && draw(3) == 0 { 1 + draw(all - 1) } else { all };
        versions.split_at(first as usize)
    }

    async fn read_some(&self, versions: &[Arc<str>], make: bool) -> Result<(Vec<Option<Version>>, bool)> {
        let versions = versions.to_vec();
        let run = move |world: &World, store: &MemoryStore, connection| {
            let (found, _) = now(store.read_versions(&versions, make))?;
            versions.iter().for_each(|version| world.track(version, connection));
            Ok((found, true))
        };
        self.call("read of versions", run).await
    }

    /// Makes a round trip for one operation of the embedded store.
    fn pass<'a, T: Send + 'static>(
        &'a self,
        step: &'static str,
        run: impl FnOnce(&MemoryStore) -> Result<T> + Send + 'static,
    ) -> BoxFuture<'a, Result<T>> {
        self.call(step, move |_, store, _| run(store)).boxed()
    }
}

/// Takes the result of the embedded store, which answers at once.
fn now<T>(answer: BoxFuture<'_, Result<T>>) -> Result<T> {
    answer.now_or_never().unwrap_or_else(|| Err(unavailable("simulated")))
}

fn unavailable(step: &'static str) -> Error {
    Error::new(ErrorKind::Unavailable, step)
}

/// Refuses operations that the simulation does not need.
fn refused<T: Send + 'static>() -> BoxFuture<'static, Result<T>> {
    let refusal = Error::new(ErrorKind::Refused, "simulated").detail("the simulated store cannot do this");
    future::ready(Err(refusal)).boxed()
}

impl Store for SimStore {
    fn listen(&self, listener: Weak<dyn Listener>) {
        self.world.state().nodes[self.node].pushes.listen(listener);
    }

    fn trust(&self) -> Arc<Trust> {
        Arc::clone(&self.world.state().nodes[self.node].trust)
    }

    fn later(&self, operation: Operation) {
        self.world.later(self.node, operation);
    }

    fn settle(&self) -> BoxFuture<'_, ()> {
        future::ready(()).boxed()
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

impl LeaseStore for SimStore {
    fn acquire<'a>(&'a self, want: &'a Want, lease: Duration) -> BoxFuture<'a, Result<Acquired>> {
        let want = want.clone();
        self.pass("acquire", move |store| now(store.acquire(&want, lease)))
    }

    fn fill<'a>(&'a self, fill: &'a Fill) -> BoxFuture<'a, Result<Filled>> {
        let fill = fill.clone();
        let run = move |world: &World, store: &MemoryStore, connection| {
            let filled = now(store.fill(&fill))?;
            // Sometimes the read that registers the key is refused, or finds that another node has
            // written.
            if filled == Filled::Tracked && (!fill.track || world.draw_for(connection, 8) == 0) {
                return Ok(Filled::Stored);
            }
            if filled == Filled::Tracked {
                world.track(&fill.claim.key, connection);
            }
            Ok(filled)
        };
        self.call("fill", run).boxed()
    }

    fn rewrite_head<'a>(&'a self, rewrite: Rewrite<'a>) -> BoxFuture<'a, Result<bool>> {
        let Rewrite { key, token, fill_id, head, expiry } = rewrite;
        let key = key.to_owned();
        let rewrite =
            move |store: &MemoryStore| now(store.rewrite_head(Rewrite { key: &key, token, fill_id, head, expiry }));
        self.pass("rewrite", rewrite)
    }

    fn renew<'a>(&'a self, claim: &'a Claim, lease: Duration) -> BoxFuture<'a, Result<bool>> {
        let claim = claim.clone();
        self.pass("renew", move |store| now(store.renew(&claim, lease)))
    }

    fn release<'a>(&'a self, claim: &'a Claim, unstored: Option<Duration>) -> BoxFuture<'a, Result<()>> {
        let claim = claim.clone();
        self.pass("release", move |store| now(store.release(&claim, unstored)))
    }

    fn throttle<'a>(&'a self, key: &'a str, token: Token, throttle: Duration) -> BoxFuture<'a, Result<bool>> {
        let key = key.to_owned();
        self.pass("throttle", move |store| now(store.throttle(&key, token, throttle)))
    }

    fn acquire_many<'a>(&'a self, wants: &'a [Want], lease: Duration) -> BoxFuture<'a, Result<Vec<Result<Acquired>>>> {
        let wants = wants.to_vec();
        self.pass("acquire many", move |store| now(store.acquire_many(&wants, lease)))
    }

    fn fill_many<'a>(&'a self, fills: &'a [Fill]) -> BoxFuture<'a, Result<Vec<Result<Filled>>>> {
        let fills = fills.to_vec();
        let run = move |world: &World, store: &MemoryStore, connection| {
            let filled = now(store.fill_many(&fills))?;
            for (fill, filled) in fills.iter().zip(&filled) {
                if matches!(filled, Ok(Filled::Tracked)) {
                    world.track(&fill.claim.key, connection);
                }
            }
            Ok(filled)
        };
        self.call("fill many", run).boxed()
    }

    fn renew_many<'a>(&'a self, claims: &'a [Claim], lease: Duration) -> BoxFuture<'a, Result<Vec<Result<bool>>>> {
        let claims = claims.to_vec();
        let run = move |world: &World, store: &MemoryStore, connection| {
            // One of several renewals may fail, but not two times in a row.
            let failed = world.failed_renewal(connection, claims.len());
            let stood: Vec<Claim> = claims
                .iter()
                .enumerate()
                .filter(|(at, _)| Some(*at) != failed)
                .map(|(_, claim)| claim.clone())
                .collect();
            let mut renewed = now(store.renew_many(&stood, lease))?;
            if let Some(failed) = failed {
                renewed.insert(failed, Err(unavailable("renew many")));
            }
            Ok(renewed)
        };
        self.call("renew many", run).boxed()
    }

    fn release_many<'a>(&'a self, claims: &'a [Claim], unstored: Option<Duration>) -> BoxFuture<'a, Result<()>> {
        let claims = claims.to_vec();
        self.pass("release many", move |store| now(store.release_many(&claims, unstored)))
    }
}

impl VersionStore for SimStore {
    fn read_versions<'a>(
        &'a self,
        versions: &'a [Arc<str>],
        make: bool,
    ) -> BoxFuture<'a, Result<(Vec<Option<Version>>, bool)>> {
        async move {
            let (first, rest) = self.apart(versions);
            let (mut found, _) = self.read_some(first, make).await?;
            if !rest.is_empty() {
                found.extend(self.read_some(rest, make).await?.0);
            }
            Ok((found, true))
        }
        .boxed()
    }

    fn renew_versions<'a>(&'a self, versions: &'a [Arc<str>]) -> BoxFuture<'a, Result<()>> {
        async move {
            let (first, rest) = self.apart(versions);
            for versions in [first, rest].into_iter().filter(|versions| !versions.is_empty()) {
                let versions = versions.to_vec();
                self.pass("renewal of versions", move |store| now(store.renew_versions(&versions))).await?;
            }
            Ok(())
        }
        .boxed()
    }

    fn register_build<'a>(
        &'a self,
        builds: &'a str,
        version: &'a str,
        fingerprint: &'a str,
        expiry: Expiry,
    ) -> BoxFuture<'a, Result<Option<Version>>> {
        let (builds, version, fingerprint) = (builds.to_owned(), version.to_owned(), fingerprint.to_owned());
        self.pass("register", move |store| now(store.register_build(&builds, &version, &fingerprint, expiry)))
    }
}

impl FenceStore for SimStore {
    fn raise<'a>(&'a self, fence: Token, limit: Expiry, siblings: Siblings<'a>) -> BoxFuture<'a, Result<Raised>> {
        let (keys, builds) = (siblings.keys.to_vec(), siblings.builds.to_owned());
        self.pass("fence", move |store| {
            now(FenceStore::raise(store, fence, limit, Siblings { keys: &keys, builds: &builds }))
        })
    }

    fn lift<'a>(&'a self, fence: Token, siblings: Siblings<'a>) -> BoxFuture<'a, Result<Vec<String>>> {
        let (keys, builds) = (siblings.keys.to_vec(), siblings.builds.to_owned());
        self.pass("lift", move |store| now(FenceStore::lift(store, fence, Siblings { keys: &keys, builds: &builds })))
    }

    fn withdraw<'a>(&'a self, fence: Token, keys: &'a [String]) -> BoxFuture<'a, Result<()>> {
        let keys = keys.to_vec();
        self.pass("withdrawal", move |store| now(FenceStore::withdraw(store, fence, &keys)))
    }

    fn fence_versions<'a>(
        &'a self,
        fence: Token,
        limit: Expiry,
        kinds: &'a [Arc<str>],
        tags: &'a [Arc<str>],
    ) -> BoxFuture<'a, Result<bool>> {
        let (kinds, tags) = (kinds.to_vec(), tags.to_vec());
        self.pass("fence of versions", move |store| now(FenceStore::fence_versions(store, fence, limit, &kinds, &tags)))
    }

    fn lift_versions<'a>(
        &'a self,
        fence: Token,
        versions: &'a [Arc<str>],
        tags: &'a [Arc<str>],
    ) -> BoxFuture<'a, Result<()>> {
        let (versions, tags) = (versions.to_vec(), tags.to_vec());
        self.pass("lift of versions", move |store| now(FenceStore::lift_versions(store, fence, &versions, &tags)))
    }

    fn withdraw_versions<'a>(
        &'a self,
        fence: Token,
        kinds: &'a [Arc<str>],
        tags: &'a [Arc<str>],
    ) -> BoxFuture<'a, Result<()>> {
        let (kinds, tags) = (kinds.to_vec(), tags.to_vec());
        self.pass("withdrawal of versions", move |store| {
            now(FenceStore::withdraw_versions(store, fence, &kinds, &tags))
        })
    }
}

impl ValueStore for SimStore {
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

    fn read_many<'a>(
        &'a self,
        keys: &'a [Arc<str>],
        versions: &'a [Arc<str>],
        track: bool,
    ) -> BoxFuture<'a, Result<ReadMany>> {
        let (keys, versions) = (keys.to_vec(), versions.to_vec());
        let run = move |world: &World, store: &MemoryStore, connection| {
            let (slots, found, _) = now(store.read_many(&keys, &versions, track))?;
            let tracked = keys.iter().filter(|_| track).chain(&versions);
            tracked.for_each(|key| world.track(key, connection));
            Ok((slots, found, true))
        };
        self.call("read of many", run).boxed()
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
}

impl ChannelStore for SimStore {
    fn publish<'a>(&'a self, _channel: &'a str, _message: Bytes) -> BoxFuture<'a, Result<u64>> {
        refused()
    }

    fn subscribe<'a>(&'a self, _channel: &'a str) -> BoxFuture<'a, Result<BoxStream<'static, Message>>> {
        refused()
    }
}

impl HashStore for SimStore {
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

    fn hash_increment<'a>(&'a self, _key: &'a str, _field: &'a str, _by: i64) -> BoxFuture<'a, Result<i64>> {
        refused()
    }
}

impl CellStore for SimStore {
    fn now(&self) -> Timestamp {
        let state = self.world.state();
        let node = &state.nodes[self.node];
        node.offset.now(&node.clock)
    }

    fn is_at_hand(&self) -> bool {
        false
    }

    fn load<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Loaded>>> {
        let key = key.to_owned();
        self.pass("load", move |store| now(store.load(&key)))
    }

    fn create<'a>(&'a self, key: &'a str, bytes: Bytes, expiry: Option<Expiry>) -> BoxFuture<'a, Result<bool>> {
        let key = key.to_owned();
        self.pass("create", move |store| now(store.create(&key, bytes, expiry)))
    }

    fn swap<'a>(
        &'a self,
        key: &'a str,
        old: Bytes,
        new: Bytes,
        expiry: Option<Expiry>,
    ) -> BoxFuture<'a, Result<Swapped>> {
        let key = key.to_owned();
        self.pass("swap", move |store| now(store.swap(&key, old, new, expiry)))
    }

    fn expire<'a>(&'a self, key: &'a str, expiry: Option<Expiry>) -> BoxFuture<'a, Result<bool>> {
        let key = key.to_owned();
        self.pass("expire", move |store| now(store.expire(&key, expiry)))
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<bool>> {
        let key = key.to_owned();
        self.pass("delete", move |store| now(store.delete(&key)))
    }

    fn load_marked<'a>(&'a self, key: &'a str, mark: &'a str) -> BoxFuture<'a, Result<(Option<Loaded>, bool)>> {
        let (key, mark) = (key.to_owned(), mark.to_owned());
        self.pass("load of a session", move |store| now(store.load_marked(&key, &mark)))
    }

    fn delete_marked<'a>(&'a self, key: &'a str, mark: Mark<'a>) -> BoxFuture<'a, Result<bool>> {
        let (key, mark, lasts) = (key.to_owned(), mark.key.to_owned(), mark.lasts);
        self.pass("end of a session", move |store| now(store.delete_marked(&key, Mark { key: &mark, lasts })))
    }

    fn replace<'a>(&'a self, replacing: Replacing<'a>) -> BoxFuture<'a, Result<Replaced>> {
        let Replacing { old, expected, key, bytes, expiry, mark } = replacing;
        let (old, expected, key, bytes) = (old.to_owned(), expected.clone(), key.to_owned(), bytes.clone());
        let mark = mark.map(|mark| (mark.key.to_owned(), mark.lasts));
        self.pass("replacement of a session", move |store| {
            let mark = mark.as_ref().map(|(key, lasts)| Mark { key, lasts: *lasts });
            let (old, expected, key, bytes) = (&old, &expected, &key, &bytes);
            now(store.replace(Replacing { old, expected, key, bytes, expiry, mark }))
        })
    }

    fn enter<'a>(&'a self, entering: Entering<'a>) -> BoxFuture<'a, Result<Entered>> {
        let Entering { key, bytes, expiry, over, deletes, index, member, lasts, leaves, limit, mark } = entering;
        let (key, bytes, index, member) = (key.to_owned(), bytes.clone(), index.to_owned(), member.to_owned());
        let over = over.map(|(from, expected)| (from.to_owned(), expected.clone()));
        let leaves = leaves.map(|(index, member)| (index.to_owned(), member.to_owned()));
        let mark = mark.map(|mark| (mark.key.to_owned(), mark.lasts));
        let limit = limit.map(|limit| (limit.prefix.to_owned(), limit.most, limit.then));
        let deletes = deletes.to_vec();
        self.pass("login", move |store| {
            let entering = Entering {
                key: &key,
                bytes: &bytes,
                expiry,
                over: over.as_ref().map(|(from, expected)| (from.as_str(), expected)),
                deletes: &deletes,
                index: &index,
                member: &member,
                lasts,
                leaves: leaves.as_ref().map(|(index, member)| (index.as_str(), member.as_str())),
                limit: limit.as_ref().map(|(prefix, most, then)| Limit { prefix, most: *most, then: *then }),
                mark: mark.as_ref().map(|(key, lasts)| Mark { key, lasts: *lasts }),
            };
            now(store.enter(entering))
        })
    }

    fn index_members<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Vec<(String, Timestamp)>>> {
        let key = key.to_owned();
        self.pass("members", move |store| now(store.index_members(&key)))
    }

    fn index_put<'a>(&'a self, key: &'a str, member: &'a str, lasts: Expiry) -> BoxFuture<'a, Result<()>> {
        let (key, member) = (key.to_owned(), member.to_owned());
        self.pass("member", move |store| now(store.index_put(&key, &member, lasts)))
    }

    fn index_remove<'a>(&'a self, key: &'a str, members: &'a [String]) -> BoxFuture<'a, Result<u64>> {
        let (key, members) = (key.to_owned(), members.to_vec());
        self.pass("end of members", move |store| now(store.index_remove(&key, &members)))
    }

    fn list<'a>(&'a self, prefix: &'a str, kind: Kind, from: u64) -> BoxFuture<'a, Result<(Vec<String>, u64)>> {
        let prefix = prefix.to_owned();
        self.pass("list", move |store| now(store.list(&prefix, kind, from)))
    }
}

impl SweepStore for SimStore {
    fn heads<'a>(&'a self, _prefix: &'a str, _from: u64) -> BoxFuture<'a, Result<(Heads, u64)>> {
        refused()
    }

    fn standing<'a>(&'a self, _versions: &'a [Arc<str>]) -> BoxFuture<'a, Result<Vec<Standing>>> {
        refused()
    }

    fn remove_heads<'a>(&'a self, _heads: &'a Heads) -> BoxFuture<'a, Result<u64>> {
        refused()
    }
}

// No node of the simulation shares values with other programs.
impl PlainStore for SimStore {
    fn put<'a>(&'a self, key: &'a str, bytes: Bytes, expiry: Option<Expiry>) -> BoxFuture<'a, Result<()>> {
        let key = key.to_owned();
        self.pass("put", move |store| now(store.put(&key, bytes, expiry)))
    }

    fn time_left<'a>(&'a self, _key: &'a str) -> BoxFuture<'a, Result<Option<Option<Duration>>>> {
        refused()
    }

    fn put_plain<'a>(&'a self, _key: &'a str, _lease: &'a str, _: Bytes, _: Put) -> BoxFuture<'a, Result<bool>> {
        refused()
    }

    fn remove_plain<'a>(&'a self, _key: &'a str, _lease: &'a str) -> BoxFuture<'a, Result<bool>> {
        refused()
    }

    fn increment<'a>(&'a self, _key: &'a str, _by: i64) -> BoxFuture<'a, Result<i64>> {
        refused()
    }

    fn command(&self, _words: Vec<Vec<u8>>) -> BoxFuture<'_, Result<Reply>> {
        refused()
    }

    fn load_tracked<'a>(&'a self, _key: &'a str) -> BoxFuture<'a, Result<(Option<Loaded>, bool)>> {
        refused()
    }

    fn fill_plain<'a>(&'a self, _fill: PlainFill<'a>) -> BoxFuture<'a, Result<bool>> {
        refused()
    }
}
