//! The bytes of fences: the content of a value key or of a tag's version key while writes are in
//! progress.
//!
//! ```text
//! "F"  before 32  (token 32 hex, end 15) for each fence, 17 at most
//!      before: of a record, its expiry, ms since 1970, decimal;
//!              of a version, the version, hex; zeros: nothing is restored
//!      end: ms since 1970 on the server's clock, decimal
//! ```

/// How many fences of one key are tracked separately. One more has no token of its own and ends
/// only by expiry.
pub(crate) const FENCES_MAX: usize = 16;

/// The first byte.
pub(super) const MARK: u8 = b'F';
pub(super) const BEFORE_LEN: usize = 32;
pub(super) const TOKEN_LEN: usize = 32;
pub(super) const END_LEN: usize = 15;
pub(super) const HEAD_LEN: usize = 1 + BEFORE_LEN;
pub(super) const HOLDER_LEN: usize = TOKEN_LEN + END_LEN;
pub(super) const LEN_MAX: usize = HEAD_LEN + HOLDER_LEN * (FENCES_MAX + 1);

/// Returns whether these bytes are fences.
pub(crate) fn is_fence(bytes: &[u8]) -> bool {
    bytes.len() > HEAD_LEN
        && bytes.len() <= LEN_MAX
        && bytes.len().saturating_sub(HEAD_LEN).is_multiple_of(HOLDER_LEN)
        && bytes.first() == Some(&MARK)
        && bytes.iter().skip(1).all(u8::is_ascii_hexdigit)
}
