//! The content of a value key.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use super::fences::layout::is_fence;
use super::token::{LEASE_LEN, LEASE_MARK, Token, is_unawaited};
use crate::value::envelope::FILL_ID_AT;

/// The content of a value key.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Slot {
    /// Nothing.
    Absent,
    /// Another caller computes the value. The lease ends after this time unless it is renewed;
    /// `None` if the time is not known.
    Leased(Option<Duration>),
    /// Like [`Leased`](Self::Leased), but other callers do not wait for it: the compute before it
    /// stored nothing (X7).
    Unawaited(Option<Duration>),
    /// The compute with this token stored nothing a moment ago.
    Unstored(Token),
    /// A write is in progress: nothing is stored here until it is over.
    Fenced,
    /// Bytes that are not a lease. The envelope decides whether they are a record.
    Bytes(Bytes),
    /// A value of another Redis type.
    WrongType,
}

impl Slot {
    /// Interprets the bytes of a value key. `left`: the key's time to live, where known.
    pub(crate) fn of(bytes: Option<Bytes>, left: Option<Duration>) -> Self {
        match bytes {
            None => Self::Absent,
            Some(bytes) if bytes.len() == LEASE_LEN && bytes.first() == Some(&LEASE_MARK) => Self::Leased(left),
            Some(bytes) if is_fence(&bytes) => Self::Fenced,
            Some(bytes) if is_unawaited(&bytes) => Self::Unawaited(left),
            Some(bytes) => match Token::of_unstored(&bytes) {
                Some(token) => Self::Unstored(token),
                None => Self::Bytes(bytes),
            },
        }
    }
}

/// Returns whether a record holds this fill id.
pub(crate) fn has_fill_id(record: &[u8], fill_id: u64) -> bool {
    record.get(FILL_ID_AT).is_some_and(|bytes| bytes == fill_id.to_le_bytes())
}

// Payloads stay out of logs: only their sizes are shown.
impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("Absent"),
            Self::Leased(left) => f.debug_tuple("Leased").field(left).finish(),
            Self::Unawaited(left) => f.debug_tuple("Unawaited").field(left).finish(),
            Self::Unstored(token) => f.debug_tuple("Unstored").field(token).finish(),
            Self::Bytes(bytes) => write!(f, "Bytes({} bytes)", bytes.len()),
            Self::Fenced => f.write_str("Fenced"),
            Self::WrongType => f.write_str("WrongType"),
        }
    }
}
