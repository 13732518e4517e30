//! The attributes of a session's cookie in a response.

use std::time::Duration;

use super::cookie::Attributes;
use crate::clock::Timestamp;
use crate::session::config::{Config, Form, LONGEST_COOKIE};
use crate::session::options::{Priority, SameSite, Secure};
use crate::session::stored::record::{MaxAge, StoredCookie};

impl Config {
    /// Returns the cookie attributes. In the form of Express the stored cookie decides, as there;
    /// in the native form it only decides the lifetime.
    pub(in crate::session) fn attributes(&self, form: Form, stored: &StoredCookie, now: Timestamp) -> Attributes {
        let expires = stored.expires(now);
        match form {
            Form::Express => Attributes {
                domain: stored.text("domain").map(Into::into),
                path: Some(stored.text("path").map_or_else(|| "/".to_owned(), Into::into)),
                expires,
                max_age: None,
                http_only: stored.flag("httpOnly").unwrap_or(true),
                secure: stored.flag("secure").unwrap_or(false),
                partitioned: stored.flag("partitioned").unwrap_or(false),
                priority: stored.text("priority").and_then(|text| known(&text, &["Low", "Medium", "High"])),
                same_site: stored.text("sameSite").map_or_else(
                    || (stored.get::<bool>("sameSite") == Some(true)).then_some("Strict"),
                    |text| known(&text, &["Strict", "Lax", "None"]),
                ),
            },
            Form::Native => {
                let lasts = match stored.max_age() {
                    MaxAge::Millis(ms) => {
                        Some(Duration::from_millis(u64::try_from(ms).unwrap_or(0)).min(LONGEST_COOKIE))
                    }
                    MaxAge::Browser => None,
                };
                self.own_attributes(lasts, now)
            }
        }
    }

    /// Returns the cookie attributes of the native form.
    pub(in crate::session) fn own_attributes(&self, lasts: Option<Duration>, now: Timestamp) -> Attributes {
        let options = &self.cookie;
        Attributes {
            domain: options.domain.clone(),
            path: Some(self.path().to_owned()),
            expires: lasts.map(|lasts| now.plus(lasts)),
            max_age: lasts.map(|lasts| lasts.as_secs()),
            http_only: options.http_only.unwrap_or(true),
            secure: self.native_name.starts_with("__") || self.secure() != Secure::Never,
            partitioned: options.partitioned,
            priority: options.priority.map(|priority| match priority {
                Priority::Low => "Low",
                Priority::Medium => "Medium",
                Priority::High => "High",
            }),
            same_site: Some(match options.same_site {
                Some(SameSite::Strict) => "Strict",
                Some(SameSite::None) => "None",
                Some(SameSite::Lax | SameSite::Auto) | None => "Lax",
            }),
        }
    }
}

fn known(text: &str, words: &[&'static str]) -> Option<&'static str> {
    words.iter().find(|word| word.eq_ignore_ascii_case(text)).copied()
}
