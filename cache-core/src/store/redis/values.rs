//! Value keys: reads, waiting for a change, and explicit writes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;

use super::versions::version;
use super::{RedisStore, ms, on, reply, scripts, warm};
use crate::error::Result;
use crate::events::Table;
use crate::store::{
    Expiry, FILL_ID_AT, REGISTRY_EXPIRY, ReadMany, Reading, Siblings, Slot, ValueStore, Versioned, Wake, aside_key,
    lease_key,
};

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
            let (mut found, tracked) = self.steadily(read).await?;
            self.sizes.saw(key, found.first().and_then(Option::as_ref).map_or(0, Bytes::len));
            let value = if found.is_empty() { None } else { found.remove(0) };
            // MGET returns nothing for a value of another type; taking the lease finds it.
            Ok((Slot::of(value, None), found.into_iter().map(version).collect(), tracked))
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
        Box::pin(self.steadily(move || self.read_all(keys, versions, track)))
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
}
