//! Write fences and new versions. Each key needs a script of its own, since the keys of an entry in
//! other builds are in other slots.

use std::sync::Arc;

use futures::future::BoxFuture;
use redis::{ScriptInvocation, Value};

use super::trips::MOST_KEYS;
use super::{RedisStore, error, ms, on, reply, scripts};
use crate::error::Result;
use crate::store::{
    Expiry, FenceStore, REGISTRY_EXPIRY, Raised, Siblings, Token, VERSION_EXPIRY, Version, aside_key, lease_key,
};

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

/// Gives each existing version a new one, in this order.
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

/// A request for one key.
enum Request<'a> {
    /// Replaces the version, if there is one.
    Renew(&'a str),
    Script(ScriptInvocation<'a>),
    /// Reads the builds of the registry.
    Registry(&'a str),
}

/// The replies of the scripts, in order, and the builds of the registry.
type Answers = (Vec<i64>, Vec<String>);

/// Renews versions, runs scripts, then reads a registry. Usually one round trip. If there are very
/// many requests, the round trips run one after the other, so that each is sent only after those
/// before it: the kinds before their tags, the registry last. After a failed one no other is sent.
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

/// Runs one round trip.
async fn run(store: &RedisStore, step: &'static str, requests: &[Request<'_>], answers: &mut Answers) -> Result<()> {
    let mut pipeline = redis::pipe();
    let is_replicated = store.replicated.is_some();
    for request in requests {
        match request {
            // An absent version is not written: entries under a lost version are misses anyway
            // (I5).
            Request::Renew(key) => {
                let version = Version::random().hex();
                pipeline.cmd("SET").arg(key).arg(&version).arg("XX").arg("PX").arg(ms(VERSION_EXPIRY));
                if is_replicated {
                    // Always a write: a replica may still have the version that was lost here a
                    // moment ago, and this waits for that loss, too.
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

/// Returns a script's reply. A script that the server did not know has done nothing: it is loaded
/// and run again.
async fn known(store: &RedisStore, step: &'static str, script: &ScriptInvocation<'_>, answer: Value) -> Result<i64> {
    if !error::is_unknown_script(&answer) {
        return reply::integer(step, answer);
    }
    store.link.load_scripts(step).await?;
    let mut pipeline = redis::pipe();
    pipeline.invoke_script(script);
    reply::integer(step, store.invalidation(step, &pipeline).await?.raw()?)
}

impl FenceStore for RedisStore {
    fn raise<'a>(&'a self, fence: Token, limit: Expiry, siblings: Siblings<'a>) -> BoxFuture<'a, Result<Raised>> {
        Box::pin(self.steadily(move || raise(self, fence, limit, siblings)))
    }

    fn lift<'a>(&'a self, fence: Token, siblings: Siblings<'a>) -> BoxFuture<'a, Result<Vec<String>>> {
        Box::pin(self.steadily(move || lift(self, fence, siblings)))
    }

    fn withdraw<'a>(&'a self, fence: Token, keys: &'a [String]) -> BoxFuture<'a, Result<()>> {
        Box::pin(withdraw(self, fence, keys))
    }

    fn fence_versions<'a>(
        &'a self,
        fence: Token,
        limit: Expiry,
        kinds: &'a [Arc<str>],
        tags: &'a [Arc<str>],
    ) -> BoxFuture<'a, Result<bool>> {
        Box::pin(self.steadily(move || fence_versions(self, fence, limit, kinds, tags)))
    }

    fn lift_versions<'a>(
        &'a self,
        fence: Token,
        versions: &'a [Arc<str>],
        tags: &'a [Arc<str>],
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.steadily(move || lift_versions(self, fence, versions, tags)))
    }

    fn withdraw_versions<'a>(
        &'a self,
        fence: Token,
        kinds: &'a [Arc<str>],
        tags: &'a [Arc<str>],
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(withdraw_versions(self, fence, kinds, tags))
    }
}
