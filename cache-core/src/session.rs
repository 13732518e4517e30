//! Web sessions: a tower layer over the cache's store, for axum and whatever else speaks `http`. Also for a session that an Express
//! application shares.
//!
//! Invariant: nothing is lost and nothing comes back. Changes are recorded as operations and applied to what stands when they are
//! written, by compare-and-swap; a session that has ended is never made anew. No id, value or secret shows in a log, an error or `Debug`.

mod all;
mod answer;
mod builder;
mod commit;
mod config;
mod cookie;
mod devices;
mod error;
mod express;
#[cfg(feature = "axum")]
mod extract;
mod id;
mod index;
mod layer;
mod login;
mod messages;
mod meta;
mod options;
mod own;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod raw;
mod record;
mod revoked;
mod scope;
mod state;
mod store;
mod typed;
mod values;

use std::fmt;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::sync::Mutex;

pub use self::all::AllSessions;
use self::answer::Answer;
pub use self::builder::SessionBuilder;
use self::commit::{Operation, Sessions, Standing};
pub use self::config::SessionMode;
pub use self::error::{SessionError, SessionErrorKind};
pub use self::id::{Secret, SessionId};
pub use self::index::{SessionInfo, UserSessions};
pub use self::layer::{SessionLayer, SessionService};
pub use self::messages::Flash;
pub use self::options::{CookieOptions, Priority, SameSite, Secure, TooMany, Transport, Unset};
use self::record::MaxAge;
use self::state::State;
pub use self::store::{SessionStore, SessionSwap, StoredSession};
pub use self::typed::{SessionData, SessionFields};
#[doc(hidden)]
pub use self::typed::{assert_name, field};
pub use self::values::SessionValues;
#[cfg(feature = "macros")]
pub use cache_macros::SessionData;

use self::values::{check_name, counted, not_of_type, to_raw};
use crate::clock::millis;

type Result<T, E = SessionError> = std::result::Result<T, E>;

/// The session of one request. Cheap to clone; clones are the same session.
///
/// It is read from the store at its first use. What is changed is seen by this request at once, and written when the handler
/// has returned, before the answer leaves; [`save`](Self::save) writes sooner. Then others have perhaps changed it too: a change is made to what stands then.
/// Of two that set one name, the later one stays; increments, pushes and updates are never lost.
///
/// Each method reads the session if nothing has yet, which is one round trip, and fails if the store does:
/// [`SessionErrorKind::Unavailable`] and [`Refused`](SessionErrorKind::Refused) are not named again below.
#[derive(Clone)]
pub struct Session {
    sessions: Arc<Sessions>,
    state: Arc<Mutex<State>>,
}

/// The session of a request whose handler can do without: `None` while the store is away. A change that then cannot be written is an error
/// for the client all the same.
#[derive(Debug, Clone)]
pub struct OptionalSession(pub Option<Session>);

impl Session {
    fn new(sessions: Arc<Sessions>, state: State) -> Self {
        Self { sessions, state: Arc::new(Mutex::new(state)) }
    }

