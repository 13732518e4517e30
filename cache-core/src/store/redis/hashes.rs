//! Hashes, which other programs read and write, too.

use bytes::Bytes;
use futures::future::BoxFuture;

use super::{RedisStore, on, reply};
use crate::error::Result;
use crate::store::HashStore;

/// Like [`Store::hash_set`](crate::store::Store::hash_set); the other functions likewise.
pub(super) async fn set(store: &RedisStore, key: &str, fields: Vec<(String, Bytes)>) -> Result<()> {
    if fields.is_empty() {
        return Ok(());
    }
    let mut command = on(key, "HSET");
    for (field, bytes) in &fields {
        command.arg(field).arg(bytes.as_ref());
    }
    reply::count("hash_set", store.link.command("hash_set", &command).await?).map(drop)
}

pub(super) async fn get(store: &RedisStore, key: &str, field: &str) -> Result<Option<Bytes>> {
    reply::bytes("hash_get", store.link.command("hash_get", on(key, "HGET").arg(field)).await?)
}

pub(super) async fn all(store: &RedisStore, key: &str) -> Result<Vec<(String, Bytes)>> {
    reply::fields("hash_all", store.link.command("hash_all", &on(key, "HGETALL")).await?)
}

pub(super) async fn keys(store: &RedisStore, key: &str) -> Result<Vec<String>> {
    reply::texts("hash_keys", store.link.command("hash_keys", &on(key, "HKEYS")).await?)
}

pub(super) async fn remove(store: &RedisStore, key: &str, fields: &[String]) -> Result<u64> {
    if fields.is_empty() {
        return Ok(0);
    }
    reply::count("hash_remove", store.link.command("hash_remove", on(key, "HDEL").arg(fields)).await?)
}

impl HashStore for RedisStore {
    fn hash_set<'a>(&'a self, key: &'a str, fields: Vec<(String, Bytes)>) -> BoxFuture<'a, Result<()>> {
        Box::pin(set(self, key, fields))
    }

    fn hash_get<'a>(&'a self, key: &'a str, field: &'a str) -> BoxFuture<'a, Result<Option<Bytes>>> {
        Box::pin(get(self, key, field))
    }

    fn hash_all<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Vec<(String, Bytes)>>> {
        Box::pin(all(self, key))
    }

    fn hash_keys<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Vec<String>>> {
        Box::pin(keys(self, key))
    }

    fn hash_remove<'a>(&'a self, key: &'a str, fields: &'a [String]) -> BoxFuture<'a, Result<u64>> {
        Box::pin(remove(self, key, fields))
    }

    fn hash_increment<'a>(&'a self, key: &'a str, field: &'a str, by: i64) -> BoxFuture<'a, Result<i64>> {
        const STEP: &str = "increment";
        Box::pin(
            async move { reply::integer(STEP, self.link.command(STEP, on(key, "HINCRBY").arg(field).arg(by)).await?) },
        )
    }
}
