//! The `Cookie` and `Set-Cookie` headers, in the grammar that Express peers read and write.
//!
//! Reading is as lenient as theirs (percent-encoded or bare, quoted, several headers, the first of
//! equal names), and writing as strict.

use std::fmt::Write as _;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::clock::Timestamp;
use crate::session::date;
use crate::session::options::is_attribute_text;

/// Returns the decoded value of the first cookie with this name in the `Cookie` headers. `None` if
/// there is none, or if it is not UTF-8.
pub(in crate::session) fn find<'a>(headers: impl IntoIterator<Item = &'a [u8]>, name: &str) -> Option<String> {
    let pairs = headers.into_iter().flat_map(|header| header.split(|byte| *byte == b';'));
    let value = pairs
        .filter_map(|pair| {
            let at = pair.iter().position(|byte| *byte == b'=')?;
            Some((trim(pair.get(..at)?), trim(pair.get(at.saturating_add(1)..)?)))
        })
        .find(|(found, _)| *found == name.as_bytes())?
        .1;
    let value = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value);
    let value = std::str::from_utf8(value).ok()?;
    // A value that cannot be decoded is used as it is.
    Some(percent_decoded(value).unwrap_or_else(|| value.to_owned()))
}

fn trim(bytes: &[u8]) -> &[u8] {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = bytes.iter().position(|byte| !is_space(byte)).unwrap_or(bytes.len());
    let end = bytes.iter().rposition(|byte| !is_space(byte)).map_or(start, |at| at.saturating_add(1));
    bytes.get(start..end).unwrap_or_default()
}

/// Does what `decodeURIComponent` does: a `%` without two digits after it is an error.
fn percent_decoded(text: &str) -> Option<String> {
    let is_escape =
        |rest: &str| matches!(rest.as_bytes(), [a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit());
    if !text.split('%').skip(1).all(is_escape) {
        return None;
    }
    Some(percent_decode_str(text).decode_utf8().ok()?.into_owned())
}

/// What `encodeURIComponent` escapes.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'!')
    .remove(b'~')
    .remove(b'*')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')');

/// Does what `encodeURIComponent` does.
pub(in crate::session) fn percent_encoded(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).to_string()
}

/// The attributes of a `Set-Cookie` header.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::session) struct Attributes {
    pub(in crate::session) domain: Option<String>,
    pub(in crate::session) path: Option<String>,
    pub(in crate::session) expires: Option<Timestamp>,
    /// In seconds, in addition to `expires`. Express never sends it.
    pub(in crate::session) max_age: Option<u64>,
    pub(in crate::session) http_only: bool,
    pub(in crate::session) secure: bool,
    pub(in crate::session) partitioned: bool,
    pub(in crate::session) priority: Option<&'static str>,
    pub(in crate::session) same_site: Option<&'static str>,
}

