//! Touches keys that are in use in this process, and reads the server's number of evictions.

use std::sync::Arc;

use super::trips::{by_bytes, in_turn};
use super::{RedisStore, reply};
use crate::error::Result;

/// How many keys one command has. The server looks up each of them, and does nothing else
/// meanwhile.
const KEYS_OF_A_COMMAND: usize = 200;

/// Sends `TOUCH`, a lookup without a value: it updates the state of LRU and LFU, notifies no
/// client, and is not tracked.
pub(super) async fn touch(store: &RedisStore, keys: &[Arc<str>]) -> Result<()> {
    const STEP: &str = "touch";
    let mut trips = by_bytes(keys, |key| key.len()).into_iter();
    let touched = in_turn(|| {
        let some = keys.get(trips.next()?)?;
        Some(async move {
            let mut pipeline = redis::pipe();
            for keys in some.chunks(KEYS_OF_A_COMMAND) {
                pipeline.cmd("TOUCH").arg(keys.iter().map(|key| &**key).collect::<Vec<_>>());
            }
            let mut replies = store.link.pipeline(STEP, &pipeline).await?;
            some.chunks(KEYS_OF_A_COMMAND).try_for_each(|_| replies.value().map(drop))
        })
    });
    touched.await.into_iter().collect()
}

/// Returns the number of evicted keys; `None` if the server does not report it, or the user has no
/// right to it.
pub(super) async fn evictions(store: &RedisStore) -> Result<Option<u64>> {
    const STEP: &str = "evictions";
    let mut command = redis::cmd("INFO");
    command.arg("stats");
    Ok(reply::evicted_keys(&store.link.command(STEP, &command).await?))
}
