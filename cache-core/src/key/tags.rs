//! Tags are texts: `author:7` is what `author:{author}` makes of 7, and what [`Cache::invalidate_tag`](crate::Cache::invalidate_tag) is given.
//!
//! A placeholder stands for its [`KeyPart`] as people write it, without the escapes of a key. So two tags can read the same where
//! two keys could not: then they are one tag, and an invalidation reaches more entries, never fewer.
//! An `Option` reads as its content, so that what was read with `Some(7)` ends by a write with 7; a
//! placeholder that is `None` makes no tag.

use std::fmt::{self, Write as _};

use sha2::{Digest, Sha256};

use super::{HASH_LEN, KeyPart, KeyText, KeyWriter};

/// The longest name of a tag in a record; the tail of a longer one is a hash.
const MAX_NAME_LEN: usize = 255;

/// A tag as records name it: its text, the tail of a long one as a hash.
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

/// Where generated code writes one tag.
#[derive(Default)]
pub struct TagWriter {
    text: String,
    /// Whether a placeholder was `None`.
    absent: bool,
}

impl TagWriter {
    /// Literal text of the template.
    pub fn literal(&mut self, text: &'static str) {
        self.text.push_str(text);
    }

    /// A placeholder.
    pub fn placeholder<P: KeyPart + ?Sized>(&mut self, part: &P) {
        let mut written = KeyText::of_tag();
        part.write_key(&mut KeyWriter::new(&mut written));
        self.absent |= written.is_absent();
        // Text that is empty shows in a key as two quotes.
        if written.as_str() != "\"\"" {
            self.text.push_str(&unescaped(written.as_str()));
        }
    }

    /// The text, unless there is no tag.
    pub(crate) fn into_text(self) -> Option<String> {
        (!self.absent).then_some(self.text)
    }

    /// The name in records, unless there is no tag.
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

/// Takes back what [`KeyWriter::text`] escapes.
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
        // A text that reads like it is a text.
        assert_eq!(&*written(&Some("!")), "author:!");
        // One of several placeholders is enough.
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
