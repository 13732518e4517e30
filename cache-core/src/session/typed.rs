//! A struct as a view of some of the session's values.
//!
//! Each field is a separate value, so two requests that change different fields both succeed.
//! Changes are found by comparing the JSON of the fields, so a change deep inside a value is
//! noticed.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::error::SessionError;
use super::express::RESERVED;
use super::limits::{check_name, check_value};
use super::stored::record::{COOKIE, META};
use super::values::SessionValues;
use super::{Result, Session};

/// A struct whose fields are values of a session. Implement it with `#[derive(SessionData)]`:
///
/// ```
/// # use cache_core::session::{Session, SessionData, SessionError};
/// #[derive(SessionData)]
/// struct Shop {
///     cart: Vec<u64>,
///     #[session(name = "lastSeen")]
///     last_seen: Option<u64>,
/// }
///
/// # async fn handler(session: Session) -> Result<(), SessionError> {
/// let shop: Shop = session.data().await?;
/// session.modify(|shop: &mut Shop| shop.cart.push(7)).await?;
/// # Ok(()) }
/// ```
///
/// A missing value becomes the default of its type. A field that serializes to `null`, as `None`
/// does, is removed.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a view of a session",
    note = "add `#[derive(SessionData)]` to `{Self}`"
)]
pub trait SessionData: Sized {
    /// Reads the struct from the session.
    ///
    /// # Errors
    /// [`SessionErrorKind::Value`](super::SessionErrorKind::Value) for a value of another type.
    fn read(values: &SessionValues<'_>) -> Result<Self>;

    /// Writes each field under its name.
    ///
    /// # Errors
    /// [`SessionErrorKind::Value`](super::SessionErrorKind::Value) for a value without a JSON form.
    fn write(&self, fields: &mut SessionFields) -> Result<()>;
}

/// The fields of a [`SessionData`], as they are stored.
#[derive(Default)]
pub struct SessionFields(Vec<(&'static str, Box<RawValue>)>);

impl SessionFields {
    /// Adds a field.
    ///
    /// # Errors
    /// [`SessionErrorKind::Value`](super::SessionErrorKind::Value) for a value without a JSON form.
    pub fn set<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<()> {
        let raw = super::stored::record::raw(value).map_err(|error| {
            SessionError::new(super::SessionErrorKind::Value)
                .detail(format!("`{name}` cannot be encoded as JSON"))
                .source(error)
        })?;
        self.0.push((name, raw));
        Ok(())
    }
}

impl std::fmt::Debug for SessionFields {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

impl Session {
    /// Reads the struct from the session.
    ///
    /// # Errors
    /// [`SessionErrorKind::Value`](super::SessionErrorKind::Value) for a value of another type.
    pub async fn data<T: SessionData>(&self) -> Result<T> {
        self.read(|values| T::read(values)).await?
    }

    /// Changes the struct. Only fields that differ afterwards are written. `change` may run several
    /// times, once more after each conflict with another request, on the values that the other
    /// request wrote.
    ///
    /// # Errors
    /// The same as [`insert`](Self::insert).
    pub async fn modify<T: SessionData>(&self, mut change: impl FnMut(&mut T) + Send + 'static) -> Result<()> {
        let sessions = std::sync::Arc::clone(&self.sessions);
        self.change(Box::new(move |record| {
            let mut data = T::read(&SessionValues(record))?;
            let (mut before, mut after) = (SessionFields::default(), SessionFields::default());
            data.write(&mut before)?;
            change(&mut data);
            data.write(&mut after)?;
            for ((_, old), (name, new)) in before.0.into_iter().zip(after.0) {
                if old.get() == new.get() {
                    continue;
                }
                check_name(&sessions.config, name)?;
                check_value(&sessions.config, name, &new)?;
                if new.get() == "null" {
                    record.remove(name);
                } else {
                    record.set(name, new);
                }
            }
            Ok(())
        }))
        .await
    }
}

/// Reads one field, for the derive.
///
/// # Errors
/// If the value is of another type.
#[doc(hidden)]
pub fn field<T: DeserializeOwned + Default>(values: &SessionValues<'_>, name: &str) -> Result<T> {
    Ok(values.get(name)?.unwrap_or_default())
}

/// For the derive: fails to compile for a name that no value can have.
#[doc(hidden)]
#[expect(clippy::panic, reason = "evaluated by the compiler only")]
pub const fn assert_name(name: &str) {
    let mut index = 0;
    #[expect(clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "below the length")]
    while index < RESERVED.len() {
        if equal(RESERVED[index], name) {
            panic!("Express removes a value of this name when it reads the session; add `#[session(name = \"..\")]`");
        }
        index += 1;
    }
    if equal(name, COOKIE) || equal(name, META) || name.is_empty() {
        panic!("the session uses this name itself; add `#[session(name = \"..\")]`");
    }
}

#[expect(clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "below both lengths")]
const fn equal(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut index = 0;
    while index < a.len() && index < b.len() {
        if a[index] != b[index] {
            return false;
        }
        index += 1;
    }
    a.len() == b.len()
}
