//! The made-up values offered to a leaf, likely ones first. Their order is not part of a
//! fingerprint.

/// Texts of which at least one is accepted by each of the usual validating types.
pub(super) const TEXTS: &[&str] = &[
    "a",
    "",
    "2020-01-01T00:00:00Z",
    "2020-01-01",
    "2020-01-01T00:00:00",
    "00:00:00",
    "1",
    "0",
    "a@example.com",
    "http://example.com/",
    "00000000-0000-0000-0000-000000000000",
    "127.0.0.1",
    "127.0.0.1:80",
    "::1",
    "[::1]:80",
    "10.0.0.0/8",
    "/",
    "en",
    "EN",
    "USD",
    "1.0.0",
    "UTC",
    "+00:00",
    "+10000000000",
    "PT1S",
    "true",
    "#000000",
    "00",
    "0000000000000000",
    "00000000000000000000000000000000",
    "2020-01-01T00:00:00+00:00[UTC]",
    "Mon, 01 Jan 2020 00:00:00 +0000",
    "{}",
    "aaaaaaaa",
];

pub(super) const BYTES: &[&[u8]] =
    &[&[], &[0], &[0; 16], &[0; 4], &[0; 8], &[0; 12], &[0; 20], &[0; 24], &[0; 32], &[0; 64]];

/// One comes first, for the types that exclude zero.
pub(super) const NUMBERS: &[u8] = &[1, 0, 2, 10, 100];

pub(super) const FRACTIONS: &[f32] = &[1.0, 0.0, 0.5, -1.0, 100.0];

pub(super) const CHARS: &[char] = &['a', 'A', '0', '1', ' '];

/// Lengths of a sequence or map; the first one that is accepted is kept.
pub(super) const LENGTHS: &[usize] = &[1, 0, 2, 3, 4];
