//! Tags are texts: the template `author:{author}` makes `author:7` of 7, which is also the argument
//! of [`Cache::invalidate_tag`](crate::Cache::invalidate_tag).
//!
//! A placeholder is replaced by its [`KeyPart`] in readable form, without the escapes of a key. So
//! two tags can have the same text where two keys could not. They are then one tag, and an
//! invalidation reaches more entries, never fewer. An `Option` is written as its content, so that
//! an entry read with `Some(7)` is invalidated by a write with 7; a placeholder that is `None`
//! makes no tag.

use std::fmt::{self, Write as _};

use sha2::{Digest, Sha256};

use super::{HASH_LEN, KeyPart, KeyText, KeyWriter};

/// The maximum length of a tag's name in a record; the tail of a longer one is replaced by a hash.
const MAX_NAME_LEN: usize = 255;

/// Returns the name of a tag in records: its text, with the tail of a long one replaced by a hash.
pub(crate) fn tag_name(text: &str) -> Box<str> {
    if text.len() <= MAX_NAME_LEN {
        return text.into();
    }
    let mut cut = MAX_NAME_LEN.saturating_sub(HASH_LEN);
    while !text.is_char_boundary(cut) {
        cut = cut.saturating_sub(1);
    }
    let mut name = text.get(..cut).unwrap_or_default().to_owned();
    name.push('~');
    for byte in Sha256::digest(text.as_bytes()).iter().take(16) {
        let _infallible = write!(name, "{byte:02x}");
    }
    name.into()
}

/// The writer that generated code writes one tag to.
#[derive(Default)]
pub struct TagWriter {
    text: String,
    /// Whether a placeholder was `None`.
    absent: bool,
}

impl TagWriter {
    /// Writes literal text of the template.
    pub fn literal(&mut self, text: &'static str) {
        self.text.push_str(text);
    }

    /// Writes a placeholder.
    pub fn placeholder<P: KeyPart + ?Sized>(&mut self, part: &P) {
        let mut written = KeyText::of_tag();
        part.write_key(&mut KeyWriter::new(&mut written));
        self.absent |= written.is_absent();
        // An empty text is written as two quotes in a key.
        if written.as_str() != "\"\"" {
            self.text.push_str(&unescaped(written.as_str()));
        }
    }

    /// Returns the text, unless there is no tag.
    pub(crate) fn into_text(self) -> Option<String> {
        (!self.absent).then_some(self.text)
    }

    /// Returns the name in records, unless there is no tag.
    pub(crate) fn name(&self) -> Option<Box<str>> {
        (!self.absent).then(|| tag_name(&self.text))
    }
}

// Tags may be personal data.
impl fmt::Debug for TagWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TagWriter")
    }
}

/// Reverts the escapes of [`KeyWriter::text`].
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes().iter();
    while let Some(&byte) = rest.next() {
        let escaped = (byte == b'%').then(|| rest.as_slice().get(..2)).flatten();
        let escaped = escaped.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        match escaped {
            Some(escaped) => {
                bytes.push(escaped);
                rest.nth(1);
            }
            None => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name<P: KeyPart + ?Sized>(part: &P) -> Option<Box<str>> {
        let mut tag = TagWriter::default();
        tag.literal("author:");
        tag.placeholder(part);
        tag.name()
    }

    fn written<P: KeyPart + ?Sized>(part: &P) -> Box<str> {
        name(part).unwrap()
    }

    #[test]
    fn a_tag_reads_as_people_write_it() {
        assert_eq!(&*written(&7), "author:7");
        for text in ["", "a b", "a/b:c", "100%", "%41", "é\u{301}\0{x}", "\"\"\"", "(a,b)", "~"] {
            assert_eq!(*written(text), format!("author:{text}"), "{text}");
        }
        assert_eq!(&*written(&(7, "de")), "author:(7,de)");
        assert_eq!(&*written("!"), "author:!");
    }

    // I1
    #[test]
    fn an_option_is_its_content_or_no_tag() {
        struct Wrapped(Option<u32>);
        impl KeyPart for Wrapped {
            fn write_key(&self, key: &mut KeyWriter<'_>) {
                self.0.write_key(key);
            }
        }
        assert_eq!(&*written(&Some(7)), "author:7");
        assert_eq!(&*written(&Some(Some("a b"))), "author:a b");
        assert_eq!(&*written(&Box::new(Some(7))), "author:7");
        assert_eq!(&*written(&Wrapped(Some(7))), "author:7");
        assert_eq!(&*written(&(1, Some(7))), "author:(1,7)");
        assert_eq!(&*written(&Some("")), "author:");
        assert_eq!(name(&None::<u32>), None);
        assert_eq!(name(&Some(None::<u32>)), None);
        assert_eq!(name(&Wrapped(None)), None);
        // A text that looks like `None` is still a text.
        assert_eq!(&*written(&Some("!")), "author:!");
        // One `None` among several placeholders is enough.
        let mut tag = TagWriter::default();
        tag.placeholder(&None::<u32>);
        tag.literal(":");
        tag.placeholder(&7);
        assert_eq!(tag.name(), None);
    }

    #[test]
    fn a_long_tag_keeps_its_beginning_and_stays_itself() {
        let long = |end: &str| tag_name(&format!("author:{}{end}", "é".repeat(200)));
        assert!(long("a").len() <= MAX_NAME_LEN && long("a").starts_with("author:é"));
        assert_ne!(long("a"), long("b"));
        assert_eq!(long("a"), long("a"));
        assert_eq!(&*tag_name("author:7"), "author:7");
    }
}
