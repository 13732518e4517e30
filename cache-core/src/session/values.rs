//! The application's values of one session: typed reads, and counting.

use std::fmt;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::error::{SessionError, SessionErrorKind};
use super::stored::record::{COOKIE, MaxAge, Record, raw};

/// Read access to the values of a session.
pub struct SessionValues<'a>(pub(super) &'a Record);

impl SessionValues<'_> {
    /// Returns a value, or `None` if there is none.
    ///
    /// # Errors
    /// [`SessionErrorKind::Value`] for a value of another type.
    pub fn get<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, SessionError> {
        if name == COOKIE {
            return Ok(None);
        }
        self.0.value(name).transpose().map_err(|error| not_of_type(name, &error))
    }

    /// Returns the logged-in user.
    #[must_use]
    pub fn user(&self) -> Option<String> {
        self.0.meta.user.clone()
    }

    /// Returns the names of all values, in the order in which they were first set.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.names()
    }

    /// Returns how long the session lives after each use; `None` means until the browser is closed.
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

/// Makes an error with the position only: the texts of serde_json may quote the value.
pub(super) fn not_of_type(name: &str, error: &serde_json::Error) -> SessionError {
    SessionError::new(SessionErrorKind::Value)
        .detail(format!("`{name}` does not have the requested type (column {})", error.column()))
}

/// Adds to a number. Returns the sum as stored and its whole part. As in JavaScript, `null` is
/// zero, and the notation of a number does not matter.
pub(super) fn counted(name: &str, stood: Option<&RawValue>, by: i64) -> Result<(Box<RawValue>, i64), SessionError> {
    let text = stood.map_or("0", |raw| if raw.get() == "null" { "0" } else { raw.get() });
    let sum = match text.parse::<i64>() {
        Ok(number) => Counted::Whole(number.saturating_add(by)),
        Err(_) => {
            let number: f64 = serde_json::from_str(text).map_err(|error| not_of_type(name, &error))?;
            #[expect(clippy::cast_precision_loss, reason = "the same precision as in JavaScript")]
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
