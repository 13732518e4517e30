//! The form of a value key in L1: function and build by their hash, a number as a number, a text
//! unescaped, other arguments as written.
//!
//! ```text
//! <namespace>:<name>:<arguments>@<fingerprint>
//!             '--- origin ----'  '- args -'
//! a hit already has the origin, and most arguments need not be written
//! ```
//!
//! Invariant: two value keys of one namespace are equal only if they are the same text, or if
//! SHA-256 has a collision in its first 128 bits, on which the bound of keys also relies. A push
//! carries the whole text and finds the same entry.

#[path = "key/parts.rs"]
mod parts;

use std::borrow::Cow;
use std::hash::{BuildHasher, Hasher};

use sha2::{Digest, Sha256};

use crate::key::{KeyText, Looks, Whole, text_of, written_text};

/// Arguments up to this length are stored in the entry itself, where a lookup reads them. A UUID
/// has 36 bytes.
const INLINE: usize = 37;

/// The function and build that an entry belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Origin([u64; 2]);

impl Origin {
    pub(crate) fn of(name: &str, fingerprint: &str) -> Self {
        // No name contains the separator.
        let hash = Sha256::new().chain_update(name).chain_update(b"@").chain_update(fingerprint).finalize();
        let half = |at: usize| hash.iter().skip(at).take(8).fold(0, |number, byte| (number << 8) | u64::from(*byte));
        Self([half(0), half(8)])
    }

    /// The origin of a text that is not a value key, or that was cut within its name: the arguments
    /// are the whole text.
    const UNKNOWN: Self = Self([0, 0]);
}

/// A key to look for.
#[derive(Clone, Copy)]
pub(crate) struct LocalKeyRef<'a> {
    origin: &'a Origin,
    args: ArgsRef<'a>,
}

/// A key of one number, for comparisons only.
#[derive(Clone, Copy)]
pub(super) struct NumberKey<'a> {
    origin: &'a Origin,
    number: u64,
}

/// The arguments. Digits of a number are always stored as that number, and a single text always as
/// that text without its escapes, so that each key has one form, however it was requested.
#[derive(Clone, Copy)]
enum ArgsRef<'a> {
    Number(u64),
    Text(&'a [u8]),
    /// As written: something else that cannot be a single text.
    Composed(&'a [u8]),
    /// Several parts, numbers and texts.
    Parts(&'a [Whole<'a>]),
    /// Several parts, encoded: see [`parts`].
    Encoded(&'a [u8]),
}

/// A key parsed from the text in the store.
pub(crate) struct ParsedKey<'a> {
    origin: Origin,
    args: ParsedArgs<'a>,
}

