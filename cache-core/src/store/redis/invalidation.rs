//! Round trips of invalidations: new versions, scripts on fences, and reads of registries.
//!
//! Each key needs a script of its own, since the keys of an entry in other builds are in other
//! slots.

use std::sync::Arc;

use redis::{Pipeline, ScriptInvocation, Value};

use super::reply::{self, Replies};
use super::trips::MOST_KEYS;
use super::{RedisStore, error, ms, on};
use crate::error::Result;
use crate::store::{REGISTRY_EXPIRY, VERSION_EXPIRY, Version};

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
pub(super) async fn run_all(
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

impl RedisStore {
    /// Runs an invalidation: all commands in one round trip, then waits for the configured number
    /// of replicas.
    pub(super) async fn invalidation(&self, step: &'static str, pipeline: &Pipeline) -> Result<Replies> {
        match &self.replicated {
            Some(replicated) => replicated.run(step, pipeline).await,
            None => self.link.pipeline(step, pipeline).await,
        }
    }
}
