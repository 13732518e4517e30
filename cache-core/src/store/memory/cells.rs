//! The operations of cells: single keys, and several at once.

use bytes::Bytes;
use futures::future::{self, BoxFuture};

use super::shard::{Access, Value};
use super::{MemoryStore, SHARDS, index};
use crate::clock::Timestamp;
use crate::error::Result;
use crate::mutants::{self, Invariant};
use crate::store::{CellStore, Entered, Entering, Expiry, Kind, Loaded, MARK, Replaced, Replacing, Swapped, Tombstone};

impl MemoryStore {
    /// Runs `step` on all shards. They are always locked in the same order, so that two calls never
    /// wait for each other.
    fn with_all<T>(&self, step: impl FnOnce(&mut Shards<'_>) -> Result<T>) -> Result<T> {
        self.check_open()?;
        let now = self.now();
        let access = |index| Access { store: self, shard: self.lock_shard(index), changed: Vec::new(), now };
        let mut shards = Shards(self, (0..SHARDS).map(access).collect());
        let result = step(&mut shards);
        let changed: Vec<Box<str>> =
            shards.1.iter_mut().flat_map(|access| std::mem::take(&mut access.changed)).collect();
        drop(shards);
        for key in &changed {
            self.pushes.changed(key);
        }
        self.keep_bounds();
        result
    }
}

/// Access to the whole store.
struct Shards<'a>(&'a MemoryStore, Vec<Access<'a>>);

impl<'a> Shards<'a> {
    /// Returns the shard of the key.
    fn of(&mut self, key: &str) -> &mut Access<'a> {
        let index = self.0.shard_index(key);
        #[expect(clippy::indexing_slicing, reason = "there is one for each shard")]
        &mut self.1[index]
    }

    fn leave(&mut self, mark: Option<Tombstone<'_>>) {
        if let Some(mark) = mark {
            self.of(mark.key).put(mark.key, Value::Bytes(Bytes::from_static(MARK)), Some(mark.lasts));
        }
    }

    /// Returns the live members of its index except itself and the one that leaves, ordered by
    /// their end.
    fn others(&mut self, entering: &Entering<'_>, prefix: &str) -> Result<Vec<String>> {
        let members = index::members(self.of(entering.index), entering.index)?;
        let leaves = |member: &str| entering.leaves == Some((entering.index, member));
        let others = members.into_iter().map(|(member, _)| member);
        let others: Vec<String> = others.filter(|member| member != entering.member && !leaves(member)).collect();
        let mut stands = |member: &String| {
            let key = format!("{prefix}{member}");
            self.of(&key).get(&key).is_some()
        };
        Ok(others.into_iter().filter(|member| stands(member)).collect())
    }

    fn enter(&mut self, entering: Entering<'_>) -> Result<Entered> {
        let key = entering.key;
        if let Some((from, expected)) = entering.over {
            match self.of(from).bytes(from)? {
                None => return Ok(Entered::Gone),
                Some(found) if found != *expected => return Ok(Entered::Conflict(found)),
                Some(_) => {}
            }
        }
        let is_new = entering.over.is_none_or(|(from, _)| from != key);
        if is_new && self.of(key).get(key).is_some() {
            return Ok(Entered::Taken);
        }
        // Detects a wrong type before anything is changed.
        for index in [Some(entering.index), entering.leaves.map(|(index, _)| index)].into_iter().flatten() {
            index::members(self.of(index), index)?;
        }
        let mut ended = Vec::new();
        if let Some(limit) = entering.limit {
            let others = self.others(&entering, limit.prefix)?;
            let Some(surplus) = limit.surplus(others.len()) else { return Ok(Entered::Full) };
            ended = others.into_iter().take(surplus).collect();
            for member in &ended {
                let key = format!("{}{member}", limit.prefix);
                self.of(&key).remove(&key);
            }
            index::remove(self.of(entering.index), entering.index, &ended)?;
        }
        if let Some((from, _)) = entering.over {
            self.of(from).remove(from);
        }
        for key in entering.deletes {
            self.of(key).remove(key);
        }
        self.of(key).put(key, Value::Bytes(entering.bytes.clone()), entering.expiry);
        self.leave(entering.mark);
        if let Some((index, member)) = entering.leaves {
            index::remove(self.of(index), index, &[member.to_owned()])?;
        }
        if !mutants::removed(Invariant::LoginIsEntered) {
            index::put(self.of(entering.index), entering.index, entering.member, entering.lasts)?;
        }
        Ok(Entered::Done(ended))
    }
}

impl CellStore for MemoryStore {
    fn now(&self) -> Timestamp {
        self.time.now(&self.clock)
    }

    fn reads_synchronously(&self) -> bool {
        true
    }

