//! The application's values of one session: typed reading, and what may be written.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::config::Config;
use super::error::{SessionError, SessionErrorKind};
use super::express::RESERVED;
use super::meta::Meta;
use super::record::{COOKIE, MaxAge, Record, is_meta_name, raw, unfit_for_express};

/// What is in a session, to be read.
pub struct SessionValues<'a>(pub(super) &'a Record);

impl SessionValues<'_> {
    /// A value; `None`: there is none.
    ///
    /// # Errors
    /// [`SessionErrorKind::Value`] for one of another type.
    pub fn get<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, SessionError> {
        if name == COOKIE {
            return Ok(None);
        }
        self.0.value(name).transpose().map_err(|error| not_of_type(name, &error))
    }

    /// Who is logged in.
    #[must_use]
    pub fn user(&self) -> Option<String> {
        Meta::of(self.0).user
    }

    /// The names of all values, in the order in which they were first set.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.names()
    }

    /// How long the session is to live after each use; `None`: until the browser is closed.
    #[must_use]
    pub fn max_age(&self) -> Option<Duration> {
        match self.0.cookie().max_age() {
            MaxAge::Millis(millis) => Some(Duration::from_millis(u64::try_from(millis).unwrap_or(0))),
            MaxAge::Browser => None,
        }
    }
}

impl fmt::Debug for SessionValues<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionValues(..)")
    }
}

/// The texts of serde_json may quote the value: only the place is told.
pub(super) fn not_of_type(name: &str, error: &serde_json::Error) -> SessionError {
    SessionError::new(SessionErrorKind::Value)
        .detail(format!("`{name}` is not of the type that was asked for (column {})", error.column()))
}

/// A number and so much more, as it is stored and in whole. As in JavaScript `null` is zero, and it
/// does not matter how a number is written.
pub(super) fn counted(name: &str, stood: Option<&RawValue>, by: i64) -> Result<(Box<RawValue>, i64), SessionError> {
    let text = stood.map_or("0", |raw| if raw.get() == "null" { "0" } else { raw.get() });
    let sum = match text.parse::<i64>() {
        Ok(number) => Counted::Whole(number.saturating_add(by)),
        Err(_) => {
            let number: f64 = serde_json::from_str(text).map_err(|error| not_of_type(name, &error))?;
            #[expect(clippy::cast_precision_loss, reason = "as JavaScript counts")]
            let sum = number + by as f64;
            let exact = sum.abs() <= LARGEST_SAFE_FLOAT;
            if exact && sum.fract() == 0.0 { Counted::Whole(sum as i64) } else { Counted::Fraction(sum) }
        }
    };
    let (stored, whole) = match sum {
        Counted::Whole(sum) => (raw(&sum), sum),
        // Saturates.
        Counted::Fraction(sum) => (raw(&sum), sum.trunc() as i64),
    };
    Ok((stored.map_err(|error| not_of_type(name, &error))?, whole))
}

enum Counted {
    Whole(i64),
    Fraction(f64),
}

/// 2^53 - 1
const LARGEST_SAFE_FLOAT: f64 = 9_007_199_254_740_991.0;

/// Whether values may be stored under this name.
pub(super) fn check_name(config: &Config, name: &str) -> Result<(), SessionError> {
    let detail = if name == COOKIE || is_meta_name(name) {
        "the session itself uses it"
    } else if config.shares_with_express() && RESERVED.contains(&name) {
        "Express takes it away when it reads the session"
    } else {
        return Ok(());
    };
    Err(SessionError::new(SessionErrorKind::ReservedName).detail(format!("`{name}`: {detail}; choose another name")))
}

/// A value as it will stand in the store.
pub(super) fn to_raw<T: Serialize + ?Sized>(
    config: &Config,
    name: &str,
    value: &T,
) -> Result<Box<RawValue>, SessionError> {
    let raw = raw(value).map_err(|error| {
        SessionError::new(SessionErrorKind::Value).detail(format!("`{name}` has no JSON form")).source(error)
    })?;
    check_value(config, name, &raw)?;
    Ok(raw)
}

pub(super) fn check_value(config: &Config, name: &str, raw: &RawValue) -> Result<(), SessionError> {
    match unfit_for_express(raw).filter(|_| config.shares_with_express()) {
        Some(why) => Err(SessionError::new(SessionErrorKind::Value).detail(format!("`{name}`: {why}"))),
        None => Ok(()),
    }
}
