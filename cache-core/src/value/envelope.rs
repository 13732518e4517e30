//! The stored record: a fixed header, the versions that the value depends on, and the payload.
//!
//! Invariant: [`Envelope::open`] returns an envelope only for bytes that [`Envelope::seal`] wrote
//! under the same key, and no codec reads a byte before that. Everything is little endian; golden
//! files freeze it.
//!
//! ```text
//!  0  2  magic CA C8: no text in any encoding Redis users write, and not a lease's `L`
//!  2  1  layout, 1
//!  3  1  codec id, 0 if there is no value
//!  4  1  flags: 1 a value is present, 2 versions follow; reserved: 4 the payload is compressed,
//!        8 it is encrypted, after that
//!  5  1  number of tags
//!  6  8  fill id: random, new with each write
//! 14  6  created, ms since the epoch on the server's clock
//! 20  5  fresh for, ms
//! 25  5  stale for, ms beyond that
//! 30  4  cost of computing it, us
//! 34  8  checksum: xxh3 of all the rest, seeded with the key
//! 42 16  versions, by flag: the digest of the namespace and function version of the value
//!        each tag: length of its name 1, name, version 16
//!        payload; compressed or encrypted, it begins with what is needed to read it
//! ```
//!
//! A record with another layout or flag comes from a newer build. It is left in place for builds
//! that can read it. In this build it is a miss with an event, and a compute under a lease next to
//! it replaces it, as if it had expired. So every layout has the magic, the layout and the fill id
//! at the same place as this one.

use std::ops::Range;
use std::time::Duration;

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::clock::{Timestamp, millis};
use crate::error::{Error, ErrorKind, Result};

const MAGIC: [u8; 2] = [0xCA, 0xC8];
const LAYOUT: u8 = 1;
const PRESENT: u8 = 0b0001;
const VERSIONED: u8 = 0b0010;
/// Reserved, and not known yet: if it were written today, no released build could read it.
#[cfg(test)]
const COMPRESSED: u8 = 0b0100;
#[cfg(test)]
const ENCRYPTED: u8 = 0b1000;
const CODEC_AT: usize = 3;
const FLAGS_AT: usize = 4;
const CHECKSUM_AT: usize = 34;
const HEADER_LEN: usize = 42;
/// The largest times of five and of six bytes.
const MAX_U40: u64 = (1 << 40) - 1;
const MAX_U48: u64 = (1 << 48) - 1;

/// The metadata of a record's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Envelope {
    /// The payload's codec, 0 if there is none. Sealing takes it from the encoder instead, which
    /// chooses the codec.
    pub(crate) codec: u8,
    /// `false`: the record stores that there is no value (`None`), and the payload is empty.
    pub(crate) present: bool,
    /// Identifies this write.
    pub(crate) fill_id: u64,
    pub(crate) created: Timestamp,
    /// From `created`. Stored in milliseconds up to 34 years.
    pub(crate) fresh_for: Duration,
    /// How long after that it may still be served. Stored in milliseconds up to 34 years.
    pub(crate) stale_for: Duration,
    /// The duration of the compute. Stored in microseconds up to 71 minutes.
    pub(crate) cost: Duration,
    /// The digest of the implicit versions, of namespace and function.
    pub(crate) versions: Option<u128>,
    pub(crate) tags: Vec<TagVersion>,
}

/// A tag and the version it had before the value was computed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TagVersion {
    pub(crate) name: Box<str>,
    pub(crate) version: u128,
}

/// Why this build cannot read the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// They are not a record under this key, for this reason.
    Foreign(&'static str),
    /// They are a record of a newer build, with this fill id.
    Newer(u64, &'static str),
}

impl Unreadable {
    /// Returns the reason for [`Event::Undecodable`](crate::events::Event::Undecodable).
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Foreign(reason) | Self::Newer(_, reason) => reason,
        }
    }
}

