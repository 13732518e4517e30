//! What an entry weighs, and which to give up.

use super::{Shard, Value};
use crate::clock::Timestamp;

/// What an entry costs beside its key and bytes: table slot, two allocations, bookkeeping.
const ENTRY_OVERHEAD: usize = 128;
/// How many entries are looked at to find one to give up.
const EVICTION_SAMPLE: usize = 5;

impl Shard {
    /// The position of an expired entry, else of the least recently used of a sample.
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

pub(super) fn weight(key: &str, value: &Value) -> usize {
    let value = match value {
        Value::Bytes(bytes) => bytes.len(),
        Value::Hash(fields) => fields
            .iter()
            .map(|(name, value)| name.len().saturating_add(value.len()).saturating_add(ENTRY_OVERHEAD))
            .sum(),
        Value::Set(members) => members.iter().map(|member| member.len().saturating_add(ENTRY_OVERHEAD)).sum(),
    };
    key.len().saturating_add(value).saturating_add(ENTRY_OVERHEAD)
}
