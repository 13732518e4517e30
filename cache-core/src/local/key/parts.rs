//! The arguments of a key with several parts, in a form that needs neither digits nor escapes.
//!
//! ```text
//! written   7,a%20b,(1
//! encoded   number 7  text "a b"  other "(1"
//!
//! number    0xFF and 8 bytes
//! text      its length in two bytes, below 0x8000, and its bytes
//! other     the same with the highest bit set, and its bytes as they are written
//! ```
//!
//! Invariant: written arguments have one encoded form. A key that is asked for by its parts equals
//! it, and has the same hash, if those parts are written like this. The text is split at every
//! comma, also within a group, so that the same text always gives the same parts. A comma within a
//! text is escaped.

use std::hash::Hasher;

use super::number_of;
use crate::key::{KeyText, Looks, Whole, text_of, written_text};

const NUMBER: u8 = 0xFF;
const OTHER: u8 = 0x80;
/// No key with a longer part is kept.
const LONGEST: usize = 0x7EFF;

/// A part of an encoded key.
enum Part<'a> {
    Number(u64),
    Text(&'a [u8]),
    Other(&'a [u8]),
}

/// Returns the parts in the form in which they are compared: digits are a number. `None`: one of
/// them has to be written.
#[inline(always)]
pub(super) fn comparable<const N: usize>(mut parts: [Whole<'_>; N]) -> Option<[Whole<'_>; N]> {
    for part in &mut parts {
        match part {
            Whole::Number(_) => {}
            Whole::Text(text) => {
                if let Some(number) = number_of(text.as_bytes()) {
                    *part = Whole::Number(number);
                }
            }
            Whole::Other => return None,
        }
    }
    Some(parts)
}

#[inline(always)]
pub(super) fn hash(parts: &[Whole<'_>], state: &mut impl Hasher) {
    for part in parts {
        match part {
            Whole::Number(number) => state.write_u64(*number),
            Whole::Text(text) => state.write(text.as_bytes()),
            Whole::Other => {}
        }
    }
}

/// Hashes like [`hash`] of the same parts.
pub(super) fn hash_encoded(encoded: &[u8], state: &mut impl Hasher) {
    for part in decode(encoded) {
        match part {
            Part::Number(number) => state.write_u64(number),
            Part::Text(bytes) | Part::Other(bytes) => state.write(bytes),
        }
    }
}

/// Returns whether these parts have this encoded form.
#[inline(always)]
pub(super) fn is(parts: &[Whole<'_>], encoded: &[u8]) -> bool {
    let mut rest = encoded;
    for part in parts {
        let after = match part {
            Whole::Number(number) => rest
                .split_first_chunk::<9>()
                .filter(|([kind, stored @ ..], _)| *kind == NUMBER && u64::from_le_bytes(*stored) == *number)
                .map(|(_, after)| after),
            Whole::Text(text) => rest
                .split_first_chunk::<2>()
                .filter(|(head, _)| usize::from(u16::from_be_bytes(**head)) == text.len())
                .and_then(|(_, after)| after.strip_prefix(text.as_bytes())),
            Whole::Other => None,
        };
        match after {
            Some(after) => rest = after,
            None => return false,
        }
    }
    rest.is_empty()
}

/// Encodes parts that are [`comparable`].
pub(super) fn encode(parts: &[Whole<'_>]) -> KeyText {
    let mut out = KeyText::new();
    for part in parts {
        match part {
            Whole::Number(number) => push_number(&mut out, *number),
            Whole::Text(text) => push(&mut out, 0, text.as_bytes()),
            Whole::Other => {}
        }
    }
    out
}

/// Encodes written arguments.
pub(super) fn encode_written(args: &[u8]) -> KeyText {
    let mut out = KeyText::new();
    for part in args.split(|byte| *byte == b',') {
        match (number_of(part), Looks::of(part)) {
            (Some(number), _) => push_number(&mut out, number),
            (None, Looks::Plain) => push(&mut out, 0, part),
            (None, Looks::Composed) => push(&mut out, OTHER, part),
            (None, Looks::Escaped) => match text_of(part) {
                Some(text) => push(&mut out, 0, text.as_bytes()),
                None => push(&mut out, OTHER, part),
            },
        }
    }
    out
}

/// Appends the arguments as they are written in the store's key.
pub(super) fn write(encoded: &[u8], out: &mut String) {
    // The bytes came from texts.
    let as_text = |bytes| std::str::from_utf8(bytes).unwrap_or_default();
    for (at, part) in decode(encoded).enumerate() {
        if at > 0 {
            out.push(',');
        }
        match part {
            Part::Number(number) => out.push_str(itoa::Buffer::new().format(number)),
            Part::Text(text) => out.push_str(&written_text(as_text(text))),
            Part::Other(written) => out.push_str(as_text(written)),
        }
    }
}

/// Returns an upper bound of the length of the parts when they are written.
#[inline(always)]
pub(super) fn most_bytes(parts: &[Whole<'_>]) -> usize {
    parts.iter().fold(0, |most: usize, part| {
        most.saturating_add(match part {
            // With the comma.
            Whole::Number(_) => 21,
            // Each byte may be escaped; the empty text takes two bytes.
            Whole::Text(text) => text.len().saturating_mul(3).saturating_add(3),
            Whole::Other => 0,
        })
    })
}

fn decode(encoded: &[u8]) -> impl Iterator<Item = Part<'_>> {
    let mut rest = encoded;
    std::iter::from_fn(move || {
        if let Some(([NUMBER, number @ ..], after)) = rest.split_first_chunk::<9>() {
            rest = after;
            return Some(Part::Number(u64::from_le_bytes(*number)));
        }
        let ([high, low], after) = rest.split_first_chunk()?;
        let len = usize::from(u16::from_be_bytes([high & !OTHER, *low]));
        let (part, after) = after.split_at_checked(len)?;
        rest = after;
        Some(if high & OTHER == 0 { Part::Text(part) } else { Part::Other(part) })
    })
}

fn push_number(out: &mut KeyText, number: u64) {
    out.push_bytes(&[NUMBER]);
    out.push_bytes(&number.to_le_bytes());
}

fn push(out: &mut KeyText, kind: u8, part: &[u8]) {
    let [high, low] = u16::try_from(part.len().min(LONGEST)).unwrap_or_default().to_be_bytes();
    out.push_bytes(&[kind | high, low]);
    out.push_bytes(part);
}
