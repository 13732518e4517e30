//! Hashes, which other programs read and write, too.

use bytes::Bytes;
use futures::future::BoxFuture;

use super::{RedisStore, on, reply};
use crate::error::Result;
use crate::store::HashStore;

impl HashStore for RedisStore {
    fn hash_set<'a>(&'a self, key: &'a str, fields: Vec<(String, Bytes)>) -> BoxFuture<'a, Result<()>> {
        const STEP: &str = "hash_set";
        Box::pin(async move {
            if fields.is_empty() {
                return Ok(());
            }
            let mut command = on(key, "HSET");
            for (field, bytes) in &fields {
                command.arg(field).arg(bytes.as_ref());
            }
            reply::count(STEP, self.link.command(STEP, &command).await?).map(drop)
        })
    }

    fn hash_get<'a>(&'a self, key: &'a str, field: &'a str) -> BoxFuture<'a, Result<Option<Bytes>>> {
        const STEP: &str = "hash_get";
        Box::pin(async move { reply::bytes(STEP, self.link.command(STEP, on(key, "HGET").arg(field)).await?) })
    }

    fn hash_all<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Vec<(String, Bytes)>>> {
        const STEP: &str = "hash_all";
        Box::pin(async move { reply::fields(STEP, self.link.command(STEP, &on(key, "HGETALL")).await?) })
    }

    fn hash_keys<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Vec<String>>> {
        const STEP: &str = "hash_keys";
        Box::pin(async move { reply::texts(STEP, self.link.command(STEP, &on(key, "HKEYS")).await?) })
    }

    fn hash_remove<'a>(&'a self, key: &'a str, fields: &'a [String]) -> BoxFuture<'a, Result<u64>> {
        const STEP: &str = "hash_remove";
        Box::pin(async move {
            if fields.is_empty() {
                return Ok(0);
            }
            reply::count(STEP, self.link.command(STEP, on(key, "HDEL").arg(fields)).await?)
        })
    }

    fn hash_increment<'a>(&'a self, key: &'a str, field: &'a str, by: i64) -> BoxFuture<'a, Result<i64>> {
        const STEP: &str = "increment";
        Box::pin(
            async move { reply::integer(STEP, self.link.command(STEP, on(key, "HINCRBY").arg(field).arg(by)).await?) },
        )
    }
}
