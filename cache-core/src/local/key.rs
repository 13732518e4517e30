//! A value key as L1 holds it: function and build by their hash, the arguments as they are, a number as a number.
//!
//! ```text
//! <namespace>:<name>:<arguments>@<fingerprint>
//!             '--- origin ----'  '- args -'      a hit has the origin at hand and writes the arguments only
//! ```
//!
//! Invariant: two value keys of one namespace are equal only if they are the same text, or SHA-256 has a collision in its
//! first 128 bits, which the keys' own bound rests on too. A push comes as the whole text and finds the same entry.

use std::hash::{Hash, Hasher};

use sha2::{Digest, Sha256};

use crate::key::KeyText;

/// Arguments up to this long stand in the table itself, where a look-up needs them. A UUID has 36 bytes.
const INLINE: usize = 38;

/// Of which function and build an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin([u64; 2]);

impl Origin {
    pub(crate) fn of(name: &str, fingerprint: &str) -> Self {
        // No name holds the separator.
        let hash = Sha256::new().chain_update(name).chain_update(b"@").chain_update(fingerprint).finalize();
        let half = |at: usize| hash.iter().skip(at).take(8).fold(0, |number, byte| (number << 8) | u64::from(*byte));
        Self([half(0), half(8)])
    }

    /// What is no value key, or was cut within its name: the whole text stands for it.
    const UNKNOWN: Self = Self([0, 0]);
}

/// What to look for.
#[derive(Clone, Copy)]
pub(crate) struct LocalKeyRef<'a> {
    origin: Origin,
    args: ArgsRef<'a>,
}

/// The arguments. Those that are the digits of a number are always that number, so that one key is one key, however it was asked for.
#[derive(Clone, Copy)]
enum ArgsRef<'a> {
    Number(u64),
    /// The text, and the same with zeros behind, where that is at hand: compared in a few words.
    Text(&'a [u8], Option<&'a [u8; INLINE]>),
}

impl<'a> LocalKeyRef<'a> {
    #[inline]
    pub(crate) fn new(origin: Origin, args: &'a KeyText) -> Self {
        let args = match args.number() {
            Some(number) => ArgsRef::Number(number),
            None => ArgsRef::of(args.as_bytes(), args.padded()),
        };
        Self { origin, args }
    }

    /// Of the text that stands in the store. Names hold no `:`, fingerprints no `@`.
    pub(crate) fn parse(value_key: &'a str) -> Self {
        let parts = || {
            let (_namespace, rest) = value_key.split_once(':')?;
            let (rest, fingerprint) = rest.rsplit_once('@')?;
            let (name, args) = rest.split_once(':')?;
            Some((Origin::of(name, fingerprint), args))
        };
        let (origin, args) = parts().unwrap_or((Origin::UNKNOWN, value_key));
        Self { origin, args: ArgsRef::of(args.as_bytes(), None) }
    }

    #[inline]
    pub(super) fn is(&self, key: &LocalKey) -> bool {
        self.origin == key.origin
            && match (self.args, &key.args) {
                (ArgsRef::Number(number), Args::Number(other)) => number == *other,
                (ArgsRef::Text(text, Some(padded)), Args::Inline(len, bytes)) => {
                    usize::from(*len) == text.len() && same(padded, bytes)
                }
                (ArgsRef::Text(text, None), Args::Inline(len, bytes)) => bytes.get(..usize::from(*len)) == Some(text),
                (ArgsRef::Text(text, None), Args::Heap(bytes)) => *text == **bytes,
                _ => false,
            }
    }

    pub(super) fn to_owned(self) -> LocalKey {
        let mut inline = [0; INLINE];
        let args = match self.args {
            ArgsRef::Number(number) => Args::Number(number),
            ArgsRef::Text(text, _) => match (inline.get_mut(..text.len()), u8::try_from(text.len())) {
                (Some(start), Ok(len)) => {
                    start.copy_from_slice(text);
                    Args::Inline(len, inline)
                }
                _ => Args::Heap(text.into()),
            },
        };
        LocalKey { origin: self.origin, args }
    }
}

impl<'a> ArgsRef<'a> {
    #[inline]
    fn of(text: &'a [u8], padded: Option<&'a [u8; INLINE]>) -> Self {
        match text.first() {
            Some(b'0'..=b'9') => number_of(text).map_or(Self::Text(text, padded), Self::Number),
            _ => Self::Text(text, padded),
        }
    }
}

/// The number whose digits these are, without any that it would not be written with.
fn number_of(text: &[u8]) -> Option<u64> {
    if text.len() > 1 && text.first() == Some(&b'0') {
        return None;
    }
    let digits = text.iter().map(|digit| char::from(*digit).to_digit(10).map(u64::from));
    digits.into_iter().try_fold(0_u64, |number, digit| number.checked_mul(10)?.checked_add(digit?))
}

