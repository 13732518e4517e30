//! Leases and fills, one at a time. Each is compared on the server with the current content.

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;

use super::batch::filled;
use super::requests::{
    acquired, beside_script, fill_script, in_place_script, is_ours, or_ours, over_mark_script, refresh, release_script,
    renew_script, set_lease, track_filled,
};
use super::{RedisStore, error, ms, on, reply, scripts};
use crate::error::{ErrorKind, Result};
use crate::store::{Acquired, Claim, Expiry, Fill, Filled, LeaseStore, Over, Token, Want, lease_key};

/// Like [`Store::acquire`](crate::store::Store::acquire); the other functions likewise.
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
            if is_ours(&found, token) {
                return Ok(Acquired::Ours);
            }
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

pub(super) async fn acquire_over_mark(
    store: &RedisStore,
    key: &str,
    token: Token,
    lease: Duration,
    mark: Token,
) -> Result<Acquired> {
    const STEP: &str = "acquire";
    acquired(STEP, store.run(STEP, &over_mark_script(key, token, lease, mark)).await?)
}

pub(super) async fn fill(store: &RedisStore, fill: &Fill) -> Result<Filled> {
    const STEP: &str = "fill";
    let Fill { claim: Claim { key, token, over }, record, expiry, track } = fill;
    store.sizes.saw(key, record.len());
    let script = fill_script(key, *token, *over, record, *expiry);
    let session = store.link.session(STEP).await?;
    let tracks = *track && session.tracks();
    let mut pipeline = redis::pipe();
    pipeline.invoke_script(&script);
    if tracks {
        track_filled(&mut pipeline, key);
    }
    let mut replies = store.link.pipeline_on(&session, STEP, &pipeline).await?;
    let stored = replies.raw()?;
    if error::is_unknown_script(&stored) {
        let stored = reply::integer(STEP, store.run(STEP, &script).await?)?;
        return Ok(if stored == 1 { Filled::Stored } else { Filled::Refused });
    }
    let stands = if tracks { (replies.value().is_ok(), Some(replies.raw()?)) } else { (false, None) };
    filled(STEP, fill, stored, stands)
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

pub(super) async fn release(
    store: &RedisStore,
    key: &str,
    token: Token,
    over: Over,
    unstored: Option<Duration>,
) -> Result<()> {
    match store.run("release", &release_script(key, token, over, unstored)).await {
        Err(error) if error.kind() == ErrorKind::Refused => remove(store, key, over).await,
        done => done.map(drop),
    }
}

/// Ends a lease without a comparison, if the server refuses the script that compares, for example
/// because a right was lost. If the lease belongs to another caller by now, the effect is an
/// invalidation.
pub(super) async fn remove(store: &RedisStore, key: &str, over: Over) -> Result<()> {
    let key = match over {
        Over::Nothing => key.to_owned(),
        Over::Record(_) => lease_key(key),
    };
    reply::checked("release", store.link.command("release", &on(&key, "UNLINK")).await?).map(drop)
}

pub(super) async fn throttle(store: &RedisStore, key: &str, token: Token, throttle: Duration) -> Result<bool> {
    let mut script = refresh(&scripts::THROTTLE, key);
    script.arg(token.hex()).arg(ms(throttle));
    Ok(reply::integer("throttle", store.run("throttle", &script).await?)? == 1)
}

impl LeaseStore for RedisStore {
    fn acquire<'a>(
        &'a self,
        key: &'a str,
        token: Token,
        lease: Duration,
        over: Over,
    ) -> BoxFuture<'a, Result<Acquired>> {
        // A refresh lease that was taken twice would look like another caller's.
        match over {
            Over::Nothing => Box::pin(self.steadily(move || acquire(self, key, token, lease, over))),
            Over::Record(_) => Box::pin(acquire(self, key, token, lease, over)),
        }
    }

    fn acquire_in_place<'a>(
        &'a self,
        key: &'a str,
        token: Token,
        lease: Duration,
        fill_id: u64,
    ) -> BoxFuture<'a, Result<Acquired>> {
        Box::pin(acquire_in_place(self, key, token, lease, fill_id))
    }

    fn acquire_over_mark<'a>(
        &'a self,
        key: &'a str,
        token: Token,
        lease: Duration,
        mark: Token,
    ) -> BoxFuture<'a, Result<Acquired>> {
        Box::pin(acquire_over_mark(self, key, token, lease, mark))
    }

    fn fill<'a>(&'a self, fill: &'a Fill) -> BoxFuture<'a, Result<Filled>> {
        Box::pin(self.steadily(move || self::fill(self, fill)))
    }

    fn rewrite_head<'a>(
        &'a self,
        key: &'a str,
        token: Token,
        fill_id: u64,
        head: Bytes,
        expiry: Expiry,
    ) -> BoxFuture<'a, Result<bool>> {
        Box::pin(rewrite_head(self, key, token, fill_id, head, expiry))
    }

    fn renew<'a>(&'a self, key: &'a str, token: Token, over: Over, lease: Duration) -> BoxFuture<'a, Result<bool>> {
        Box::pin(self.steadily(move || renew(self, key, token, over, lease)))
    }

    fn release<'a>(
        &'a self,
        key: &'a str,
        token: Token,
        over: Over,
        unstored: Option<Duration>,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.steadily(move || release(self, key, token, over, unstored)))
    }

    fn throttle<'a>(&'a self, key: &'a str, token: Token, throttle: Duration) -> BoxFuture<'a, Result<bool>> {
        Box::pin(self::throttle(self, key, token, throttle))
    }

    fn acquire_many<'a>(&'a self, wants: &'a [Want], lease: Duration) -> BoxFuture<'a, Result<Vec<Result<Acquired>>>> {
        Box::pin(self.steadily(move || self.acquire_all(wants, lease)))
    }

    fn fill_many<'a>(&'a self, fills: &'a [Fill]) -> BoxFuture<'a, Result<Vec<Result<Filled>>>> {
        Box::pin(self.steadily(move || self.fill_all(fills)))
    }

    fn renew_many<'a>(&'a self, claims: &'a [Claim], lease: Duration) -> BoxFuture<'a, Result<Vec<Result<bool>>>> {
        Box::pin(self.steadily(move || self.renew_all(claims, lease)))
    }

    fn release_many<'a>(&'a self, claims: &'a [Claim], unstored: Option<Duration>) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.steadily(move || self.release_all(claims, unstored)))
    }
}
