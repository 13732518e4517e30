//! The content of one lock, and the access of one operation to it: drops expired entries, records
//! uses, and collects changes to notify.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::MutexGuard;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use indexmap::IndexMap;

use super::MemoryStore;
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::store::{Expiry, Slot};

/// The cost of an entry without its key and bytes: table slot, two allocations, bookkeeping.
const ENTRY_OVERHEAD: usize = 128;

#[derive(Default)]
pub(super) struct Shard {
    pub(super) entries: IndexMap<Box<str>, Entry>,
}

pub(super) struct Entry {
    pub(super) value: Value,
    pub(super) expires: Option<Timestamp>,
    pub(super) used: u64,
}

pub(super) enum Value {
    Bytes(Bytes),
    Hash(BTreeMap<String, Bytes>),
    Set(BTreeSet<String>),
    /// Members with their expiry.
    Index(BTreeMap<String, Timestamp>),
}

impl Entry {
    pub(super) fn is_expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

/// One operation's access to a shard.
pub(super) struct Access<'a> {
    pub(super) store: &'a MemoryStore,
    pub(super) shard: MutexGuard<'a, Shard>,
    pub(super) changed: Vec<Box<str>>,
    pub(super) now: Timestamp,
}

impl Access<'_> {
    pub(super) fn get(&mut self, key: &str) -> Option<&mut Entry> {
        if self.shard.entries.get(key)?.is_expired(self.now) {
            self.remove(key);
            return None;
        }
        let used = self.store.tick.fetch_add(1, Ordering::Relaxed);
        let entry = self.shard.entries.get_mut(key)?;
        entry.used = used;
        Some(entry)
    }

    pub(super) fn bytes(&mut self, key: &str) -> Result<Option<Bytes>> {
        match self.get(key).map(|entry| &entry.value) {
            None => Ok(None),
            Some(Value::Bytes(bytes)) => Ok(Some(bytes.clone())),
            Some(_) => Err(wrong_type()),
        }
    }

    pub(super) fn left(&mut self, key: &str) -> Option<Duration> {
        let now = self.now;
        self.get(key)?.expires.map(|expires| now.until(expires))
    }

    pub(super) fn slot(&mut self, key: &str) -> Slot {
        match self.bytes(key) {
            Ok(bytes) => {
                let left = self.left(key);
                Slot::of(bytes, left)
            }
            Err(_wrong_type) => Slot::WrongType,
        }
    }

    pub(super) fn put(&mut self, key: &str, value: Value, expiry: Option<Expiry>) {
        self.remove(key);
        let expires = expiry.map(|expiry| self.now.plus(expiry.max(Duration::from_millis(1))));
        let used = self.store.tick.fetch_add(1, Ordering::Relaxed);
        self.store.used_bytes.fetch_add(weight(key, &value), Ordering::Relaxed);
        self.shard.entries.insert(key.into(), Entry { value, expires, used });
        self.changed.push(key.into());
    }

    pub(super) fn remove(&mut self, key: &str) -> bool {
        match self.shard.entries.swap_remove_entry(key) {
            None => false,
            Some((key, entry)) => {
                self.store.used_bytes.fetch_sub(weight(&key, &entry.value), Ordering::Relaxed);
                let live = !entry.is_expired(self.now);
                self.changed.push(key);
                live
            }
        }
    }

    pub(super) fn expire(&mut self, key: &str, expiry: Option<Expiry>) -> bool {
        let expires = expiry.map(|expiry| self.now.plus(expiry));
        match self.get(key) {
            None => false,
            Some(entry) => {
                entry.expires = expires;
                self.changed.push(key.into());
                true
            }
        }
    }
}

pub(super) fn wrong_type() -> Error {
    Error::new(ErrorKind::Refused, "store").detail("the key holds a value of another type")
}

/// Returns how many bytes an entry counts for the limit.
pub(super) fn weight(key: &str, value: &Value) -> usize {
    let value = match value {
        Value::Bytes(bytes) => bytes.len(),
        Value::Hash(fields) => fields
            .iter()
            .map(|(name, value)| name.len().saturating_add(value.len()).saturating_add(ENTRY_OVERHEAD))
            .sum(),
        Value::Index(members) => members.keys().map(|member| member.len().saturating_add(ENTRY_OVERHEAD)).sum(),
        Value::Set(members) => members.iter().map(|member| member.len().saturating_add(ENTRY_OVERHEAD)).sum(),
    };
    key.len().saturating_add(value).saturating_add(ENTRY_OVERHEAD)
}
