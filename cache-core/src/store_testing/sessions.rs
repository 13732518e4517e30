//! The store operations of sessions.

use std::time::Duration;

use bytes::Bytes;

use super::{RawStore, owned};
use crate::error::Result;
use crate::store::cells::{Limit, OverLimit};
use crate::store::{Entered, Entering, Kind, Replaced, Replacing, Tombstone};

/// The result of `replace`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RawReplaced {
    /// Replaced.
    Done,
    /// The old key had other bytes.
    Conflict,
    /// The old key was absent.
    Gone,
    /// The new key already existed.
    Taken,
}

/// A write of a key with its entry in an index. Fields that are not set change nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct RawEntering<'a> {
    pub key: &'a str,
    pub bytes: &'a [u8],
    pub expiry: Option<Duration>,
    /// The key and the bytes that the new one is made from.
    pub over: Option<(&'a str, &'a [u8])>,
    pub deletes: &'a [&'a str],
    pub index: &'a str,
    pub member: &'a str,
    /// How long the entry lasts.
    pub left: Duration,
    /// Index and member.
    pub leaves: Option<(&'a str, &'a str)>,
    /// Prefix, the maximum, and whether one more is refused.
    pub limit: Option<(&'a str, usize, bool)>,
    /// Key, and how long it lasts.
    pub mark: Option<(&'a str, Duration)>,
}

/// The result of `enter`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RawEntered {
    /// Written; these members were ended.
    Done(Vec<String>),
    /// These other bytes were found.
    Conflict(Vec<u8>),
    /// The key was absent.
    Gone,
    /// The new key already existed.
    Taken,
    /// One too many.
    Full,
}

impl RawStore {
    pub async fn replace(
        &self,
        old: &str,
        expected: &[u8],
        key: &str,
        bytes: &[u8],
        expiry: Option<Duration>,
        mark: Option<(&str, Duration)>,
    ) -> Result<RawReplaced> {
        let (expected, bytes) = (Bytes::copy_from_slice(expected), Bytes::copy_from_slice(bytes));
        let mark = mark.map(|(key, lasts)| Tombstone { key, lasts });
        Ok(match self.store.replace(Replacing { old, expected: &expected, key, bytes: &bytes, expiry, mark }).await? {
            Replaced::Done => RawReplaced::Done,
            Replaced::Conflict => RawReplaced::Conflict,
            Replaced::Gone => RawReplaced::Gone,
            Replaced::Taken => RawReplaced::Taken,
        })
    }

    pub async fn enter(&self, entering: RawEntering<'_>) -> Result<RawEntered> {
        let bytes = Bytes::copy_from_slice(entering.bytes);
        let expected = entering.over.map(|(key, expected)| (key, Bytes::copy_from_slice(expected)));
        let deletes = owned(entering.deletes);
        let then = |refuse| if refuse { OverLimit::Refuse } else { OverLimit::EndFirst };
        let entered = self.store.enter(Entering {
            key: entering.key,
            bytes: &bytes,
            expiry: entering.expiry,
            over: expected.as_ref().map(|(key, expected)| (*key, expected)),
            deletes: &deletes,
            index: entering.index,
            member: entering.member,
            lasts: entering.left,
            leaves: entering.leaves,
            limit: entering.limit.map(|(prefix, most, refuse)| Limit { prefix, most, then: then(refuse) }),
            mark: entering.mark.map(|(key, lasts)| Tombstone { key, lasts }),
        });
        Ok(match entered.await? {
            Entered::Done(ended) => RawEntered::Done(ended),
            Entered::Conflict(found) => RawEntered::Conflict(found.into()),
            Entered::Gone => RawEntered::Gone,
            Entered::Taken => RawEntered::Taken,
            Entered::Full => RawEntered::Full,
        })
    }

    /// Returns the bytes, and whether the mark exists.
    pub async fn load_marked(&self, key: &str, mark: &str) -> Result<(Option<Vec<u8>>, bool)> {
        let (loaded, marked) = self.store.load_marked(key, mark).await?;
        Ok((loaded.map(|(bytes, _)| bytes.into()), marked))
    }

    pub async fn delete_marked(&self, key: &str, mark: &str, lasts: Duration) -> Result<bool> {
        self.store.delete_marked(key, Tombstone { key: mark, lasts }).await
    }

    /// Returns the members and how long each has left.
    pub async fn index_members(&self, key: &str) -> Result<Vec<(String, Duration)>> {
        let members = self.store.index_members(key).await?;
        Ok(members.into_iter().map(|(member, ends)| (member, self.store.now().until(ends))).collect())
    }

    pub async fn index_put(&self, key: &str, member: &str, left: Duration) -> Result<()> {
        self.store.index_put(key, member, left).await
    }

    pub async fn index_remove(&self, key: &str, members: &[&str]) -> Result<u64> {
        self.store.index_remove(key, &owned(members)).await
    }

    /// Returns all pages of a list, each key once, sorted; and how many pages there were.
    pub async fn list(&self, prefix: &str, indexes: bool) -> Result<(Vec<String>, usize)> {
        let kind = if indexes { Kind::Index } else { Kind::Bytes };
        let (mut all, mut from, mut pages) = (std::collections::BTreeSet::new(), 0, 0_usize);
        loop {
            let (keys, next) = self.store.list(prefix, kind, from).await?;
            pages = pages.saturating_add(1);
            all.extend(keys);
            from = next;
            if from == 0 {
                return Ok((all.into_iter().collect(), pages));
            }
        }
    }
}
