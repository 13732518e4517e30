//! Keys: injective, readable in `redis-cli`, bounded.
//!
//! ```text
//! <namespace>:<name>:<arguments>@<fingerprint>   blog:blog.posts.by_author:7,rust@9f2c64b0d81e77aa
//! ```
//!
//! Invariant: namespace and name contain no `:`, the fingerprint contains no `@`, and the parts of
//! the arguments can be separated again, so distinct arguments give distinct keys. A key is at most
//! [`MAX_KEY_LEN`] bytes: longer arguments end in `~` and a SHA-256 hash of the whole key, cut to
//! 128 bits.

mod entry_key;
mod parts;
mod tags;
mod text;
pub(crate) mod versions;

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::sync::Arc;

use sha2::{Digest, Sha256};

pub(crate) use self::entry_key::EntryKey;
pub use self::tags::TagWriter;
pub(crate) use self::tags::tag_name;
pub(crate) use self::text::KeyText;

/// The maximum length of a key that is sent to Redis, in bytes, up to the `@`.
pub const MAX_KEY_LEN: usize = 512;

/// The length of `~` and 32 hex digits.
const HASH_LEN: usize = 33;

/// A function's name and its arguments: the key of a value without namespace and fingerprint.
///
/// `#[cached]` makes it from the function and its arguments. To make one yourself:
///
/// ```
/// use cache_core::Key;
/// let key = Key::new("user").part(&7_u64).part("de");
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Key {
    name: Cow<'static, str>,
    args: String,
}

impl Key {
    /// Makes a key without arguments.
    ///
    /// Any name is allowed: characters that a name cannot hold (`:`, `@`, braces, white space,
    /// control characters) are escaped, and all others stay readable.
    #[must_use]
    pub fn new(name: impl Into<Cow<'static, str>>) -> Self {
        Self { name: clean_name(name.into()), args: String::new() }
    }

    /// Adds an argument.
    #[must_use]
    pub fn part<P: KeyPart + ?Sized>(mut self, part: &P) -> Self {
        let mut text = KeyText::from(&*self.args);
        KeyWriter { out: &mut text, first: self.args.is_empty() }.member(part);
        self.args.clear();
        self.args.push_str(text.as_str());
        self
    }

    /// Returns the name: of the function, or as passed to [`new`](Self::new).
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn args(&self) -> &str {
        &self.args
    }
}

// Arguments may be personal data: only the name is shown.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({}:..)", self.name)
    }
}

/// Escapes the characters that would make a name ambiguous inside a key.
pub(crate) fn clean_name(name: Cow<'static, str>) -> Cow<'static, str> {
    let plain = |c: char| !(c.is_control() || c.is_whitespace() || matches!(c, ':' | '@' | '{' | '}' | '%' | '~'));
    if name.chars().all(plain) {
        return name;
    }
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        if plain(c) { out.push(c) } else { escape(&mut out, c) }
    }
    out.into()
}

/// Writes the value key `<namespace>:<name>:<arguments>@<fingerprint>` into `out`, bounded.
pub(crate) fn write_value_key(out: &mut String, namespace: &str, name: &str, args: &str, fingerprint: &str) {
    out.push_str(namespace);
    out.push(':');
    out.push_str(name);
    out.push(':');
    out.push_str(args);
    shorten(out);
    out.push('@');
    out.push_str(fingerprint);
}

/// Returns the same key in its own allocation, which is the only one if the key is not cut.
pub(crate) fn value_key(namespace: &str, name: &str, args: &str, fingerprint: &str) -> Arc<str> {
    if is_uncut(namespace, name, args.len()) {
        let mut text = KeyText::new();
        [namespace, ":", name, ":", args, "@", fingerprint].iter().for_each(|part| text.push_str(part));
        return text.as_str().into();
    }
    let mut text = String::new();
    write_value_key(&mut text, namespace, name, args, fingerprint);
    text.into()
}

/// Returns the key of the registry of builds that store under a name. It is in the slot of the
/// function's version, so both change in one step.
pub(crate) fn builds_key(namespace: &str, name: &str) -> String {
    format!("{{{}}}:builds", versions::function_key(namespace, name))
}