enum ParsedArgs<'a> {
    Number(u64),
    Text(Cow<'a, [u8]>),
    Composed(&'a [u8]),
    Encoded(KeyText),
}

impl<'a> LocalKeyRef<'a> {
    /// Makes the key of one part; `None` if the part has to be written.
    #[inline(always)]
    pub(crate) fn whole(origin: &'a Origin, part: Whole<'a>) -> Option<Self> {
        let args = match part {
            Whole::Number(number) => ArgsRef::Number(number),
            Whole::Text(text) => match number_of(text.as_bytes()) {
                Some(number) => ArgsRef::Number(number),
                None => ArgsRef::Text(text.as_bytes()),
            },
            Whole::Other => return None,
        };
        Some(Self { origin, args })
    }

    /// Returns the parts for [`of_parts`](Self::of_parts); `None` if one of them has to be written.
    #[inline(always)]
    pub(crate) fn comparable<const N: usize>(parts: [Whole<'a>; N]) -> Option<[Whole<'a>; N]> {
        parts::comparable(parts)
    }

    /// Makes the key of several parts.
    #[inline(always)]
    pub(crate) fn of_parts(origin: &'a Origin, parts: &'a [Whole<'a>]) -> Self {
        Self { origin, args: ArgsRef::Parts(parts) }
    }

    /// Returns how long the arguments may be when they are written.
    #[inline(always)]
    pub(crate) fn most_bytes(&self) -> usize {
        match self.args {
            ArgsRef::Number(_) => LONGEST_NUMBER,
            // Each byte may be escaped; the empty text takes two bytes.
            ArgsRef::Text(text) => text.len().saturating_mul(3).saturating_add(2),
            ArgsRef::Composed(text) => text.len(),
            ArgsRef::Parts(parts) => parts::most_bytes(parts),
            // A number has 9 bytes and up to 20 digits; a text has two bytes more, which are
            // enough for the comma and for an empty text.
            ArgsRef::Encoded(encoded) => encoded.len().saturating_mul(3),
        }
    }

    #[inline(always)]
    pub(super) fn hash(&self, hasher: &impl BuildHasher) -> u32 {
        let mut state = hasher.build_hasher();
        let [half, _] = self.origin.0;
        state.write_u64(half);
        match self.args {
            ArgsRef::Number(number) => state.write_u64(number),
            ArgsRef::Text(text) | ArgsRef::Composed(text) => state.write(text),
            ArgsRef::Parts(parts) => parts::hash(parts, &mut state),
            ArgsRef::Encoded(encoded) => parts::hash_encoded(encoded, &mut state),
        }
        let hash = state.finish();
        (hash ^ (hash >> 32)) as u32
    }

    /// Returns the key of a number; `None` for other kinds.
    #[inline(always)]
    pub(super) fn number(&self) -> Option<NumberKey<'a>> {
        match self.args {
            ArgsRef::Number(number) => Some(NumberKey { origin: self.origin, number }),
            ArgsRef::Text(_) | ArgsRef::Composed(_) | ArgsRef::Parts(_) | ArgsRef::Encoded(_) => None,
        }
    }

    #[inline(always)]
    pub(super) fn is(&self, key: &LocalKey) -> bool {
        *self.origin == key.origin
            && match (self.args, &key.args) {
                (ArgsRef::Number(number), Args::Number(other)) => number == *other,
                (ArgsRef::Text(text), Args::Inline(Kind::Text, len, bytes))
                | (ArgsRef::Composed(text), Args::Inline(Kind::Composed, len, bytes))
                | (ArgsRef::Encoded(text), Args::Inline(Kind::Parts, len, bytes)) => {
                    bytes.get(..usize::from(*len)) == Some(text)
                }
                (ArgsRef::Text(text), Args::Heap(Kind::Text, other))
                | (ArgsRef::Composed(text), Args::Heap(Kind::Composed, other))
                | (ArgsRef::Encoded(text), Args::Heap(Kind::Parts, other)) => *text == **other,
                (ArgsRef::Parts(parts), Args::Inline(Kind::Parts, len, bytes)) => {
                    bytes.get(..usize::from(*len)).is_some_and(|encoded| parts::is(parts, encoded))
                }
                (ArgsRef::Parts(parts), Args::Heap(Kind::Parts, encoded)) => parts::is(parts, encoded),
                _ => false,
            }
    }

    pub(super) fn to_owned(self) -> LocalKey {
        let encoded;
        let (kind, text) = match self.args {
            ArgsRef::Number(number) => return LocalKey { origin: *self.origin, args: Args::Number(number) },
            ArgsRef::Text(text) => (Kind::Text, text),
            ArgsRef::Composed(text) => (Kind::Composed, text),
            ArgsRef::Parts(parts) => {
                encoded = parts::encode(parts);
                (Kind::Parts, encoded.as_bytes())
            }
            ArgsRef::Encoded(encoded) => (Kind::Parts, encoded),
        };
        let mut inline = [0; INLINE];
        let args = match (inline.get_mut(..text.len()), u8::try_from(text.len())) {
            (Some(start), Ok(len)) => {
                start.copy_from_slice(text);
                Args::Inline(kind, len, inline)
            }
            _ => Args::Heap(kind, text.into()),
        };
        LocalKey { origin: *self.origin, args }
    }
}

impl NumberKey<'_> {
    #[inline(always)]
    pub(super) fn is(&self, key: &LocalKey) -> bool {
        matches!(key.args, Args::Number(number) if number == self.number) && *self.origin == key.origin
    }
}

impl<'a> ParsedKey<'a> {
    /// Makes a key from written arguments.
    #[inline]
    pub(crate) fn new(origin: Origin, args: &'a KeyText) -> Self {
        let args = match args.number() {
            Some(number) => ParsedArgs::Number(number),
            None => ParsedArgs::of(args.as_bytes()),
        };
        Self { origin, args }
    }

    pub(crate) fn of_args(origin: Origin, args: &'a str) -> Self {
        Self { origin, args: ParsedArgs::of(args.as_bytes()) }
    }

    /// Parses the text in the store. Names contain no `:`, fingerprints no `@`.
    pub(crate) fn parse(value_key: &'a str) -> Self {
        let parts = || {
            let (_namespace, rest) = value_key.split_once(':')?;
            let (rest, fingerprint) = rest.rsplit_once('@')?;
            let (name, args) = rest.split_once(':')?;
            Some((Origin::of(name, fingerprint), args))
        };
        match parts() {
            Some((origin, args)) => Self { origin, args: ParsedArgs::of(args.as_bytes()) },
            None => Self { origin: Origin::UNKNOWN, args: ParsedArgs::Composed(value_key.as_bytes()) },
        }
    }

    pub(super) fn origin(&self) -> Origin {
        self.origin
    }

    #[inline]
    pub(crate) fn as_ref(&self) -> LocalKeyRef<'_> {
        let args = match &self.args {
            ParsedArgs::Number(number) => ArgsRef::Number(*number),
            ParsedArgs::Text(text) => ArgsRef::Text(text),
            ParsedArgs::Composed(text) => ArgsRef::Composed(text),
            ParsedArgs::Encoded(encoded) => ArgsRef::Encoded(encoded.as_bytes()),
        };
        LocalKeyRef { origin: &self.origin, args }
    }
}

