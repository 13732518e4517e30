//! Write fences: a set of them replaces a record, which is put aside meanwhile, or a version.

use std::sync::Arc;

use futures::future::{self, BoxFuture};

use super::MemoryStore;
use super::shard::{Access, Value};
use super::versions::new_version;
use crate::error::Result;
use crate::mutants::{self, Invariant};
use crate::store::fences::{Before, Fences};
use crate::store::{Expiry, FenceStore, Raised, Siblings, Slot, Token, VERSION_EXPIRY, Version, aside_key, lease_key};

impl FenceStore for MemoryStore {
    fn raise<'a>(&'a self, fence: Token, limit: Expiry, siblings: Siblings<'a>) -> BoxFuture<'a, Result<Raised>> {
        let raise = || {
            let mut crowded = false;
            for key in siblings.keys {
                crowded |= !self.with(key, |access| Ok(access.raise(key, fence, limit)))?;
            }
            Ok(Raised { builds: self.builds(siblings.builds)?, crowded })
        };
        Box::pin(future::ready(raise()))
    }

    fn lift<'a>(&'a self, fence: Token, siblings: Siblings<'a>) -> BoxFuture<'a, Result<Vec<String>>> {
        let lift = || {
            for key in siblings.keys {
                self.with(key, |access| {
                    access.lift(key, fence);
                    Ok(())
                })?;
            }
            self.builds(siblings.builds)
        };
        Box::pin(future::ready(lift()))
    }

    fn withdraw<'a>(&'a self, fence: Token, keys: &'a [String]) -> BoxFuture<'a, Result<()>> {
        let withdraw = |key: &String| {
            self.with(key, |access| {
                access.withdraw(key, fence);
                Ok(())
            })
        };
        Box::pin(future::ready(keys.iter().try_for_each(withdraw)))
    }

    fn fence_versions<'a>(
        &'a self,
        fence: Token,
        limit: Expiry,
        kinds: &'a [Arc<str>],
        tags: &'a [Arc<str>],
    ) -> BoxFuture<'a, Result<bool>> {
        let raise = || {
            self.renew_all(kinds)?;
            let mut crowded = false;
            for key in tags {
                crowded |= !self.with(key, |access| access.fence_version(key, fence, limit))?;
            }
            Ok(crowded)
        };
        Box::pin(future::ready(raise()))
    }

    fn lift_versions<'a>(
        &'a self,
        fence: Token,
        versions: &'a [Arc<str>],
        tags: &'a [Arc<str>],
    ) -> BoxFuture<'a, Result<()>> {
        let lift = || {
            self.renew_all(versions)?;
            tags.iter().try_for_each(|key| self.with(key, |access| access.lift_version(key, fence)))
        };
        Box::pin(future::ready(lift()))
    }

    fn withdraw_versions<'a>(
        &'a self,
        fence: Token,
        kinds: &'a [Arc<str>],
        tags: &'a [Arc<str>],
    ) -> BoxFuture<'a, Result<()>> {
        let withdraw = || {
            self.renew_all(kinds)?;
            tags.iter().try_for_each(|key| self.with(key, |access| access.withdraw_version(key, fence)))
        };
        Box::pin(future::ready(withdraw()))
    }
}