    fn load<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Loaded>>> {
        self.ready(key, |access| {
            let bytes = access.bytes(key)?;
            Ok(bytes.map(|bytes| (bytes, access.left(key))))
        })
    }

    fn create<'a>(&'a self, key: &'a str, bytes: Bytes, expiry: Option<Expiry>) -> BoxFuture<'a, Result<bool>> {
        self.ready(key, |access| {
            if access.get(key).is_some() {
                return Ok(false);
            }
            access.put(key, Value::Bytes(bytes), expiry);
            Ok(true)
        })
    }

    fn swap<'a>(
        &'a self,
        key: &'a str,
        expected: Bytes,
        bytes: Bytes,
        expiry: Option<Expiry>,
    ) -> BoxFuture<'a, Result<Swapped>> {
        self.ready(key, |access| match access.bytes(key)? {
            None => Ok(Swapped::Gone),
            Some(found) if found != expected && !mutants::removed(Invariant::SwapCompares) => {
                Ok(Swapped::Conflict(found))
            }
            Some(_) => {
                let expiry = expiry.or_else(|| access.left(key));
                access.put(key, Value::Bytes(bytes), expiry);
                Ok(Swapped::Done)
            }
        })
    }

    fn expire<'a>(&'a self, key: &'a str, expiry: Option<Expiry>) -> BoxFuture<'a, Result<bool>> {
        self.ready(key, |access| Ok(access.expire(key, expiry)))
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<bool>> {
        self.ready(key, |access| Ok(access.remove(key)))
    }

    fn load_marked<'a>(&'a self, key: &'a str, mark: &'a str) -> BoxFuture<'a, Result<(Option<Loaded>, bool)>> {
        Box::pin(async move {
            let loaded = self.load(key).await?;
            Ok((loaded, self.with(mark, |access| Ok(access.get(mark).is_some()))?))
        })
    }

    fn delete_marked<'a>(&'a self, key: &'a str, mark: Tombstone<'a>) -> BoxFuture<'a, Result<bool>> {
        Box::pin(future::ready(self.with_all(|shards| {
            shards.leave(Some(mark));
            Ok(shards.of(key).remove(key))
        })))
    }

    fn replace<'a>(&'a self, replacing: Replacing<'a>) -> BoxFuture<'a, Result<Replaced>> {
        let Replacing { old, expected, key, bytes, expiry, mark } = replacing;
        Box::pin(future::ready(self.with_all(|shards| {
            match shards.of(old).bytes(old)? {
                None => return Ok(Replaced::Gone),
                Some(found) if found != *expected => return Ok(Replaced::Conflict),
                Some(_) if shards.of(key).get(key).is_some() => return Ok(Replaced::Taken),
                Some(_) => {}
            }
            shards.of(old).remove(old);
            shards.of(key).put(key, Value::Bytes(bytes.clone()), expiry);
            shards.leave(mark);
            Ok(Replaced::Done)
        })))
    }

    fn enter<'a>(&'a self, entering: Entering<'a>) -> BoxFuture<'a, Result<Entered>> {
        Box::pin(future::ready(self.with_all(|shards| shards.enter(entering))))
    }

    fn index_members<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Vec<(String, Timestamp)>>> {
        self.ready(key, |access| index::members(access, key))
    }

    fn index_put<'a>(&'a self, key: &'a str, member: &'a str, lasts: Expiry) -> BoxFuture<'a, Result<()>> {
        self.ready(key, |access| index::put(access, key, member, lasts))
    }

    fn index_remove<'a>(&'a self, key: &'a str, members: &'a [String]) -> BoxFuture<'a, Result<u64>> {
        self.ready(key, |access| index::remove(access, key, members))
    }

    /// Each step lists one shard.
    fn list<'a>(&'a self, prefix: &'a str, kind: Kind, from: u64) -> BoxFuture<'a, Result<(Vec<String>, u64)>> {
        let list = || {
            self.check_open()?;
            let Some(shard) = self.shards.get(usize::try_from(from).unwrap_or(SHARDS)) else {
                return Ok((Vec::new(), 0));
            };
            let now = self.now();
            let shard = super::lock(shard);
            let of_kind = |value: &Value| match kind {
                Kind::Bytes => matches!(value, Value::Bytes(_)),
                Kind::Index => matches!(value, Value::Index(_)),
            };
            let found = shard
                .entries
                .iter()
                .filter(|(key, entry)| key.starts_with(prefix) && of_kind(&entry.value) && !entry.is_expired(now));
            let keys = found.map(|(key, _)| key.to_string()).collect();
            let next = from.saturating_add(1);
            Ok((keys, if next < SHARDS as u64 { next } else { 0 }))
        };
        Box::pin(future::ready(list()))
    }
}
