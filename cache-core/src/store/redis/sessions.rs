//! What sessions need: one key in the place of another, and indexes whose members end by themselves.

use bytes::Bytes;

use super::{RedisStore, Replaced, ms, on, reply, scripts};
use crate::clock::Timestamp;
use crate::error::Result;
use crate::store::{Expiry, Store as _};

pub(super) async fn replace(
    store: &RedisStore,
    old: &str,
    expected: Bytes,
    key: &str,
    bytes: Bytes,
    expiry: Option<Expiry>,
) -> Result<Replaced> {
    const STEP: &str = "replace";
    let mut script = scripts::REPLACE.key(old);
    script.key(key).arg(expected.as_ref()).arg(bytes.as_ref());
    script.arg(expiry.map_or_else(String::new, |expiry| ms(expiry).to_string()));
    Ok(match reply::integer(STEP, store.run(STEP, &script).await?)? {
        1 => Replaced::Done,
        0 => Replaced::Conflict,
        -2 => Replaced::Taken,
        _ => Replaced::Gone,
    })
}

pub(super) async fn index_members(store: &RedisStore, key: &str) -> Result<Vec<(String, Timestamp)>> {
    const STEP: &str = "index_members";
    let mut script = scripts::INDEX_MEMBERS.key(key);
    script.arg(store.now().as_millis());
    reply::scored(STEP, store.run(STEP, &script).await?)
}

pub(super) async fn index_put(
    store: &RedisStore,
    key: &str,
    member: &str,
    ends: Timestamp,
    instead_of: Option<&str>,
) -> Result<bool> {
    const STEP: &str = "index_put";
    let mut script = scripts::INDEX_PUT.key(key);
    script.arg(store.now().as_millis()).arg(member).arg(ends.as_millis()).arg(instead_of);
    Ok(reply::integer(STEP, store.run(STEP, &script).await?)? == 1)
}

pub(super) async fn index_remove(store: &RedisStore, key: &str, members: &[String]) -> Result<u64> {
    const STEP: &str = "index_remove";
    if members.is_empty() {
        return Ok(0);
    }
    reply::count(STEP, store.link.command(STEP, on(key, "ZREM").arg(members)).await?)
}