    /// A value; `None`: there is none.
    ///
    /// # Errors
    /// [`SessionErrorKind::Value`] for one of another type.
    pub async fn get<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        self.read(|values| values.get(name)).await?
    }

    /// Looks at all values.
    ///
    /// # Errors
    /// Faults of the store.
    pub async fn read<T>(&self, look: impl FnOnce(&SessionValues<'_>) -> T) -> Result<T> {
        let mut state = self.state.lock().await;
        state.open().await?;
        Ok(look(&SessionValues(&state.view)))
    }

    /// Sets a value. The same value again is no change.
    ///
    /// # Errors
    /// [`SessionErrorKind::ReservedName`] for a name that cannot be used, [`Value`](SessionErrorKind::Value) for a value that has no JSON form or, shared with
    /// Express, an integer beyond 2^53 - 1, [`TooLarge`](SessionErrorKind::TooLarge).
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

    /// Removes a value. To use what stood there exactly once, see [`pop`](Self::pop).
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

    /// Takes a value out. Of several requests at the same time exactly one gets it: it is written at once, with all that was changed before.
    ///
    /// # Errors
    /// [`SessionErrorKind::Value`] for one of another type, which is gone then; [`ReservedName`](SessionErrorKind::ReservedName).
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
        if state.standing.is_some() {
            match state.save().await {
                // Ended elsewhere: there is nothing to be had.
                Err(error) if error.kind() == SessionErrorKind::Gone => return Ok(None),
                saved => saved?,
            }
        }
        let raw = taken.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok(raw)
    }

    /// Adds to a number; nothing and `null` count as zero. What it comes to as this request sees
    /// it: others may add at the same time, and each counts. Whatever Express has stored as a
    /// number is one, as `3.0` and `1e3`; of a sum with a fraction, which stays in the session,
    /// only the whole part is returned.
    ///
    /// # Errors
    /// [`SessionErrorKind::Value`] if it is no number or, shared with Express, leaves 2^53 - 1;
    /// else it stops at the bounds of 64 bits. [`ReservedName`](SessionErrorKind::ReservedName).
    pub async fn increment(&self, name: &str, by: i64) -> Result<i64> {
        check_name(&self.sessions.config, name)?;
        let sum = Arc::new(StdMutex::new(0));
        let (slot, name, sessions) = (Arc::clone(&sum), name.to_owned(), Arc::clone(&self.sessions));
        self.change(Box::new(move |record| {
            let (raw, sum) = counted(&name, record.raw(&name), by)?;
            values::check_value(&sessions.config, &name, &raw)?;
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = sum;
            record.set(&name, raw);
            Ok(())
        }))
        .await?;
        let sum = *sum.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(sum)
    }

    /// Adds a value to a list; none counts as an empty one.
    ///
    /// # Errors
    /// [`SessionErrorKind::Value`] if it is no list; else as [`insert`](Self::insert).
    pub async fn push<T: Serialize + ?Sized>(&self, name: &str, value: &T) -> Result<()> {
        let raw = to_raw(&self.sessions.config, name, value)?;
        self.update(name, move |list: Option<Vec<Box<RawValue>>>| {
            let mut list = list.unwrap_or_default();
            list.push(raw.clone());
            Some(list)
        })
        .await
    }

    /// Makes a value of what stands there; `None` removes it. May run several times: again for each conflict with other requests.
    ///
    /// # Errors
    /// [`SessionErrorKind::Value`] if what stands there is of another type; else as [`insert`](Self::insert).
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

    /// Removes all values. The session stays, with its id.
    ///
    /// # Errors
    /// Faults of the store.
    pub async fn clear(&self) -> Result<()> {
        self.change(Box::new(|record| {
            record.clear();
            Ok(())
        }))
        .await
    }

    /// Gives the session another id when it is written, with what is in it. The old id is dead from then on.
    ///
    /// # Errors
    /// [`SessionErrorKind::Id`].
    pub async fn cycle_id(&self) -> Result<()> {
        self.state.lock().await.cycle().await
    }

    /// An empty session with another id, as in Express. Written in any case; the old one ends with that.
    ///
    /// # Errors
    /// [`SessionErrorKind::Id`].
    pub async fn regenerate(&self) -> Result<()> {
        self.state.lock().await.regenerate().await
    }

    /// Ends the session, at once and whatever the handler answers. What is set after it begins a new one.
    ///
    /// # Errors
    /// Faults of the store: then it may live on.
    pub async fn destroy(&self) -> Result<()> {
        self.state.lock().await.destroy().await
    }

    /// What `delete req.session` is in Express: this request changes nothing any more, and [`SessionBuilder::unset`] says whether the session is
    /// deleted.
    ///
    /// # Errors
    /// Faults of the store.
    pub async fn unset(&self) -> Result<()> {
        self.state.lock().await.unset().await
    }

    /// Writes what was changed so far. A new session with nothing in it is not stored.
    ///
    /// # Errors
    /// [`SessionErrorKind::Gone`] if it has ended meanwhile, [`Conflict`](SessionErrorKind::Conflict), [`TooLarge`](SessionErrorKind::TooLarge),
    /// [`NoCookie`](SessionErrorKind::NoCookie).
    pub async fn save(&self) -> Result<()> {
        self.state.lock().await.save().await
    }

    /// Drops what was not written yet, and reads the session again.
    ///
    /// # Errors
    /// [`SessionErrorKind::Gone`] if there is none.
    pub async fn reload(&self) -> Result<()> {
        self.state.lock().await.reload().await
    }

    /// Prolongs the session's life when the request ends, even if little of it is over.
    ///
    /// # Errors
    /// Faults of the store.
    pub async fn touch(&self) -> Result<()> {
        self.state.lock().await.force_touch().await
    }

    /// The id that the session will have when the answer leaves.
    ///
    /// # Errors
    /// [`SessionErrorKind::Id`].
    pub async fn id(&self) -> Result<SessionId> {
        let mut state = self.state.lock().await;
        state.open().await?;
        state.id.clone().ok_or_else(commit::bad_id)
    }

    /// Whether nothing stands in the store yet.
    ///
    /// # Errors
    /// Faults of the store.
    pub async fn is_new(&self) -> Result<bool> {
        let mut state = self.state.lock().await;
        state.open().await?;
        Ok(state.standing.is_none())
    }

    /// How long the session is to live after each use; `None`: until the browser is closed.
    ///
    /// # Errors
    /// Faults of the store.
    pub async fn max_age(&self) -> Result<Option<Duration>> {
        self.read(|values| values.max_age()).await
    }

    /// How long the session will live if nobody uses it again; less with each call. `None`: it
    /// stays for ever, or nothing stands in the store yet. What Express tells as `cookie.maxAge`.
    ///
    /// # Errors
    /// Faults of the store.
    pub async fn expires_in(&self) -> Result<Option<Duration>> {
        let mut state = self.state.lock().await;
        state.open().await?;
        let now = self.sessions.now();
        let left = |standing: &Standing| Some(standing.left?.saturating_sub(standing.at.until(now)));
        Ok(state.standing.as_ref().and_then(left))
    }

    /// Sets how long this session is to live after each use, from now on: "remember me". `None`: until the browser is closed. It stays with the
    /// session.
    ///
    /// # Errors
    /// Faults of the store.
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
        // Dropped half way: the client is gone, and what was sent to the store happens or not.
        self.state.lock().await.finish(failed).await
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Session(..)")
    }
}
