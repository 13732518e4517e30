//! Write fences and new versions. A script for each key: the keys of an entry in other builds are
//! in slots of their own.

use std::sync::Arc;

use redis::{ScriptInvocation, Value};

use super::trips::MOST_KEYS;
use super::{RedisStore, faults, ms, on, reply, scripts};
use crate::error::Result;
use crate::store::{Expiry, REGISTRY_EXPIRY, Raised, Siblings, Token, VERSION_EXPIRY, Version, aside_key, lease_key};

pub(super) async fn raise(store: &RedisStore, fence: Token, limit: Expiry, siblings: Siblings<'_>) -> Result<Raised> {
    let script = |key: &String| {
        let mut script = scripts::fences::RAISE.key(key);
        script.key(lease_key(key)).key(aside_key(key)).arg(fence.hex()).arg(ms(limit));
        script
    };
    let scripts = siblings.keys.iter().map(script).collect();
    let (answers, builds) = run_all(store, "fence", &[], scripts, Some(siblings.builds)).await?;
    Ok(Raised { builds, crowded: answers.contains(&1) })
}

pub(super) async fn lift(store: &RedisStore, fence: Token, siblings: Siblings<'_>) -> Result<Vec<String>> {
    let script = |key: &String| {
        let mut script = scripts::fences::LIFT.key(key);
        script.key(lease_key(key)).key(aside_key(key)).arg(fence.hex());
        script
    };
    let scripts = siblings.keys.iter().map(script).collect();
    run_all(store, "lift", &[], scripts, Some(siblings.builds)).await.map(|(_, builds)| builds)
}

pub(super) async fn withdraw(store: &RedisStore, fence: Token, keys: &[String]) -> Result<()> {
    let script = |key: &String| {
        let mut script = scripts::fences::WITHDRAW.key(key);
        script.key(aside_key(key)).arg(fence.hex());
        script
    };
    run_all(store, "withdraw", &[], keys.iter().map(script).collect(), None).await.map(drop)
}

/// Gives each that stands a new version, in this order.
pub(super) async fn renew_versions(store: &RedisStore, step: &'static str, versions: &[Arc<str>]) -> Result<()> {
    run_all(store, step, versions, Vec::new(), None).await.map(drop)
}

pub(super) async fn fence_versions(
    store: &RedisStore,
    fence: Token,
    limit: Expiry,
    kinds: &[Arc<str>],
    tags: &[Arc<str>],
) -> Result<bool> {
    let script = |key: &Arc<str>| {
        let mut script = scripts::fences::FENCE_VERSION.key(&**key);
        script.arg(fence.hex()).arg(ms(limit));
        script
    };
    let (answers, _) = run_all(store, "fence", kinds, tags.iter().map(script).collect(), None).await?;
    Ok(answers.contains(&1))
}

pub(super) async fn lift_versions(
    store: &RedisStore,
    fence: Token,
    versions: &[Arc<str>],
    tags: &[Arc<str>],
) -> Result<()> {
    let script = |key: &Arc<str>| {
        let mut script = scripts::fences::LIFT_VERSION.key(&**key);
        script.arg(fence.hex()).arg(Version::random().hex()).arg(ms(VERSION_EXPIRY));
        script
    };
    run_all(store, "lift", versions, tags.iter().map(script).collect(), None).await.map(drop)
}

pub(super) async fn withdraw_versions(
    store: &RedisStore,
    fence: Token,
    kinds: &[Arc<str>],
    tags: &[Arc<str>],
) -> Result<()> {
    let script = |key: &Arc<str>| {
        let mut script = scripts::fences::WITHDRAW_VERSION.key(&**key);
        script.arg(fence.hex()).arg(ms(VERSION_EXPIRY));
        script
    };
    run_all(store, "withdraw", kinds, tags.iter().map(script).collect(), None).await.map(drop)
}

/// What concerns one key.
enum Request<'a> {
    /// Another version, if one stands.
    Renew(&'a str),
    Script(ScriptInvocation<'a>),
    /// The builds in it are read.
    Registry(&'a str),
}

/// What the scripts answer, in their order, and the builds of the registry.
type Answers = (Vec<i64>, Vec<String>);

/// Renews versions, runs scripts, then reads a registry. Mostly one trip; where there are very many,
/// one after the other, so that each is sent only after those before it were done: the kinds before
/// their tags, the registry at last. After one that failed no other is sent.
async fn run_all(
    store: &RedisStore,
    step: &'static str,
    versions: &[Arc<str>],
    scripts: Vec<ScriptInvocation<'_>>,
    registry: Option<&str>,
) -> Result<Answers> {
    let mut requests: Vec<Request<'_>> = versions.iter().map(|key| Request::Renew(key)).collect();
    requests.extend(scripts.into_iter().map(Request::Script));
    requests.extend(registry.map(Request::Registry));
    let (mut answers, mut done) = (Answers::default(), 0_usize);
    for part in requests.chunks(MOST_KEYS) {
        if let Err(error) = run(store, step, part, &mut answers).await {
            return Err(if done == 0 { error } else { error.after(done, requests.len()) });
        }
        done = done.saturating_add(part.len());
    }
    Ok(answers)
}

/// One trip.
async fn run(store: &RedisStore, step: &'static str, requests: &[Request<'_>], answers: &mut Answers) -> Result<()> {
    let mut pipeline = redis::pipe();
    let is_replicated = store.replicated.is_some();
    for request in requests {
        match request {
            // Nothing is written where none stands: what was stored under one that was lost is a miss anyway (I5).
            Request::Renew(key) => {
                let version = Version::random().hex();
                pipeline.cmd("SET").arg(key).arg(&version).arg("XX").arg("PX").arg(ms(VERSION_EXPIRY));
                if is_replicated {
                    // Always a write: a replica may still have the one that was lost here a moment ago, and that
                    // loss is waited for too.
                    pipeline.cmd("SET").arg(key).arg(&version).arg("NX").arg("PX").arg(1);
                }
            }
            Request::Script(script) => {
                pipeline.invoke_script(script);
            }
            Request::Registry(key) => {
                pipeline.add_command(on(key, "SMEMBERS"));
                if is_replicated {
                    pipeline.cmd("PEXPIRE").arg(key).arg(ms(REGISTRY_EXPIRY));
                }
            }
        }
    }
    let mut replies = store.invalidation(step, &pipeline).await?;
    for request in requests {
        match request {
            Request::Renew(_) => {
                replies.value()?;
                if is_replicated {
                    replies.value()?;
                }
            }
            Request::Script(script) => answers.0.push(known(store, step, script, replies.raw()?).await?),
            Request::Registry(_) => answers.1 = reply::texts(step, replies.raw()?)?,
        }
    }
    Ok(())
}

/// A script's number. One that the server did not know has done nothing: it is run again, and given
/// to it.
async fn known(store: &RedisStore, step: &'static str, script: &ScriptInvocation<'_>, answer: Value) -> Result<i64> {
    if !faults::is_unknown_script(&answer) {
        return reply::integer(step, answer);
    }
    store.link.load_scripts(step).await?;
    let mut pipeline = redis::pipe();
    pipeline.invoke_script(script);
    reply::integer(step, store.invalidation(step, &pipeline).await?.raw()?)
}
