//! The fences of one key, read from their [bytes](super::layout) and written back.
//!
//! Invariant: `before` is other than zeros only while no fence of the set has been lifted or has
//! expired, so what is restored is the content from before all of them (R27). The scripts of the
//! Redis store do the same as this module.

use bytes::Bytes;

use super::layout::{BEFORE_LEN, FENCES_MAX, HEAD_LEN, HOLDER_LEN, TOKEN_LEN, is_fence};
use crate::clock::Timestamp;
use crate::store::token::Token;
use crate::store::versions::Version;

/// The token of fences beyond the limit.
const NAMELESS: u128 = 0;

/// The fences of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fences {
    before: Before,
    holders: Vec<Holder>,
}

/// The content of the key before all of its fences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Before {
    /// Nothing, or content that has ended since.
    Nothing,
    /// A record, which was put aside, with its expiry.
    Record(Timestamp),
    /// A version.
    Version(Version),
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Holder {
    token: u128,
    ends: Timestamp,
}

impl Fences {
    pub(crate) fn over(before: Before) -> Self {
        Self { before, holders: Vec::new() }
    }

    /// Parses the fences of a value key that are in force at `now`. `None`: the bytes are not
    /// fences.
    pub(crate) fn of_record(bytes: &[u8], now: Timestamp) -> Option<Self> {
        Self::read(bytes, now, |text| text.parse().ok().filter(|ends| *ends > 0).map(Timestamp::from_millis))
            .map(|(before, holders)| Self { before: before.map_or(Before::Nothing, Before::Record), holders })
    }

    /// Parses the fences of a tag's version key in the same way.
    pub(crate) fn of_version(bytes: &[u8], now: Timestamp) -> Option<Self> {
        Self::read(bytes, now, |text| u128::from_str_radix(text, 16).ok().filter(|bits| *bits > 0).map(Version))
            .map(|(before, holders)| Self { before: before.map_or(Before::Nothing, Before::Version), holders })
    }

    fn read<T>(
        bytes: &[u8],
        now: Timestamp,
        before: impl FnOnce(&str) -> Option<T>,
    ) -> Option<(Option<T>, Vec<Holder>)> {
        let text = std::str::from_utf8(bytes).ok().filter(|text| is_fence(text.as_bytes()))?;
        let all: Vec<Holder> = bytes.get(HEAD_LEN..)?.chunks(HOLDER_LEN).map(Holder::read).collect::<Option<_>>()?;
        let holders: Vec<Holder> = all.iter().copied().filter(|holder| holder.ends > now).collect();
        // A caller that let a fence expire may have died after its write.
        let has_none_run_out = holders.len() == all.len();
        let before = text.get(1..HEAD_LEN).and_then(before).filter(|_| has_none_run_out);
        Some((before, holders))
    }

    /// Adds a fence. Returns `false` if there are too many to track it separately; the key then
    /// stays fenced until the last of them would expire.
    pub(crate) fn add(&mut self, token: Token, ends: Timestamp) -> bool {
        self.remove(token);
        let named = self.holders.iter().filter(|holder| holder.token != NAMELESS).count();
        if named < FENCES_MAX {
            self.holders.push(Holder { token: token.bits(), ends });
            return true;
        }
        let last = self.ends().max(ends);
        self.holders.retain(|holder| holder.token != NAMELESS);
        self.holders.push(Holder { token: NAMELESS, ends: last });
        false
    }

    pub(crate) fn remove(&mut self, token: Token) {
        self.holders.retain(|holder| holder.token != token.bits());
    }

    /// Discards the content from before: it will not be restored.
    pub(crate) fn end_before(&mut self) {
        self.before = Before::Nothing;
    }

    pub(crate) fn before(&self) -> Before {
        self.before
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.holders.is_empty()
    }

    /// Returns when the last of them ends.
    pub(crate) fn ends(&self) -> Timestamp {
        self.holders.iter().map(|holder| holder.ends).max().unwrap_or(Timestamp::from_millis(0))
    }

