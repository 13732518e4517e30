//! Leases and fills, one at a time. Each is compared on the server with what stands there.

use std::time::Duration;

use bytes::Bytes;

use super::requests::{
    acquired, beside_script, fill_script, in_place_script, or_ours, refresh, release_script, renew_script, set_lease,
    track_filled,
};
use super::{RedisStore, faults, ms, reply, scripts};
use crate::error::Result;
use crate::store::{Acquired, Expiry, FILL_ID_AT, Filled, Over, Token};

/// As [`Store::acquire`](crate::store::Store::acquire); the others likewise.
pub(super) async fn acquire(
    store: &RedisStore,
    key: &str,
    token: Token,
    lease: Duration,
    over: Over,
) -> Result<Acquired> {
    const STEP: &str = "acquire";
    match over {
        Over::Nothing => {
            let found = store.link.command(STEP, &set_lease(key, token, lease)).await?;
            reply::slot(STEP, found, None).map(or_ours)
        }
        Over::Record(id) => acquired(STEP, store.run(STEP, &beside_script(key, token, lease, id)).await?),
    }
}

pub(super) async fn acquire_in_place(
    store: &RedisStore,
    key: &str,
    token: Token,
    lease: Duration,
    fill_id: u64,
) -> Result<Acquired> {
    const STEP: &str = "acquire";
    acquired(STEP, store.run(STEP, &in_place_script(key, token, lease, fill_id)).await?)
}

pub(super) async fn fill(
    store: &RedisStore,
    key: &str,
    token: Token,
    over: Over,
    record: Bytes,
    expiry: Expiry,
) -> Result<Filled> {
    const STEP: &str = "fill";
    let script = fill_script(key, token, over, &record, expiry);
    let session = store.link.session(STEP)?;
    let mut pipeline = redis::pipe();
    pipeline.invoke_script(&script);
    if session.tracks() {
        track_filled(&mut pipeline, key);
    }
    let mut replies = store.link.pipeline_on(&session, STEP, &pipeline).await?;
    let stored = replies.raw()?;
    if faults::is_unknown_script(&stored) {
        let stored = reply::integer(STEP, store.run(STEP, &script).await?)?;
        return Ok(if stored == 1 { Filled::Stored } else { Filled::Refused });
    }
    if reply::integer(STEP, stored)? != 1 {
        return Ok(Filled::Refused);
    }
    let tracked = session.tracks() && replies.value().is_ok() && {
        // Somebody else may have written in between: then what is tracked is theirs.
        let stands = reply::bytes(STEP, replies.raw()?)?;
        stands.as_deref() == record.get(FILL_ID_AT)
    };
    Ok(if tracked { Filled::Tracked } else { Filled::Stored })
}

pub(super) async fn rewrite_head(
    store: &RedisStore,
    key: &str,
    token: Token,
    fill_id: u64,
    head: Bytes,
    expiry: Expiry,
) -> Result<bool> {
    const STEP: &str = "rewrite";
    let mut script = refresh(&scripts::REWRITE_HEAD, key);
    script.arg(token.hex()).arg(head.as_ref()).arg(ms(expiry)).arg(&fill_id.to_le_bytes()[..]);
    Ok(reply::integer(STEP, store.run(STEP, &script).await?)? == 1)
}

pub(super) async fn renew(store: &RedisStore, key: &str, token: Token, over: Over, lease: Duration) -> Result<bool> {
    let script = renew_script(key, token, over, lease);
    Ok(reply::integer("renew", store.run("renew", &script).await?)? == 1)
}

pub(super) async fn release(store: &RedisStore, key: &str, token: Token, over: Over) -> Result<()> {
    store.run("release", &release_script(key, token, over)).await.map(drop)
}

pub(super) async fn throttle(store: &RedisStore, key: &str, token: Token, throttle: Duration) -> Result<bool> {
    let mut script = refresh(&scripts::THROTTLE, key);
    script.arg(token.hex()).arg(ms(throttle));
    Ok(reply::integer("throttle", store.run("throttle", &script).await?)? == 1)
}
