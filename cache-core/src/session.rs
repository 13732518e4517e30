//! Web sessions: a tower layer over the cache's store, for axum and everything else that uses the
//! `http` crate. Sessions can be shared with an Express application.
//!
//! Invariant: no change is lost, and an ended session does not come back. Changes are recorded as
//! operations and applied by compare-and-swap to the stored session at the time of the write. An
//! ended session is never recreated. No id, value or secret appears in a log, an error or `Debug`.

mod admin;
mod builder;
mod config;
mod date;
mod error;
mod express;
mod id;
mod limits;
mod options;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod raw;
mod store;
mod stored;
mod typed;
mod user_sessions;
mod values;
mod web;

use std::fmt;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::sync::Mutex;

pub use self::admin::AllSessions;
pub use self::builder::SessionBuilder;
pub use self::config::SessionMode;
pub use self::error::{SessionError, SessionErrorKind};
pub use self::id::{Secret, SessionId};
use self::limits::{check_name, check_value, to_raw};
pub use self::options::{CookieOptions, Priority, SameSite, Secure, TooMany, Transport, Unset};
pub use self::store::{SessionStore, SessionSwap, StoredSession};
use self::stored::commit::Operation;
pub use self::stored::index::SessionInfo;
use self::stored::record::MaxAge;
use self::stored::sessions::{Current, Sessions};
pub use self::typed::{SessionData, SessionFields};
#[doc(hidden)]
pub use self::typed::{assert_name, field};
pub use self::user_sessions::UserSessions;
pub use self::values::SessionValues;
pub use self::web::layer::{SessionLayer, SessionService};
pub use self::web::messages::Flash;
use self::web::response::Answer;
use self::web::state::State;
#[cfg(feature = "macros")]
pub use cache_macros::SessionData;

use self::values::{counted, not_of_type};
use crate::clock::millis;

type Result<T, E = SessionError> = std::result::Result<T, E>;

/// The session of one request. Cheap to clone; clones share the same session.
///
/// It is read from the store at its first use. This request sees its own changes at once. They are
/// written after the handler has returned and before the response is sent; [`save`](Self::save)
/// writes them earlier. If another request wrote in the meantime, your operations are replayed on
/// the current session. The last `insert` of a name wins; increments, pushes and updates are never
/// lost.
///
/// Each method reads the session if nothing has read it yet, which is one round trip. If the store
/// fails, the method returns [`SessionErrorKind::Unavailable`] or
/// [`Refused`](SessionErrorKind::Refused); the methods below do not list these again.
#[derive(Clone)]
pub struct Session {
    sessions: Arc<Sessions>,
    state: Arc<Mutex<State>>,
}

/// The session for a handler that can do without one: `None` while the store is unavailable. If a
/// change cannot be written later, the client still gets an error.
#[derive(Debug, Clone)]
pub struct OptionalSession(pub Option<Session>);

impl Session {
    fn new(sessions: Arc<Sessions>, state: State) -> Self {
        Self { sessions, state: Arc::new(Mutex::new(state)) }
    }