/// Returns whether [`write_value_key`] writes these parts without cutting them.
#[inline]
pub(crate) fn is_uncut(namespace: &str, name: &str, args_len: usize) -> bool {
    // Two bytes are for the colons. A text has at most `isize::MAX` bytes, so the sum of two does
    // not overflow.
    namespace.len().wrapping_add(name.len()).saturating_add(args_len) <= MAX_KEY_LEN.saturating_sub(2)
}

/// Cuts the key at a character boundary and replaces the tail by the hash of the whole key.
#[inline]
pub(crate) fn shorten(key: &mut String) {
    if key.len() > MAX_KEY_LEN {
        cut(key);
    }
}

#[cold]
fn cut(key: &mut String) {
    let hash = Sha256::digest(key.as_bytes());
    let mut cut = MAX_KEY_LEN.saturating_sub(HASH_LEN);
    while !key.is_char_boundary(cut) {
        cut = cut.saturating_sub(1);
    }
    key.truncate(cut);
    key.push('~');
    for byte in hash.iter().take(16) {
        let _infallible = write!(key, "{byte:02x}");
    }
}

/// The writer that a [`KeyPart`] writes itself to. Text is escaped; only structure is written raw.
pub struct KeyWriter<'a> {
    out: &'a mut KeyText,
    first: bool,
}

impl<'a> KeyWriter<'a> {
    #[inline]
    pub(crate) fn new(out: &'a mut KeyText) -> Self {
        Self { out, first: true }
    }

    /// Writes text and escapes the characters that the structure of a key uses. Empty text becomes
    /// `""`, so that it stays visible.
    pub fn text(&mut self, text: &str) {
        // Most text needs no escape and is copied in one piece. All bytes are checked, since that
        // is faster than stopping early.
        let is_plain = |byte: u8| PLAIN.get(usize::from(byte)).is_some_and(|plain| *plain);
        if !text.is_empty() && text.bytes().fold(true, |plain, byte| plain & is_plain(byte)) {
            return self.out.push_str(text);
        }
        self.escaped(text);
    }

    #[cold]
    fn escaped(&mut self, text: &str) {
        if text.is_empty() {
            self.out.push_str("\"\"");
        }
        let mut rest = text;
        while let Some(at) = rest.find(needs_escape) {
            let (plain, tail) = rest.split_at(at);
            self.out.push_str(plain);
            let mut chars = tail.chars();
            if let Some(c) = chars.next() {
                escape(self.out, c);
            }
            rest = chars.as_str();
        }
        self.out.push_str(rest);
    }

