//! Versions: values like any other, made where they are missing.

use std::sync::Arc;

use super::MemoryStore;
use super::shard::Value;
use crate::error::Result;
use crate::sabotage::{self, Guard};
use crate::store::{VERSION_EXPIRY, VERSION_RENEWED_BELOW, Version};

impl MemoryStore {
    pub(super) fn versions(&self, keys: &[Arc<str>], make: bool) -> Result<Vec<Option<Version>>> {
        let read = |key: &Arc<str>| {
            self.with(key, |access| {
                if make && access.get(key).is_none() {
                    let version = if sabotage::is(Guard::LostVersionIsNew) { first_version() } else { new_version() };
                    access.put(key, version, Some(VERSION_EXPIRY));
                    // Nobody can hold what did not exist.
                    access.changed.pop();
                }
                // Of another type, it is no version.
                let version = access.bytes(key).ok().flatten().and_then(|bytes| Version::of(&bytes));
                // Never a fence: that has a limit.
                if make && version.is_some() && access.left(key).is_some_and(|left| left < VERSION_RENEWED_BELOW) {
                    access.expire(key, Some(VERSION_EXPIRY));
                    // It is what it was.
                    access.changed.pop();
                }
                Ok(version)
            })
        };
        keys.iter().map(read).collect()
    }

    pub(super) fn renew_all(&self, keys: &[Arc<str>]) -> Result<()> {
        keys.iter().try_for_each(|key| {
            self.with(key, |access| {
                access.put(key, new_version(), Some(VERSION_EXPIRY));
                Ok(())
            })
        })
    }
}

fn new_version() -> Value {
    Value::Bytes(Version::random().hex().into())
}

/// What a counter would begin with again.
fn first_version() -> Value {
    Value::Bytes("1".into())
}