impl<'a> ParsedArgs<'a> {
    #[inline]
    fn of(args: &'a [u8]) -> Self {
        if let Some(number) = number_of(args) {
            return Self::Number(number);
        }
        match Looks::of(args) {
            Looks::Plain => Self::Text(args.into()),
            // A comma of a text is escaped.
            _ if args.contains(&b',') => Self::Encoded(parts::encode_written(args)),
            Looks::Composed => Self::Composed(args),
            Looks::Escaped => text_of(args).map_or(Self::Composed(args), |text| Self::Text(text.into_bytes().into())),
        }
    }
}

/// The digits of the longest number.
const LONGEST_NUMBER: usize = 20;

/// Returns the number with these digits if it would be written exactly like this.
#[inline(always)]
fn number_of(text: &[u8]) -> Option<u64> {
    match text {
        [b'0'] => Some(0),
        [b'1'..=b'9', ..] => digits(text),
        _ => None,
    }
}

fn digits(text: &[u8]) -> Option<u64> {
    text.iter().try_fold(0_u64, |number, digit| {
        let digit = char::from(*digit).to_digit(10)?;
        number.checked_mul(10)?.checked_add(digit.into())
    })
}

/// The key in an entry.
#[derive(PartialEq, Eq)]
#[repr(C)]
pub(super) struct LocalKey {
    origin: Origin,
    args: Args,
}

impl LocalKey {
    /// Returns the origin; `None` if the arguments are the whole key.
    pub(super) fn origin(&self) -> Option<Origin> {
        Some(self.origin).filter(|origin| *origin != Origin::UNKNOWN)
    }

