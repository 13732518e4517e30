//! Eviction: removes entries while the store is over its limit.

use std::sync::atomic::Ordering;

use super::shard::{Shard, weight};
use super::sweep::A_STEP;
use super::{MemoryStore, lock};
use crate::clock::Timestamp;
use crate::observe::events::Event;
use crate::store::CellStore as _;

/// How many entries are sampled for each eviction.
const EVICTION_SAMPLE: usize = 5;
/// How many entries are searched for invalidated records before others are evicted: about half a
/// millisecond.
const MOST_LOOKS: usize = 2048;

impl MemoryStore {
    /// Removes entries until the limit holds: first invalidated ones, as far as a few steps find
    /// them, then expired ones, or else the least recently used of a sample.
    pub(super) fn evict(&self) {
        let mut looks = MOST_LOOKS;
        while looks > 0 && self.sweep.is_due() && self.used_bytes.load(Ordering::Relaxed) > self.limit_bytes {
            let Some(looked_at) = self.sweep_some(A_STEP) else { break };
            looks = looks.saturating_sub(looked_at.max(1));
        }
        let now = self.now();
        let mut evicted = 0_u64;
        let mut changed = Vec::new();
        // Each round visits every shard once; a round that frees nothing ends the loop.
        while self.used_bytes.load(Ordering::Relaxed) > self.limit_bytes {
            let before = evicted;
            for shard in &self.shards {
                let mut shard = lock(shard);
                if let Some(index) = shard.victim(now)
                    && let Some((key, entry)) = shard.entries.swap_remove_index(index)
                {
                    self.used_bytes.fetch_sub(weight(&key, &entry.value), Ordering::Relaxed);
                    evicted = evicted.saturating_add(1);
                    changed.push(key);
                }
                drop(shard);
                if self.used_bytes.load(Ordering::Relaxed) <= self.limit_bytes {
                    break;
                }
            }
            if evicted == before {
                break;
            }
        }
        for key in &changed {
            self.pushes.changed(key);
        }
        if evicted > 0 {
            self.events.emit(Event::Evicted { entries: evicted });
        }
    }
}

impl Shard {
    /// Returns the position of an expired entry, or else of the least recently used of a sample.
    pub(super) fn victim(&self, now: Timestamp) -> Option<usize> {
        let len = self.entries.len();
        let mut best: Option<(u64, usize)> = None;
        for _ in 0..EVICTION_SAMPLE.min(len) {
            let index = (crate::random::fraction() * len as f64) as usize;
            let (_, entry) = self.entries.get_index(index)?;
            if entry.is_expired(now) {
                return Some(index);
            }
            if best.is_none_or(|(used, _)| entry.used < used) {
                best = Some((entry.used, index));
            }
        }
        best.map(|(_, index)| index)
    }
}
