//! The buffer for a key's arguments: on the stack, since most are short and every hit writes them.

use std::cell::Cell;
use std::fmt;

/// Long enough for a few numbers, a UUID or a name, and short enough to cost nothing but stack
/// space.
const INLINE: usize = 64;

/// Text without an allocation: up to [`INLINE`] bytes on the stack, and beyond that in a buffer
/// that the thread reuses.
pub(crate) struct KeyText {
    inline: [u8; INLINE],
    /// How much of it is in use.
    len: usize,
    /// All of the text, once it did not fit.
    long: Option<Vec<u8>>,
    number: Number,
    options: Options,
}

/// How an `Option` is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Options {
    /// Distinguishable from its content, as keys require.
    Marked,
    /// Like its content, as tags require.
    Bare,
    /// All of the text is a `None`.
    Absent,
}

/// Most keys are one number, and a lookup in L1 does not need its digits.
#[derive(Clone, Copy)]
enum Number {
    /// Numbers are written at once.
    AtOnce,
    /// A number at the start waits until something else follows.
    Waits,
    /// All of the text so far is this number.
    Waiting(u64),
}

/// The digits of the longest number.
const LONGEST_NUMBER: usize = 20;

thread_local!(static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) });

impl KeyText {
    #[inline]
    pub(crate) const fn new() -> Self {
        Self { inline: [0; INLINE], len: 0, long: None, number: Number::AtOnce, options: Options::Marked }
    }

    /// Makes a text whose digits are written only when needed: by [`written`](Self::written), which
    /// must be called before the text is read.
    #[inline]
    pub(crate) const fn lazy() -> Self {
        Self { inline: [0; INLINE], len: 0, long: None, number: Number::Waits, options: Options::Marked }
    }

    /// Makes a text for a tag, in which `Some(7)` is the same as 7.
    pub(crate) const fn of_tag() -> Self {
        let mut this = Self::new();
        this.options = Options::Bare;
        this
    }

    /// Writes the prefix of the content of a `Some`.
    pub(crate) fn push_some(&mut self) {
        if self.options == Options::Marked {
            self.push('?');
        }
    }

    /// Writes a `None`.
    pub(crate) fn push_none(&mut self) {
        if self.options == Options::Bare && self.len() == 0 {
            self.options = Options::Absent;
        }
        self.push('!');
    }

    /// Returns whether all of a tag's text is a `None`.
    pub(crate) fn is_absent(&self) -> bool {
        self.options == Options::Absent && self.len() == 1
    }

    #[inline]
    pub(crate) fn push_number(&mut self, number: u64) {
        match self.number {
            Number::Waits if self.len == 0 && self.long.is_none() => self.number = Number::Waiting(number),
            _ => self.push_str(itoa::Buffer::new().format(number)),
        }
    }

    /// Returns the number that is all of the text.
    #[inline]
    pub(crate) fn number(&self) -> Option<u64> {
        if let Number::Waiting(number) = self.number { Some(number) } else { None }
    }

    /// Returns the text with all its digits.
    pub(crate) fn written(&mut self) -> &str {
        self.write_number();
        self.as_str()
    }

    #[cold]
    fn write_number(&mut self) {
        if let Number::Waiting(number) = std::mem::replace(&mut self.number, Number::AtOnce) {
            self.push_str(itoa::Buffer::new().format(number));
        }
    }

    #[inline]
    pub(crate) fn push_str(&mut self, text: &str) {
        if let Number::Waiting(_) = self.number {
            self.write_number();
        }
        self.push_bytes(text.as_bytes());
    }

    /// Writes bytes, for a buffer that is not read as text. No number waits in it.
    #[inline(always)]
    pub(crate) fn push_bytes(&mut self, bytes: &[u8]) {
        let end = self.len.saturating_add(bytes.len());
        match self.inline.get_mut(self.len..end) {
            Some(free) if self.long.is_none() => {
                free.copy_from_slice(bytes);
                self.len = end;
            }
            _ => self.long().extend_from_slice(bytes),
        }
    }

    pub(crate) fn push(&mut self, c: char) {
        self.push_str(c.encode_utf8(&mut [0; 4]));
    }

    /// Returns the length in bytes; the maximum for a number that is not written yet.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        match (self.number, &self.long) {
            (Number::Waiting(_), _) => LONGEST_NUMBER,
            (_, None) => self.len,
            (_, Some(long)) => long.len(),
        }
    }

    #[inline]
    pub(crate) fn as_bytes(&self) -> &[u8] {
        match &self.long {
            None => self.inline.get(..self.len).unwrap_or_default(),
            Some(long) => long,
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        // A concatenation of texts is valid text.
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    /// Removes and returns the text from there on. `at` is a character boundary.
    pub(crate) fn split_off(&mut self, at: usize) -> String {
        let tail = self.as_str().get(at..).unwrap_or_default().to_owned();
        match &mut self.long {
            Some(long) => long.truncate(at),
            None => {
                self.len = self.len.min(at);
            }
        }
        tail
    }

    #[cold]
    fn long(&mut self) -> &mut Vec<u8> {
        let short = self.inline.get(..self.len).unwrap_or_default();
        self.long.get_or_insert_with(|| {
            // An error means that this thread is ending.
            let mut long = SPARE.try_with(Cell::take).unwrap_or_default();
            long.clear();
            long.extend_from_slice(short);
            long
        })
    }
}

impl Drop for KeyText {
    #[inline]
    fn drop(&mut self) {
        if let Some(long) = self.long.take() {
            give_back(long);
        }
    }
}

#[cold]
fn give_back(long: Vec<u8>) {
    // An error means that this thread is ending.
    let _ended = SPARE.try_with(|spare| spare.set(long));
}

impl From<&str> for KeyText {
    fn from(text: &str) -> Self {
        let mut this = Self::new();
        this.push_str(text);
        this
    }
}

impl fmt::Write for KeyText {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push_str(text);
        Ok(())
    }
}

// The text may be personal data.
impl fmt::Debug for KeyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyText")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_the_same_on_the_stack_and_on_the_heap() {
        for piece in ["a", "é\u{301}", "0123456789", ""] {
            let (mut text, mut plain) = (KeyText::new(), String::new());
            for _ in 0..40 {
                text.push_str(piece);
                text.push('ß');
                plain.push_str(piece);
                plain.push('ß');
                assert_eq!((text.as_str(), text.len()), (&*plain, plain.len()));
            }
            assert_eq!(text.split_off(piece.len()), plain.split_off(piece.len()));
            assert_eq!(text.as_str(), plain);
        }
    }

    #[test]
    fn a_number_that_waits_is_written_before_what_follows() {
        for number in [0, 7, 10, u64::MAX] {
            let mut text = KeyText::lazy();
            text.push_number(number);
            assert_eq!(text.number(), Some(number));
            assert_eq!(text.written(), number.to_string());
            let mut text = KeyText::lazy();
            text.push_number(number);
            text.push(',');
            text.push_number(number);
            assert_eq!(text.number(), None);
            assert_eq!(text.written(), format!("{number},{number}"));
            let mut text = KeyText::lazy();
            text.push('?');
            text.push_number(number);
            assert_eq!((text.number(), text.written()), (None, &*format!("?{number}")));
        }
    }
}
