//! Values that other programs share, and their commands.

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use redis::{ToRedisArgs, Value};

use super::retry::retry;
use super::{RedisStore, error, ms, on, reply, scripts};
use crate::error::Result;
use crate::store::{Expiry, Loaded, PlainFill, PlainStore, Put, Reply, When};

impl PlainStore for RedisStore {
    fn put<'a>(&'a self, key: &'a str, bytes: Bytes, expiry: Option<Expiry>) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { retry(&self.link, || self.set("put", key, &bytes, expiry, false)).await.map(drop) })
    }

    fn time_left<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Option<Duration>>>> {
        const STEP: &str = "ttl";
        Box::pin(async move {
            let left = reply::integer(STEP, self.link.command(STEP, &on(key, "PTTL")).await?)?;
            Ok(match left {
                -2 => None,
                -1 => Some(None),
                left => Some(Some(Duration::from_millis(u64::try_from(left).unwrap_or(0)))),
            })
        })
    }

    fn put_plain<'a>(&'a self, key: &'a str, lease: &'a str, bytes: Bytes, put: Put) -> BoxFuture<'a, Result<bool>> {
        const STEP: &str = "put";
        Box::pin(async move {
            let mut command = redis::cmd("SET");
            command.arg(key).arg(bytes.as_ref());
            match put.when {
                When::Always => {}
                When::Absent => {
                    command.arg("NX");
                }
                When::Present => {
                    command.arg("XX");
                }
            }
            if let Some(expiry) = put.expiry {
                command.arg("PX").arg(ms(expiry));
            }
            if put.keep_expiry {
                command.arg("KEEPTTL");
            }
            let mut pipeline = redis::pipe();
            pipeline.add_command(command).add_command(on(lease, "UNLINK"));
            let mut replies = self.link.pipeline(STEP, &pipeline).await?;
            let was_set = reply::was_set(STEP, replies.raw()?)?;
            replies.value()?;
            Ok(was_set)
        })
    }

    fn remove_plain<'a>(&'a self, key: &'a str, lease: &'a str) -> BoxFuture<'a, Result<bool>> {
        const STEP: &str = "delete";
        Box::pin(async move {
            let mut pipeline = redis::pipe();
            pipeline.add_command(on(key, "UNLINK")).add_command(on(lease, "UNLINK"));
            let mut replies = self.link.pipeline(STEP, &pipeline).await?;
            let removed = reply::count(STEP, replies.raw()?)? > 0;
            replies.value()?;
            Ok(removed)
        })
    }

    fn increment<'a>(&'a self, key: &'a str, by: i64) -> BoxFuture<'a, Result<i64>> {
        const STEP: &str = "increment";
        Box::pin(async move { reply::integer(STEP, self.link.command(STEP, on(key, "INCRBY").arg(by)).await?) })
    }

    fn command(&self, words: Vec<Vec<u8>>) -> BoxFuture<'_, Result<Reply>> {
        const STEP: &str = "command";
        Box::pin(async move {
            let mut command = redis::Cmd::new();
            for word in &words {
                command.arg(word);
            }
            any(STEP, self.link.command(STEP, &command).await?)
        })
    }

    fn load_tracked<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<(Option<Loaded>, bool)>> {
        const STEP: &str = "load";
        Box::pin(async move {
            let session = self.link.session(STEP).await?;
            let tracks = session.tracks();
            let mut pipeline = redis::pipe();
            if tracks {
                pipeline.cmd("CLIENT").arg("CACHING").arg("YES");
            }
            pipeline.add_command(on(key, "GET")).add_command(on(key, "PTTL"));
            let mut replies = self.link.pipeline_on(&session, STEP, &pipeline).await?;
            let tracked = tracks && replies.value().is_ok();
            let Some(bytes) = reply::bytes(STEP, replies.raw()?)? else { return Ok((None, tracked)) };
            self.sizes.saw(key, bytes.len());
            Ok((Some((bytes, reply::time_left(STEP, replies.raw()?)?)), tracked))
        })
    }

    fn fill_plain<'a>(&'a self, fill: PlainFill<'a>) -> BoxFuture<'a, Result<bool>> {
        const STEP: &str = "fill";
        Box::pin(async move {
            let PlainFill { key, lease, token, over, bytes, expiry } = fill;
            let mut script = scripts::FILL_PLAIN.key(lease);
            let [awaited, unawaited] = token.forms(crate::store::Replaces::Nothing);
            script.key(key).arg(awaited).arg(unawaited).arg(bytes.as_ref()).arg(ms(expiry));
            if let Some(over) = &over {
                script.arg(over.as_ref());
            }
            Ok(reply::integer(STEP, self.run(STEP, &script).await?)? == 1)
        })
    }
}

/// Converts any reply. An error reply within a list makes all of it an error.
fn any(step: &'static str, value: Value) -> Result<Reply> {
    let all = |items: Vec<Value>| items.into_iter().map(|item| any(step, item)).collect::<Result<Vec<Reply>>>();
    Ok(match reply::checked(step, value)? {
        Value::Nil => Reply::Nil,
        Value::Int(number) => Reply::Integer(number),
        Value::Double(number) => Reply::Double(number),
        Value::Boolean(is_so) => Reply::Boolean(is_so),
        Value::BulkString(bytes) => Reply::Bytes(bytes),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Reply::Bytes(text.into_bytes()),
        Value::Okay => Reply::Bytes(b"OK".to_vec()),
        // Bytes, or a `BigInt` if any crate of the program enables the feature `num-bigint` of
        // `redis`, which is on by default.
        Value::BigNumber(digits) => Reply::Bytes(digits.to_redis_args().concat()),
        Value::Array(items) | Value::Set(items) => Reply::Array(all(items)?),
        Value::Map(pairs) => {
            let pair = |(name, item)| Ok((any(step, name)?, any(step, item)?));
            Reply::Map(pairs.into_iter().map(pair).collect::<Result<_>>()?)
        }
        Value::Attribute { data, .. } => any(step, *data)?,
        _ => return Err(error::unexpected(step)),
    })
}
