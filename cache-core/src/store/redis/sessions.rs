//! What sessions need: writes of several keys at once, indexes whose members end by themselves, and lists of keys.

use bytes::Bytes;
use futures::future::BoxFuture;

use super::{RedisStore, ms, on, reply, scripts};
use crate::clock::Timestamp;
use crate::error::Result;
use crate::store::sessions::OverLimit;
use crate::store::{Entered, Entering, Expiry, Kind, Loaded, MARK, Mark, Replaced, SessionStore, Store as _};

/// How many keys a step of a list looks at, about.
const LISTED: u32 = 100;

impl SessionStore for RedisStore {
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

    fn delete_marked<'a>(&'a self, key: &'a str, mark: Mark<'a>) -> BoxFuture<'a, Result<bool>> {
        const STEP: &str = "delete";
        Box::pin(async move {
            let mut pipeline = redis::pipe();
            let set = on(mark.key, "SET").arg(MARK).arg("PX").arg(ms(mark.lasts)).to_owned();
            pipeline.add_command(set).add_command(on(key, "UNLINK"));
            let mut replies = self.link.pipeline(STEP, &pipeline).await?;
            // A server that is full takes no mark, but still deletes, and that is what counts.
            let _mark = replies.raw()?;
            Ok(reply::count(STEP, replies.raw()?)? > 0)
        })
    }

    fn replace<'a>(
        &'a self,
        old: &'a str,
        expected: Bytes,
        key: &'a str,
        bytes: Bytes,
        expiry: Option<Expiry>,
        mark: Option<Mark<'a>>,
    ) -> BoxFuture<'a, Result<Replaced>> {
        const STEP: &str = "replace";
        Box::pin(async move {
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
            script.arg(self.now().as_millis()).arg(entering.member).arg(entering.ends.as_millis());
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
                redis::Value::Int(-1) => Entered::Gone,
                redis::Value::Int(-2) => Entered::Taken,
                redis::Value::Int(_) => Entered::Full,
                redis::Value::BulkString(found) => Entered::Conflict(found.into()),
                ended => Entered::Done(reply::texts(STEP, ended)?),
            })
        })
    }

    fn index_members<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Vec<(String, Timestamp)>>> {
        const STEP: &str = "index_members";
        Box::pin(async move {
            let mut script = scripts::INDEX_MEMBERS.key(key);
            script.arg(self.now().as_millis());
            reply::scored(STEP, self.run(STEP, &script).await?)
        })
    }

    fn index_put<'a>(&'a self, key: &'a str, member: &'a str, ends: Timestamp) -> BoxFuture<'a, Result<()>> {
        const STEP: &str = "index_put";
        Box::pin(async move {
            let mut script = scripts::INDEX_PUT.key(key);
            script.arg(self.now().as_millis()).arg(member).arg(ends.as_millis());
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

/// As the scripts take it: empty for none.
fn milliseconds(expiry: Option<Expiry>) -> String {
    expiry.map_or_else(String::new, |expiry| ms(expiry).to_string())
}

/// What begins with exactly this text.
fn pattern(prefix: &str) -> String {
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