    /// Returns a value, or `None` if there is none.
    ///
    /// # Errors
    /// [`SessionErrorKind::Value`] for a value of another type.
    pub async fn get<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        self.read(|values| values.get(name)).await?
    }

    /// Passes all values to `look` and returns its result.
    ///
    /// # Errors
    /// Store errors.
    pub async fn read<T>(&self, look: impl FnOnce(&SessionValues<'_>) -> T) -> Result<T> {
        let mut state = self.state.lock().await;
        state.open().await?;
        Ok(look(&SessionValues(&state.view)))
    }

    /// Sets a value. Setting the same value again is not a change.
    ///
    /// # Errors
    /// [`SessionErrorKind::ReservedName`] for a name that cannot be used;
    /// [`Value`](SessionErrorKind::Value) for a value without a JSON form, or, if shared with
    /// Express, an integer beyond 2^53 - 1; [`TooLarge`](SessionErrorKind::TooLarge).
    pub async fn insert<T: Serialize + ?Sized>(&self, name: &str, value: &T) -> Result<()> {
        check_name(&self.sessions.config, name)?;
        let raw = to_raw(&self.sessions.config, name, value)?;
        let name = name.to_owned();
        self.change(Box::new(move |record| {
            record.set(&name, raw.clone());
            Ok(())
        }))
        .await
    }

    /// Removes a value. To use the removed value exactly once, see [`pop`](Self::pop).
    ///
    /// # Errors
    /// [`SessionErrorKind::ReservedName`].
    pub async fn remove(&self, name: &str) -> Result<()> {
        check_name(&self.sessions.config, name)?;
        let name = name.to_owned();
        self.change(Box::new(move |record| {
            record.remove(&name);
            Ok(())
        }))
        .await
    }

    /// Removes a value and returns it. Of several concurrent requests, exactly one gets the value:
    /// the removal is written at once, together with all earlier changes of this request.
    ///
    /// # Errors
    /// [`SessionErrorKind::Value`] for a value of another type, which is removed all the same;
    /// [`ReservedName`](SessionErrorKind::ReservedName).
    pub async fn pop<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        check_name(&self.sessions.config, name)?;
        let raw = self.pop_raw(name).await?;
        raw.map(|raw| serde_json::from_str(raw.get()).map_err(|error| not_of_type(name, &error))).transpose()
    }

    async fn pop_raw(&self, name: &str) -> Result<Option<Box<RawValue>>> {
        let mut state = self.state.lock().await;
        state.open().await?;
        if state.view.raw(name).is_none() {
            return Ok(None);
        }
        let taken = Arc::new(StdMutex::new(None));
        let (name, slot) = (name.to_owned(), Arc::clone(&taken));
        let pop: Operation = Box::new(move |record| {
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = record.remove(&name);
            Ok(())
        });
        state.change(pop).await?;
        if state.current.is_some() {
            match state.save().await {
                // It was ended elsewhere, so there is no value.
                Err(error) if error.kind() == SessionErrorKind::Gone => return Ok(None),
                saved => saved?,
            }
        }
        let raw = taken.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok(raw)
    }

    /// Adds to a number. A missing value and `null` count as zero.
    ///
    /// Returns the sum as seen by this request; concurrent increments are never lost. Every number
    /// that Express has stored is accepted, such as `3.0` and `1e3`. If the sum has a fraction, the
    /// session keeps it and only the whole part is returned.
    ///
    /// # Errors
    /// [`SessionErrorKind::Value`] if the value is not a number, or, if shared with Express, if the
    /// sum exceeds 2^53 - 1; otherwise the sum saturates at the bounds of 64 bits.
    /// [`ReservedName`](SessionErrorKind::ReservedName).
    pub async fn increment(&self, name: &str, by: i64) -> Result<i64> {
        check_name(&self.sessions.config, name)?;
        let sum = Arc::new(StdMutex::new(0));
        let (slot, name, sessions) = (Arc::clone(&sum), name.to_owned(), Arc::clone(&self.sessions));
        self.change(Box::new(move |record| {
            let (raw, sum) = counted(&name, record.raw(&name), by)?;
            check_value(&sessions.config, &name, &raw)?;
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = sum;
            record.set(&name, raw);
            Ok(())
        }))
        .await?;
        let sum = *sum.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(sum)
    }

    /// Appends a value to a list. A missing list counts as empty.
    ///
    /// # Errors
    /// [`SessionErrorKind::Value`] if the stored value is not a list; otherwise the same as
    /// [`insert`](Self::insert).
    pub async fn push<T: Serialize + ?Sized>(&self, name: &str, value: &T) -> Result<()> {
        let raw = to_raw(&self.sessions.config, name, value)?;
        self.update(name, move |list: Option<Vec<Box<RawValue>>>| {
            let mut list = list.unwrap_or_default();
            list.push(raw.clone());
            Some(list)
        })
        .await
    }

    /// Replaces a value with the result of `change`, which gets the current value; a result of
    /// `None` removes it. `change` may run several times, once more after each conflict with
    /// another request.
    ///
    /// # Errors
    /// [`SessionErrorKind::Value`] if the stored value is of another type; otherwise the same as
    /// [`insert`](Self::insert).
    pub async fn update<T, U, F>(&self, name: &str, mut change: F) -> Result<()>
    where
        T: DeserializeOwned,
        U: Serialize,
        F: FnMut(Option<T>) -> Option<U> + Send + 'static,
    {
        check_name(&self.sessions.config, name)?;
        let (name, sessions) = (name.to_owned(), Arc::clone(&self.sessions));
        self.change(Box::new(move |record| {
            let old = SessionValues(record).get(&name)?;
            match change(old) {
                Some(new) => record.set(&name, to_raw(&sessions.config, &name, &new)?),
                None => drop(record.remove(&name)),
            }
            Ok(())
        }))
        .await
    }

    /// Removes all values. The session and its id stay.
    ///
    /// # Errors
    /// Store errors.
    pub async fn clear(&self) -> Result<()> {
        self.change(Box::new(|record| {
            record.clear();
            Ok(())
        }))
        .await
    }

    /// Gives the session another id at the next write and keeps its values. The old id becomes
    /// invalid with that write.
    ///
    /// # Errors
    /// [`SessionErrorKind::Id`].
    pub async fn cycle_id(&self) -> Result<()> {
        self.state.lock().await.rotate_id().await
    }

    /// Replaces the session with an empty one that has another id, as in Express. The new session
    /// is always written, and the old one ends with that write.
    ///
    /// # Errors
    /// [`SessionErrorKind::Id`].
    pub async fn regenerate(&self) -> Result<()> {
        self.state.lock().await.regenerate().await
    }

    /// Ends the session at once, whatever the handler responds. Values set afterwards begin a new
    /// session.
    ///
    /// # Errors
    /// Store errors: the session may then still exist.
    pub async fn destroy(&self) -> Result<()> {
        self.state.lock().await.destroy().await
    }

    /// Does what `delete req.session` does in Express: this request makes no further changes, and
    /// [`SessionBuilder::unset`] decides whether the session is deleted.
    ///
    /// # Errors
    /// Store errors.
    pub async fn unset(&self) -> Result<()> {
        self.state.lock().await.unset().await
    }

    /// Writes the changes made so far. A new session without values is not stored.
    ///
    /// # Errors
    /// [`SessionErrorKind::Gone`] if the session has ended in the meantime,
    /// [`Conflict`](SessionErrorKind::Conflict), [`TooLarge`](SessionErrorKind::TooLarge),
    /// [`NoCookie`](SessionErrorKind::NoCookie).
    pub async fn save(&self) -> Result<()> {
        self.state.lock().await.save().await
    }

    /// Drops all unwritten changes and reads the session again.
    ///
    /// # Errors
    /// [`SessionErrorKind::Gone`] if there is none.
    pub async fn reload(&self) -> Result<()> {
        self.state.lock().await.reload().await
    }

    /// Extends the session's life when the request ends, even if little of its time has passed.
    ///
    /// # Errors
    /// Store errors.
    pub async fn touch(&self) -> Result<()> {
        self.state.lock().await.force_touch().await
    }

    /// Returns the id that the session will have when the response is sent.
    ///
    /// # Errors
    /// [`SessionErrorKind::Id`].
    pub async fn id(&self) -> Result<SessionId> {
        let mut state = self.state.lock().await;
        state.open().await?;
        state.id.clone().ok_or_else(error::bad_id)
    }

    /// Returns whether the session is not stored yet.
    ///
    /// # Errors
    /// Store errors.
    pub async fn is_new(&self) -> Result<bool> {
        let mut state = self.state.lock().await;
        state.open().await?;
        Ok(state.current.is_none())
    }

    /// Returns how long the session lives after each use; `None` means until the browser is closed.
    ///
    /// # Errors
    /// Store errors.
    pub async fn max_age(&self) -> Result<Option<Duration>> {
        self.read(|values| values.max_age()).await
    }

    /// Returns how long the session lives if it is not used again. The time decreases from call to
    /// call. `None` if it never expires or is not stored yet. Express calls this `cookie.maxAge`.
    ///
    /// # Errors
    /// Store errors.
    pub async fn expires_in(&self) -> Result<Option<Duration>> {
        let mut state = self.state.lock().await;
        state.open().await?;
        let now = self.sessions.now();
        let left = |current: &Current| Some(current.left?.saturating_sub(current.read_at.until(now)));
        Ok(state.current.as_ref().and_then(left))
    }

    /// Sets how long this session lives after each use from now on ("remember me"). `None` means
    /// until the browser is closed. The setting is stored with the session.
    ///
    /// # Errors
    /// Store errors.
    pub async fn set_max_age(&self, max_age: impl Into<Option<Duration>>) -> Result<()> {
        let max_age = match max_age.into() {
            Some(max_age) => MaxAge::Millis(i64::try_from(millis(max_age)).unwrap_or(i64::MAX)),
            None => MaxAge::Browser,
        };
        let set: Operation = Box::new(move |record| {
            let mut cookie = record.cookie();
            cookie.set_max_age(max_age);
            record.set_cookie(&cookie);
            Ok(())
        });
        self.state.lock().await.change_cookie(set).await
    }

    async fn change(&self, operation: Operation) -> Result<()> {
        self.state.lock().await.change(operation).await
    }

    #[cfg(feature = "axum")]
    async fn is_available(&self) -> bool {
        self.state.lock().await.open().await.is_ok()
    }

    async fn finish(&self, failed: bool) -> Result<Answer> {
        // If this is dropped half-way, the client is gone, and a write already sent may happen or
        // not.
        self.state.lock().await.finish(failed).await
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Session(..)")
    }
}
