//! The Redis store.
//!
//! A hit is one plain GET. What compares before it writes is a script; what writes several keys is a pipeline, and needs no
//! MULTI: between its commands another process may run a fill, but a fill compares the lease or the fill id that the
//! first command of the pipeline has already replaced (R2).
//!
//! All types of the client stay inside this module.

mod batch;
mod config;
mod connection;
mod faults;
mod fences;
mod hashes;
mod leases;
mod pubsub;
mod read_batch;
mod replicas;
mod reply;
mod requests;
mod scripts;
mod sessions;
mod tracking;
mod versions;

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use redis::{Cmd, Pipeline, ScriptInvocation, Value};

pub(crate) use self::config::{RedisConfig, Replicas};
use self::connection::Link;
use self::pubsub::Channels;
use self::read_batch::Reads;
use self::replicas::Replicated;
use self::reply::Replies;
use self::versions::version;
use super::{
    Acquired, Claim, Expiry, FILL_ID_AT, Fenced, Fill, Filled, Listener, Loaded, Message, Over, REGISTRY_EXPIRY,
    Raised, ReadMany, Siblings, Slot, Store, Swapped, Token, Trust, Version, Versioned, Wake, Want, aside_key,
    lease_key,
};
use crate::background::Background;
use crate::clock::{Clock, Timestamp, millis};
use crate::error::{ErrorKind, Result};
use crate::events::Events;

/// Where the server does not push: how long a waiter sleeps before it looks again.
const POLL: Duration = Duration::from_millis(100);
/// Redis counts expiries in a signed number of milliseconds since 1970; 100 years stay clear of its end.
const LONGEST_EXPIRY_MS: u64 = 100 * 365 * 24 * 3600 * 1000;

/// A Redis server, or anything that speaks its protocol.
pub(crate) struct RedisStore {
    link: Arc<Link>,
    reads: Reads,
    channels: Arc<Channels>,
    /// Invalidations that wait for replicas; `None`: they do not.
    replicated: Option<Replicated>,
    background: Arc<Background>,
}

impl RedisStore {
    /// Connects once, within the connect timeout. A server that cannot be reached is no error: connecting goes on in the background,
    /// and calls fail at once with [`ErrorKind::Unavailable`] until it works.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Configuration`]: only a change can mend it (wrong password, database, certificate, protocol).
    /// [`ErrorKind::Closed`]: there is no tokio runtime, or `background` was shut down.
    pub(crate) async fn connect(
        config: RedisConfig,
        clock: Clock,
        events: Events,
        background: Arc<Background>,
    ) -> Result<Arc<Self>> {
        let link = Arc::new(Link::new(config, clock, events)?);
        let first = match link.open().await {
            Ok(session) => {
                let session = Arc::new(session);
                link.publish(Some(Arc::clone(&session)));
                link.connected();
                Some(session)
            }
            // The caller is told.
            Err(error) if error.kind() == ErrorKind::Configuration => return Err(error),
            Err(error) => {
                link.failed_to_connect(&error);
                None
            }
        };
        let (reads, queue) = Reads::new();
        let supervised = background.service(connection::supervise(Arc::clone(&link), first));
        if !supervised || !background.service(read_batch::serve(Arc::clone(&link), queue)) {
            return Err(faults::closed("connect"));
        }
        let replicated = link.config.replicas.map(|wanted| Replicated::new(Arc::clone(&link), wanted));
        Ok(Arc::new(Self { link, reads, channels: Arc::default(), replicated, background }))
    }

    /// What ends values: all commands in one trip, and as many replicas as was asked for have them.
    async fn invalidation(&self, step: &'static str, pipeline: &Pipeline) -> Result<Replies> {
        match &self.replicated {
            Some(replicated) => replicated.run(step, pipeline).await,
            None => self.link.pipeline(step, pipeline).await,
        }
    }

    async fn run(&self, step: &'static str, script: &ScriptInvocation<'_>) -> Result<Value> {
        self.link.script(step, script).await
    }

