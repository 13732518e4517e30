//! Write fences: a mark in the place of a record, which stands aside meanwhile, or of a version.

use std::sync::Arc;

use super::MemoryStore;
use super::shard::{Access, Value};
use crate::clock::Timestamp;
use crate::error::Result;
use crate::store::{Expiry, Fenced, Raised, Siblings, Slot, Token, VERSION_EXPIRY, Version, aside_key, lease_key};

impl MemoryStore {
    pub(super) fn raise(&self, fence: Token, limit: Expiry, siblings: Siblings<'_>) -> Result<Raised> {
        let raise = |key: &String| self.with(key, |access| Ok(access.raise(key, fence, limit)));
        let ends = siblings.keys.iter().map(raise).collect::<Result<_>>()?;
        Ok((ends, self.builds(siblings.builds)?))
    }

    pub(super) fn withdraw(&self, fence: Token, fenced: &[Fenced]) -> Result<()> {
        fenced.iter().try_for_each(|(key, ends)| {
            self.with(key, |access| {
                access.withdraw(key, fence, *ends);
                Ok(())
            })
        })
    }

    pub(super) fn fence_versions(
        &self,
        fence: Token,
        limit: Expiry,
        kinds: &[Arc<str>],
        tags: &[Arc<str>],
    ) -> Result<Vec<Option<Version>>> {
        self.renew_all(kinds)?;
        let raise = |key: &Arc<str>| {
            self.with(key, |access| {
                let before = access.bytes(key)?;
                access.put(key, Value::Bytes(fence.fence().into()), Some(limit));
                Ok(before.and_then(|bytes| Version::of(&bytes)))
            })
        };
        tags.iter().map(raise).collect()
    }

    pub(super) fn withdraw_versions(
        &self,
        fence: Token,
        kinds: &[Arc<str>],
        tags: &[(Arc<str>, Version)],
    ) -> Result<()> {
        self.renew_all(kinds)?;
        tags.iter().try_for_each(|(key, version)| {
            self.with(key, |access| {
                if access.is_fenced_by(key, fence) {
                    access.put(key, Value::Bytes(version.hex().into()), Some(VERSION_EXPIRY));
                }
                Ok(())
            })
        })
    }
}

impl Access<'_> {
    fn raise(&mut self, key: &str, fence: Token, limit: Expiry) -> Option<Timestamp> {
        let aside = aside_key(key);
        self.remove(&lease_key(key));
        self.remove(&aside);
        let is_record = matches!(self.slot(key), Slot::Bytes(_));
        let ends = self.get(key).and_then(|entry| entry.expires).filter(|_| is_record);
        if let Some(ends) = ends
            && let Ok(Some(record)) = self.bytes(key)
        {
            let left = self.now.until(ends);
            self.put(&aside, Value::Bytes(record), Some(left.min(limit)));
        }
        self.put(key, Value::Bytes(fence.fence().into()), Some(limit));
        ends
    }

    fn withdraw(&mut self, key: &str, fence: Token, ends: Option<Timestamp>) {
        if !self.is_fenced_by(key, fence) {
            return;
        }
        let aside = aside_key(key);
        self.remove(key);
        if let (Some(ends), Ok(Some(record))) = (ends, self.bytes(&aside)) {
            let left = self.now.until(ends);
            self.put(key, Value::Bytes(record), Some(left));
        }
        self.remove(&aside);
    }

    fn is_fenced_by(&mut self, key: &str, fence: Token) -> bool {
        matches!(self.bytes(key), Ok(Some(bytes)) if bytes == fence.fence().as_bytes())
    }
}