impl Envelope {
    /// Returns until when the value is fresh.
    pub(crate) fn fresh_until(&self) -> Timestamp {
        self.created.plus(self.fresh_for)
    }

    /// Returns until when the value may be served at all.
    pub(crate) fn stale_until(&self) -> Timestamp {
        self.fresh_until().plus(self.stale_for)
    }

    /// Returns the bytes of a record under `key`. `write_payload` appends the encoded value behind
    /// the header and returns its codec's id; it is not called if no value is present.
    ///
    /// # Errors
    /// Those of `write_payload`; [`ErrorKind::Limit`] for more than 255 tags or one with a name
    /// over 255 bytes.
    pub(crate) fn seal(&self, key: &str, write_payload: impl FnOnce(&mut Vec<u8>) -> Result<u8>) -> Result<Vec<u8>> {
        let limit = |what: &'static str| Error::new(ErrorKind::Limit, "seal").detail(what);
        let tags = u8::try_from(self.tags.len()).map_err(|_| limit("the value has more than 255 tags"))?;
        let flags = if self.present { PRESENT } else { 0 } | if self.versions.is_some() { VERSIONED } else { 0 };

        let mut out = Vec::with_capacity(HEADER_LEN.saturating_mul(4));
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[LAYOUT, 0, flags, tags]);
        out.extend_from_slice(&self.fill_id.to_le_bytes());
        put(&mut out, self.created.as_millis().min(MAX_U48), 6);
        put(&mut out, millis(self.fresh_for).min(MAX_U40), 5);
        put(&mut out, millis(self.stale_for).min(MAX_U40), 5);
        let cost = u32::try_from(self.cost.as_micros()).unwrap_or(u32::MAX);
        out.extend_from_slice(&cost.to_le_bytes());
        out.extend_from_slice(&[0; 8]);
        if let Some(versions) = self.versions {
            out.extend_from_slice(&versions.to_le_bytes());
        }
        for tag in &self.tags {
            let len = u8::try_from(tag.name.len()).map_err(|_| limit("a tag name is longer than 255 bytes"))?;
            out.push(len);
            out.extend_from_slice(tag.name.as_bytes());
            out.extend_from_slice(&tag.version.to_le_bytes());
        }
        if self.present {
            let codec = write_payload(&mut out)?;
            overwrite(&mut out, CODEC_AT, &[codec]);
        }
        let checksum = checksum(key, &out).unwrap_or_default();
        overwrite(&mut out, CHECKSUM_AT, &checksum.to_le_bytes());
        Ok(out)
    }

    /// Returns the bytes in front of the payload for the same record with other times. The payload
    /// itself does not change (V8). `None`: the new header has another length.
    pub(crate) fn head(&self, key: &str, record: &[u8], payload_at: usize) -> Option<Vec<u8>> {
        let payload = record.get(payload_at..)?;
        let sealed = self.seal(key, |out| {
            out.extend_from_slice(payload);
            Ok(self.codec)
        });
        let mut head = sealed.ok().filter(|sealed| sealed.len() == record.len())?;
        head.truncate(payload_at);
        Some(head)
    }

    /// Reads a record that was stored under `key`: returns the envelope and the offset of its
    /// payload. Allocates only for tags.
    ///
    /// # Errors
    /// Why these bytes cannot be read.
    pub(crate) fn open(bytes: &[u8], key: &str) -> Result<(Self, usize), Unreadable> {
        let foreign = Unreadable::Foreign;
        let mut rest = Reader(bytes);
        if rest.array() != Some(MAGIC) {
            return Err(foreign("not a record of this library"));
        }
        let newer = |reason| match bytes.get(FILL_ID_AT).and_then(|id| id.try_into().ok()) {
            Some(fill_id) => Unreadable::Newer(u64::from_le_bytes(fill_id), reason),
            None => foreign("the header is truncated"),
        };
        if rest.u8() != Some(LAYOUT) {
            return Err(newer("the record has another layout version"));
        }
        // Checked before any other field is used.
        let stored = bytes.get(CHECKSUM_AT..HEADER_LEN).and_then(|stored| stored.try_into().ok());
        if stored.map(u64::from_le_bytes) != Some(checksum(key, bytes).ok_or(foreign("the header is truncated"))?) {
            return Err(foreign("the checksum does not match: damaged, or stored under another key"));
        }
        if bytes.get(FLAGS_AT).is_some_and(|flags| flags & !(PRESENT | VERSIONED) != 0) {
            return Err(newer("the record has flags that this build does not know"));
        }
        let (envelope, rest) = Self::read(rest).ok_or(foreign("the header contradicts itself"))?;
        Ok((envelope, bytes.len().saturating_sub(rest.len())))
    }

    /// Reads the header from the first bytes of a record, and its length. The result is not
    /// verified, since the checksum covers the payload, too. `None`: the bytes are not a record, or
    /// there are too few of them.
    pub(crate) fn peek(bytes: &[u8]) -> Option<(Self, usize)> {
        let mut rest = Reader(bytes);
        if rest.array() != Some(MAGIC) || rest.u8() != Some(LAYOUT) {
            return None;
        }
        let (envelope, rest) = Self::read(rest)?;
        Some((envelope, bytes.len().saturating_sub(rest.len())))
    }

    /// Returns whether these may be the first bytes of a record.
    pub(crate) fn is_head(bytes: &[u8]) -> bool {
        bytes.starts_with(&MAGIC) && bytes.get(MAGIC.len()) == Some(&LAYOUT)
    }

    /// Reads everything behind the layout byte.
    fn read(mut rest: Reader<'_>) -> Option<(Self, &[u8])> {
        let codec = rest.u8()?;
        let flags = rest.u8()?;
        let tag_count = rest.u8()?;
        let mut envelope = Self {
            codec,
            present: flags & PRESENT != 0,
            fill_id: rest.uint(8)?,
            created: Timestamp::from_millis(rest.uint(6)?),
            fresh_for: Duration::from_millis(rest.uint(5)?),
            stale_for: Duration::from_millis(rest.uint(5)?),
            cost: Duration::from_micros(rest.uint(4)?),
            versions: None,
            tags: Vec::new(),
        };
        rest.take(8)?;
        if flags & VERSIONED != 0 {
            envelope.versions = Some(u128::from_le_bytes(rest.array()?));
        }
        for _ in 0..tag_count {
            let len = rest.u8()?;
            let name = std::str::from_utf8(rest.take(len.into())?).ok()?.into();
            envelope.tags.push(TagVersion { name, version: u128::from_le_bytes(rest.array()?) });
        }
        let absent = rest.0.is_empty() && codec == 0;
        (envelope.present || absent).then_some((envelope, rest.0))
    }
}

/// The position of the fill id in a record, little endian. A refresh replaces only the record it
/// has read, which the server compares by this id.
pub(crate) const FILL_ID_AT: Range<usize> = 6..14;

/// Returns the checksum of everything except the checksum itself. The key is part of it, so a
/// record copied to another key is foreign there.
fn checksum(key: &str, record: &[u8]) -> Option<u64> {
    let head = xxh3_64_with_seed(record.get(..CHECKSUM_AT)?, xxh3_64(key.as_bytes()));
    Some(xxh3_64_with_seed(record.get(HEADER_LEN..)?, head))
}

/// Appends the lowest `len` bytes of a number.
fn put(out: &mut Vec<u8>, number: u64, len: usize) {
    out.extend(number.to_le_bytes().into_iter().take(len));
}

fn overwrite(out: &mut [u8], at: usize, bytes: &[u8]) {
    for (old, new) in out.iter_mut().skip(at).zip(bytes) {
        *old = *new;
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    fn uint(&mut self, len: usize) -> Option<u64> {
        let mut number = [0; 8];
        overwrite(&mut number, 0, self.take(len)?);
        Some(u64::from_le_bytes(number))
    }
}

#[cfg(test)]
mod tests;