    async fn set(
        &self,
        step: &'static str,
        key: &str,
        bytes: &Bytes,
        expiry: Option<Expiry>,
        nx: bool,
    ) -> Result<bool> {
        let mut command = redis::cmd("SET");
        command.arg(key).arg(bytes.as_ref());
        if nx {
            command.arg("NX");
        }
        if let Some(expiry) = expiry {
            command.arg("PX").arg(ms(expiry));
        }
        reply::was_set(step, self.link.command(step, &command).await?)
    }
}

impl Store for RedisStore {
    fn now(&self) -> Timestamp {
        self.link.now()
    }

    fn is_at_hand(&self) -> bool {
        false
    }

    fn read_now(&self, _key: &str) -> Option<Slot> {
        None
    }

    fn read<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Slot>> {
        Box::pin(async move { self.reads.read(&self.link, key, false).await.map(|(slot, _)| slot) })
    }

    fn holds<'a>(&'a self, key: &'a str, fill_id: u64) -> BoxFuture<'a, Result<bool>> {
        const STEP: &str = "compare";
        Box::pin(async move {
            let mut command = on(key, "GETRANGE");
            command.arg(FILL_ID_AT.start).arg(FILL_ID_AT.end.saturating_sub(1));
            let found = reply::bytes(STEP, self.link.command(STEP, &command).await?)?;
            Ok(found.is_some_and(|found| *found == fill_id.to_le_bytes()))
        })
    }

    fn read_tracked<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<(Slot, bool)>> {
        Box::pin(self.reads.read(&self.link, key, true))
    }

