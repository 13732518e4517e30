//! The stored session: a JSON object with `cookie` first, then the application's values.
//!
//! Invariant: an unchanged value is written back byte for byte. Each value is kept as the text that
//! was read. So numbers of any size, lone surrogates and any nesting survive, which a parsed JSON
//! value would lose.

mod cookie;

use indexmap::IndexMap;
use serde::Deserialize;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde_json::value::{RawValue, to_raw_value};

pub(in crate::session) use self::cookie::{MaxAge, StoredCookie};
use super::meta::Meta;
use crate::session::id::{Keyring, Signed};

pub(in crate::session) const COOKIE: &str = "cookie";
/// The member for the library's metadata. Express keeps top-level members that it does not know.
pub(in crate::session) const META: &str = "_m";
/// Larger integers change their value when an Express peer saves the session.
const LARGEST_SAFE: u64 = (1 << 53) - 1;
/// An Express peer's hash of a session overflows its stack at a few thousand levels.
const DEEPEST: usize = 100;

type Raw = Box<RawValue>;

/// A session's top-level members, in order.
///
/// Invariant: `meta` is the metadata of the session, whatever the member `own` contains; that
/// member is rebuilt from it at each write. A member that looks like it but was not signed by this
/// server is a value of the application.
#[derive(Debug, Clone, Default)]
pub(in crate::session) struct Record {
    members: IndexMap<String, Raw>,
    pub(in crate::session) meta: Meta,
    /// The name of the library's own member.
    own: Option<String>,
    /// Whether it was signed with a secret that is being rotated out.
    pub(in crate::session) signed_long_ago: bool,
}

/// What was found under a session's key.
#[derive(Debug)]
pub(in crate::session) enum Found {
    /// A session.
    Record(Record),
    /// A value that counts as no session: an Express peer's `null`, or the marker of old stores.
    Nothing,
    /// Something else, with the reason. It is left as it is.
    Unreadable(&'static str),
}

impl Record {
    /// Reads stored JSON.
    pub(in crate::session) fn read(bytes: &[u8]) -> Found {
        // connect-redis 6.1.0 and 6.1.2 wrote this word in place of a destroyed session.
        if matches!(bytes.trim_ascii(), b"" | b"null" | b"false" | b"TOMBSTONE") {
            return Found::Nothing;
        }
        let Ok(record) = serde_json::from_slice::<Self>(bytes) else {
            return Found::Unreadable("not a JSON object");
        };
        match record.members.get(COOKIE) {
            None => Found::Unreadable("there is no `cookie` in it"),
            Some(cookie) if StoredCookie::read(cookie).is_none() => Found::Unreadable("its `cookie` is not an object"),
            Some(_) => Found::Record(record),
        }
    }