    /// Writes a value by its `Display`, escaped like [`text`](Self::text).
    pub fn display(&mut self, value: &dyn fmt::Display) {
        struct Escaped<'w, 'a>(&'w mut KeyWriter<'a>, bool);
        impl fmt::Write for Escaped<'_, '_> {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                if !text.is_empty() {
                    self.1 = true;
                    self.0.text(text);
                }
                Ok(())
            }
        }
        let mut escaped = Escaped(self, false);
        let _infallible = write!(escaped, "{value}");
        if !escaped.1 {
            escaped.0.text("");
        }
    }

    /// Writes a group `(a,b)`; `members` writes each member.
    pub fn group(&mut self, members: impl FnOnce(&mut KeyWriter<'_>)) {
        self.nested('(', ')', members);
    }

    /// Writes a member of a group: a comma if it is not the first, then the part.
    #[inline(always)]
    pub fn member<P: KeyPart + ?Sized>(&mut self, part: &P) {
        if !std::mem::replace(&mut self.first, false) {
            self.out.push(',');
        }
        let before = self.out.len();
        part.write_key(&mut KeyWriter::new(self.out));
        // A part that renders as nothing must stay visible: a list of it is not the empty list.
        if self.out.len() == before {
            self.out.push_str("()");
        }
    }

    /// Writes arguments as members.
    #[doc(hidden)]
    pub fn parts(&mut self, parts: &[Part<'_>]) {
        parts.iter().for_each(|part| self.member(part.value));
    }

    /// Writes literal text of a key template. The macro has checked that it needs no escape.
    pub fn literal(&mut self, text: &'static str) {
        self.out.push_str(text);
    }

    /// Writes a placeholder of a key template. Characters that may separate placeholders are
    /// escaped in it, so the end of a placeholder is unambiguous: the macro has checked that there
    /// is a separator between every two.
    pub fn placeholder<P: KeyPart + ?Sized>(&mut self, part: &P) {
        if let Whole::Number(number) = part.__whole() {
            return self.out.push_number(number);
        }
        let start = self.out.len();
        part.write_key(&mut KeyWriter::new(self.out));
        // The text before `start` is not part of this placeholder. Most parts contain no separator.
        let is_separator = |byte: &u8| separates(char::from(*byte));
        if self.out.as_bytes().get(start..).is_some_and(|written| written.iter().any(is_separator)) {
            let written = self.out.split_off(start);
            for c in written.chars() {
                if separates(c) { escape(self.out, c) } else { self.out.push(c) }
            }
        }
    }

    /// Writes the only placeholder of a plain key's template as other programs write it: a number
    /// or a text unchanged. Anything else is written as by [`placeholder`](Self::placeholder).
    #[doc(hidden)]
    pub fn only_placeholder<P: KeyPart + ?Sized>(&mut self, part: &P) {
        match part.__whole() {
            Whole::Number(number) => self.out.push_number(number),
            Whole::Text(text) => self.out.push_str(text),
            Whole::Other => self.placeholder(part),
        }
    }

    fn list(&mut self, members: impl FnOnce(&mut KeyWriter<'_>)) {
        self.nested('[', ']', members);
    }

    fn nested(&mut self, open: char, close: char, members: impl FnOnce(&mut KeyWriter<'_>)) {
        self.out.push(open);
        members(&mut KeyWriter::new(self.out));
        self.out.push(close);
    }
}

impl fmt::Debug for KeyWriter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyWriter")
    }
}

/// The ASCII characters that need no escape.
#[expect(clippy::indexing_slicing, reason = "the index is below 128, and a constant out of bounds does not compile")]
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        let c = byte as u8;
        let structure = matches!(c, b'%' | b',' | b'(' | b')' | b'[' | b']' | b'{' | b'}' | b'"' | b'~');
        // The white space of ASCII is the space and control characters.
        plain[byte] = !(structure || c.is_ascii_control() || c == b' ');
        byte += 1;
    }
    plain
};

/// Classes of bytes in written arguments. None of them is plain text.
const STRUCTURE: u8 = 1;
const QUOTE: u8 = 2;
const ODD: u8 = 4;

#[expect(clippy::indexing_slicing, reason = "the index is below 256, and a constant out of bounds does not compile")]
const CLASSES: [u8; 256] = {
    let mut classes = [ODD; 256];
    let mut byte = 0;
    while byte < 128 {
        classes[byte] = match byte as u8 {
            _ if PLAIN[byte] => 0,
            b'%' => ODD,
            b'"' => STRUCTURE | QUOTE,
            _ => STRUCTURE,
        };
        byte += 1;
    }
    classes
};

fn needs_escape(c: char) -> bool {
    matches!(c, '%' | ',' | '(' | ')' | '[' | ']' | '{' | '}' | '"' | '~') || c.is_control() || c.is_whitespace()
}

/// Returns whether a template may have this character between placeholders. Must equal `SEPARATORS`
/// in the macro's `template.rs`.
fn separates(c: char) -> bool {
    matches!(c, ':' | '/' | '=' | '|' | '+' | '*' | '&' | '#' | '$' | '^' | ';' | '<' | '>' | '\'' | '\\' | '`')
}

/// What a key's arguments consist of, as far as one look at each byte can decide it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Looks {
    /// A text that is written unchanged.
    Plain,
    /// Several parts, or cut: no text is written like this.
    Composed,
    /// [`text_of`] has to decide.
    Escaped,
}

impl Looks {
    #[inline]
    pub(crate) fn of(args: &[u8]) -> Self {
        let seen = args.iter().fold(0, |seen, byte| seen | CLASSES.get(usize::from(*byte)).copied().unwrap_or(ODD));
        match seen {
            0 if !args.is_empty() => Self::Plain,
            // An empty text is written as two quotation marks.
            seen if seen & STRUCTURE != 0 && seen & QUOTE == 0 => Self::Composed,
            _ => Self::Escaped,
        }
    }
}

