//! Events of web sessions. No event carries an id or a value.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use super::bump;

/// An event of a web session.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionEvent {
    /// A session was stored for the first time.
    Created,
    /// A session was read from the store.
    Loaded,
    /// Changes of a session were stored.
    Saved,
    /// A session's life was extended.
    Touched,
    /// A session got another id.
    Renewed,
    /// A session was ended by the application.
    Destroyed,
    /// A write conflicted with a concurrent one and was repeated on top of it.
    Conflict,
    /// Changes were dropped: the session had ended in the meantime.
    Gone,
    /// A client sent an id with a valid signature that belongs to no session: the session has
    /// ended.
    UnknownId,
    /// An ended session was back in the store, written by an Express peer that had read it before.
    /// It was deleted. See `SessionBuilder::revoke_for`.
    Resurrected,
    /// A client sent an id without a valid signature.
    BadSignature,
    /// The content of a session's key is not a session, or cannot be read. It is left in place and
    /// treated as no session.
    Unreadable {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The cookie could not be sent.
    ///
    /// It is for HTTPS only and the request came by plain HTTP, or the stored content cannot be
    /// written as a header. Behind a proxy, see `SessionBuilder::proxy`.
    CookieNotSent,
    /// The client got an error: changes could not be stored, or the handler returned the error of
    /// a session's method with the status 500.
    Failed {
        /// The reason. It may name a value of the session, and contains nothing of it.
        reason: Arc<str>,
    },
    /// Another namespace keeps sessions under the same prefix in the form of Express, where keys
    /// have no namespace: both share their sessions. See `SessionBuilder::prefix`.
    SharedPrefix,
    /// A secret is shorter than 32 bytes.
    ShortSecret {
        /// Its length.
        bytes: usize,
    },
}

/// Counters of web sessions since the cache was made. Counters only ever rise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct SessionStats {
    /// Sessions stored for the first time.
    pub created: u64,
    /// Sessions read from the store.
    pub loaded: u64,
    /// Number of times changes of a session were stored.
    pub saved: u64,
    /// Number of times the life of a session was extended.
    pub touched: u64,
    /// Number of times a session got another id.
    pub renewed: u64,
    /// Sessions ended by the application.
    pub destroyed: u64,
    /// Writes that conflicted with a concurrent one and were repeated on top of it.
    pub conflicts: u64,
    /// Number of times changes were dropped, since the session had ended in the meantime.
    pub gone: u64,
    /// Ids with a valid signature that belonged to no session.
    pub unknown_ids: u64,
    /// Ended sessions that an Express peer had brought back, and that were deleted again.
    pub resurrected: u64,
    /// Ids without a valid signature.
    pub bad_signatures: u64,
    /// Stored values that were not sessions.
    pub unreadable: u64,
    /// Cookies that could not be sent.
    pub cookies_not_sent: u64,
    /// Requests whose changes could not be stored.
    pub failed: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    created: AtomicU64,
    loaded: AtomicU64,
    saved: AtomicU64,
    touched: AtomicU64,
    renewed: AtomicU64,
    destroyed: AtomicU64,
    conflicts: AtomicU64,
    gone: AtomicU64,
    unknown_ids: AtomicU64,
    resurrected: AtomicU64,
    bad_signatures: AtomicU64,
    unreadable: AtomicU64,
    cookies_not_sent: AtomicU64,
    failed: AtomicU64,
}

impl Counters {
    pub(super) fn note(&self, event: &SessionEvent) {
        match event {
            SessionEvent::Created => bump(&self.created),
            SessionEvent::Loaded => bump(&self.loaded),
            SessionEvent::Saved => bump(&self.saved),
            SessionEvent::Touched => bump(&self.touched),
            SessionEvent::Renewed => bump(&self.renewed),
            SessionEvent::Destroyed => bump(&self.destroyed),
            SessionEvent::Conflict => bump(&self.conflicts),
            SessionEvent::Gone => bump(&self.gone),
            SessionEvent::UnknownId => bump(&self.unknown_ids),
            SessionEvent::Resurrected => bump(&self.resurrected),
            SessionEvent::BadSignature => bump(&self.bad_signatures),
            SessionEvent::Unreadable { .. } => bump(&self.unreadable),
            SessionEvent::CookieNotSent => bump(&self.cookies_not_sent),
            SessionEvent::Failed { .. } => bump(&self.failed),
            SessionEvent::ShortSecret { .. } | SessionEvent::SharedPrefix => {}
        }
    }

    pub(super) fn snapshot(&self) -> SessionStats {
        SessionStats {
            created: self.created.load(Relaxed),
            loaded: self.loaded.load(Relaxed),
            saved: self.saved.load(Relaxed),
            touched: self.touched.load(Relaxed),
            renewed: self.renewed.load(Relaxed),
            destroyed: self.destroyed.load(Relaxed),
            conflicts: self.conflicts.load(Relaxed),
            gone: self.gone.load(Relaxed),
            unknown_ids: self.unknown_ids.load(Relaxed),
            resurrected: self.resurrected.load(Relaxed),
            bad_signatures: self.bad_signatures.load(Relaxed),
            unreadable: self.unreadable.load(Relaxed),
            cookies_not_sent: self.cookies_not_sent.load(Relaxed),
            failed: self.failed.load(Relaxed),
        }
    }
}

/// Returns whether its line has the level `debug`.
#[cfg(feature = "tracing")]
pub(super) fn is_detail(event: &SessionEvent) -> bool {
    !matches!(
        event,
        SessionEvent::Unreadable { .. }
            | SessionEvent::CookieNotSent
            | SessionEvent::Failed { .. }
            | SessionEvent::ShortSecret { .. }
            | SessionEvent::SharedPrefix
            | SessionEvent::Resurrected
            | SessionEvent::BadSignature
    )
}

/// Writes a line; `count` as for all events.
#[cfg(feature = "tracing")]
pub(super) fn write(event: &SessionEvent, count: Option<u64>) {
    match event {
        SessionEvent::Unreadable { reason } => {
            tracing::warn!(target: super::TARGET, reason, count, "the value under a session's key is not a session; it is left unchanged")
        }
        SessionEvent::CookieNotSent => tracing::error!(target: super::TARGET,
            count,
            "a session cookie was not sent: it is for HTTPS only, and the request used plain HTTP; behind a proxy, see `SessionBuilder::proxy`"
        ),
        SessionEvent::Failed { reason } => {
            tracing::error!(target: super::TARGET, reason = &**reason, count, "a session operation failed; the client got an error")
        }
        SessionEvent::ShortSecret { bytes } => {
            tracing::warn!(target: super::TARGET, bytes, count, "a session secret is shorter than 32 bytes; `Secret::generate()` makes one");
        }
        SessionEvent::SharedPrefix => tracing::warn!(target: super::TARGET,
            count,
            "another namespace stores its sessions under the same prefix, and may use or end the sessions of this one; set another `SessionBuilder::prefix` in one of them"
        ),
        SessionEvent::Resurrected => {
            tracing::warn!(target: super::TARGET, count, "an Express peer stored a session again that had ended; it was deleted again");
        }
        SessionEvent::BadSignature => {
            tracing::info!(target: super::TARGET, count, "a session id without a valid signature")
        }
        event => tracing::debug!(target: super::TARGET, ?event, "session"),
    }
}