    /// Returns the JSON to store.
    pub(in crate::session) fn write(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.size());
        out.push(b'{');
        for (index, (name, value)) in self.members.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            write_text(name, &mut out);
            out.push(b':');
            out.extend_from_slice(value.get().as_bytes());
        }
        out.push(b'}');
        out
    }

    /// Returns the approximate size of the JSON in bytes.
    pub(in crate::session) fn size(&self) -> usize {
        size_of(self.members.iter().map(|(name, value)| (name.as_str(), value.get())))
    }

    /// Returns the approximate size of the application's values in bytes.
    pub(in crate::session) fn size_of_values(&self) -> usize {
        size_of(self.values())
    }

    /// Finds the metadata that this server has signed for this session. `context`: what the
    /// signature is bound to.
    pub(in crate::session) fn claim(&mut self, keyring: &Keyring, context: impl FnOnce() -> String) {
        if !self.members.keys().any(|name| is_meta_name(name)) {
            return;
        }
        let context = context();
        let candidates = self.members.iter().filter(|(name, _)| is_meta_name(name));
        let found = candidates.filter_map(|(name, raw)| Some((name, Meta::verified(raw, keyring, &context)?)));
        let found = found.map(|(name, (meta, signed))| (name.clone(), meta, signed)).next();
        if let Some((name, meta, signed)) = found {
            self.own = Some(name);
            self.meta = meta;
            self.signed_long_ago = signed == Signed::Old;
        }
    }

    /// Writes the signed metadata into the members. A value that an Express peer has stored under
    /// the usual name is kept; the metadata then gets another name.
    pub(in crate::session) fn sign(&mut self, keyring: &Keyring, context: &str) {
        let own = self.own.take();
        self.signed_long_ago = false;
        let Some(raw) = self.meta.signed(keyring, context) else {
            if let Some(own) = own {
                self.members.shift_remove(&own);
            }
            return;
        };
        let own = own.unwrap_or_else(|| {
            let mut name = META.to_owned();
            let mut number = 2_u32;
            while self.members.contains_key(&name) {
                name = format!("{META}{number}");
                number = number.saturating_add(1);
            }
            name
        });
        self.set(&own, raw);
        self.own = Some(own);
    }

    pub(in crate::session) fn raw(&self, name: &str) -> Option<&RawValue> {
        self.members.get(name).filter(|_| !self.is_own(name)).map(|raw| &**raw)
    }

    pub(in crate::session) fn value<T: DeserializeOwned>(&self, name: &str) -> Option<Result<T, serde_json::Error>> {
        self.raw(name).map(|raw| serde_json::from_str(raw.get()))
    }

    pub(in crate::session) fn set(&mut self, name: &str, value: Raw) {
        match self.members.get_mut(name) {
            Some(place) => *place = value,
            None => drop(self.members.insert(name.to_owned(), value)),
        }
    }

    pub(in crate::session) fn remove(&mut self, name: &str) -> Option<Raw> {
        self.members.shift_remove(name)
    }

    /// Removes the application's values.
    pub(in crate::session) fn clear(&mut self) {
        let own = self.own.as_deref();
        self.members.retain(|name, _| name == COOKIE || Some(name.as_str()) == own);
    }

    /// Returns the names of the application's values.
    pub(in crate::session) fn names(&self) -> impl Iterator<Item = &str> {
        self.values().map(|(name, _)| name)
    }

    fn values(&self) -> impl Iterator<Item = (&str, &str)> {
        let values = self.members.iter().filter(|(name, _)| *name != COOKIE && !self.is_own(name));
        values.map(|(name, raw)| (name.as_str(), raw.get()))
    }

    fn is_own(&self, name: &str) -> bool {
        self.own.as_deref() == Some(name)
    }

    pub(in crate::session) fn cookie(&self) -> StoredCookie {
        self.raw(COOKIE).and_then(StoredCookie::read).unwrap_or_default()
    }

    pub(in crate::session) fn set_cookie(&mut self, cookie: &StoredCookie) {
        // It is always first, wherever it was before.
        self.members.shift_insert(0, COOKIE.to_owned(), cookie.write());
    }

    /// Returns whether everything except `cookie` is the same. Express compares this to decide
    /// whether to save.
    pub(in crate::session) fn same_values(&self, other: &Self) -> bool {
        self.meta == other.meta && self.values().eq(other.values())
    }
}

impl<'de> Deserialize<'de> for Record {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Record;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a session")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Record, A::Error> {
                let mut record = Record::default();
                // Of equal names the last value counts, at the position of the first, as in
                // JavaScript.
                while let Some((name, value)) = map.next_entry::<String, Raw>()? {
                    record.set(&name, value);
                }
                Ok(record)
            }
        }
        deserializer.deserialize_map(Members)
    }
}

fn size_of<'a>(members: impl Iterator<Item = (&'a str, &'a str)>) -> usize {
    members.fold(2, |size, (name, value)| size.saturating_add(name.len()).saturating_add(value.len()).saturating_add(4))
}

/// Returns whether this is `_m`, possibly followed by a number.
pub(in crate::session) fn is_meta_name(name: &str) -> bool {
    name.strip_prefix(META).is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()))
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    // Writing a text into memory cannot fail.
    drop(serde_json::to_writer(out, text));
}

/// Encodes a value as JSON text.
pub(in crate::session) fn raw<T: serde::Serialize + ?Sized>(value: &T) -> Result<Raw, serde_json::Error> {
    to_raw_value(value)
}

