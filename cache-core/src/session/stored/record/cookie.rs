//! The `cookie` member of a stored session.

use std::borrow::Cow;

use indexmap::IndexMap;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::{Raw, Record, raw};
use crate::clock::Timestamp;
use crate::session::date;

/// The `cookie` member: the attributes of this session's cookie, and when the session ends.
///
/// Unknown members are kept. Missing ones have Express's defaults: path `/`, http-only, no expiry.
#[derive(Debug, Clone, Default)]
pub(in crate::session) struct StoredCookie(IndexMap<String, Raw>);

/// `originalMaxAge`: how long the session lives after each use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::session) enum MaxAge {
    /// In milliseconds. Zero or less ends the session at once.
    Millis(i64),
    /// Until the browser is closed.
    Browser,
}

const ORIGINAL_MAX_AGE: &str = "originalMaxAge";
const EXPIRES: &str = "expires";

impl StoredCookie {
    pub(in crate::session) fn read(raw: &RawValue) -> Option<Self> {
        let record: Record = serde_json::from_str(raw.get()).ok()?;
        Some(Self(record.members))
    }

    /// Makes the cookie of a new session, with members in Express's order. Members that are `None`
    /// are left out.
    pub(in crate::session) fn new<'a>(members: impl IntoIterator<Item = (&'a str, Option<serde_json::Value>)>) -> Self {
        let members = members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), raw(&value?).ok()?)));
        Self(members.collect())
    }

    pub(super) fn write(&self) -> Raw {
        let text = Record { members: self.0.clone(), ..Record::default() }.write();
        let raw = String::from_utf8(text).ok().and_then(|text| RawValue::from_string(text).ok());
        // Unreachable: it is built from JSON texts.
        raw.unwrap_or_else(|| RawValue::NULL.to_owned())
    }

    pub(in crate::session) fn max_age(&self) -> MaxAge {
        match self.get::<f64>(ORIGINAL_MAX_AGE) {
            // Saturates, and truncates a fraction as JavaScript does.
            Some(millis) if millis.is_finite() => MaxAge::Millis(millis.trunc() as i64),
            _ => MaxAge::Browser,
        }
    }

    pub(in crate::session) fn set_max_age(&mut self, max_age: MaxAge) {
        let millis = match max_age {
            MaxAge::Millis(millis) => Some(millis),
            MaxAge::Browser => None,
        };
        if let Ok(raw) = raw(&millis) {
            self.put(0, ORIGINAL_MAX_AGE, raw);
        }
    }

    /// Restarts the lifetime, as each save does.
    pub(in crate::session) fn renew(&mut self, now: Timestamp) {
        // A peer throws if this is a text.
        if self.0.get(ORIGINAL_MAX_AGE).is_some_and(|raw| raw.get().starts_with('"')) {
            self.set_max_age(MaxAge::Browser);
        }
        let expires = match self.max_age() {
            MaxAge::Millis(_) => self.expires(now).and_then(|time| raw(&date::iso(time)).ok()),
            // `false` is kept.
            MaxAge::Browser if self.0.get(EXPIRES).is_some_and(|raw| raw.get() == "false") => None,
            MaxAge::Browser => self.0.contains_key(EXPIRES).then(|| raw(&()).ok()).flatten(),
        };
        if let Some(expires) = expires {
            let place = 1.min(self.0.len());
            self.put(place, EXPIRES, expires);
        }
    }

    /// Returns when the session ends if its lifetime starts now; `None` if it ends with the
    /// browser.
    pub(in crate::session) fn expires(&self, now: Timestamp) -> Option<Timestamp> {
        match self.max_age() {
            MaxAge::Millis(millis) => Some(Timestamp::from_millis(now.as_millis().saturating_add_signed(millis))),
            MaxAge::Browser => None,
        }
    }

    fn put(&mut self, place: usize, name: &str, value: Raw) {
        match self.0.get_mut(name) {
            Some(current) => *current = value,
            None => drop(self.0.shift_insert(place, name.to_owned(), value)),
        }
    }

    pub(in crate::session) fn get<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        serde_json::from_str(self.0.get(name)?.get()).ok()
    }

    /// Returns a flag as JavaScript sees it, or `None` if it is missing.
    pub(in crate::session) fn flag(&self, name: &str) -> Option<bool> {
        let text = self.0.get(name)?.get();
        Some(!matches!(text, "false" | "null" | "0" | "\"\""))
    }

    /// Returns a text member.
    pub(in crate::session) fn text(&self, name: &str) -> Option<Cow<'_, str>> {
        self.get::<String>(name).map(Cow::Owned)
    }
}
