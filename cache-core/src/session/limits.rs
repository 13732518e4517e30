//! Checks of what the application may store in a session.

use serde::Serialize;
use serde_json::value::RawValue;

use super::config::Config;
use super::error::{SessionError, SessionErrorKind};
use super::express::RESERVED;
use super::stored::record::{COOKIE, is_meta_name, lossy_in_express, raw};

/// Checks whether values may be stored under this name.
pub(super) fn check_name(config: &Config, name: &str) -> Result<(), SessionError> {
    let detail = if name == COOKIE || is_meta_name(name) {
        "the session uses this name itself"
    } else if config.shares_with_express() && RESERVED.contains(&name) {
        "Express removes this name when it reads the session"
    } else {
        return Ok(());
    };
    Err(SessionError::new(SessionErrorKind::ReservedName).detail(format!("`{name}`: {detail}; choose another name")))
}

/// Encodes a value for the store.
pub(super) fn to_raw<T: Serialize + ?Sized>(
    config: &Config,
    name: &str,
    value: &T,
) -> Result<Box<RawValue>, SessionError> {
    let raw = raw(value).map_err(|error| {
        SessionError::new(SessionErrorKind::Value).detail(format!("`{name}` cannot be encoded as JSON")).source(error)
    })?;
    check_value(config, name, &raw)?;
    Ok(raw)
}

pub(super) fn check_value(config: &Config, name: &str, raw: &RawValue) -> Result<(), SessionError> {
    match lossy_in_express(raw).filter(|_| config.shares_with_express()) {
        Some(why) => Err(SessionError::new(SessionErrorKind::Value).detail(format!("`{name}`: {why}"))),
        None => Ok(()),
    }
}