/// Returns why an Express peer would not keep this value unchanged.
pub(in crate::session) fn lossy_in_express(value: &RawValue) -> Option<&'static str> {
    let mut depth = 0_usize;
    let mut rest = value.get().as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        match first {
            b'[' | b'{' => depth = depth.saturating_add(1),
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => rest = after_text(rest),
            b'0'..=b'9' => {
                let is_digit = |byte: &u8| !matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-');
                let end = behind.iter().position(is_digit).unwrap_or(behind.len());
                let (more, after) = behind.split_at(end);
                let number = [&[*first], more].concat();
                let whole = number.iter().all(u8::is_ascii_digit);
                let fits =
                    str::from_utf8(&number).is_ok_and(|digits| digits.parse().is_ok_and(|n: u64| n <= LARGEST_SAFE));
                if whole && !fits {
                    return Some("an integer beyond 2^53 - 1; store it as text");
                }
                rest = after;
            }
            _ => {}
        }
        if depth > DEEPEST {
            return Some("nested more than 100 levels deep");
        }
    }
    None
}

/// Returns what follows the closing quote of a JSON string.
fn after_text(mut rest: &[u8]) -> &[u8] {
    while let Some((first, behind)) = rest.split_first() {
        rest = match first {
            b'"' => return behind,
            b'\\' => behind.get(1..).unwrap_or_default(),
            _ => behind,
        };
    }
    rest
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::clock::Timestamp;

    const STORED: &str = r#"{"cookie":{"originalMaxAge":600000,"expires":"2026-11-20T09:21:22.716Z","httpOnly":true,"path":"/"},"views":1}"#;

    fn record(text: &str) -> Record {
        match Record::read(text.as_bytes()) {
            Found::Record(record) => record,
            other => panic!("{text}: {other:?}"),
        }
    }

    fn written(record: &Record) -> String {
        String::from_utf8(record.write()).unwrap()
    }

    #[test]
    fn values_go_back_byte_for_byte() {
        let odd = r#"18446744073709551616,1.0,-0,1e400,"\ud800","\u0000\u2028",{"b" : [ 1 , 2 ],"a":1}"#;
        let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
        let text = format!(r#"{{"cookie":{{}},"odd":[{odd}],"deep":{deep},"2":1,"é\"":null}}"#);
        let mut record = record(&text);
        assert_eq!(written(&record), text);
        record.set("views", raw(&2).unwrap());
        assert_eq!(written(&record), text.replace(":null}", ":null,\"views\":2}"));
        record.remove("views");
        assert_eq!(written(&record), text);
    }

    #[test]
    fn absent_sessions_and_unreadable_bytes_are_distinguished() {
        for nothing in ["", "null", " null\n", "false", "TOMBSTONE"] {
            assert!(matches!(Record::read(nothing.as_bytes()), Found::Nothing), "{nothing}");
        }
        for unreadable in [
            "5",
            "\"x\"",
            "true",
            "[]",
            "{}",
            r#"{"views":1}"#,
            r#"{"cookie":null}"#,
            r#"{"cookie":"x"}"#,
            r#"{"cookie":{}"#,
            r#"{"cookie":{}} x"#,
            r#"{"\ud800":1,"cookie":{}}"#,
            r#"{"cookie":[]}"#,
        ] {
            assert!(matches!(Record::read(unreadable.as_bytes()), Found::Unreadable(_)), "{unreadable}");
        }
        assert!(matches!(Record::read(b"{\"cookie\":{},\"a\":\"\xff\"}"), Found::Unreadable(_)));
        assert!(matches!(Record::read(b"{\"cookie\":{}}"), Found::Record(_)));
    }

    #[test]
    fn the_last_of_equal_names_counts() {
        assert_eq!(written(&record(r#"{"cookie":{},"a":1,"b":2,"a":3}"#)), r#"{"cookie":{},"a":3,"b":2}"#);
    }

    #[test]
    fn a_save_restarts_the_expiry_and_changes_nothing_else_in_the_cookie() {
        let now = Timestamp::from_millis(1_795_166_482_716);
        let renewed = |cookie: &str| {
            let mut record = record(&format!(r#"{{"a":1,"cookie":{cookie}}}"#));
            let mut cookie = record.cookie();
            cookie.renew(now);
            record.set_cookie(&cookie);
            written(&record)
        };
        let at = "2026-11-20T09:21:22.716Z";
        for (cookie, after) in [
            (
                r#"{"originalMaxAge":0,"expires":"x","path":"/"}"#,
                format!(r#"{{"originalMaxAge":0,"expires":"{at}","path":"/"}}"#),
            ),
            (r#"{"originalMaxAge":0}"#, format!(r#"{{"originalMaxAge":0,"expires":"{at}"}}"#)),
            (
                r#"{"originalMaxAge":1.5,"expires":0}"#,
                r#"{"originalMaxAge":1.5,"expires":"2026-11-20T09:21:22.717Z"}"#.to_owned(),
            ),
            (
                r#"{"originalMaxAge":1e3,"expires":0}"#,
                r#"{"originalMaxAge":1e3,"expires":"2026-11-20T09:21:23.716Z"}"#.to_owned(),
            ),
            (r#"{"originalMaxAge":null,"expires":"garbage"}"#, r#"{"originalMaxAge":null,"expires":null}"#.to_owned()),
            (r#"{"originalMaxAge":false,"expires":false}"#, r#"{"originalMaxAge":false,"expires":false}"#.to_owned()),
            (r#"{"originalMaxAge":"5","unknown":[1]}"#, r#"{"originalMaxAge":null,"unknown":[1]}"#.to_owned()),
            ("{}", "{}".to_owned()),
        ] {
            assert_eq!(renewed(cookie), format!(r#"{{"cookie":{after},"a":1}}"#), "{cookie}");
        }
    }

    #[test]
    fn only_values_are_compared() {
        let (a, b) = (record(STORED), record(&STORED.replace("600000", "5")));
        assert!(a.same_values(&b));
        assert!(!a.same_values(&record(&STORED.replace("\"views\":1", "\"views\":2"))));
        // N4: what we have signed stays, and what only looks like it is a value.
        let keyring = Keyring::new(vec![crate::session::id::Secret::new("ours")], true).unwrap();
        let mut cleared = record(r#"{"cookie":{},"_m":{"c":1},"a":1}"#);
        assert_eq!(cleared.names().collect::<Vec<_>>(), ["_m", "a"]);
        cleared.meta.created = Some(Timestamp::from_millis(1));
        cleared.sign(&keyring, "here");
        cleared.clear();
        let own = cleared.members["_m2"].get();
        assert_eq!(written(&cleared), format!(r#"{{"cookie":{{}},"_m2":{own}}}"#));
        assert_eq!(cleared.names().count(), 0);
    }

    #[test]
    fn what_an_express_peer_would_change_is_found() {
        let lossy = |value: serde_json::Value| lossy_in_express(&raw(&value).unwrap());
        for fits in [
            json!(9_007_199_254_740_991_u64),
            json!(-9_007_199_254_740_991_i64),
            json!(1.5e300),
            json!("12345678901234567890"),
            json!({"12345678901234567890": ["\\\"12345678901234567890", 1.0]}),
            json!(null),
        ] {
            assert_eq!(lossy(fits.clone()), None, "{fits}");
        }
        for bad in [json!(9_007_199_254_740_992_u64), json!(i64::MIN), json!({"a": ["\\", u64::MAX]})] {
            assert!(lossy(bad.clone()).is_some(), "{bad}");
        }
        let nested =
            |depth: usize| RawValue::from_string(format!("{}{}", "[".repeat(depth), "]".repeat(depth))).unwrap();
        assert_eq!(lossy_in_express(&nested(100)), None);
        assert!(lossy_in_express(&nested(101)).is_some());
    }

    #[test]
    fn arbitrary_bytes_are_read_without_a_panic() {
        // xorshift64*, so that a failure can be reproduced.
        let mut state = 7_u64;
        let mut below = |bound: usize| {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            (state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % bound
        };
        let mut sessions = 0;
        for _ in 0..20_000 {
            let mut bytes = STORED.as_bytes().to_vec();
            for _ in 0..=below(3) {
                let (at, other) = (below(bytes.len()), below(256) as u8);
                match below(3) {
                    0 => bytes[at] = other,
                    1 => drop(bytes.remove(at)),
                    _ => bytes.insert(at, b"{}[]\",:\\0"[below(9)]),
                }
            }
            if let Found::Record(mut found) = Record::read(&bytes) {
                sessions += 1;
                let again = written(&found);
                assert_eq!(written(&record(&again)), again);
                let mut cookie = found.cookie();
                cookie.renew(Timestamp::from_millis(0));
                found.set_cookie(&cookie);
                assert!(serde_json::from_str::<serde::de::IgnoredAny>(&written(&found)).is_ok());
                for name in found.names().collect::<Vec<_>>() {
                    lossy_in_express(found.raw(name).unwrap());
                }
            }
        }
        assert!(sessions > 1000, "{sessions}");
    }
}
