//! Finds records that an invalidation of a tag, a function or everything has ended: they are never
//! served again, but stay in the store until their ttl.
//!
//! Invariant: a record that is considered dead stays dead. A record's head is read first and the
//! versions after it: a version that differs then was renewed since, and no version is ever
//! repeated. A fenced tag decides nothing, since its fence may be withdrawn. Removal compares the
//! head that was read, so a record that was stored in the meantime stays.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use xxhash_rust::xxh3::xxh3_128;

use super::Version;
use crate::error::Result;
use crate::key::versions::{function_key, namespace_key, origin, tag_key};
use crate::value::envelope::Envelope;

/// Value keys with the first bytes of their content.
pub(crate) type Heads = Vec<(String, Bytes)>;

/// The content of a version key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VersionState {
    /// Nothing: entries under it are misses for good.
    Nothing,
    /// A fence, or the store does not know.
    Unknown,
    Version(Version),
}

/// A record, and the keys of the versions that it was stored under.
pub(crate) struct Suspect {
    envelope: Envelope,
    /// The keys for the namespace, the function and each tag, in this order.
    pub(crate) versions: Vec<Arc<str>>,
}

pub(crate) trait SweepStore {
    /// Returns some value keys that begin with `prefix`, with the heads of their records, and the
    /// position to continue from. Zero is the start, and the end. Values that are not records are
    /// left out. One step checks a bounded part of the store.
    fn heads<'a>(&'a self, prefix: &'a str, from: u64) -> BoxFuture<'a, Result<(Heads, u64)>>;

    /// Returns the content of these version keys. Does not track them.
    fn current<'a>(&'a self, versions: &'a [Arc<str>]) -> BoxFuture<'a, Result<Vec<VersionState>>>;

    /// Removes each of these keys whose record still begins with exactly these bytes. Returns how
    /// many.
    fn remove_heads<'a>(&'a self, heads: &'a Heads) -> BoxFuture<'a, Result<u64>>;
}

impl VersionState {
    pub(crate) fn of(bytes: Option<&[u8]>) -> Self {
        bytes.map_or(Self::Nothing, |bytes| Version::of(bytes).map_or(Self::Unknown, Self::Version))
    }
}

impl Suspect {
    /// Parses a record's head; `None` if it is not a record, or has no versions.
    pub(crate) fn of(value_key: &str, head: &[u8]) -> Option<Self> {
        let (namespace, name) = origin(value_key)?;
        let (envelope, _) = Envelope::peek(head)?;
        envelope.versions?;
        let mut versions: Vec<Arc<str>> = vec![namespace_key(namespace).into(), function_key(namespace, name).into()];
        versions.extend(envelope.tags.iter().map(|tag| Arc::from(tag_key(namespace, &tag.name))));
        Some(Self { envelope, versions })
    }

    /// Returns whether the record can never be served again. `standing`: the content of
    /// [`versions`](Self::versions), read after the record's head.
    pub(crate) fn is_dead(&self, current: &[VersionState]) -> bool {
        let [namespace, function, tags @ ..] = current else { return false };
        let is_ended = match (namespace, function) {
            (VersionState::Nothing, _) | (_, VersionState::Nothing) => true,
            (VersionState::Version(namespace), VersionState::Version(function)) => {
                self.envelope.versions != Some(digest(*namespace, *function))
            }
            _ => false,
        };
        let ends = |(tag, current): (&crate::value::envelope::TagVersion, &VersionState)| match current {
            VersionState::Nothing => true,
            VersionState::Unknown => false,
            VersionState::Version(version) => version.bits() != tag.version,
        };
        is_ended || self.envelope.tags.iter().zip(tags).any(ends)
    }
}

/// Returns the digest of the versions that every entry has.
pub(crate) fn digest(namespace: Version, function: Version) -> u128 {
    let mut bytes = [0; 32];
    let both = [namespace, function].map(|version| version.bits().to_le_bytes());
    bytes.iter_mut().zip(both.as_flattened()).for_each(|(to, from)| *to = *from);
    xxh3_128(&bytes)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::Timestamp;
    use crate::value::envelope::TagVersion;

    #[test]
    // R16, I5
    fn only_what_can_never_be_served_again_is_dead() {
        let [namespace, function, tag, other] = [1, 2, 3, 4].map(|_| Version::random());
        let envelope = Envelope {
            codec: 1,
            present: true,
            fill_id: 1,
            created: Timestamp::from_millis(1),
            fresh_for: Duration::from_secs(60),
            stale_for: Duration::ZERO,
            cost: Duration::ZERO,
            versions: Some(digest(namespace, function)),
            tags: vec![TagVersion { name: "author:7".into(), version: tag.bits() }],
        };
        let seal = |envelope: &Envelope, payload: usize| {
            envelope
                .seal("k", |out| {
                    out.extend(std::iter::repeat_n(1, payload));
                    Ok(1)
                })
                .unwrap()
        };
        let record = seal(&envelope, 10_000);
        let (_, head) = Envelope::peek(&record).unwrap();
        let suspect = Suspect::of("app:post:7@f1", &record[..head]).unwrap();
        let keys: Vec<&str> = suspect.versions.iter().map(|key| &**key).collect();
        assert_eq!(keys, ["app@version", "app:post@version", "app@tag:author:7"]);
        let of = VersionState::Version;
        let is_dead = |current: [VersionState; 3]| suspect.is_dead(&current);
        assert!(!is_dead([of(namespace), of(function), of(tag)]));
        assert!(!is_dead([of(namespace), of(function), VersionState::Unknown]), "a fence may be withdrawn");
        for ended in [
            [of(other), of(function), of(tag)],
            [of(namespace), of(other), of(tag)],
            [of(namespace), of(function), of(other)],
            [VersionState::Nothing, of(function), of(tag)],
            [of(namespace), VersionState::Nothing, of(tag)],
            [of(namespace), of(function), VersionState::Nothing],
        ] {
            assert!(is_dead(ended), "{ended:?}");
        }
        // Too few bytes, a record without versions, and keys that are not value keys.
        assert!(Suspect::of("app:post:7@f1", &record[..head - 1]).is_none());
        assert!(Suspect::of("app:post:7@object", &seal(&Envelope { versions: None, ..envelope }, 1)).is_none());
        let long = format!("app:{}~{}@f1", "n".repeat(400), "0".repeat(32));
        for key in ["app@version", "app:post@builds", "{app:post:7@f1}:f", "app@tag:a:b@c", "x", &long] {
            assert!(Suspect::of(key, &record).is_none(), "{key}");
        }
    }
}
