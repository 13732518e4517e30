//! Write fences. One trip each, a script for each key: the keys of an entry in other builds are in slots of their own.

use std::sync::Arc;

use redis::{Pipeline, ScriptInvocation, Value};

use super::{RedisStore, faults, ms, on, reply, scripts};
use crate::clock::Timestamp;
use crate::error::Result;
use crate::store::{Expiry, Fenced, Raised, Siblings, Token, VERSION_EXPIRY, Version, aside_key, lease_key};

pub(super) async fn raise(store: &RedisStore, fence: Token, limit: Expiry, siblings: Siblings<'_>) -> Result<Raised> {
    const STEP: &str = "fence";
    let script = |key: &String| {
        let mut script = scripts::RAISE.key(key);
        script.key(lease_key(key)).key(aside_key(key)).arg(fence.fence()).arg(ms(limit));
        script
    };
    let scripts: Vec<ScriptInvocation<'_>> = siblings.keys.iter().map(script).collect();
    let mut pipeline = redis::pipe();
    scripts.iter().for_each(|script| {
        pipeline.invoke_script(script);
    });
    pipeline.add_command(on(siblings.builds, "SMEMBERS"));
    let mut replies = store.invalidation(STEP, &pipeline).await?;
    let mut ends = Vec::with_capacity(scripts.len());
    for script in &scripts {
        let ended = known(store, STEP, script, replies.raw()?).await?;
        // 0: nothing was put aside.
        let millis = u64::try_from(ended).ok().filter(|millis| *millis > 0);
        ends.push(millis.map(Timestamp::from_millis));
    }
    Ok((ends, reply::texts(STEP, replies.raw()?)?))
}

pub(super) async fn withdraw(store: &RedisStore, fence: Token, fenced: &[Fenced]) -> Result<()> {
    let script = |(key, ends): &Fenced| {
        let mut script = scripts::WITHDRAW.key(key);
        script.key(aside_key(key)).arg(fence.fence()).arg(ends.map_or(0, Timestamp::as_millis));
        script
    };
    run_all(store, "withdraw", &[], fenced.iter().map(script).collect()).await
}

pub(super) async fn fence_versions(
    store: &RedisStore,
    fence: Token,
    limit: Expiry,
    kinds: &[Arc<str>],
    tags: &[Arc<str>],
) -> Result<Vec<Option<Version>>> {
    const STEP: &str = "fence";
    let mut pipeline = redis::pipe();
    renew(&mut pipeline, kinds);
    for key in tags {
        pipeline.cmd("SET").arg(&**key).arg(fence.fence()).arg("GET").arg("PX").arg(ms(limit));
    }
    let mut replies = store.invalidation(STEP, &pipeline).await?;
    kinds.iter().try_for_each(|_| replies.value().map(drop))?;
    tags.iter().map(|_| Ok(super::version(reply::bytes(STEP, replies.raw()?)?))).collect()
}

pub(super) async fn withdraw_versions(
    store: &RedisStore,
    fence: Token,
    kinds: &[Arc<str>],
    tags: &[(Arc<str>, Version)],
) -> Result<()> {
    let script = |(key, version): &(Arc<str>, Version)| {
        let mut script = scripts::WITHDRAW_VERSION.key(&**key);
        script.arg(fence.fence()).arg(version.hex()).arg(ms(VERSION_EXPIRY));
        script
    };
    run_all(store, "withdraw", kinds, tags.iter().map(script).collect()).await
}

/// Renews versions, then runs scripts, in one trip.
async fn run_all(
    store: &RedisStore,
    step: &'static str,
    versions: &[Arc<str>],
    scripts: Vec<ScriptInvocation<'_>>,
) -> Result<()> {
    if versions.is_empty() && scripts.is_empty() {
        return Ok(());
    }
    let mut pipeline = redis::pipe();
    renew(&mut pipeline, versions);
    scripts.iter().for_each(|script| {
        pipeline.invoke_script(script);
    });
    let mut replies = store.invalidation(step, &pipeline).await?;
    versions.iter().try_for_each(|_| replies.value().map(drop))?;
    for script in &scripts {
        known(store, step, script, replies.raw()?).await?;
    }
    Ok(())
}

pub(super) fn renew(pipeline: &mut Pipeline, versions: &[Arc<str>]) {
    for key in versions {
        pipeline.cmd("SET").arg(&**key).arg(Version::random().hex()).arg("PX").arg(ms(VERSION_EXPIRY));
    }
}

/// A script's number. One that the server did not know has done nothing: it is run again, and given to it.
async fn known(store: &RedisStore, step: &'static str, script: &ScriptInvocation<'_>, answer: Value) -> Result<i64> {
    if !faults::is_unknown_script(&answer) {
        return reply::integer(step, answer);
    }
    store.link.load_scripts(step).await?;
    let mut pipeline = redis::pipe();
    pipeline.invoke_script(script);
    reply::integer(step, store.invalidation(step, &pipeline).await?.raw()?)
}