    /// Appends the arguments as in the store's key.
    pub(super) fn write_args(&self, out: &mut String) {
        let (kind, bytes) = match &self.args {
            Args::Number(number) => return out.push_str(&number.to_string()),
            Args::Inline(kind, len, bytes) => (*kind, bytes.get(..usize::from(*len)).unwrap_or_default()),
            Args::Heap(kind, bytes) => (*kind, &**bytes),
        };
        match kind {
            Kind::Text => out.push_str(&written_text(as_text(bytes))),
            Kind::Composed => out.push_str(as_text(bytes)),
            Kind::Parts => parts::write(bytes, out),
        }
    }
}

/// Returns bytes that came from a text.
fn as_text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

/// Texts that fit are always inline.
#[derive(PartialEq, Eq)]
enum Args {
    Number(u64),
    Inline(Kind, u8, [u8; INLINE]),
    Heap(Kind, Box<[u8]>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Composed,
    Parts,
}

#[cfg(test)]
mod tests {
    use foldhash::fast::RandomState;

    use super::*;
    use crate::key::{Displayed, KeyPart, KeyWriter, MAX_KEY_LEN, is_uncut, write_value_key};

    fn text(name: &str, args: &str, fingerprint: &str) -> String {
        let mut text = String::new();
        write_value_key(&mut text, "shop", name, args, fingerprint);
        text
    }

    fn written<P: KeyPart + ?Sized>(part: &P) -> KeyText {
        let mut text = KeyText::lazy();
        KeyWriter::new(&mut text).member(part);
        text
    }

    /// Checks that the part itself, its written form and the key in the store give the same key.
    fn is_one_key<P: KeyPart + ?Sized>(part: &P) {
        let (origin, hasher) = (Origin::of("user", "f1"), RandomState::default());
        let mut args = written(part);
        let lazy = ParsedKey::new(origin, &args).as_ref().to_owned();
        let key = text("user", args.written(), "f1");
        // Only a key that is not cut in the store is looked for by its parts.
        if !is_uncut("shop", "user", args.len()) {
            return;
        }
        let (by_text, of_args) = (ParsedKey::parse(&key), ParsedKey::new(origin, &args));
        let stored = by_text.as_ref().to_owned();
        let asked = [LocalKeyRef::whole(&origin, part.__whole()), Some(of_args.as_ref()), Some(by_text.as_ref())];
        for asked in asked.into_iter().flatten() {
            assert!(asked.is(&stored) && asked.is(&lazy), "{key}");
            assert!(asked.to_owned() == stored, "{key}");
            assert_eq!(asked.hash(&hasher), by_text.as_ref().hash(&hasher), "{key}");
            assert!(args.len() <= asked.most_bytes(), "{key}");
        }
    }

    #[test]
    // T5
    fn a_key_is_the_same_however_it_is_asked_for() {
        let (long, short) = ("x".repeat(MAX_KEY_LEN - "shop:user:".len()), "x".repeat(INLINE));
        let (most, over) = (u64::MAX.to_string(), format!("{}0", u64::MAX));
        let texts = [
            "", "7", "0", "00", "07", "+7", "-7", "7x", "a:b@c", "7,de", "a b", "%", "%41", "\"\"", "!", "?7", "ß",
            "\0", "\u{a0}", "(a)", "~", &most, &over, &short, &long,
        ];
        for part in texts {
            is_one_key(part);
            is_one_key(&Some(part));
            is_one_key(&(part, 7));
        }
        is_one_key(&format!("{short}y"));
        for number in [0, 7, 10, 1_234_567, u64::MAX] {
            is_one_key(&number);
            is_one_key(&Some(number));
            is_one_key(&[number][..]);
            is_one_key(&number.to_string());
        }
        is_one_key(&-7);
        is_one_key(&());
        is_one_key(&true);
    }

