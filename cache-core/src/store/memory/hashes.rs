//! The hashes of plain values.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::shard::{Access, Value, weight, wrong_type};
use crate::error::Result;

impl Access<'_> {
    /// Changes a hash in place and updates the weight.
    pub(super) fn hash<T>(
        &mut self,
        key: &str,
        create: bool,
        change: impl FnOnce(&mut BTreeMap<String, Bytes>) -> T,
    ) -> Result<Option<T>> {
        if self.get(key).is_none() {
            if !create {
                return Ok(None);
            }
            self.put(key, Value::Hash(BTreeMap::new()), None);
        }
        let Some(entry) = self.shard.entries.get_mut(key) else { return Ok(None) };
        let before = weight(key, &entry.value);
        let Value::Hash(fields) = &mut entry.value else { return Err(wrong_type()) };
        let result = change(fields);
        let empty = fields.is_empty();
        let after = weight(key, &entry.value);
        self.store.used_bytes.fetch_add(after, Ordering::Relaxed);
        self.store.used_bytes.fetch_sub(before, Ordering::Relaxed);
        self.changed.push(key.into());
        // Redis has no empty hashes.
        if empty {
            self.remove(key);
        }
        Ok(Some(result))
    }
}

pub(super) fn read_hash<'a>(access: &'a mut Access<'_>, key: &str) -> Result<Option<&'a BTreeMap<String, Bytes>>> {
    match access.get(key).map(|entry| &entry.value) {
        None => Ok(None),
        Some(Value::Hash(hash)) => Ok(Some(hash)),
        Some(_) => Err(wrong_type()),
    }
}
