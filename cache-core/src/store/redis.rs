//! The Redis store.
//!
//! A hit is one plain GET. An operation that compares before it writes is a script. An operation
//! that writes several keys is a pipeline, and needs no MULTI: between its commands another process
//! may run a fill, but a fill compares the lease or the fill id that the first command of the
//! pipeline has already replaced (R2).
//!
//! All types of the client stay inside this module.

mod batch;
mod cells;
mod config;
mod connection;
mod error;
mod fences;
mod hashes;
mod leases;
mod plain;
mod pubsub;
mod read_batch;
mod replicas;
mod reply;
mod requests;
mod rights;
mod scripts;
mod sweep;
mod takeover;
mod task;
mod tracking;
mod trips;
mod versions;
mod warm;
mod wire;

use std::future::Future;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use redis::{Cmd, Pipeline, ScriptInvocation, Value};

pub(crate) use self::config::{RedisConfig, Replicas};
use self::connection::Link;
use self::pubsub::Channels;
pub(crate) use self::read_batch::Queued;
use self::read_batch::Reads;
use self::replicas::Replicated;
use self::reply::Replies;
use self::task::ConnectionTask;
use self::trips::Sizes;
use self::versions::version;
use super::{
    Acquired, Claim, Expiry, FILL_ID_AT, Fill, Filled, Listener, Message, Operation, Over, REGISTRY_EXPIRY, Raised,
    ReadMany, Reading, Siblings, Slot, Store, Token, Trust, VERSION_EXPIRY, Version, Versioned, Wake, Want, aside_key,
    lease_key,
};
use crate::background::Background;
use crate::clock::{Clock, millis};
use crate::error::{ErrorKind, Result};
use crate::events::{Events, Table};
use crate::store::supervisor::{Supervised, Transport as _};

/// How long a waiter sleeps before it checks again if the server does not push.
const POLL: Duration = Duration::from_millis(100);
/// Redis counts expiries in a signed number of milliseconds since 1970; 100 years stay clear of its
/// end.
const LONGEST_EXPIRY_MS: u64 = 100 * 365 * 24 * 3600 * 1000;

/// A Redis server, or another server with its protocol.
pub(crate) struct RedisStore {
    link: Arc<Link>,
    reads: Arc<Reads>,
    sizes: Arc<Sizes>,
    channels: Arc<Channels>,
    /// Invalidations that wait for replicas; `None`: they do not.
    replicated: Option<Replicated>,
    background: Arc<Background>,
}