    /// Returns the stored form.
    pub(crate) fn to_bytes(&self) -> Bytes {
        let before = match self.before {
            Before::Nothing => "0".repeat(BEFORE_LEN),
            Before::Record(ends) => format!("{:032}", ends.as_millis()),
            Before::Version(version) => version.hex(),
        };
        let mut text = format!("F{before}");
        for Holder { token, ends } in &self.holders {
            text.push_str(&format!("{token:032x}{:015}", ends.as_millis()));
        }
        text.into()
    }
}

impl Holder {
    fn read(bytes: &[u8]) -> Option<Self> {
        let (token, ends) = std::str::from_utf8(bytes).ok()?.split_at_checked(TOKEN_LEN)?;
        let token = u128::from_str_radix(token, 16).ok()?;
        Some(Self { token, ends: Timestamp::from_millis(ends.parse().ok()?) })
    }
}

// Without the token: its owner can end the fence.
impl std::fmt::Debug for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Holder").field("ends", &self.ends).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    // R27: the bytes that the scripts read and write too
    fn fences_are_read_back_as_they_were_written() {
        let mut fences = Fences::over(Before::Record(at(1_767_225_600_123)));
        assert!(fences.add(Token::from_bits(0xa), at(2000)) && fences.add(Token::from_bits(0xb), at(3000)));
        let bytes = fences.to_bytes();
        let expected = "F00000000000000000001767225600123\
            0000000000000000000000000000000a000000000002000\
            0000000000000000000000000000000b000000000003000";
        assert_eq!(bytes, expected);
        assert!(is_fence(&bytes));
        assert_eq!(Fences::of_record(&bytes, at(0)), Some(fences));
        let mut of_version = Fences::over(Before::Version(Version(0xabc)));
        of_version.add(Token::from_bits(7), at(9));
        assert_eq!(Fences::of_version(&of_version.to_bytes(), at(0)), Some(of_version));
    }

    #[test]
    fn bytes_that_are_not_fences_are_read_as_none() {
        let fence = {
            let mut fences = Fences::over(Before::Nothing);
            fences.add(Token::from_bits(0xa), at(2000));
            fences.to_bytes()
        };
        let others = [&fence[..fence.len() - 1], &fence[..HEAD_LEN], b"", b"F", &[b"L", &fence[1..]].concat()];
        let foreign = [&fence[..40], b"-", &fence[41..]].concat();
        for bytes in others.into_iter().chain([&foreign[..]]) {
            assert!(!is_fence(bytes));
            assert_eq!(Fences::of_record(bytes, at(0)), None);
        }
        let long = [&fence[..], &fence[HEAD_LEN..].repeat(FENCES_MAX + 1)].concat();
        assert!(!is_fence(&long));
    }

    #[test]
    // R27, C1
    fn an_excess_fence_ends_only_by_its_time() {
        let mut fences = Fences::over(Before::Nothing);
        let most = u128::try_from(FENCES_MAX).unwrap();
        for token in 1..=most {
            assert!(fences.add(Token::from_bits(token), at(1000)), "{token}");
        }
        assert!(!fences.add(Token::from_bits(98), at(5000)) && !fences.add(Token::from_bits(99), at(4000)));
        assert!(is_fence(&fences.to_bytes()));
        for token in (1..=most).chain([98, 99]) {
            fences.remove(Token::from_bits(token));
        }
        assert_eq!((fences.is_empty(), fences.ends()), (false, at(5000)));
    }

    #[test]
    // R27
    fn a_record_from_before_an_expired_fence_does_not_come_back() {
        let mut fences = Fences::over(Before::Record(at(9000)));
        fences.add(Token::from_bits(1), at(1000));
        fences.add(Token::from_bits(2), at(2000));
        let bytes = fences.to_bytes();
        assert_eq!(Fences::of_record(&bytes, at(999)).unwrap().before(), Before::Record(at(9000)));
        let left = Fences::of_record(&bytes, at(1000)).unwrap();
        assert_eq!((left.before(), left.holders.len()), (Before::Nothing, 1));
    }
}