/// Padded arguments of one length, compared word by word: a call of `memcmp` would take as long as all of this.
#[inline]
fn same(one: &[u8; INLINE], other: &[u8; INLINE]) -> bool {
    let word = |bytes: &[u8; INLINE], at: usize| {
        bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |word| u64::from_ne_bytes(*word))
    };
    // The last one overlaps the one before.
    [0, 8, 16, 24, INLINE - 8].into_iter().fold(0, |unlike, at| unlike | (word(one, at) ^ word(other, at))) == 0
}

/// What stands in the table.
#[derive(PartialEq, Eq)]
pub(super) struct LocalKey {
    origin: Origin,
    args: Args,
}

/// Texts that fit are always inline.
#[derive(PartialEq, Eq)]
enum Args {
    Number(u64),
    Inline(u8, [u8; INLINE]),
    Heap(Box<[u8]>),
}

impl Hash for LocalKeyRef<'_> {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [half, _] = self.origin.0;
        state.write_u64(half);
        match self.args {
            ArgsRef::Number(number) => state.write_u64(number),
            ArgsRef::Text(text, _) => state.write(text),
        }
    }
}

impl Hash for LocalKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let args = match &self.args {
            Args::Number(number) => ArgsRef::Number(*number),
            Args::Inline(len, bytes) => ArgsRef::Text(bytes.get(..usize::from(*len)).unwrap_or_default(), None),
            Args::Heap(bytes) => ArgsRef::Text(bytes, None),
        };
        LocalKeyRef { origin: self.origin, args }.hash(state);
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher as _;

    use quick_cache::DefaultHashBuilder;

    use super::*;
    use crate::key::{MAX_KEY_LEN, write_value_key};

    fn text(name: &str, args: &str, fingerprint: &str) -> String {
        let mut text = String::new();
        write_value_key(&mut text, "shop", name, args, fingerprint);
        text
    }

    #[test]
    fn a_key_as_text_finds_the_entry_of_its_parts() {
        let long = "x".repeat(MAX_KEY_LEN - "shop:user:".len());
        let short = "x".repeat(INLINE);
        let (most, over) = (u64::MAX.to_string(), format!("{}0", u64::MAX));
        for args in [
            "",
            "7",
            "0",
            "00",
            "07",
            "+7",
            "-7",
            "7x",
            &most,
            &over,
            "a:b@c",
            "7,de",
            &short,
            &format!("{short}y"),
            &long,
        ] {
            let written = KeyText::from(args);
            let (key, asked) = (text("user", args, "f1"), LocalKeyRef::new(Origin::of("user", "f1"), &written));
            let stored = asked.to_owned();
            assert!(LocalKeyRef::parse(&key).is(&stored) && asked.is(&stored), "{args}");
            assert!(LocalKeyRef::parse(&key).to_owned() == stored, "{args}");
            let hashing = DefaultHashBuilder::default();
            assert_eq!(hashing.hash_one(asked), hashing.hash_one(&stored), "{args}");
            assert_eq!(hashing.hash_one(LocalKeyRef::parse(&key)), hashing.hash_one(&stored), "{args}");
        }
    }

    #[test]
    fn a_number_is_found_by_its_digits() {
        for number in [0, 7, 10, 1_234_567, u64::MAX] {
            let mut written = KeyText::lazy();
            written.push_number(number);
            let asked = LocalKeyRef::new(Origin::of("user", "f1"), &written);
            let key = text("user", &number.to_string(), "f1");
            assert!(asked.is(&LocalKeyRef::parse(&key).to_owned()) && LocalKeyRef::parse(&key).is(&asked.to_owned()));
            assert!(!asked.is(&LocalKeyRef::parse(&text("user", &format!("0{number}"), "f1")).to_owned()));
            assert!(!asked.is(&LocalKeyRef::parse(&text("user", &format!("{number}0"), "f1")).to_owned()));
        }
    }

    #[test]
    fn distinct_keys_are_distinct_here_too() {
        let cut = "n".repeat(MAX_KEY_LEN);
        let keys = [
            text("user", "7", "f1"),
            text("user", "7", "f2"),
            text("user", "8", "f1"),
            text("user", "", "f1"),
            text("user", "7\0", "f1"),
            text("user", "07", "f1"),
            text("user", "-7", "f1"),
            text("user", &u64::MAX.to_string(), "f1"),
            text("user", "18446744073709551616", "f1"),
            text("user", "18446744073709551622", "f1"),
            text("user", "18446744073709551623", "f1"),
            text("users", "7", "f1"),
            text("", "user:7", "f1"),
            text("user", &format!("{}a", "x".repeat(MAX_KEY_LEN)), "f1"),
            text("user", &format!("{}b", "x".repeat(MAX_KEY_LEN)), "f1"),
            text(&cut, "7", "f1"),
            text(&cut, "8", "f1"),
            "shop:user".to_owned(),
            "user".to_owned(),
        ];
        for (at, one) in keys.iter().enumerate() {
            for (other_at, other) in keys.iter().enumerate() {
                let same = LocalKeyRef::parse(one).is(&LocalKeyRef::parse(other).to_owned());
                assert_eq!(same, at == other_at, "{one} {other}");
            }
        }
    }
}
