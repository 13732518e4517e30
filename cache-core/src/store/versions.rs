//! Versions of namespaces, functions and tags, and the registry of a function's builds.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use xxhash_rust::xxh3::xxh3_128;

use super::Expiry;
use super::fences::layout::is_fence;
use crate::error::Result;

/// The version of a namespace, function or tag: 128 random bits, so that no version is ever
/// repeated. Versions have no order.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Version(pub(super) u128);

pub(super) const DAY: Duration = Duration::from_secs(24 * 3600);

/// How long a version lives after it was made or renewed. Readers renew a version that is in use,
/// so entries of any ttl can live on. When an unused version expires, its entries become misses.
pub(crate) const VERSION_EXPIRY: Duration = DAY.saturating_mul(90);

/// A version that is read with less than this time left is renewed. Each process reads the versions
/// in use again within half of it: see [`tag`](crate::versions::snapshot).
pub(crate) const VERSION_RENEWED_BELOW: Duration = DAY.saturating_mul(60);

/// Lifetime of the registry of builds. A build registers before each record that it stores, at most
/// ten minutes earlier (R21).
pub(crate) const REGISTRY_EXPIRY: Duration = DAY.saturating_mul(400);

/// The operations on versions.
pub(crate) trait VersionStore: Send + Sync + 'static {
    /// Reads the versions under these keys, tracked as by
    /// [`read_versioned`](super::ValueStore::read_versioned).
    ///
    /// They are read in this order: none is read before an earlier one. `make`: missing versions
    /// are made first, and those with little time left are renewed.
    fn read_versions<'a>(
        &'a self,
        versions: &'a [Arc<str>],
        make: bool,
    ) -> BoxFuture<'a, Result<(Vec<Option<Version>>, bool)>>;

    /// Gives each of these keys that has a version a new one, in this order, in one round trip.
    fn renew_versions<'a>(&'a self, versions: &'a [Arc<str>]) -> BoxFuture<'a, Result<()>>;

    /// Adds a build's fingerprint to a function's registry and sets its expiry, which outlives
    /// every entry. Atomic; returns the version afterwards.
    ///
    /// If there is no registry, the function's version, which is in the same slot, is replaced
    /// first: this invalidates what builds stored that only a lost registry knew of (R25).
    fn register_build<'a>(
        &'a self,
        builds: &'a str,
        version: &'a str,
        fingerprint: &'a str,
        expiry: Expiry,
    ) -> BoxFuture<'a, Result<Option<Version>>>;
}

impl Version {
    /// Makes a version that was never used before.
    pub(crate) fn random() -> Self {
        Self(crate::random::u128())
    }

    /// Reads the version from the content of a version key; `None` if that is a fence.
    pub(crate) fn of(bytes: &[u8]) -> Option<Self> {
        if is_fence(bytes) {
            return None;
        }
        // Bytes that this library did not write count as a version of their own.
        Some(Self::written(bytes).unwrap_or_else(|| Self(xxh3_128(bytes))))
    }

    /// Parses bytes that this library wrote.
    pub(crate) fn written(bytes: &[u8]) -> Option<Self> {
        let digits = std::str::from_utf8(bytes).ok().filter(|digits| digits.len() == 32)?;
        u128::from_str_radix(digits, 16).ok().map(Self)
    }

    /// Returns the form stored in the version key.
    pub(crate) fn hex(self) -> String {
        format!("{:032x}", self.0)
    }

    pub(crate) fn bits(self) -> u128 {
        self.0
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Version({:032x})", self.0)
    }
}
