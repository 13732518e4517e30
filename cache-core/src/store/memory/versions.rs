//! Versions: values like any other, made if they are missing.

use std::sync::Arc;

use futures::future::{self, BoxFuture};

use super::MemoryStore;
use super::shard::{Value, wrong_type};
use crate::error::Result;
use crate::mutants::{self, Invariant};
use crate::store::{Expiry, VERSION_EXPIRY, VERSION_RENEWED_BELOW, Version, VersionStore};

impl VersionStore for MemoryStore {
    fn read_versions<'a>(
        &'a self,
        versions: &'a [Arc<str>],
        make: bool,
    ) -> BoxFuture<'a, Result<(Vec<Option<Version>>, bool)>> {
        Box::pin(future::ready(self.versions(versions, make).map(|versions| (versions, true))))
    }

    fn renew_versions<'a>(&'a self, versions: &'a [Arc<str>]) -> BoxFuture<'a, Result<()>> {
        Box::pin(future::ready(self.renew_all(versions)))
    }

    fn register_build<'a>(
        &'a self,
        builds: &'a str,
        version: &'a str,
        fingerprint: &'a str,
        expiry: Expiry,
    ) -> BoxFuture<'a, Result<Option<Version>>> {
        self.ready(builds, |access| {
            let known = match access.get(builds).map(|entry| &entry.value) {
                None => None,
                Some(Value::Set(members)) => Some(members.clone()),
                Some(_) => return Err(wrong_type()),
            };
            if known.is_none() && access.get(version).is_some() && !mutants::removed(Invariant::LostRegistryEndsEntries)
            {
                access.put(version, new_version(), Some(VERSION_EXPIRY));
            }
            let mut members = known.unwrap_or_default();
            members.insert(fingerprint.to_owned());
            access.put(builds, Value::Set(members), Some(expiry));
            Ok(access.bytes(version)?.and_then(|bytes| Version::of(&bytes)))
        })
    }
}

impl MemoryStore {
    pub(super) fn versions(&self, keys: &[Arc<str>], make: bool) -> Result<Vec<Option<Version>>> {
        let read = |key: &Arc<str>| {
            self.with(key, |access| {
                if make && access.get(key).is_none() {
                    let version =
                        if mutants::removed(Invariant::LostVersionIsNew) { first_version() } else { new_version() };
                    access.put(key, version, Some(VERSION_EXPIRY));
                    // There can be no copy of a version that did not exist.
                    access.changed.pop();
                }
                // A value of another type is not a version.
                let version = access.bytes(key).ok().flatten().and_then(|bytes| Version::of(&bytes));
                // Never a fence, which has a limit.
                if make && version.is_some() && access.left(key).is_some_and(|left| left < VERSION_RENEWED_BELOW) {
                    access.expire(key, Some(VERSION_EXPIRY));
                    // The version itself has not changed.
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
                // Entries under a lost version are misses anyway (I5).
                if access.get(key).is_some() {
                    access.put(key, new_version(), Some(VERSION_EXPIRY));
                    self.sweep.version_ended();
                }
                Ok(())
            })
        })
    }

    /// Returns the builds of this registry.
    pub(super) fn builds(&self, registry: &str) -> Result<Vec<String>> {
        self.with(registry, |access| match access.get(registry).map(|entry| &entry.value) {
            None => Ok(Vec::new()),
            Some(Value::Set(members)) => Ok(members.iter().cloned().collect()),
            Some(_) => Err(wrong_type()),
        })
    }
}

pub(super) fn new_version() -> Value {
    Value::Bytes(Version::random().hex().into())
}

/// Returns the value that a counter would restart from.
fn first_version() -> Value {
    Value::Bytes("1".into())
}

#[cfg(test)]
mod tests;