    fn read_versioned<'a>(&'a self, key: &'a str, versions: &'a [Arc<str>]) -> BoxFuture<'a, Result<Versioned>> {
        const STEP: &str = "read";
        Box::pin(async move {
            let (mut found, tracked) = self.versions(STEP, &[key], versions, true).await?;
            let value = if found.is_empty() { None } else { found.remove(0) };
            // A value of another type is nothing to MGET: taking the lease tells.
            Ok((Slot::of(value, None), found.into_iter().map(version).collect(), tracked))
        })
    }

    fn read_versions<'a>(
        &'a self,
        versions: &'a [Arc<str>],
        make: bool,
    ) -> BoxFuture<'a, Result<(Vec<Option<Version>>, bool)>> {
        Box::pin(async move {
            let (found, tracked) = self.versions("versions", &[], versions, make).await?;
            Ok((found.into_iter().map(version).collect(), tracked))
        })
    }

    fn renew_versions<'a>(&'a self, versions: &'a [Arc<str>]) -> BoxFuture<'a, Result<()>> {
        const STEP: &str = "invalidate";
        Box::pin(async move {
            let mut pipeline = redis::pipe();
            fences::renew(&mut pipeline, versions);
            let mut replies = self.invalidation(STEP, &pipeline).await?;
            versions.iter().try_for_each(|_| replies.value().map(drop))
        })
    }

    fn listen(&self, listener: Weak<dyn Listener>) {
        self.link.pushes.listen(listener);
    }

    fn trust(&self) -> Arc<Trust> {
        Arc::clone(&self.link.trust)
    }

    fn read_and_watch<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<(Slot, Wake)>> {
        const STEP: &str = "wait";
        Box::pin(async move {
            // Registered first, then the session is taken: a session that is lost in between wakes this waiter.
            // Cancelled below, the waiter is dropped and deregisters.
            let waiter = self.link.pushes.register(key);
            let session = self.link.session(STEP)?;
            let waiter = waiter.filter(|_| session.tracks());
            let mut pipeline = redis::pipe();
            if waiter.is_some() {
                pipeline.cmd("CLIENT").arg("CACHING").arg("YES");
            }
            pipeline.add_command(on(key, "GET")).add_command(on(key, "PTTL"));
            let mut replies = self.link.pipeline_on(&session, STEP, &pipeline).await?;
            let waiter = match waiter {
                Some(waiter) => replies.value().is_ok().then_some(waiter),
                None => None,
            };
            let found = replies.raw()?;
            let slot = reply::slot(STEP, found, reply::time_left(STEP, replies.raw()?)?)?;
            let wake: Wake = match waiter {
                Some(waiter) => Box::pin(waiter),
                None => Box::pin(tokio::time::sleep(POLL)),
            };
            Ok((slot, wake))
        })
    }

    fn acquire<'a>(
        &'a self,
        key: &'a str,
        token: Token,
        lease: Duration,
        over: Over,
    ) -> BoxFuture<'a, Result<Acquired>> {
        Box::pin(leases::acquire(self, key, token, lease, over))
    }

    fn acquire_in_place<'a>(
        &'a self,
        key: &'a str,
        token: Token,
        lease: Duration,
        fill_id: u64,
    ) -> BoxFuture<'a, Result<Acquired>> {
        Box::pin(leases::acquire_in_place(self, key, token, lease, fill_id))
    }

    fn fill<'a>(
        &'a self,
        key: &'a str,
        token: Token,
        over: Over,
        record: Bytes,
        expiry: Expiry,
    ) -> BoxFuture<'a, Result<Filled>> {
        Box::pin(leases::fill(self, key, token, over, record, expiry))
    }

    fn rewrite_head<'a>(
        &'a self,
        key: &'a str,
        token: Token,
        fill_id: u64,
        head: Bytes,
        expiry: Expiry,
    ) -> BoxFuture<'a, Result<bool>> {
        Box::pin(leases::rewrite_head(self, key, token, fill_id, head, expiry))
    }

    fn renew<'a>(&'a self, key: &'a str, token: Token, over: Over, lease: Duration) -> BoxFuture<'a, Result<bool>> {
        Box::pin(leases::renew(self, key, token, over, lease))
    }

    fn release<'a>(&'a self, key: &'a str, token: Token, over: Over) -> BoxFuture<'a, Result<()>> {
        Box::pin(leases::release(self, key, token, over))
    }

    fn throttle<'a>(&'a self, key: &'a str, token: Token, throttle: Duration) -> BoxFuture<'a, Result<bool>> {
        Box::pin(leases::throttle(self, key, token, throttle))
    }

    fn read_many<'a>(
        &'a self,
        keys: &'a [Arc<str>],
        versions: &'a [Arc<str>],
        track: bool,
    ) -> BoxFuture<'a, Result<ReadMany>> {
        Box::pin(self.read_all(keys, versions, track))
    }

    fn acquire_many<'a>(&'a self, wants: &'a [Want], lease: Duration) -> BoxFuture<'a, Result<Vec<Result<Acquired>>>> {
        Box::pin(self.acquire_all(wants, lease))
    }

    fn fill_many<'a>(&'a self, fills: &'a [Fill]) -> BoxFuture<'a, Result<Vec<Result<Filled>>>> {
        Box::pin(self.fill_all(fills))
    }

    fn renew_many<'a>(&'a self, claims: &'a [Claim], lease: Duration) -> BoxFuture<'a, Result<Vec<Result<bool>>>> {
        Box::pin(self.renew_all(claims, lease))
    }

    fn release_many<'a>(&'a self, claims: &'a [Claim]) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.release_all(claims))
    }

    fn discard<'a>(&'a self, key: &'a str, what: &'a Slot) -> BoxFuture<'a, Result<()>> {
        const STEP: &str = "discard";
        Box::pin(async move {
            match what {
                Slot::Absent | Slot::Leased(_) | Slot::Fenced => Ok(()),
                Slot::Bytes(bytes) => {
                    let mut script = scripts::DISCARD.key(key);
                    script.arg(bytes.as_ref());
                    self.run(STEP, &script).await.map(drop)
                }
                Slot::WrongType => self.run(STEP, &scripts::DISCARD_WRONG_TYPE.key(key)).await.map(drop),
            }
        })
    }

    fn write<'a>(
        &'a self,
        key: &'a str,
        record: Bytes,
        expiry: Expiry,
        siblings: Siblings<'a>,
    ) -> BoxFuture<'a, Result<Vec<String>>> {
        const STEP: &str = "write";
        Box::pin(async move {
            let mut pipeline = redis::pipe();
            pipeline.cmd("SET").arg(key).arg(record.as_ref()).arg("PX").arg(ms(expiry));
            let mut unlink = on(&lease_key(key), "UNLINK");
            for sibling in siblings.keys.iter().filter(|sibling| *sibling != key) {
                unlink.arg(sibling).arg(lease_key(sibling));
            }
            pipeline.add_command(unlink).add_command(on(siblings.builds, "SMEMBERS"));
            let mut replies = self.invalidation(STEP, &pipeline).await?;
            replies.value()?;
            replies.value()?;
            reply::texts(STEP, replies.raw()?)
        })
    }

    fn remove<'a>(&'a self, siblings: Siblings<'a>) -> BoxFuture<'a, Result<Vec<String>>> {
        const STEP: &str = "remove";
        Box::pin(async move {
            let mut pipeline = redis::pipe();
            if !siblings.keys.is_empty() {
                let mut unlink = redis::cmd("UNLINK");
                for sibling in siblings.keys {
                    unlink.arg(sibling).arg(lease_key(sibling)).arg(aside_key(sibling));
                }
                pipeline.add_command(unlink);
            }
            pipeline.add_command(on(siblings.builds, "SMEMBERS"));
            if self.replicated.is_some() {
                // Always a write: where another process has removed the key a moment ago, that one is waited for too.
                pipeline.cmd("PEXPIRE").arg(siblings.builds).arg(ms(REGISTRY_EXPIRY));
            }
            let mut replies = self.invalidation(STEP, &pipeline).await?;
            if !siblings.keys.is_empty() {
                replies.value()?;
            }
            reply::texts(STEP, replies.raw()?)
        })
    }

    fn raise<'a>(&'a self, fence: Token, limit: Expiry, siblings: Siblings<'a>) -> BoxFuture<'a, Result<Raised>> {
        Box::pin(fences::raise(self, fence, limit, siblings))
    }

    fn withdraw<'a>(&'a self, fence: Token, fenced: &'a [Fenced]) -> BoxFuture<'a, Result<()>> {
        Box::pin(fences::withdraw(self, fence, fenced))
    }

    fn fence_versions<'a>(
        &'a self,
        fence: Token,
        limit: Expiry,
        kinds: &'a [Arc<str>],
        tags: &'a [Arc<str>],
    ) -> BoxFuture<'a, Result<Vec<Option<Version>>>> {
        Box::pin(fences::fence_versions(self, fence, limit, kinds, tags))
    }

    fn withdraw_versions<'a>(
        &'a self,
        fence: Token,
        kinds: &'a [Arc<str>],
        tags: &'a [(Arc<str>, Version)],
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(fences::withdraw_versions(self, fence, kinds, tags))
    }

    fn register_build<'a>(
        &'a self,
        builds: &'a str,
        fingerprint: &'a str,
        expiry: Expiry,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let mut pipeline = redis::pipe();
            pipeline.cmd("SADD").arg(builds).arg(fingerprint);
            pipeline.cmd("PEXPIRE").arg(builds).arg(ms(expiry));
            let mut replies = self.link.pipeline("register", &pipeline).await?;
            replies.value()?;
            replies.value().map(drop)
        })
    }

    fn load<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Loaded>>> {
        const STEP: &str = "load";
        Box::pin(async move {
            let mut pipeline = redis::pipe();
            pipeline.add_command(on(key, "GET")).add_command(on(key, "PTTL"));
            let mut replies = self.link.pipeline(STEP, &pipeline).await?;
            let Some(bytes) = reply::bytes(STEP, replies.raw()?)? else { return Ok(None) };
            Ok(Some((bytes, reply::time_left(STEP, replies.raw()?)?)))
        })
    }

    fn put<'a>(&'a self, key: &'a str, bytes: Bytes, expiry: Option<Expiry>) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { self.set("put", key, &bytes, expiry, false).await.map(drop) })
    }

    fn create<'a>(&'a self, key: &'a str, bytes: Bytes, expiry: Option<Expiry>) -> BoxFuture<'a, Result<bool>> {
        Box::pin(async move { self.set("create", key, &bytes, expiry, true).await })
    }

    fn swap<'a>(
        &'a self,
        key: &'a str,
        expected: Bytes,
        bytes: Bytes,
        expiry: Option<Expiry>,
    ) -> BoxFuture<'a, Result<Swapped>> {
        Box::pin(async move {
            let mut script = scripts::SWAP.key(key);
            script.arg(expected.as_ref()).arg(bytes.as_ref());
            script.arg(expiry.map_or_else(String::new, |expiry| ms(expiry).to_string()));
            match reply::checked("swap", self.run("swap", &script).await?)? {
                Value::Int(1) => Ok(Swapped::Done),
                Value::Int(_) => Ok(Swapped::Gone),
                found => Ok(reply::bytes("swap", found)?.map_or(Swapped::Gone, Swapped::Conflict)),
            }
        })
    }

    fn expire<'a>(&'a self, key: &'a str, expiry: Option<Expiry>) -> BoxFuture<'a, Result<bool>> {
        const STEP: &str = "expire";
        Box::pin(async move {
            let reply = match expiry {
                Some(expiry) => self.link.command(STEP, on(key, "PEXPIRE").arg(ms(expiry))).await?,
                None => self.run(STEP, &scripts::PERSIST.key(key)).await?,
            };
            Ok(reply::integer(STEP, reply)? == 1)
        })
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<bool>> {
        Box::pin(async move { Ok(reply::count("delete", self.link.command("delete", &on(key, "UNLINK")).await?)? > 0) })
    }

    fn hash_set<'a>(&'a self, key: &'a str, fields: Vec<(String, Bytes)>) -> BoxFuture<'a, Result<()>> {
        Box::pin(hashes::set(self, key, fields))
    }

    fn hash_get<'a>(&'a self, key: &'a str, field: &'a str) -> BoxFuture<'a, Result<Option<Bytes>>> {
        Box::pin(hashes::get(self, key, field))
    }

    fn hash_all<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Vec<(String, Bytes)>>> {
        Box::pin(hashes::all(self, key))
    }

    fn hash_keys<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Vec<String>>> {
        Box::pin(hashes::keys(self, key))
    }

    fn hash_remove<'a>(&'a self, key: &'a str, fields: &'a [String]) -> BoxFuture<'a, Result<u64>> {
        Box::pin(hashes::remove(self, key, fields))
    }

    fn publish<'a>(&'a self, channel: &'a str, message: Bytes) -> BoxFuture<'a, Result<u64>> {
        Box::pin(async move {
            let reply = self.link.command("publish", on(channel, "PUBLISH").arg(message.as_ref())).await?;
            reply::count("publish", reply)
        })
    }

    fn subscribe<'a>(&'a self, channel: &'a str) -> BoxFuture<'a, Result<BoxStream<'static, Message>>> {
        Box::pin(pubsub::subscribe(&self.channels, &self.link, &self.background, channel))
    }

    fn is_available(&self) -> bool {
        self.link.is_up()
    }

    fn epoch(&self) -> u64 {
        self.link.pushes.epoch()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        // Nothing to wait for: the sockets close as their tasks are dropped, which `Background::shutdown` waits for.
        self.link.close();
        self.channels.close();
        self.replicated.iter().for_each(Replicated::close);
        Box::pin(std::future::ready(()))
    }
}

fn on(key: &str, name: &str) -> Cmd {
    let mut command = redis::cmd(name);
    command.arg(key);
    command
}

/// What Redis takes as an expiry: at least one millisecond, and not beyond its range.
fn ms(expiry: Duration) -> u64 {
    millis(expiry).clamp(1, LONGEST_EXPIRY_MS)
}
