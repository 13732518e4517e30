//! Hashes, which other programs read and write, too.

use bytes::Bytes;

use super::{RedisStore, on, reply};
use crate::error::Result;

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
