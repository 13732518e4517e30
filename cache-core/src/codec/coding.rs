//! A value type with its codec, as plain function pointers: what the engine has to know of both.
//!
//! Invariant: what is stored can be read back. serde types exist that a positional codec encodes without complaint
//! and never decodes (untagged, tagged and flattened ones, `serde_json::Value`), or decodes as something else (a skipped
//! field). So:
//!
//! | type | looked at before it is stored |
//! |---|---|
//! | any | the first [`CHECKED_WRITES`] of each type and codec in a process are decoded once |
//! | its fingerprint is incomplete (one of the above, or it validates) | every write is decoded |
//! | any | every write is searched for what the codec would read back as something else: [`unfit_part`] |
//!
//! A type that fails once, and that MessagePack can hold, is stored as MessagePack from then on. What is left is a type with a
//! complete fingerprint of which some variant, first written after the first few, cannot be read back: a miss with an
//! event at each read, never a wrong value.

use std::any::TypeId;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{OnceLock, PoisonError, RwLock};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::unfit::unfit_part;
use super::{Codec, MsgPack};
use crate::error::{Error, ErrorKind, Result};
use crate::fingerprint::Fingerprint;

/// How many of the first writes of a type are decoded before its codec is trusted with it.
const CHECKED_WRITES: u32 = 8;

/// Everything the engine has to know about a value type and its codec. No type of a codec goes further than this.
pub(crate) struct Coding<T> {
    pub(crate) codec_id: u8,
    pub(crate) codec_name: &'static str,
    self_describing: bool,
    pub(crate) type_name: fn() -> &'static str,
    /// Traced once a process, then remembered.
    pub(crate) fingerprint: fn() -> Fingerprint,
    pub(crate) encode: fn(&T, &mut Vec<u8>) -> Result<()>,
    /// Decodes a payload of this codec or of MessagePack, by the codec id in its record.
    pub(crate) decode: fn(u8, &[u8]) -> Result<T>,
    record: fn() -> &'static Record,
    fallback: fn(&T, &mut Vec<u8>) -> Result<()>,
    unfit_part: fn(&T, bool) -> Option<&'static str>,
}

// Derives would ask for `T: Clone`.
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
                _ => Err(Error::new(ErrorKind::Decode, "decode").detail("the record is of another codec")),
            },
            record: || {
                let record = record::<T>(C::ID);
                record.fingerprint::<T>();
                record
            },
            fallback: MsgPack::encode::<T>,
            unfit_part: unfit_part::<T>,
        }
    }
}

impl<T> Coding<T> {
    /// Appends the encoded value to `out` and returns the id of the codec that was used: this one, or MessagePack for a type
    /// that this one cannot hold. `on_replaced` is called when that is found out, once for each type and codec.
    ///
    /// # Errors
    /// [`ErrorKind::Encode`] if neither codec can hold the value; `out` is as it was.
    pub(crate) fn encode_checked(&self, value: &T, out: &mut Vec<u8>, on_replaced: impl FnOnce()) -> Result<u8> {
        let record = (self.record)();
        let start = out.len();
        let mut first_error = None;
        if !record.replaced.load(Ordering::Relaxed) {
            match self.attempt(record, value, out, Form::own(self)) {
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
        let written = self.attempt(record, value, out, Form::fallback(self));
        if let Err(error) = written {
            out.truncate(start);
            // Nothing can hold this value, which says nothing about the type: a path that is not UTF-8, say.
            return Err(first_error.unwrap_or(error));
        }
        if first_error.is_some() && !record.replaced.swap(true, Ordering::Relaxed) {
            record.checked.store(0, Ordering::Relaxed);
            on_replaced();
        }
        Ok(MsgPack::ID)
    }

    fn attempt(&self, record: &Record, value: &T, out: &mut Vec<u8>, form: Form<T>) -> Result<()> {
        if let Some(what) = (self.unfit_part)(value, form.self_describing) {
            return Err(Error::new(ErrorKind::Encode, "encode").detail(format!("{} has {what}", form.name)));
        }
        let start = out.len();
        (form.encode)(value, out)?;
        self.check(record, form.codec, out.get(start..).unwrap_or_default())
    }

    /// Decodes what was just encoded, if this type is still to be looked at.
    fn check(&self, record: &Record, codec: u8, bytes: &[u8]) -> Result<()> {
        if record.trusted() {
            return Ok(());
        }
        (self.decode)(codec, bytes).map_err(|error| {
            let what = format!("{} cannot read back what was encoded", (self.type_name)());
            Error::new(ErrorKind::Encode, "encode").detail(what).source(error)
        })?;
        record.checked.fetch_add(1, Ordering::Relaxed);
        Ok(())
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
    /// Writes that were read back so far. Stops counting at [`CHECKED_WRITES`].
    checked: AtomicU32,
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

/// The record of a type and codec, made and kept for the life of the process. Types are as many as the program
/// has in its source, so what is leaked is bounded.
fn record<T: 'static>(codec: u8) -> &'static Record {
    static RECORDS: OnceLock<Records> = OnceLock::new();
    let records = RECORDS.get_or_init(Records::default);
    let key = (TypeId::of::<T>(), codec);
    // A panic elsewhere cannot leave the map half changed: poison is of no interest.
    if let Some(record) = records.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
        return record;
    }
    records.write().unwrap_or_else(PoisonError::into_inner).entry(key).or_insert_with(|| {
        Box::leak(Box::new(Record {
            fingerprint: OnceLock::new(),
            replaced: AtomicBool::new(false),
            checked: AtomicU32::new(0),
        }))
    })
}
