//! Removes invalidated records before any that may still be served: a few at each write, more when
//! memory is needed.
//!
//! ```text
//! a version is renewed ──> a pass is due ── each write checks some more entries ──> none is due
//! ```
//!
//! Invariant: one shard is locked at a time, and for no more than a step.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::future::{self, BoxFuture};

use super::shard::{Value, weight};
use super::{MemoryStore, SHARDS};
use crate::error::Result;
use crate::store::sweep::{Heads, Suspect, SweepStore, VersionState};
use crate::store::{CellStore as _, Version};
use crate::value::envelope::Envelope;

/// How many entries a write checks while a pass is due. A write adds at most one, so a pass ends
/// after a quarter as many writes as there are entries.
pub(super) const A_FEW: usize = 4;
/// How many entries are checked during one lock of a shard.
pub(super) const A_STEP: usize = 256;

/// The progress of the pass.
#[derive(Default)]
pub(super) struct Sweep {
    /// Rises when a version ends.
    ended: AtomicU64,
    /// Its value when the last complete pass began.
    swept: AtomicU64,
    pass: Mutex<Pass>,
    is_off: bool,
}

struct Pass {
    /// The value of `ended` when the pass began.
    ended: u64,
    shard: usize,
    /// Positions from this one on are done. The pass goes downwards: a removed entry is replaced by
    /// the last one, which was checked already.
    from: usize,
}

impl Default for Pass {
    fn default() -> Self {
        Self { ended: 0, shard: SHARDS, from: usize::MAX }
    }
}

impl Sweep {
    /// Records that a version was renewed.
    pub(super) fn version_ended(&self) {
        self.ended.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn is_due(&self) -> bool {
        !self.is_off && self.ended.load(Ordering::Relaxed) != self.swept.load(Ordering::Relaxed)
    }
}

impl MemoryStore {
    /// Turns sweeping off, since the order in which it finds records differs between runs.
    #[cfg(feature = "testing")]
    pub(crate) fn unswept(mut self) -> Self {
        self.sweep.is_off = true;
        self
    }

    /// Continues the due pass in one shard. Returns how many entries were checked; `None` if
    /// another thread is sweeping.
    pub(super) fn sweep_some(&self, looks: usize) -> Option<usize> {
        let mut pass = self.sweep.pass.try_lock().ok()?;
        if pass.shard >= SHARDS {
            *pass = Pass { ended: self.sweep.ended.load(Ordering::Relaxed), shard: 0, from: usize::MAX };
        }
        let (heads, from, looked_at) = self.heads_of(pass.shard, pass.from, looks, "");
        pass.from = from;
        if from == 0 {
            (pass.shard, pass.from) = (pass.shard.saturating_add(1), usize::MAX);
        }
        if pass.shard >= SHARDS {
            self.sweep.swept.store(pass.ended, Ordering::Relaxed);
        }
        drop(pass);
        let mut known = HashMap::new();
        let dead: Heads = heads.into_iter().filter(|(key, head)| self.is_dead(key, head, &mut known)).collect();
        self.remove_all(&dead);
        Some(looked_at)
    }

    /// Returns the records below this position of a shard, the position down to which it was
    /// checked, and how many entries were checked.
    fn heads_of(&self, shard: usize, from: usize, looks: usize, prefix: &str) -> (Heads, usize, usize) {
        let now = self.now();
        let shard = self.lock_shard(shard);
        let from = from.min(shard.entries.len());
        let to = from.saturating_sub(looks);
        let records = (to..from).rev().filter_map(|index| {
            let (key, entry) = shard.entries.get_index(index)?;
            match &entry.value {
                Value::Bytes(bytes) if key.starts_with(prefix) && !entry.is_expired(now) => {
                    Some((key.to_string(), bytes.clone()))
                }
                _ => None,
            }
        });
        (records.collect(), to, from.saturating_sub(to))
    }

    fn is_dead(&self, key: &str, head: &Bytes, known: &mut HashMap<Arc<str>, VersionState>) -> bool {
        let Some(suspect) = Suspect::of(key, head) else { return false };
        let mut current =
            |version: &Arc<str>| *known.entry(Arc::clone(version)).or_insert_with(|| self.standing_of(version));
        let current: Vec<VersionState> = suspect.versions.iter().map(&mut current).collect();
        suspect.is_dead(&current)
    }

    /// Returns the state of a version without counting a use.
    fn standing_of(&self, version: &str) -> VersionState {
        let now = self.now();
        let shard = self.shard(version);
        match shard.entries.get(version).filter(|entry| !entry.is_expired(now)).map(|entry| &entry.value) {
            None => VersionState::Nothing,
            Some(Value::Bytes(bytes)) => Version::of(bytes).map_or(VersionState::Unknown, VersionState::Version),
            Some(_) => VersionState::Unknown,
        }
    }

    fn remove_all(&self, heads: &Heads) -> u64 {
        let mut removed = 0_u64;
        for (key, head) in heads {
            let mut shard = self.shard(key);
            // A record's head contains its fill id, so another record has another head.
            let stands = matches!(shard.entries.get(key.as_str()).map(|entry| &entry.value),
                Some(Value::Bytes(bytes)) if bytes.starts_with(head));
            let gone = if stands { shard.entries.swap_remove_entry(key.as_str()) } else { None };
            if let Some((key, entry)) = &gone {
                self.used_bytes.fetch_sub(weight(key, &entry.value), Ordering::Relaxed);
                removed = removed.saturating_add(1);
            }
            drop(shard);
            if gone.is_some() {
                self.pushes.changed(key);
            }
        }
        removed
    }
}

impl SweepStore for MemoryStore {
    /// A cursor is a shard and a position in it, counted from one.
    fn heads<'a>(&'a self, prefix: &'a str, from: u64) -> BoxFuture<'a, Result<(Heads, u64)>> {
        let heads = || {
            self.check_open()?;
            let shard = usize::try_from(from >> 32).unwrap_or(SHARDS);
            let position = if from & LOW == 0 { usize::MAX } else { usize::try_from(from & LOW).unwrap_or(usize::MAX) };
            if shard >= SHARDS {
                return Ok((Vec::new(), 0));
            }
            let (mut heads, to, _) = self.heads_of(shard, position, A_STEP, prefix);
            heads.retain_mut(|(_, bytes)| {
                let head = Envelope::peek(bytes).map(|(_, length)| bytes.slice(..length));
                head.map(|head| *bytes = head).is_some()
            });
            let (shard, position) = if to == 0 { (shard.saturating_add(1), 0) } else { (shard, to) };
            let next = ((shard as u64) << 32) | (position as u64 & LOW);
            Ok((heads, if shard >= SHARDS { 0 } else { next }))
        };
        Box::pin(future::ready(heads()))
    }

    fn current<'a>(&'a self, versions: &'a [Arc<str>]) -> BoxFuture<'a, Result<Vec<VersionState>>> {
        let current = versions.iter().map(|version| self.standing_of(version)).collect();
        Box::pin(future::ready(self.check_open().map(|()| current)))
    }

    fn remove_heads<'a>(&'a self, heads: &'a Heads) -> BoxFuture<'a, Result<u64>> {
        Box::pin(future::ready(self.check_open().map(|()| self.remove_all(heads))))
    }
}

const LOW: u64 = (1 << 32) - 1;
