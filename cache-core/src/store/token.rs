//! The identity of one attempt to compute, and the forms of its lease in a key.

use std::fmt;

/// The first byte of a lease in a value key. A record starts with another byte.
pub(crate) const LEASE_MARK: u8 = b'L';
/// The first byte of a lease that other callers do not wait for, in a value key or a lease key.
pub(crate) const UNAWAITED_MARK: u8 = b'U';
/// The first byte of the mark of a compute that stored nothing, in a value key or a lease key.
pub(crate) const UNSTORED_MARK: u8 = b'N';
/// The content of the lease key after a failed refresh. No token looks like it.
pub(crate) const THROTTLE_MARK: &str = "F";
/// The length of `L`, `U` or `N` and 32 hex digits.
pub(crate) const LEASE_LEN: usize = 33;

/// Identifies one attempt to compute, never a client: 128 random bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Token {
    bits: u128,
    /// The lease is written in the form that tells other callers not to wait.
    is_unawaited: bool,
}

/// Which record a fill may replace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Replaces {
    /// None: there was no record, and the lease is in the value key itself.
    Nothing,
    /// A stale record with this fill id. The lease is in the lease key.
    Stale(u64),
}

/// Returns whether this is a lease that other callers do not wait for.
pub(crate) fn is_unawaited(bytes: &[u8]) -> bool {
    bytes.len() == LEASE_LEN && bytes.first() == Some(&UNAWAITED_MARK)
}

/// Returns the lease key of an entry, which holds the lease of a refresh. It is in the slot of the
/// value key.
pub(crate) fn lease_key(key: &str) -> String {
    format!("{{{key}}}:l")
}

impl Token {
    /// Makes a new token from the operating system's random source.
    pub(crate) fn random() -> Self {
        Self::from_bits(crate::random::u128())
    }

    /// Makes a token that a test chose.
    pub(crate) fn from_bits(bits: u128) -> Self {
        Self { bits, is_unawaited: false }
    }

    pub(super) fn bits(self) -> u128 {
        self.bits
    }

    /// Returns the token of the same attempt whose lease tells other callers not to wait.
    pub(crate) fn unawaited(self) -> Self {
        Self { is_unawaited: true, ..self }
    }

    /// Returns the form stored in the lease key.
    pub(crate) fn hex(self) -> String {
        if self.is_unawaited { self.mark() } else { format!("{:032x}", self.bits) }
    }

    /// Returns the form stored in the value key.
    pub(crate) fn mark(self) -> String {
        format!("{}{:032x}", if self.is_unawaited { 'U' } else { 'L' }, self.bits)
    }

    /// Returns the mark of this attempt if its compute stored nothing.
    pub(crate) fn unstored(self) -> String {
        format!("N{:032x}", self.bits)
    }

    /// Returns the token of the compute that left this mark.
    pub(crate) fn of_unstored(bytes: &[u8]) -> Option<Self> {
        let digits = bytes.strip_prefix(&[UNSTORED_MARK]).filter(|_| bytes.len() == LEASE_LEN)?;
        let bits = u128::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        Some(Self::from_bits(bits))
    }

    /// Returns the forms that this attempt's lease may have in its key.
    pub(crate) fn forms(self, over: Replaces) -> [String; 2] {
        let awaited = Self::from_bits(self.bits);
        match over {
            Replaces::Nothing => [awaited.mark(), self.unawaited().mark()],
            Replaces::Stale(_) => [awaited.hex(), self.unawaited().hex()],
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}
