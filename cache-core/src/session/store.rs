//! The contract of a store of the application's own.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// A store for sessions: a table of a database, a key-value server, a file. Pass it to
/// [`SessionBuilder::store`](super::SessionBuilder::store); without it, sessions live in the
/// cache's own store.
///
/// The store keeps bytes under keys, each with an optional expiry. Keys are text of up to a few
/// hundred bytes. Values are arbitrary bytes, which the store returns unchanged and never
/// interprets.
///
/// Each method is one atomic step: concurrent calls have the effect of one after the other. A key
/// whose time has ended is absent for all methods from that moment on, whether or not the store has
/// deleted it yet. The store measures the time; a duration shorter than its resolution is rounded
/// up.
///
/// | method | SQL |
/// |---|---|
/// | [`load`](Self::load) | `SELECT` |
/// | [`create`](Self::create) | `INSERT .. ON CONFLICT DO UPDATE .. WHERE` it has expired |
/// | [`swap`](Self::swap) | `UPDATE .. WHERE` these bytes are stored |
/// | [`touch`](Self::touch) | `UPDATE` of the time |
/// | [`remove`](Self::remove) | `DELETE` |
///
/// `cache_core::testing::check_session_store` (feature `testing`) checks whether a store fulfils
/// this contract. `cache-core/docs/sessions.md` describes what sessions on such a store can and
/// cannot do.
///
/// # Errors
/// Any error counts as [`SessionErrorKind::Unavailable`](super::SessionErrorKind::Unavailable): the
/// step may have happened or not. A request waits for a step until its
/// [`deadline`](super::SessionBuilder::deadline) and then drops the future. A dropped step must
/// happen completely or not at all. Errors must not contain keys, which in the form of Express
/// contain session ids, nor bytes.
pub trait SessionStore: Send + Sync + 'static {
    /// The error type of the store.
    type Error: Into<Box<dyn StdError + Send + Sync>> + Send;

    /// Returns the bytes under a key and their remaining time, or `None` if the key is absent.
    fn load(&self, key: &str) -> impl Future<Output = Result<Option<StoredSession>, Self::Error>> + Send;

    /// Stores `bytes` if the key is absent. Returns `false` if it exists; nothing is changed then.
    /// A `ttl` of `None` means until it is removed.
    fn create(
        &self,
        key: &str,
        bytes: &[u8],
        ttl: Option<Duration>,
    ) -> impl Future<Output = Result<bool, Self::Error>> + Send;

    /// Replaces exactly `expected` with `bytes`. Of several concurrent swaps with the same
    /// `expected`, one succeeds. A `ttl` of `None` keeps the expiry.
    fn swap(
        &self,
        key: &str,
        expected: &[u8],
        bytes: &[u8],
        ttl: Option<Duration>,
    ) -> impl Future<Output = Result<SessionSwap, Self::Error>> + Send;

    /// Sets the remaining time of a key. Returns `false` if the key is absent; it is not created.
    fn touch(&self, key: &str, ttl: Duration) -> impl Future<Output = Result<bool, Self::Error>> + Send;

    /// Removes a key. Returns `false` if it was absent.
    fn remove(&self, key: &str) -> impl Future<Output = Result<bool, Self::Error>> + Send;
}

/// The result of [`SessionStore::load`]. `Debug` shows no bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredSession {
    /// Exactly the stored bytes.
    pub bytes: Vec<u8>,
    /// The remaining time; `None` if the key does not expire.
    pub ttl: Option<Duration>,
}

/// The result of [`SessionStore::swap`]. `Debug` shows no bytes.
#[derive(Clone, PartialEq, Eq)]
pub enum SessionSwap {
    /// The new bytes are stored.
    Done,
    /// These other bytes were stored instead; nothing was changed. A store that has to read them in
    /// a second step returns whatever it finds then, and [`Gone`](Self::Gone) if it finds nothing.
    Conflict(Vec<u8>),
    /// The key was absent; it was not created.
    Gone,
}

/// Shares one store between several layers.
impl<S: SessionStore> SessionStore for Arc<S> {
    type Error = S::Error;

    fn load(&self, key: &str) -> impl Future<Output = Result<Option<StoredSession>, S::Error>> + Send {
        S::load(self, key)
    }

    fn create(
        &self,
        key: &str,
        bytes: &[u8],
        ttl: Option<Duration>,
    ) -> impl Future<Output = Result<bool, S::Error>> + Send {
        S::create(self, key, bytes, ttl)
    }

    fn swap(
        &self,
        key: &str,
        expected: &[u8],
        bytes: &[u8],
        ttl: Option<Duration>,
    ) -> impl Future<Output = Result<SessionSwap, S::Error>> + Send {
        S::swap(self, key, expected, bytes, ttl)
    }

    fn touch(&self, key: &str, ttl: Duration) -> impl Future<Output = Result<bool, S::Error>> + Send {
        S::touch(self, key, ttl)
    }

    fn remove(&self, key: &str) -> impl Future<Output = Result<bool, S::Error>> + Send {
        S::remove(self, key)
    }
}

impl fmt::Debug for StoredSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoredSession({} bytes, {:?})", self.bytes.len(), self.ttl)
    }
}

impl fmt::Debug for SessionSwap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("Done"),
            Self::Conflict(found) => write!(f, "Conflict({} bytes)", found.len()),
            Self::Gone => f.write_str("Gone"),
        }
    }
}
