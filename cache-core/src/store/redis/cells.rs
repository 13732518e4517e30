//! The operations of cells: single keys, writes of several keys at once, indexes whose members
//! expire, and lists of keys.

use bytes::Bytes;
use futures::future::BoxFuture;
use redis::Value;

use super::{RedisStore, ms, on, reply, scripts};
use crate::clock::Timestamp;
use crate::error::Result;
use crate::store::cells::OverLimit;
use crate::store::{CellStore, Entered, Entering, Expiry, Kind, Loaded, MARK, Replaced, Replacing, Swapped, Tombstone};

/// The approximate number of keys that one step of a list checks.
const LISTED: u32 = 100;

impl CellStore for RedisStore {
    fn now(&self) -> Timestamp {
        self.link.now()
    }

    fn reads_synchronously(&self) -> bool {
        false
    }

    fn load<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Loaded>>> {
        const STEP: &str = "load";
        self.retried(move || async move {
            let mut pipeline = redis::pipe();
            pipeline.add_command(on(key, "GET")).add_command(on(key, "PTTL"));
            let mut replies = self.link.pipeline(STEP, &pipeline).await?;
            let Some(bytes) = reply::bytes(STEP, replies.raw()?)? else { return Ok(None) };
            Ok(Some((bytes, reply::time_left(STEP, replies.raw()?)?)))
        })
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

    fn load_marked<'a>(&'a self, key: &'a str, mark: &'a str) -> BoxFuture<'a, Result<(Option<Loaded>, bool)>> {
        const STEP: &str = "load";
        Box::pin(async move {
            let mut pipeline = redis::pipe();
            pipeline.add_command(on(key, "GET")).add_command(on(key, "PTTL")).add_command(on(mark, "EXISTS"));
            let mut replies = self.link.pipeline(STEP, &pipeline).await?;
            let (bytes, left) = (replies.raw()?, replies.raw()?);
            let marked = reply::count(STEP, replies.raw()?)? > 0;
            let Some(bytes) = reply::bytes(STEP, bytes)? else { return Ok((None, marked)) };
            Ok((Some((bytes, reply::time_left(STEP, left)?)), marked))
        })
    }

    fn delete_marked<'a>(&'a self, key: &'a str, mark: Tombstone<'a>) -> BoxFuture<'a, Result<bool>> {
        const STEP: &str = "delete";
        Box::pin(async move {
            let mut pipeline = redis::pipe();
            let set = on(mark.key, "SET").arg(MARK).arg("PX").arg(ms(mark.lasts)).to_owned();
            pipeline.add_command(set).add_command(on(key, "UNLINK"));
            let mut replies = self.link.pipeline(STEP, &pipeline).await?;
            // A server without memory refuses the mark but still deletes, which is what matters.
            let _mark = replies.raw()?;
            Ok(reply::count(STEP, replies.raw()?)? > 0)
        })
    }

    fn replace<'a>(&'a self, replacing: Replacing<'a>) -> BoxFuture<'a, Result<Replaced>> {
        const STEP: &str = "replace";
        Box::pin(async move {
            let Replacing { old, expected, key, bytes, expiry, mark } = replacing;
            let mut script = scripts::REPLACE.key(old);
            script.key(key).key(mark.map_or(old, |mark| mark.key));
            script.arg(expected.as_ref()).arg(bytes.as_ref()).arg(milliseconds(expiry));
            script.arg(milliseconds(mark.map(|mark| mark.lasts)));
            Ok(match reply::integer(STEP, self.run(STEP, &script).await?)? {
                1 => Replaced::Done,
                0 => Replaced::Conflict,
                -2 => Replaced::Taken,
                _ => Replaced::Gone,
            })
        })
    }

    fn enter<'a>(&'a self, entering: Entering<'a>) -> BoxFuture<'a, Result<Entered>> {
        const STEP: &str = "enter";
        Box::pin(async move {
            let Entering { key, index, over, leaves, limit, mark, .. } = entering;
            let mut script = scripts::ENTER.key(index);
            script.key(key).key(over.map_or(key, |(from, _)| from));
            script.key(leaves.map_or(index, |(index, _)| index)).key(mark.map_or(index, |mark| mark.key));
            for key in entering.deletes {
                script.key(key);
            }
            script.arg(ms(entering.lasts)).arg(entering.member);
            script.arg(entering.bytes.as_ref()).arg(milliseconds(entering.expiry));
            script.arg(match over {
                None => "create",
                Some((from, _)) if from == key => "swap",
                Some(_) => "replace",
            });
            script.arg(over.map_or(&[][..], |(_, expected)| expected.as_ref()));
            script.arg(leaves.map_or("", |(_, member)| member));
            script.arg(limit.map_or("", |limit| limit.prefix));
            script.arg(limit.map_or_else(String::new, |limit| limit.most.to_string()));
            script.arg(if limit.is_some_and(|limit| limit.then == OverLimit::Refuse) { "refuse" } else { "" });
            script.arg(milliseconds(mark.map(|mark| mark.lasts)));
            Ok(match reply::checked(STEP, self.run(STEP, &script).await?)? {
                Value::Int(-1) => Entered::Gone,
                Value::Int(-2) => Entered::Taken,
                Value::Int(_) => Entered::Full,
                Value::BulkString(found) => Entered::Conflict(found.into()),
                ended => Entered::Done(reply::texts(STEP, ended)?),
            })
        })
    }

    fn index_members<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Vec<(String, Timestamp)>>> {
        const STEP: &str = "index_members";
        Box::pin(async move {
            let script = scripts::INDEX_MEMBERS.key(key);
            reply::scored(STEP, self.run(STEP, &script).await?)
        })
    }

    fn index_put<'a>(&'a self, key: &'a str, member: &'a str, lasts: Expiry) -> BoxFuture<'a, Result<()>> {
        const STEP: &str = "index_put";
        Box::pin(async move {
            let mut script = scripts::INDEX_PUT.key(key);
            script.arg(ms(lasts)).arg(member);
            reply::integer(STEP, self.run(STEP, &script).await?).map(drop)
        })
    }

    fn index_remove<'a>(&'a self, key: &'a str, members: &'a [String]) -> BoxFuture<'a, Result<u64>> {
        const STEP: &str = "index_remove";
        Box::pin(async move {
            if members.is_empty() {
                return Ok(0);
            }
            reply::count(STEP, self.link.command(STEP, on(key, "ZREM").arg(members)).await?)
        })
    }

    fn list<'a>(&'a self, prefix: &'a str, kind: Kind, from: u64) -> BoxFuture<'a, Result<(Vec<String>, u64)>> {
        const STEP: &str = "list";
        Box::pin(async move {
            let mut command = redis::cmd("SCAN");
            command.arg(from).arg("MATCH").arg(pattern(prefix)).arg("COUNT").arg(LISTED);
            command.arg("TYPE").arg(match kind {
                Kind::Bytes => "string",
                Kind::Index => "zset",
            });
            reply::page(STEP, self.link.command(STEP, &command).await?)
        })
    }
}

/// Formats an expiry for the scripts: empty for none.
fn milliseconds(expiry: Option<Expiry>) -> String {
    expiry.map_or_else(String::new, |expiry| ms(expiry).to_string())
}

/// Returns a pattern for keys that begin with exactly this text.
pub(super) fn pattern(prefix: &str) -> String {
    let mut pattern = String::with_capacity(prefix.len().saturating_add(1));
    for letter in prefix.chars() {
        if matches!(letter, '*' | '?' | '[' | ']' | '^' | '\\') {
            pattern.push('\\');
        }
        pattern.push(letter);
    }
    pattern.push('*');
    pattern
}
