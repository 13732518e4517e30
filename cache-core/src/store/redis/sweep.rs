//! Finds invalidated records by `SCAN` and removes them by comparison.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;

use super::{RedisStore, cells, error, on, reply, scripts};
use crate::error::Result;
use crate::key::versions::origin;
use crate::store::sweep::{Heads, SweepStore, VersionState};
use crate::value::envelope::Envelope;

/// The approximate number of the server's keys that one step checks.
const SCANNED: u32 = 250;
/// How much of a record is read at first: enough for a dozen tags.
const HEAD_BYTES: usize = 512;
/// How much is read for all the tags that a record can have.
const WHOLE_HEAD_BYTES: usize = 64 << 10;

impl SweepStore for RedisStore {
    fn heads<'a>(&'a self, prefix: &'a str, from: u64) -> BoxFuture<'a, Result<(Heads, u64)>> {
        const STEP: &str = "sweep";
        Box::pin(async move {
            let mut scan = redis::cmd("SCAN");
            scan.arg(from).arg("MATCH").arg(cells::pattern(prefix)).arg("COUNT").arg(SCANNED).arg("TYPE").arg("string");
            let (mut keys, next) = reply::page(STEP, self.link.command(STEP, &scan).await?)?;
            keys.retain(|key| origin(key).is_some());
            let (whole, mut cut) = (self.first_bytes(keys, HEAD_BYTES).await?, Vec::new());
            let mut heads = Vec::with_capacity(whole.len());
            for (key, bytes) in whole {
                match Envelope::peek(&bytes) {
                    Some((_, length)) => heads.push((key, bytes.slice(..length))),
                    None if bytes.len() == HEAD_BYTES && Envelope::is_head(&bytes) => cut.push(key),
                    None => {}
                }
            }
            for (key, bytes) in self.first_bytes(cut, WHOLE_HEAD_BYTES).await? {
                if let Some((_, length)) = Envelope::peek(&bytes) {
                    heads.push((key, bytes.slice(..length)));
                }
            }
            Ok((heads, next))
        })
    }

    fn current<'a>(&'a self, versions: &'a [Arc<str>]) -> BoxFuture<'a, Result<Vec<VersionState>>> {
        const STEP: &str = "sweep";
        Box::pin(async move {
            if versions.is_empty() {
                return Ok(Vec::new());
            }
            let mut command = redis::cmd("MGET");
            command.arg(versions.iter().map(|version| &**version).collect::<Vec<_>>());
            let found = reply::all_bytes(STEP, self.link.command(STEP, &command).await?)?;
            Ok(found.iter().map(|bytes| VersionState::of(bytes.as_deref())).collect())
        })
    }

    fn remove_heads<'a>(&'a self, heads: &'a Heads) -> BoxFuture<'a, Result<u64>> {
        const STEP: &str = "sweep";
        Box::pin(async move {
            if heads.is_empty() {
                return Ok(0);
            }
            let mut pipeline = redis::pipe();
            for (key, head) in heads {
                pipeline.invoke_script(scripts::REMOVE_HEAD.key(&**key).arg(head.as_ref()));
            }
            let mut replies = self.link.pipeline(STEP, &pipeline).await?;
            let mut removed = 0_u64;
            for (key, head) in heads {
                let mut answer = replies.raw()?;
                if error::is_unknown_script(&answer) {
                    answer = self.run(STEP, scripts::REMOVE_HEAD.key(&**key).arg(head.as_ref())).await?;
                }
                removed = removed.saturating_add(reply::count(STEP, answer)?);
            }
            Ok(removed)
        })
    }
}

impl RedisStore {
    async fn first_bytes(&self, keys: Vec<String>, bytes: usize) -> Result<Vec<(String, Bytes)>> {
        const STEP: &str = "sweep";
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipeline = redis::pipe();
        for key in &keys {
            pipeline.add_command(on(key, "GETRANGE").arg(0).arg(bytes.saturating_sub(1)).to_owned());
        }
        let mut replies = self.link.pipeline(STEP, &pipeline).await?;
        let mut found = Vec::with_capacity(keys.len());
        for key in keys {
            // A key of another type is no longer a record.
            if let Ok(Some(bytes)) = reply::bytes(STEP, replies.raw()?) {
                found.push((key, bytes));
            }
        }
        Ok(found)
    }
}
