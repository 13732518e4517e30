//! The hashes of plain values.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures::future::BoxFuture;

use super::MemoryStore;
use super::plain::sum;
use super::shard::{Access, Value, weight, wrong_type};
use crate::error::Result;
use crate::store::HashStore;

impl HashStore for MemoryStore {
    fn hash_set<'a>(&'a self, key: &'a str, fields: Vec<(String, Bytes)>) -> BoxFuture<'a, Result<()>> {
        self.ready(key, |access| access.hash(key, true, |hash| hash.extend(fields)).map(|_| ()))
    }

    fn hash_get<'a>(&'a self, key: &'a str, field: &'a str) -> BoxFuture<'a, Result<Option<Bytes>>> {
        self.ready(key, |access| Ok(read_hash(access, key)?.and_then(|hash| hash.get(field).cloned())))
    }

    fn hash_all<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Vec<(String, Bytes)>>> {
        self.ready(key, |access| {
            Ok(read_hash(access, key)?
                .map_or_else(Vec::new, |hash| hash.iter().map(|(k, v)| (k.clone(), v.clone())).collect()))
        })
    }

    fn hash_keys<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Vec<String>>> {
        self.ready(key, |access| {
            Ok(read_hash(access, key)?.map_or_else(Vec::new, |hash| hash.keys().cloned().collect()))
        })
    }

    fn hash_remove<'a>(&'a self, key: &'a str, fields: &'a [String]) -> BoxFuture<'a, Result<u64>> {
        self.ready(key, |access| {
            let removed =
                access.hash(key, false, |hash| fields.iter().filter(|field| hash.remove(*field).is_some()).count())?;
            Ok(removed.unwrap_or(0) as u64)
        })
    }

    fn hash_increment<'a>(&'a self, key: &'a str, field: &'a str, by: i64) -> BoxFuture<'a, Result<i64>> {
        self.ready(key, |access| {
            let found = read_hash(access, key)?.and_then(|hash| hash.get(field).cloned());
            let sum = sum(found.as_deref(), by)?;
            access.hash(key, true, |hash| drop(hash.insert(field.to_owned(), sum.to_string().into())))?;
            Ok(sum)
        })
    }
}

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