impl Access<'_> {
    /// Adds a fence. Returns `false` if there are too many.
    fn raise(&mut self, key: &str, fence: Token, limit: Expiry) -> bool {
        let aside = aside_key(key);
        self.remove(&lease_key(key));
        let mut fences = self.fences(key).unwrap_or_else(|| {
            self.remove(&aside);
            Fences::over(self.put_aside(key))
        });
        let told_apart = fences.add(fence, self.now.plus(limit));
        if fences.before() == Before::Nothing {
            self.remove(&aside);
        } else if self.left(&aside).is_some_and(|left| left > limit) {
            self.expire(&aside, Some(limit));
        }
        self.stand(key, &fences);
        told_apart
    }

    /// Puts the record aside. A record has an expiry; a value without one was written by another
    /// program, and is dropped as by an invalidation.
    fn put_aside(&mut self, key: &str) -> Before {
        let is_record = matches!(self.slot(key), Slot::Bytes(_));
        let ends = self.get(key).and_then(|entry| entry.expires).filter(|_| is_record);
        match (ends, self.bytes(key)) {
            (Some(ends), Ok(Some(record))) => {
                let left = self.now.until(ends);
                self.put(&aside_key(key), Value::Bytes(record), Some(left));
                Before::Record(ends)
            }
            _ => Before::Nothing,
        }
    }

    fn lift(&mut self, key: &str, fence: Token) {
        self.remove(&lease_key(key));
        self.remove(&aside_key(key));
        let are_a_set = !mutants::removed(Invariant::FencesAreASet);
        match self.fences(key).and_then(|fences| without(fence, fences)).filter(|_| are_a_set) {
            Some(mut others) => {
                others.end_before();
                self.stand(key, &others);
            }
            None => {
                self.remove(key);
            }
        }
    }

    fn withdraw(&mut self, key: &str, fence: Token) {
        let Some(fences) = self.fences(key) else { return };
        let before = fences.before();
        if let Some(others) = without(fence, fences) {
            return self.stand(key, &others);
        }
        let aside = aside_key(key);
        self.remove(key);
        if let (Before::Record(ends), Ok(Some(record))) = (before, self.bytes(&aside)) {
            let left = self.now.until(ends);
            self.put(key, Value::Bytes(record), Some(left));
        }
        self.remove(&aside);
    }

    fn fence_version(&mut self, key: &str, fence: Token, limit: Expiry) -> Result<bool> {
        let found = self.bytes(key)?;
        let fences = found.as_ref().and_then(|bytes| Fences::of_version(bytes, self.now));
        let mut fences = fences.unwrap_or_else(|| {
            let version = found.as_deref().and_then(Version::written);
            Fences::over(version.map_or(Before::Nothing, Before::Version))
        });
        let told_apart = fences.add(fence, self.now.plus(limit));
        self.stand(key, &fences);
        Ok(told_apart)
    }

    fn lift_version(&mut self, key: &str, fence: Token) -> Result<()> {
        let found = self.bytes(key)?;
        match found.as_ref().map(|bytes| Fences::of_version(bytes, self.now)) {
            None => {}
            Some(None) => self.put(key, new_version(), Some(VERSION_EXPIRY)),
            Some(Some(fences)) => match without(fence, fences) {
                Some(mut others) => {
                    others.end_before();
                    self.stand(key, &others);
                }
                // The next reader makes another one.
                None => {
                    self.remove(key);
                }
            },
        }
        Ok(())
    }

    fn withdraw_version(&mut self, key: &str, fence: Token) -> Result<()> {
        let Some(fences) = self.bytes(key)?.and_then(|bytes| Fences::of_version(&bytes, self.now)) else {
            return Ok(());
        };
        let before = fences.before();
        match (without(fence, fences), before) {
            (Some(others), _) => self.stand(key, &others),
            (None, Before::Version(version)) => {
                self.put(key, Value::Bytes(version.hex().into()), Some(VERSION_EXPIRY));
            }
            (None, _) => {
                self.remove(key);
            }
        }
        Ok(())
    }

    fn fences(&mut self, key: &str) -> Option<Fences> {
        let bytes = self.bytes(key).ok().flatten()?;
        Fences::of_record(&bytes, self.now)
    }

    fn stand(&mut self, key: &str, fences: &Fences) {
        let left = self.now.until(fences.ends());
        self.put(key, Value::Bytes(fences.to_bytes()), Some(left));
    }
}

/// Returns the fences that are left without this one, if there are any.
fn without(fence: Token, mut fences: Fences) -> Option<Fences> {
    fences.remove(fence);
    if fences.is_empty() { None } else { Some(fences) }
}
