//! Keeps keys that are hit in this process recently used in the store.
//!
//! ```text
//! at rest     once a minute ──────> TOUCH what was hit since, 200 keys per command
//! a change of a key in use is notified ─> is the store evicting?
//!                      └─ yes ────> TOUCH at once, and each second until it stops
//! ```
//!
//! Hits in L1 and uses of known versions do not reach the store. So a server that evicts the least
//! recently or least frequently used keys would evict the hottest ones: the record of a value that
//! is always hit locally, and above all the versions, whose loss makes every entry under them a
//! miss.
//!
//! Invariant: at most [`KEYS_AT_A_TIME`] keys per [`BREATH`], however many are hot.

use std::collections::HashSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock::Clock;
use crate::error::{ErrorKind, Result};
use crate::local::Local;
use crate::observe::events::Events;
use crate::store::Store;
use crate::versions::Versions;

/// The interval while the store evicts nothing.
const AT_REST: Duration = Duration::from_secs(60);
/// The interval while the store evicts. Redis counts idle time in seconds.
const EVICTING: Duration = Duration::from_secs(1);
/// How many looks after the last eviction the store is assumed to evict.
const EVICTS_FOR: u32 = 60;
/// How many keys are touched at once: about two milliseconds of the server's time.
const KEYS_AT_A_TIME: usize = 2000;
/// The pause after each of these batches.
const BREATH: Duration = Duration::from_millis(250);

/// Notified of each change of a key in use.
#[derive(Debug, Default)]
pub(crate) struct Changes(Notify);

impl Changes {
    pub(crate) fn told(&self) {
        self.0.notify_one();
    }
}

/// What is known of the store's evictions.
#[derive(Default)]
struct Evictions {
    /// The store's own count at the last look.
    count: Option<u64>,
    /// For how many more looks the store is assumed to evict.
    looks: u32,
}

impl Evictions {
    fn are_seen(&self) -> bool {
        self.looks > 0
    }

    /// Updates the state. `count`: the store's own count, if it reports one. `told`: a key in use
    /// has changed.
    fn look(&mut self, count: Option<u64>, told: bool) {
        let evicts = match (count, self.count) {
            (Some(now), Some(before)) => now != before,
            // None since the store was started, so the change was a write.
            (Some(now), None) => now > 0,
            // The change may be a write, too. Then the touches are unnecessary, and cost little.
            (None, _) => told,
        };
        self.count = count;
        self.looks = if evicts { EVICTS_FOR } else { self.looks.saturating_sub(1) };
    }
}

/// What is in use in this process, and the store that it is touched in.
pub(crate) struct InUse {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) local: Option<Arc<Local>>,
    pub(crate) versions: Arc<Versions>,
    pub(crate) events: Events,
}

/// Touches what is in use, as long as the cache, which owns `in_use`, is alive.
pub(crate) async fn keep_warm(in_use: Weak<InUse>, clock: Clock, changes: Arc<Changes>) {
    let mut evictions = Evictions::default();
    loop {
        // Does not hold the cache while waiting: dropping its last user ends this task.
        let told = if evictions.are_seen() {
            clock.sleep(EVICTING).await;
            None
        } else {
            tokio::select! {
                biased;
                () = changes.0.notified() => Some(()),
                () = clock.sleep(AT_REST) => None,
            }
        };
        let Some(in_use) = in_use.upgrade() else { return };
        if !in_use.store.is_available() {
            continue;
        }
        if told.is_some() || evictions.are_seen() {
            // Without the right to ask, the notification decides.
            let count = in_use.store.evictions().await.unwrap_or_default();
            evictions.look(count, told.is_some());
        }
        let is_due = told.is_none() || evictions.are_seen();
        if is_due && let Err(error) = in_use.touch(&clock).await {
            in_use.events.store_failed(&error, in_use.store.is_available());
            // It would be refused again.
            if matches!(error.kind(), ErrorKind::Refused | ErrorKind::Closed) {
                return;
            }
        }
        if !is_due {
            drop(in_use);
            // The changes were writes, which are not checked more often than this.
            clock.sleep(EVICTING).await;
        }
    }
}

impl InUse {
    async fn touch(&self, clock: &Clock) -> Result<()> {
        let hits = match &self.local {
            Some(local) => local.take_hits().await,
            None => Vec::new(),
        };
        // The versions first: losing one of them loses all entries under it.
        let used = self.versions.take_used();
        let mut versions: HashSet<Arc<str>> = used.into_iter().collect();
        for dependency in hits.iter().flat_map(|(_, under)| under.iter()) {
            if !versions.contains(dependency.key()) {
                versions.insert(Arc::clone(dependency.key()));
            }
        }
        let keys: Vec<Arc<str>> = versions.into_iter().chain(hits.into_iter().map(|(key, _)| key.into())).collect();
        let mut parts = keys.chunks(KEYS_AT_A_TIME).peekable();
        while let Some(part) = parts.next() {
            self.store.touch(part).await?;
            if parts.peek().is_some() {
                clock.sleep(BREATH).await;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    // T8
    fn an_evicting_store_is_watched_for_a_minute_after_its_last_eviction() {
        let mut evictions = Evictions::default();
        evictions.look(Some(0), true);
        assert!(!evictions.are_seen(), "it has never evicted: the push came from a write");
        evictions.look(Some(3), false);
        for _ in 0..EVICTS_FOR {
            assert!(evictions.are_seen());
            evictions.look(Some(3), false);
        }
        assert!(!evictions.are_seen());
        evictions.look(Some(4), false);
        assert!(evictions.are_seen());
        // The count starts from zero again after a restart.
        evictions = Evictions { count: Some(4), looks: 0 };
        evictions.look(Some(0), true);
        assert!(evictions.are_seen());
    }

    #[test]
    // T8
    fn without_the_right_to_run_info_only_pushed_evictions_count() {
        let mut evictions = Evictions::default();
        evictions.look(None, true);
        assert!(evictions.are_seen());
        for _ in 0..EVICTS_FOR {
            evictions.look(None, false);
        }
        assert!(!evictions.are_seen());
    }
}
