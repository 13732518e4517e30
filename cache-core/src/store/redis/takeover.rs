//! Moves the connection to another runtime when its own one ends (D9).
//!
//! The tasks of a connection run on the runtime of the caller that made it. When that runtime ends,
//! as that of a test does, they are dropped. The next caller on a live runtime starts them again
//! there and waits for the first attempt to connect; other callers wait meanwhile, too.
//!
//! ```text
//! Kept ──(its tasks are dropped)──> Ending ──> Ended ──(a call)──> Starting
//!   ^────────────────(the first attempt is over)──────────────────────┘
//! ```
//!
//! While it is `Ending`, its session is unpublished. A call that finds no session then knows that
//! it has to wait for `Ended`.
//!
//! Invariant: a connection is taken over only after the supervisor of the last one was dropped, so
//! that two supervisors never change what is published.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use crate::background::Background;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Kept,
    Starting,
    Ending,
    Ended,
}

/// The state of one store's connection.
#[derive(Debug)]
pub(super) struct Takeover {
    state: watch::Sender<State>,
    takeovers: AtomicU64,
}

impl Default for Takeover {
    fn default() -> Self {
        Self { state: watch::Sender::new(State::Kept), takeovers: AtomicU64::new(0) }
    }
}

impl Takeover {
    /// Returns how often the connection was taken over.
    pub(super) fn takeovers(&self) -> u64 {
        self.takeovers.load(Ordering::Acquire)
    }

    /// Returns whether the connection has no supervisor, or its first attempt to connect is in
    /// progress.
    pub(super) fn is_changing(&self) -> bool {
        *self.state.borrow() != State::Kept
    }

    /// Returns whether the calling supervisor was made by a take-over.
    pub(super) fn is_starting(&self) -> bool {
        *self.state.borrow() == State::Starting
    }

    /// Records that the supervisor is about to be dropped.
    pub(super) fn ending(&self) {
        self.state.send_replace(State::Ending);
    }

    /// Records that the supervisor was dropped.
    pub(super) fn ended(&self) {
        self.state.send_replace(State::Ended);
    }

    /// Records that the first attempt to connect is over.
    pub(super) fn started(&self) {
        self.state.send_replace(State::Kept);
    }

    /// Takes the connection over if its runtime has ended, and waits for the first attempt to
    /// connect, at most for `limit`. `is_abandoned`: the runtime of the connection has ended, so
    /// its supervisor is about to be dropped.
    pub(super) async fn take_over(&self, background: &Background, is_abandoned: impl Fn() -> bool, limit: Duration) {
        if *self.state.borrow() == State::Kept && !is_abandoned() {
            return;
        }
        let taken = async {
            let mut changes = self.state.subscribe();
            loop {
                let state = *changes.borrow_and_update();
                match state {
                    State::Kept if !is_abandoned() => return,
                    State::Ended if self.begin() => {
                        if !background.revive() {
                            self.state.send_replace(State::Ended);
                            return;
                        }
                        continue;
                    }
                    State::Kept | State::Starting | State::Ending | State::Ended => {}
                }
                // An error would mean that the sender is gone, but `self` holds it.
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        let _elapsed = timeout(limit, taken).await;
    }

    /// Starts a take-over. Returns whether the caller is the one to do it.
    fn begin(&self) -> bool {
        let begun = self.state.send_if_modified(|state| {
            let is_ended = *state == State::Ended;
            if is_ended {
                *state = State::Starting;
            }
            is_ended
        });
        if begun {
            self.takeovers.fetch_add(1, Ordering::AcqRel);
        }
        begun
    }
}
