//! The operation that needs two keys at once.

use bytes::Bytes;

use super::MemoryStore;
use super::shard::{Access, Value};
use crate::error::Result;
use crate::store::{Expiry, Replaced};

impl MemoryStore {
    /// As [`Store::replace`](crate::store::Store::replace).
    pub(super) fn replace_key(
        &self,
        old: &str,
        expected: &Bytes,
        key: &str,
        bytes: Bytes,
        expiry: Option<Expiry>,
    ) -> Result<Replaced> {
        self.check_open()?;
        let (from, to) = (self.shard_index(old), self.shard_index(key));
        if from == to {
            return self.with(old, |access| {
                let taken = access.get(key).is_some();
                let replaced = take(access, old, expected, taken)?;
                if replaced == Replaced::Done {
                    access.put(key, Value::Bytes(bytes), expiry);
                }
                Ok(replaced)
            });
        }
        // Always in this order, so that two of them never wait for each other.
        let first = self.lock_shard(from.min(to));
        let second = self.lock_shard(from.max(to));
        let (from_shard, to_shard) = if from < to { (first, second) } else { (second, first) };
        let now = self.clock.wall();
        let mut source = Access { store: self, shard: from_shard, changed: Vec::new(), now };
        let mut target = Access { store: self, shard: to_shard, changed: Vec::new(), now };
        let taken = target.get(key).is_some();
        let replaced = take(&mut source, old, expected, taken);
        if matches!(replaced, Ok(Replaced::Done)) {
            target.put(key, Value::Bytes(bytes), expiry);
        }
        let changed = [source.changed, target.changed].concat();
        drop((source.shard, target.shard));
        for key in &changed {
            self.pushes.changed(key);
        }
        self.keep_bounds();
        replaced
    }
}

/// Takes the old key away if all is as it has to be.
fn take(access: &mut Access<'_>, old: &str, expected: &Bytes, taken: bool) -> Result<Replaced> {
    Ok(match access.bytes(old)? {
        None => Replaced::Gone,
        Some(found) if found != expected => Replaced::Conflict,
        Some(_) if taken => Replaced::Taken,
        Some(_) => {
            access.remove(old);
            Replaced::Done
        }
    })
}
