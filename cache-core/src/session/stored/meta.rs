//! Library metadata stored in the session record, next to the application's values: one top-level
//! member, `_m`, present only if needed. Express peers keep it as an unknown value.
//!
//! Invariant: it counts only if it is signed with one of the secrets for this session. If users can
//! choose the names of values, an Express peer stores whatever they like under this name too, which
//! must not give them the identity of another user.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

use crate::clock::Timestamp;
use crate::session::id::{Keyring, Signed};

/// The member with the signature of the others.
const SIGNATURE: &str = "s";

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::session) struct Meta {
    /// When the session began. The absolute timeout counts from here.
    pub(in crate::session) created: Option<Timestamp>,
    /// The logged-in user.
    pub(in crate::session) user: Option<String>,
    /// When the user logged in.
    pub(in crate::session) since: Option<Timestamp>,
    /// Until when the session is in its user's index, at least.
    pub(in crate::session) indexed: Option<Timestamp>,
    /// Whether it uses a header instead of a cookie.
    pub(in crate::session) by_header: bool,
    /// The description of the device of the login.
    pub(in crate::session) device: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    c: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    u: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    a: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    i: Option<u64>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    h: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    d: Option<String>,
}

/// By name, so that the order is fixed, whatever order they are stored in. May contain members of a
/// later build that are unknown here.
type Members = BTreeMap<String, Value>;

impl Meta {
    /// Returns the metadata, or `None` if it was not signed by this server or not for this context.
    pub(in crate::session) fn verified(raw: &RawValue, keyring: &Keyring, context: &str) -> Option<(Self, Signed)> {
        let mut members: Members = serde_json::from_str(raw.get()).ok()?;
        let Some(Value::String(signature)) = members.remove(SIGNATURE) else { return None };
        let signed = keyring.check(message(&members, context)?.as_bytes(), &signature)?;
        let Stored { c, u, a, i, h, d } = serde_json::from_value(members.into_iter().collect()).ok()?;
        let meta = Self {
            created: c.map(Timestamp::from_millis),
            user: u,
            since: a.map(Timestamp::from_millis),
            indexed: i.map(Timestamp::from_millis),
            by_header: h,
            device: d,
        };
        Some((meta, signed))
    }

    /// Returns the member to store, or `None` if there is no metadata.
    pub(in crate::session) fn signed(&self, keyring: &Keyring, context: &str) -> Option<Box<RawValue>> {
        if *self == Self::default() {
            return None;
        }
        let stored = Stored {
            c: self.created.map(Timestamp::as_millis),
            u: self.user.clone(),
            a: self.since.map(Timestamp::as_millis),
            i: self.indexed.map(Timestamp::as_millis),
            h: self.by_header,
            d: self.device.clone(),
        };
        let Ok(Value::Object(members)) = serde_json::to_value(stored) else { return None };
        let mut members: Members = members.into_iter().collect();
        let signature = keyring.mac(message(&members, context)?.as_bytes());
        members.insert(SIGNATURE.to_owned(), Value::String(signature));
        to_raw_value(&members).ok()
    }
}

/// Returns the message to sign. An id contains no control character, so a signature of an id is
/// never valid for this, nor the other way round.
fn message(members: &Members, context: &str) -> Option<String> {
    Some(format!("session\0{context}\0{}", serde_json::to_string(members).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::id::Secret;

    fn keyring(secrets: &[&str]) -> Keyring {
        Keyring::new(secrets.iter().map(Secret::new).collect(), true).unwrap()
    }

    #[test]
    fn only_metadata_signed_for_this_session_counts() {
        // N4
        let (ours, other) = (keyring(&["ours"]), keyring(&["other"]));
        let meta = Meta { user: Some("ada".into()), since: Some(Timestamp::from_millis(7)), ..Meta::default() };
        let text = meta.signed(&ours, "here").unwrap();
        let (read, signed) = Meta::verified(&text, &ours, "here").unwrap();
        assert_eq!((read, signed), (meta.clone(), Signed::Current));
        assert!(Meta::verified(&text, &ours, "elsewhere").is_none());
        assert!(Meta::verified(&text, &other, "here").is_none());
        let (_, signed) = Meta::verified(&text, &keyring(&["other", "ours"]), "here").unwrap();
        assert_eq!(signed, Signed::Old);
        // Valid in whatever order and with whatever blanks a peer writes it back.
        let signature = text.get().split("\"s\":").nth(1).unwrap().split('"').nth(1).unwrap();
        let other_order = format!(r#"{{ "s":"{signature}","u":"ada", "a":7 }}"#);
        assert!(Meta::verified(&RawValue::from_string(other_order).unwrap(), &ours, "here").is_some());
        for forged in [r#"{"u":"ada"}"#, r#"{"u":"ada","s":""}"#, r#"{"u":"ada","s":1}"#, "[]", "1", "null"] {
            let forged = RawValue::from_string(forged.to_owned()).unwrap();
            assert!(Meta::verified(&forged, &ours, "here").is_none(), "{forged}");
        }
        let forged = RawValue::from_string(text.get().replace("ada", "eve")).unwrap();
        assert!(Meta::verified(&forged, &ours, "here").is_none());
        assert!(Meta::default().signed(&ours, "here").is_none());
    }
}
