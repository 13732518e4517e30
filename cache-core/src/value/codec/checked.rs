//! A value type with its codec as plain function pointers: all that the engine has to know of both.
//!
//! Invariant: every stored value can be read back. There are serde types that a positional codec
//! encodes without an error and never decodes (untagged, tagged and flattened ones,
//! `serde_json::Value`), or decodes as something else (a skipped field). So values are checked
//! before they are stored:
//!
//! | type | check |
//! |---|---|
//! | any | the first [`CHECKED_WRITES`] of each type and codec in a process are decoded once |
//! | its fingerprint is incomplete (one of the above, or it validates) | every write is decoded |
//! | any | every write is searched for parts that are not read back as they are: [`lossy_part`] |
//! | comparable | the first [`CHECKED_WRITES`] are decoded and compared: [`Finding::Differs`] |
//!
//! A type that fails once, and that MessagePack can hold, is stored as MessagePack from then on.
//! One case remains: a type with a complete fingerprint and a variant that is first written after
//! the first few values and cannot be read back. It is a miss with an event at each read, never a
//! wrong value.

use std::any::TypeId;
use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{OnceLock, PoisonError, RwLock};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::lossy::lossy_part;
use super::weigh::estimate;
use super::{Codec, MsgPack};
use crate::error::{Error, ErrorKind, Result};
use crate::value::drop_caught;
use crate::value::fingerprint::Fingerprint;

/// How many of the first writes of a type are decoded before its codec is trusted with it.
const CHECKED_WRITES: u32 = 8;

/// Everything the engine has to know of a value type and its codec. The codec's type is not visible
/// outside.
pub(crate) struct Coding<T> {
    pub(crate) codec_id: u8,
    pub(crate) codec_name: &'static str,
    self_describing: bool,
    pub(crate) type_name: fn() -> &'static str,
    /// Traced once per process, then remembered.
    pub(crate) fingerprint: fn() -> Fingerprint,
    pub(crate) encode: fn(&T, &mut Vec<u8>) -> Result<()>,
    /// Decodes a payload of this codec or of MessagePack, by the codec id in its record.
    pub(crate) decode: fn(u8, &[u8]) -> Result<T>,
    record: fn() -> &'static Record,
    fallback: fn(&T, &mut Vec<u8>) -> Result<()>,
    lossy_part: fn(&T, bool) -> Option<&'static str>,
    /// Whether two values are equal, for types that implement it.
    equal: Option<fn(&T, &T) -> bool>,
}

/// What was found out about a type while its values are written, reported once for each type and
/// codec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finding {
    /// The codec cannot read back what it writes; MessagePack is used.
    Replaced,
    /// A value that was read back differed from the original.
    Differs,
}

// A derive would require `T: Clone`.
impl<T> Clone for Coding<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Coding<T> {}

impl<T> fmt::Debug for Coding<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Coding({} as {})", (self.type_name)(), self.codec_name)
    }
}

impl<T: Serialize + DeserializeOwned + 'static> Coding<T> {
    pub(crate) const fn of<C: Codec>() -> Self {
        Self {
            codec_id: C::ID,
            codec_name: C::NAME,
            self_describing: C::SELF_DESCRIBING,
            type_name: std::any::type_name::<T>,
            fingerprint: || record::<T>(C::ID).fingerprint::<T>(),
            encode: C::encode::<T>,
            decode: |codec, bytes| match codec {
                id if id == C::ID => C::decode(bytes),
                MsgPack::ID => MsgPack::decode(bytes),
                _ => Err(Error::new(ErrorKind::Decode, "decode").detail("the record was written with another codec")),
            },
            record: || {
                let record = record::<T>(C::ID);
                record.fingerprint::<T>();
                record
            },
            fallback: MsgPack::encode::<T>,
            lossy_part: lossy_part::<T>,
            equal: None,
        }
    }

    /// Returns the memory of a value in addition to its own size; `None` if it cannot be
    /// serialized.
    pub(crate) fn weigh(value: &T, size: usize) -> Option<usize> {
        estimate(value, size)
    }
}

impl<T> Coding<T> {
    /// Turns on the comparison of what is read back with what was written.
    pub(crate) const fn comparing(mut self, equal: Option<fn(&T, &T) -> bool>) -> Self {
        self.equal = equal;
        self
    }