    /// Checks that the parts, their written form and the key in the store give the same key.
    fn are_one_key<A: KeyPart, B: KeyPart, C: KeyPart>(a: &A, b: &B, c: &C) {
        let (origin, hasher) = (Origin::of("user", "f1"), RandomState::default());
        let mut args = KeyText::new();
        let mut writer = KeyWriter::new(&mut args);
        writer.member(a);
        writer.member(b);
        writer.member(c);
        let key = text("user", args.as_str(), "f1");
        if !is_uncut("shop", "user", args.len()) {
            return;
        }
        let (by_text, of_args) = (ParsedKey::parse(&key), ParsedKey::new(origin, &args));
        let stored = by_text.as_ref().to_owned();
        let parts = LocalKeyRef::comparable([a.__whole(), b.__whole(), c.__whole()]);
        let parts = parts.as_ref().map(|parts| LocalKeyRef::of_parts(&origin, parts));
        let is_whole = |whole| !matches!(whole, Whole::Other);
        assert_eq!(parts.is_some(), is_whole(a.__whole()) && is_whole(b.__whole()) && is_whole(c.__whole()), "{key}");
        for asked in [parts, Some(of_args.as_ref())].into_iter().flatten() {
            assert!(asked.is(&stored) && asked.to_owned() == stored, "{key}");
            assert_eq!(asked.hash(&hasher), by_text.as_ref().hash(&hasher), "{key}");
            assert!(args.len() <= asked.most_bytes(), "{key}");
        }
        let mut written = String::new();
        stored.write_args(&mut written);
        assert_eq!(written, args.as_str());
    }

    #[test]
    // T5
    fn a_key_of_several_parts_is_the_same_however_it_is_asked_for() {
        let (long, longer) = ("x".repeat(100), "y,".repeat(MAX_KEY_LEN));
        let texts =
            ["", "7", "07", "-7", "a:b@c", "7,de", ",", "a b", "%", "%2C", "\"\"", "?7", "ß", "\0", "(", "])", "~"];
        let texts = texts.into_iter().chain([&*long, &longer]);
        for part in texts.clone() {
            are_one_key(&part, &7, &u64::MAX);
            are_one_key(&1, &part, &part);
            are_one_key(&(1, part), &-7, &Some(part));
            are_one_key(&[part, part][..].to_vec(), &true, &part);
            are_one_key(&Displayed(part), &(), &0);
            for other in texts.clone() {
                are_one_key(&part, &other, &part);
            }
        }
    }

    #[test]
    // K1
    fn distinct_keys_have_distinct_local_keys() {
        let cut = "n".repeat(MAX_KEY_LEN);
        let keys = [
            text("user", "7", "f1"),
            text("user", "7", "f2"),
            text("user", "8", "f1"),
            text("user", "", "f1"),
            text("user", "\"\"", "f1"),
            text("user", "%22%22", "f1"),
            text("user", "%22", "f1"),
            text("user", "7,8", "f1"),
            text("user", "7,8,", "f1"),
            text("user", ",7,8", "f1"),
            text("user", "7,08", "f1"),
            text("user", "7,\"\"", "f1"),
            text("user", "7,%38", "f1"),
            text("user", "7,a%20b", "f1"),
            text("user", "7,a b", "f1"),
            text("user", "7,(8", "f1"),
            text("user", "(7,8)", "f1"),
            text("user", "(7,8", "f1"),
            text("user", "7%2C8", "f1"),
            text("user", "7%2c8", "f1"),
            text("user", "7%", "f1"),
            text("user", "7%4", "f1"),
            text("user", "%41", "f1"),
            text("user", "A", "f1"),
            text("user", "%C3%9F", "f1"),
            text("user", "ß", "f1"),
            text("user", "%FF", "f1"),
            text("user", "%00", "f1"),
            text("user", "7%00", "f1"),
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
                let same = ParsedKey::parse(one).as_ref().is(&ParsedKey::parse(other).as_ref().to_owned());
                assert_eq!(same, at == other_at, "{one} {other}");
            }
        }
    }
}
