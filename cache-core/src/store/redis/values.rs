//! Value keys: reads, waiting for a change, and explicit writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;

use super::retry::retry;
use super::trips::in_turn;
use super::versions::version_of;
use super::{RedisStore, ms, on, reply, scripts, warm};
use crate::error::Result;
use crate::observe::events::Table;
use crate::store::{
    Expiry, FILL_ID_AT, REGISTRY_EXPIRY, ReadMany, Reading, Siblings, Slot, ValueStore, Versioned, Wake, aside_key,
    lease_key,
};

/// How many versions are read together with values. More of them take round trips of their own,
/// before the values.
const VERSIONS_ALONG: usize = 64;
/// How long a waiter sleeps before it checks again if the server does not push.
const POLL: Duration = Duration::from_millis(100);

impl ValueStore for RedisStore {
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
            let (mut found, tracked) = retry(&self.link, read).await?;
            self.sizes.saw(key, found.first().and_then(Option::as_ref).map_or(0, Bytes::len));
            let value = if found.is_empty() { None } else { found.remove(0) };
            // MGET returns nothing for a value of another type; taking the lease finds it.
            Ok((Slot::of(value, None), found.into_iter().map(version_of).collect(), tracked))
        })
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

    fn read_many<'a>(
        &'a self,
        keys: &'a [Arc<str>],
        versions: &'a [Arc<str>],
        track: bool,
    ) -> BoxFuture<'a, Result<ReadMany>> {
        self.retried(move || self.read_all(keys, versions, track))
    }

    fn touch<'a>(&'a self, keys: &'a [Arc<str>]) -> BoxFuture<'a, Result<()>> {
        Box::pin(warm::touch(self, keys))
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
        self.retried(move || async move {
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
        })
    }
}

impl RedisStore {
    async fn read_all(&self, keys: &[Arc<str>], versions: &[Arc<str>], track: bool) -> Result<ReadMany> {
        const STEP: &str = "read";
        let along = if versions.len() <= VERSIONS_ALONG { versions } else { &[] };
        // The versions first: a record that was stored under later ones does not agree with them.
        let (mut found, mut all_tracked) = if along.len() < versions.len() {
            self.many_versions(STEP, versions, true).await?
        } else {
            (Vec::new(), true)
        };
        let (mut rest, mut along) = (keys, Some(along).filter(|along| !along.is_empty()));
        let failed = AtomicBool::new(false);
        let trips = in_turn(|| {
            let (some, others) = rest.split_at(self.sizes.fitting(rest.iter().map(|key| &**key)));
            rest = others;
            let versions = along.take().unwrap_or_default();
            // After a failure nothing more is read: the caller gets none of it.
            if failed.load(Ordering::Relaxed) || (some.is_empty() && versions.is_empty()) {
                return None;
            }
            let failed = &failed;
            Some(async move {
                let read = self.read_some(STEP, some, versions, track).await;
                failed.fetch_or(read.is_err(), Ordering::Relaxed);
                read
            })
        });
        let mut slots = Vec::with_capacity(keys.len());
        for read in trips.await {
            let (some, versions, tracked) = read?;
            slots.extend(some);
            found.extend(versions);
            all_tracked &= tracked;
        }
        Ok((slots, found, all_tracked && (track || !versions.is_empty())))
    }

    async fn read_some(
        &self,
        step: &'static str,
        keys: &[Arc<str>],
        versions: &[Arc<str>],
        track: bool,
    ) -> Result<ReadMany> {
        let values: Vec<&str> = keys.iter().map(|key| &**key).collect();
        let (mut found, tracked) = if !versions.is_empty() {
            self.versions(step, &values, versions, true, track).await?
        } else if track {
            self.versions(step, &values, &[], false, true).await?
        } else {
            let reply = self.link.command(step, redis::cmd("MGET").arg(&values)).await?;
            // Nothing was to be tracked.
            (reply::all_bytes(step, reply)?, true)
        };
        let versions = found.split_off(keys.len().min(found.len()));
        for (key, value) in keys.iter().zip(&found) {
            self.sizes.saw(key, value.as_ref().map_or(0, Bytes::len));
        }
        // MGET returns nothing for a value of another type; taking the lease finds it.
        let slots = found.into_iter().map(|value| Slot::of(value, None)).collect();
        Ok((slots, versions.into_iter().map(version_of).collect(), tracked))
    }
}
