//! Reads what clients and stores contain, without a layer. Not a stable interface; for fuzzing and
//! abuse tests.

use super::id::{Keyring, Secret, SessionId};
use super::stored::record::{self, Found, Record};
use super::web::cookie;
use super::{SessionLayer, SessionMode};
use crate::cache::Cache;
use crate::clock::Timestamp;

/// Returns the cookie's value for an id. `None` if the id is invalid, or the secret is empty.
#[must_use]
pub fn cookie_value(id: &str, secret: &[u8]) -> Option<String> {
    let keyring = Keyring::new(vec![Secret::new(secret)], true).ok()?;
    Some(cookie::percent_encoded(&format!("s:{}", keyring.sign(&SessionId::parse(id)?))))
}

/// Returns the id from `Cookie` headers, if one of the secrets signed it.
#[must_use]
pub fn verified_id(headers: &[&[u8]], name: &str, secrets: &[&[u8]]) -> Option<String> {
    let keyring = Keyring::new(secrets.iter().map(Secret::new).collect(), true).ok()?;
    let value = cookie::find(headers.iter().copied(), name)?;
    let (id, _) = keyring.verify(value.strip_prefix("s:")?)?;
    Some(id.reveal().to_owned())
}

/// Returns the id of a token in a header, if the secret signed it.
#[must_use]
pub fn verified_token(token: &str, secret: &[u8]) -> Option<String> {
    let keyring = Keyring::new(vec![Secret::new(secret)], true).ok()?;
    keyring.verify(token).map(|(id, _)| id.reveal().to_owned())
}

/// Returns the stored session with its list entry extended until then. `None` if no user is logged
/// in with it.
#[must_use]
pub fn listed_until(stored: &str, key: &str, secret: &str, until: u64) -> Option<String> {
    let layer = SessionLayer::builder(&Cache::in_memory()).secret(secret).mode(SessionMode::Express).build().ok()?;
    let (keyring, context) = (&layer.0.config.keyring, layer.0.config.context(key));
    let Found::Record(mut record) = Record::read(stored.as_bytes()) else { return None };
    record.claim(keyring, || context.clone());
    record.meta.user.as_ref()?;
    record.meta.indexed = Some(Timestamp::from_millis(until));
    record.sign(keyring, &context);
    String::from_utf8(record.write()).ok()
}

/// Returns what a request that sets one value makes of a stored session. `None` if it is not a
/// session.
#[must_use]
pub fn rewritten<'a>(stored: &[u8], value: impl Into<Option<(&'a str, u64)>>) -> Option<Vec<u8>> {
    let Found::Record(mut record) = Record::read(stored) else { return None };
    if let Some((name, value)) = value.into() {
        record.set(name, record::raw(&value).ok()?);
        let mut cookie = record.cookie();
        cookie.renew(Timestamp::from_millis(0));
        record.set_cookie(&cookie);
    }
    Some(record.write())
}