/// Returns the text for which [`KeyWriter::text`] writes these arguments, if there is one.
#[cold]
pub(crate) fn text_of(args: &[u8]) -> Option<String> {
    let mut bytes = Vec::with_capacity(args.len());
    let mut rest = args;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = after;
    }
    let text = if args == b"\"\"" { String::new() } else { String::from_utf8(bytes).ok()? };
    // Accepts only the canonical form, not another form that decodes to the same text.
    let mut written = KeyText::new();
    KeyWriter::new(&mut written).text(&text);
    (written.as_bytes() == args).then_some(text)
}

/// Returns what [`KeyWriter::text`] writes for a text.
pub(crate) fn written_text(text: &str) -> String {
    let mut written = KeyText::new();
    KeyWriter::new(&mut written).text(text);
    written.as_str().to_owned()
}

/// Writes `%` and two hex digits for each byte of the character.
fn escape(out: &mut impl fmt::Write, c: char) {
    let mut bytes = [0; 4];
    for byte in c.encode_utf8(&mut bytes).bytes() {
        let _infallible = write!(out, "%{byte:02X}");
    }
}

/// A type that can be part of a key.
///
/// The rendering must be injective for values of one type (different values, different text) and
/// stable between builds and platforms. Implemented for integers, `bool`, `char`, text, tuples,
/// `Option`, sequences, ordered maps and sets, references and smart pointers, `Duration`; `uuid`,
/// `chrono`, `time` and `jiff` types by feature; your own types by `#[derive(KeyPart)]`. Not
/// implemented for floats (use `to_bits()`), hash maps (no order) and paths (use `{path.to_str()}`
/// in a template: not every path is valid text).
///
/// Implement it yourself for a type whose identity is not that of its fields:
///
/// ```
/// use cache_core::key::KeyWriter;
/// use cache_core::KeyPart;
///
/// /// An e-mail address. Addresses that differ only in case are the same.
/// struct Address(String);
///
/// impl KeyPart for Address {
///     fn write_key(&self, key: &mut KeyWriter<'_>) {
///         key.text(&self.0.to_lowercase());
///     }
/// }
/// ```
///
/// To use a type of another crate, write it in a template: `key = "{url.as_str()}"` by an
/// expression that is a key part, `key = "{version:display}"` by its `Display`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be part of a cache key",
    label = "this argument cannot be part of the key",
    note = "leave it out of the key with `skip(..)` in `#[cached(..)]`, or `#[cached(skip)]` on the parameter",
    note = "or add `#[derive(KeyPart)]` to `{Self}`, or name the parts that matter: `key = \"{{arg.field}}\"`, `key = \"{{arg.method()}}\"`, \
            `key = \"{{arg:display}}\"`",
    note = "use the bits of a float (`to_bits()`), and a `BTreeMap` instead of a hash map"
)]
pub trait KeyPart {
    /// Writes this value.
    fn write_key(&self, key: &mut KeyWriter<'_>);

    /// Returns what [`write_key`](Self::write_key) writes, for lookups that need not write the key
    /// to compare it. Not meant to be implemented outside this crate: the default is right for
    /// every type.
    #[doc(hidden)]
    fn __whole(&self) -> Whole<'_> {
        Whole::Other
    }
}

/// One of several arguments of a key.
#[doc(hidden)]
#[derive(Clone, Copy)]
#[expect(missing_debug_implementations, reason = "it may be personal data")]
pub struct Part<'a> {
    pub(crate) whole: Whole<'a>,
    pub(crate) value: &'a dyn KeyPart,
}

/// A part that is all of a key's arguments, as is most common. A local hit compares it without
/// writing it.
#[doc(hidden)]
#[derive(Clone, Copy)]
#[expect(missing_debug_implementations, reason = "it may be personal data")]
pub enum Whole<'a> {
    /// A number, written as these digits.
    Number(u64),
    /// A text, written by [`KeyWriter::text`].
    Text(&'a str),
    /// A part that has to be written.
    Other,
}
/// A value that a template writes by its `Display`, `{x:display}`.
#[doc(hidden)]
pub struct Displayed<T>(pub T);

impl<T: fmt::Display> KeyPart for Displayed<T> {
    fn write_key(&self, key: &mut KeyWriter<'_>) {
        key.display(&self.0);
    }
}

// The value may be personal data.
impl<T> fmt::Debug for Displayed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Displayed")
    }
}

#[cfg(test)]
mod tests;