impl Attributes {
    /// Returns the value of the header. `None` if the domain or the path contains a character that
    /// would end its attribute.
    pub(in crate::session) fn header(&self, name: &str, value: &str) -> Option<String> {
        let mut out = format!("{name}={}", percent_encoded(value));
        for (attribute, text) in [("Domain", &self.domain), ("Path", &self.path)] {
            if let Some(text) = text {
                if !is_attribute_text(text) {
                    return None;
                }
                let _never_fails = write!(out, "; {attribute}={text}");
            }
        }
        if let Some(seconds) = self.max_age {
            let _never_fails = write!(out, "; Max-Age={seconds}");
        }
        if let Some(expires) = self.expires {
            let _never_fails = write!(out, "; Expires={}", date::http(expires));
        }
        for (flag, attribute) in
            [(self.http_only, "HttpOnly"), (self.secure, "Secure"), (self.partitioned, "Partitioned")]
        {
            if flag {
                let _never_fails = write!(out, "; {attribute}");
            }
        }
        for (attribute, text) in [("Priority", self.priority), ("SameSite", self.same_site)] {
            if let Some(text) = text {
                let _never_fails = write!(out, "; {attribute}={text}");
            }
        }
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "s:R1UqolVb-Rd2gJef9Rbx-PLyuQev7t3y.ySXJuMFNnlbtXsjDNjR+Yzu51FNxPbNd5fAXqGG8yqE";
    const ENCODED: &str = "s%3AR1UqolVb-Rd2gJef9Rbx-PLyuQev7t3y.ySXJuMFNnlbtXsjDNjR%2BYzu51FNxPbNd5fAXqGG8yqE";

    fn found(headers: &[&str]) -> Option<String> {
        find(headers.iter().map(|header| header.as_bytes()), "connect.sid")
    }

    #[test]
    fn what_express_accepts_is_read() {
        let lower = ENCODED.replace("%3A", "%3a").replace("%2B", "%2b");
        let half = ID.replacen(':', "%3A", 1);
        for value in [ENCODED, ID, &lower, &half, &format!("\"{ENCODED}\"")] {
            for header in [
                format!("connect.sid={value}"),
                format!("a=b; connect.sid={value}; c=d"),
                format!("a=b;connect.sid={value};c=d"),
                format!(" \t connect.sid \t= \t{value} \t"),
                format!("a; connect.sid={value}; connect.sid=second"),
                format!("a==; connect.sid={value}"),
            ] {
                assert_eq!(found(&[&header]).as_deref(), Some(ID), "{header}");
            }
            assert_eq!(found(&["a=b", &format!("connect.sid={value}"), "c=d"]).as_deref(), Some(ID));
        }
    }

    #[test]
    fn what_express_does_not_find_is_not_found() {
        for header in [
            "",
            "connect.sid",
            "Connect.sid=1",
            "connect.sid2=1",
            "xconnect.sid=1",
            "a=b, connect.sid=1",
            ";=;;",
            "=connect.sid",
        ] {
            assert_eq!(found(&[header]), None, "{header}");
        }
        assert_eq!(find([&b"connect.sid=\xff"[..]], "connect.sid"), None);
    }

    #[test]
    fn what_cannot_be_decoded_is_taken_as_it_is() {
        for value in ["s%3Aabc%zz", "s%3Aabc%", "s%3Aabc%f", "%ff"] {
            assert_eq!(found(&[&format!("connect.sid={value}")]).as_deref(), Some(value));
        }
        // Decoded only once.
        assert_eq!(found(&["connect.sid=s%253Aabc"]).as_deref(), Some("s%3Aabc"));
        // A bad cookie that comes first hides a good one after it.
        assert_eq!(found(&[&format!("connect.sid=bad; connect.sid={ENCODED}")]).as_deref(), Some("bad"));
        assert_eq!(found(&["connect.sid=\"a"]).as_deref(), Some("\"a"));
    }

    #[test]
    fn values_are_encoded_as_express_does() {
        assert_eq!(percent_encoded(ID), ENCODED);
        assert_eq!(percent_encoded("AZaz09-_.!~*'()"), "AZaz09-_.!~*'()");
        assert_eq!(percent_encoded("/+= ;,\"é\r\n"), "%2F%2B%3D%20%3B%2C%22%C3%A9%0D%0A");
    }

    #[test]
    fn attributes_are_in_the_order_of_express() {
        let all = Attributes {
            domain: Some("example.com".into()),
            path: Some("/".into()),
            expires: Some(Timestamp::from_millis(1_795_166_482_716)),
            max_age: None,
            http_only: true,
            secure: true,
            partitioned: true,
            priority: Some("High"),
            same_site: Some("Strict"),
        };
        assert_eq!(
            all.header("sid", "a:b").unwrap(),
            "sid=a%3Ab; Domain=example.com; Path=/; Expires=Fri, 20 Nov 2026 09:21:22 GMT; HttpOnly; Secure; Partitioned; \
             Priority=High; SameSite=Strict"
        );
        assert_eq!(Attributes::default().header("sid", "").unwrap(), "sid=");
        for bad in ["/;Domain=evil", "/\r\nX: y", "/\u{e9}"] {
            assert_eq!(Attributes { path: Some(bad.into()), ..Attributes::default() }.header("sid", "a"), None);
        }
    }
}