    /// Appends the encoded value to `out` and returns the id of the codec that was used: this one,
    /// or MessagePack for a type that this one cannot hold. `on_finding` is called for each
    /// finding, once for each type and codec.
    ///
    /// # Errors
    /// [`ErrorKind::Encode`] if neither codec can hold the value; `out` is unchanged.
    pub(crate) fn encode_checked(
        &self,
        value: &T,
        out: &mut Vec<u8>,
        mut on_finding: impl FnMut(Finding),
    ) -> Result<u8> {
        let record = (self.record)();
        let start = out.len();
        let mut first_error = None;
        if !record.replaced.load(Ordering::Relaxed) {
            match self.attempt(record, value, out, Form::own(self), &mut on_finding) {
                Ok(()) => return Ok(self.codec_id),
                Err(error) if self.codec_id == MsgPack::ID => {
                    out.truncate(start);
                    return Err(error);
                }
                Err(error) => {
                    out.truncate(start);
                    first_error = Some(error);
                }
            }
        }
        let written = self.attempt(record, value, out, Form::fallback(self), &mut on_finding);
        if let Err(error) = written {
            out.truncate(start);
            // Neither codec can hold this value, which proves nothing about the type: it may be a
            // path that is not UTF-8.
            return Err(first_error.unwrap_or(error));
        }
        if first_error.is_some() && !record.replaced.swap(true, Ordering::Relaxed) {
            record.checked.store(0, Ordering::Relaxed);
            on_finding(Finding::Replaced);
        }
        Ok(MsgPack::ID)
    }

    fn attempt(
        &self,
        record: &Record,
        value: &T,
        out: &mut Vec<u8>,
        form: Form<T>,
        on_finding: &mut impl FnMut(Finding),
    ) -> Result<()> {
        if let Some(what) = (self.lossy_part)(value, form.self_describing) {
            return Err(Error::new(ErrorKind::Encode, "encode").detail(format!("{} {what}", form.name)));
        }
        let start = out.len();
        (form.encode)(value, out)?;
        let bytes = out.get(start..).unwrap_or_default();
        if self.check(record, value, form.codec, bytes)? && !record.differs.swap(true, Ordering::Relaxed) {
            on_finding(Finding::Differs);
        }
        Ok(())
    }

    /// Decodes the encoded value if this type is still being checked. Returns whether it is known
    /// to differ.
    fn check(&self, record: &Record, value: &T, codec: u8, bytes: &[u8]) -> Result<bool> {
        if record.trusted() {
            return Ok(false);
        }
        let decoded = (self.decode)(codec, bytes).map_err(|error| {
            let what = format!("{} cannot read back what was encoded", (self.type_name)());
            Error::new(ErrorKind::Encode, "encode").detail(what).source(error)
        })?;
        // A type with an incomplete fingerprint is decoded at every write; like others it is
        // compared only at the first ones.
        let is_compared = record.checked.fetch_add(1, Ordering::Relaxed) < CHECKED_WRITES;
        let differs = |equal: fn(&T, &T) -> bool| {
            // A value that is not equal to itself, like a NaN, cannot be compared.
            !equal(value, &decoded) && equal(value, value)
        };
        // A panic in the user's comparison gives no result either.
        let differs = self.equal.filter(|_| is_compared).map(|equal| catch_unwind(AssertUnwindSafe(|| differs(equal))));
        drop_caught(decoded);
        Ok(matches!(differs, Some(Ok(true))))
    }
}

/// The codec of one attempt: the type's own, or MessagePack.
struct Form<T> {
    codec: u8,
    name: &'static str,
    self_describing: bool,
    encode: fn(&T, &mut Vec<u8>) -> Result<()>,
}

impl<T> Form<T> {
    fn own(coding: &Coding<T>) -> Self {
        let Coding { codec_id: codec, codec_name: name, self_describing, encode, .. } = *coding;
        Self { codec, name, self_describing, encode }
    }

    fn fallback(coding: &Coding<T>) -> Self {
        let encode = coding.fallback;
        Self { codec: MsgPack::ID, name: MsgPack::NAME, self_describing: MsgPack::SELF_DESCRIBING, encode }
    }
}

/// What a process has found out about one type and codec.
struct Record {
    fingerprint: OnceLock<Fingerprint>,
    /// The codec cannot hold this type; MessagePack is used.
    replaced: AtomicBool,
    /// Writes that were read back so far.
    checked: AtomicU32,
    /// A value that was read back differed from the original.
    differs: AtomicBool,
}

impl Record {
    fn fingerprint<T: DeserializeOwned>(&self) -> Fingerprint {
        *self.fingerprint.get_or_init(Fingerprint::of::<T>)
    }

    fn trusted(&self) -> bool {
        self.checked.load(Ordering::Relaxed) >= CHECKED_WRITES
            && self.fingerprint.get().is_some_and(|fingerprint| fingerprint.complete)
    }
}

type Records = RwLock<HashMap<(TypeId, u8), &'static Record>>;

/// Returns the record of a type and codec, made once and kept for the life of the process. The
/// number of types is fixed in the program's source, so the leak is bounded.
fn record<T: 'static>(codec: u8) -> &'static Record {
    static RECORDS: OnceLock<Records> = OnceLock::new();
    let records = RECORDS.get_or_init(Records::default);
    let key = (TypeId::of::<T>(), codec);
    // A panic elsewhere cannot leave the map half changed, so poison is ignored.
    if let Some(record) = records.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
        return record;
    }
    records.write().unwrap_or_else(PoisonError::into_inner).entry(key).or_insert_with(|| {
        Box::leak(Box::new(Record {
            fingerprint: OnceLock::new(),
            replaced: AtomicBool::new(false),
            checked: AtomicU32::new(0),
            differs: AtomicBool::new(false),
        }))
    })
}
