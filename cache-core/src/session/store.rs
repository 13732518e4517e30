//! The contract of a store of the user's own.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// A place to keep sessions in: a table of a database, a key-value server, a file. For
/// [`SessionBuilder::store`](super::SessionBuilder::store); without it sessions live in the cache's
/// own store.
///
/// A store keeps bytes under keys, each for a time. Keys are text of up to some hundred bytes,
/// bytes are any bytes. The store gives them back as they are, and never looks into them.
///
/// Each method is one atomic step: two at the same time have the effect of one after the other. A
/// key whose time is over is absent for all of them, from that moment on, whether or not the store
/// has deleted it yet. Times are counted by the store; a time of less than the store can count is
/// rounded up.
///
/// | method | SQL |
/// |---|---|
/// | [`load`](Self::load) | `SELECT` |
/// | [`create`](Self::create) | `INSERT .. ON CONFLICT DO UPDATE .. WHERE` it has ended |
/// | [`swap`](Self::swap) | `UPDATE .. WHERE` these bytes stand there |
/// | [`touch`](Self::touch) | `UPDATE` of the time |
/// | [`remove`](Self::remove) | `DELETE` |
///
/// `cache_core::testing::check_session_store` (feature `testing`) tells whether a store keeps to all
/// of this. `cache-core/docs/sessions.md` says what sessions on such a store can do and what not.
///
/// # Errors
/// Any error counts as [`SessionErrorKind::Unavailable`](super::SessionErrorKind::Unavailable):
/// a step that ended with one may have happened or not. Requests wait for a step for as long as
/// their [`deadline`](super::SessionBuilder::deadline) says, and then drop its future: a step that
/// is dropped happens or does not, never half. Errors must not name keys, which are ids of sessions
/// in the form of Express, nor bytes.
pub trait SessionStore: Send + Sync + 'static {
    /// A fault of the store.
    type Error: Into<Box<dyn StdError + Send + Sync>> + Send;

    /// What stands under a key, and how long it has left; `None`: nothing.
    fn load(&self, key: &str) -> impl Future<Output = Result<Option<StoredSession>, Self::Error>> + Send;

    /// Stores `bytes` if nothing stands there. `false`: something does; nothing was changed.
    /// `ttl` `None`: until it is removed.
    fn create(
        &self,
        key: &str,
        bytes: &[u8],
        ttl: Option<Duration>,
    ) -> impl Future<Output = Result<bool, Self::Error>> + Send;

    /// Puts `bytes` in the place of exactly `expected`. Of several at the same time with the same
    /// `expected`, one is done. `ttl` `None`: the end stays as it is.
    fn swap(
        &self,
        key: &str,
        expected: &[u8],
        bytes: &[u8],
        ttl: Option<Duration>,
    ) -> impl Future<Output = Result<SessionSwap, Self::Error>> + Send;

    /// Gives what stands there so much time from now on. `false`: nothing stands there; nothing was
    /// made.
    fn touch(&self, key: &str, ttl: Duration) -> impl Future<Output = Result<bool, Self::Error>> + Send;

    /// Removes what stands there. `false`: nothing did.
    fn remove(&self, key: &str) -> impl Future<Output = Result<bool, Self::Error>> + Send;
}

/// What [`SessionStore::load`] has found. `Debug` shows no bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredSession {
    /// Exactly as they were stored.
    pub bytes: Vec<u8>,
    /// How long it has left; `None`: it has no end.
    pub ttl: Option<Duration>,
}

/// What [`SessionStore::swap`] has come to. `Debug` shows no bytes.
#[derive(Clone, PartialEq, Eq)]
pub enum SessionSwap {
    /// The new bytes stand.
    Done,
    /// Other bytes stood there: these. Nothing was changed. A store that has to look for them in a
    /// step of its own gives what it finds then, whatever it is, and [`Gone`](Self::Gone) for
    /// nothing.
    Conflict(Vec<u8>),
    /// Nothing stood there; nothing was made.
    Gone,
}

/// One store for several layers.
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
