//! What the session says of itself, beside the application's values: one top-level member, `_m`, there only if it is needed. Express
//! peers keep it as a value that they do not know.

use serde::{Deserialize, Serialize};

use super::record::{META, Record, raw};
use crate::clock::Timestamp;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Meta {
    /// When it began: what the absolute timeout counts from.
    pub(super) created: Option<Timestamp>,
    /// Whose it is.
    pub(super) user: Option<String>,
    /// When they logged in.
    pub(super) since: Option<Timestamp>,
    /// Until when it is in its user's index, at least.
    pub(super) indexed: Option<Timestamp>,
    /// It goes by a header, not by a cookie.
    pub(super) by_header: bool,
    /// On what the user logged in, in words.
    pub(super) device: Option<String>,
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

impl Meta {
    pub(super) fn of(record: &Record) -> Self {
        match record.value::<Stored>(META) {
            Some(Ok(Stored { c, u, a, i, h, d })) => Self {
                created: c.map(Timestamp::from_millis),
                user: u,
                since: a.map(Timestamp::from_millis),
                indexed: i.map(Timestamp::from_millis),
                by_header: h,
                device: d,
            },
            _ => Self::default(),
        }
    }

    pub(super) fn store(&self, record: &mut Record) {
        if *self == Self::default() {
            record.remove(META);
            return;
        }
        let stored = Stored {
            c: self.created.map(Timestamp::as_millis),
            u: self.user.clone(),
            a: self.since.map(Timestamp::as_millis),
            i: self.indexed.map(Timestamp::as_millis),
            h: self.by_header,
            d: self.device.clone(),
        };
        if let Ok(raw) = raw(&stored) {
            record.set(META, raw);
        }
    }
}