impl RedisStore {
    /// Connects once, within the connect timeout.
    ///
    /// A server that cannot be reached is not an error unless it `is_required`: connecting goes on
    /// in the background, and calls fail at once with [`ErrorKind::Unavailable`] until it works.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Configuration`]: only a change can fix it (wrong password, database,
    ///   certificate, protocol).
    /// - [`ErrorKind::Closed`]: there is no tokio runtime, or `background` was shut down.
    /// - [`ErrorKind::Unavailable`]: the server cannot be reached, if it `is_required`.
    pub(crate) async fn connect(
        config: RedisConfig,
        is_required: bool,
        clock: Clock,
        events: Events,
        background: Arc<Background>,
    ) -> Result<Arc<Self>> {
        let link = Arc::new(Link::new(config, clock, events, &background)?);
        let mut connection = Supervised::new(Arc::clone(&link), link.config.max_staleness);
        match connection.open().await {
            Ok(()) => {}
            // Returned to the caller.
            Err(error) if error.kind() == ErrorKind::Configuration => return Err(error),
            Err(error) if is_required => return Err(error.of(&link.config.to_string())),
            Err(error) => link.failed(&error),
        }
        let sizes = Arc::new(Sizes::new());
        let reads = Arc::new(Reads::new(Arc::clone(&sizes)));
        let replicated = link.config.replicas.map(|wanted| Replicated::new(Arc::clone(&link), wanted));
        let store = Arc::new(Self { link, reads, sizes, channels: Arc::default(), replicated, background });
        let (link, background) = (&store.link, &store.background);
        drop(link.store.set(Arc::downgrade(&store)));
        let keep = {
            let link = Arc::clone(link);
            move |connection| ConnectionTask::new(connection, Arc::clone(&link)).run()
        };
        let anew = {
            let (link, keep) = (Arc::clone(link), keep.clone());
            move || -> BoxFuture<'static, ()> {
                Box::pin(keep(Supervised::new(Arc::clone(&link), link.config.max_staleness)))
            }
        };
        let serve = {
            let (link, reads) = (Arc::clone(link), Arc::clone(&store.reads));
            move || read_batch::serve(Arc::clone(&link), Arc::clone(&reads))
        };
        let supervised = background.lasting(keep(connection), anew);
        if !supervised || !background.lasting(serve(), move || Box::pin(serve())) {
            return Err(error::closed("connect"));
        }
        Ok(store)
    }

    /// Runs `operation` again if the runtime of the connection ended during it. For
    /// operations that may be executed twice.
    async fn steadily<T, F: Future<Output = Result<T>>>(&self, operation: impl Fn() -> F) -> Result<T> {
        let mut tries = 0_u32;
        loop {
            let before = self.link.takeovers();
            match operation().await {
                Err(error) if self.link.may_try_again(&error, before, &mut tries) => {}
                done => return done,
            }
        }
    }

    /// Runs an invalidation: all commands in one round trip, then waits for the configured number
    /// of replicas.
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
    fn read_now(&self, _key: &str) -> Option<Slot> {
        None
    }

    fn read<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Slot>> {
        Box::pin(async move { self.begin_read(key, false).await.map(|(slot, _)| slot) })
    }

    fn begin_read<'a>(&'a self, key: &'a str, track: bool) -> Reading<'a> {
        self.reads.begin(&self.link, key, track)
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
        Box::pin(self.begin_read(key, true))
    }

    fn read_versioned<'a>(&'a self, key: &'a str, versions: &'a [Arc<str>]) -> BoxFuture<'a, Result<Versioned>> {
        const STEP: &str = "read";
        Box::pin(async move {
            let read = || self.versions(STEP, std::slice::from_ref(&key), versions, true, true);
            let (mut found, tracked) = self.steadily(read).await?;
            self.sizes.saw(key, found.first().and_then(Option::as_ref).map_or(0, Bytes::len));
            let value = if found.is_empty() { None } else { found.remove(0) };
            // MGET returns nothing for a value of another type; taking the lease finds it.
            Ok((Slot::of(value, None), found.into_iter().map(version).collect(), tracked))
        })
    }

    fn read_versions<'a>(
        &'a self,
        versions: &'a [Arc<str>],
        make: bool,
    ) -> BoxFuture<'a, Result<(Vec<Option<Version>>, bool)>> {
        Box::pin(self.steadily(move || self.many_versions("versions", versions, make)))
    }

    fn renew_versions<'a>(&'a self, versions: &'a [Arc<str>]) -> BoxFuture<'a, Result<()>> {
        const STEP: &str = "invalidate";
        Box::pin(self.steadily(move || fences::renew_versions(self, STEP, versions)))
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
            // Registered before the session is taken, so that a session lost in between wakes this
            // waiter. Cancelled below, the waiter is dropped and deregisters.
            let waiter = self.link.pushes.register(key);
            if waiter.is_none() {
                self.link.events.table_full(Table::Waiters);
            }
            let session = self.link.session(STEP).await?;
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
        // A refresh lease that was taken twice would look like another caller's.
        match over {
            Over::Nothing => Box::pin(self.steadily(move || leases::acquire(self, key, token, lease, over))),
            Over::Record(_) => Box::pin(leases::acquire(self, key, token, lease, over)),
        }
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

    fn acquire_over_mark<'a>(
        &'a self,
        key: &'a str,
        token: Token,
        lease: Duration,
        mark: Token,
    ) -> BoxFuture<'a, Result<Acquired>> {
        Box::pin(leases::acquire_over_mark(self, key, token, lease, mark))
    }

    fn fill<'a>(&'a self, fill: &'a Fill) -> BoxFuture<'a, Result<Filled>> {
        Box::pin(self.steadily(move || leases::fill(self, fill)))
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
        Box::pin(self.steadily(move || leases::renew(self, key, token, over, lease)))
    }

    fn release<'a>(
        &'a self,
        key: &'a str,
        token: Token,
        over: Over,
        unstored: Option<Duration>,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.steadily(move || leases::release(self, key, token, over, unstored)))
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
        Box::pin(self.steadily(move || self.read_all(keys, versions, track)))
    }

    fn acquire_many<'a>(&'a self, wants: &'a [Want], lease: Duration) -> BoxFuture<'a, Result<Vec<Result<Acquired>>>> {
        Box::pin(self.steadily(move || self.acquire_all(wants, lease)))
    }

    fn fill_many<'a>(&'a self, fills: &'a [Fill]) -> BoxFuture<'a, Result<Vec<Result<Filled>>>> {
        Box::pin(self.steadily(move || self.fill_all(fills)))
    }

    fn renew_many<'a>(&'a self, claims: &'a [Claim], lease: Duration) -> BoxFuture<'a, Result<Vec<Result<bool>>>> {
        Box::pin(self.steadily(move || self.renew_all(claims, lease)))
    }

    fn release_many<'a>(&'a self, claims: &'a [Claim], unstored: Option<Duration>) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.steadily(move || self.release_all(claims, unstored)))
    }

    fn touch<'a>(&'a self, keys: &'a [Arc<str>]) -> BoxFuture<'a, Result<()>> {
        Box::pin(warm::touch(self, keys))
    }

    fn evictions(&self) -> BoxFuture<'_, Result<Option<u64>>> {
        Box::pin(warm::evictions(self))
    }

    fn discard<'a>(&'a self, key: &'a str, what: &'a Slot) -> BoxFuture<'a, Result<()>> {
        const STEP: &str = "discard";
        Box::pin(async move {
            match what {
                Slot::Absent | Slot::Leased(_) | Slot::Unawaited(_) | Slot::Unstored(_) | Slot::Fenced => Ok(()),
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
            self.sizes.saw(key, record.len());
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
        Box::pin(self.steadily(move || async move {
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
                // Always a write: if another process removed the key a moment ago, this waits for
                // that removal, too.
                pipeline.cmd("PEXPIRE").arg(siblings.builds).arg(ms(REGISTRY_EXPIRY));
            }
            let mut replies = self.invalidation(STEP, &pipeline).await?;
            if !siblings.keys.is_empty() {
                replies.value()?;
            }
            reply::texts(STEP, replies.raw()?)
        }))
    }

    fn raise<'a>(&'a self, fence: Token, limit: Expiry, siblings: Siblings<'a>) -> BoxFuture<'a, Result<Raised>> {
        Box::pin(self.steadily(move || fences::raise(self, fence, limit, siblings)))
    }

    fn lift<'a>(&'a self, fence: Token, siblings: Siblings<'a>) -> BoxFuture<'a, Result<Vec<String>>> {
        Box::pin(self.steadily(move || fences::lift(self, fence, siblings)))
    }

    fn withdraw<'a>(&'a self, fence: Token, keys: &'a [String]) -> BoxFuture<'a, Result<()>> {
        Box::pin(fences::withdraw(self, fence, keys))
    }

    fn fence_versions<'a>(
        &'a self,
        fence: Token,
        limit: Expiry,
        kinds: &'a [Arc<str>],
        tags: &'a [Arc<str>],
    ) -> BoxFuture<'a, Result<bool>> {
        Box::pin(self.steadily(move || fences::fence_versions(self, fence, limit, kinds, tags)))
    }

    fn lift_versions<'a>(
        &'a self,
        fence: Token,
        versions: &'a [Arc<str>],
        tags: &'a [Arc<str>],
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.steadily(move || fences::lift_versions(self, fence, versions, tags)))
    }

    fn withdraw_versions<'a>(
        &'a self,
        fence: Token,
        kinds: &'a [Arc<str>],
        tags: &'a [Arc<str>],
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(fences::withdraw_versions(self, fence, kinds, tags))
    }

    fn register_build<'a>(
        &'a self,
        builds: &'a str,
        version: &'a str,
        fingerprint: &'a str,
        expiry: Expiry,
    ) -> BoxFuture<'a, Result<Option<Version>>> {
        const STEP: &str = "register";
        Box::pin(self.steadily(move || async move {
            let mut script = scripts::REGISTER_BUILD.key(builds);
            script.key(version).arg(fingerprint).arg(ms(expiry));
            script.arg(Version::random().hex()).arg(ms(VERSION_EXPIRY));
            Ok(versions::version(reply::bytes(STEP, self.run(STEP, &script).await?)?))
        }))
    }

    fn put<'a>(&'a self, key: &'a str, bytes: Bytes, expiry: Option<Expiry>) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { self.steadily(|| self.set("put", key, &bytes, expiry, false)).await.map(drop) })
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

    fn later(&self, operation: Operation) {
        self.link.outstanding.add(operation);
    }

    fn settle(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if self.link.is_up() {
                // A failure is reported by its connection.
                drop(self.link.outstanding.settle(self).await);
            }
        })
    }

    fn is_available(&self) -> bool {
        self.link.is_up()
    }

    fn epoch(&self) -> u64 {
        self.link.pushes.epoch()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        // Nothing to wait for: the sockets close as their tasks are dropped, which
        // `Background::shutdown` waits for.
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

/// Converts an expiry to the range of Redis: at least one millisecond.
fn ms(expiry: Duration) -> u64 {
    millis(expiry).clamp(1, LONGEST_EXPIRY_MS)
}
