//! Detects whether the caller that runs a borrowed function is still being polled.
//!
//! A caller may hold a call while it awaits something else: a stream whose loop body waits, or a
//! `select!` over `&mut future`. Its function makes no progress during that time. If the other
//! future is a call of the same key in the same task, both would wait until the deadline. So the
//! follower checks: a lender of the follower's own task is stalled if it was woken but not polled
//! while the follower was polled several times (S12).
//!
//! A follower in another task cannot decide this: there, a lender that was woken may be about to be
//! polled.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::task::{Context, Wake, Waker};
use std::thread::{self, ThreadId};

use crate::sync::{Mutex, MutexGuard};

/// How many polls of a follower, without a poll of the woken lender, mean that the lender is
/// stalled. In each turn of the task, every future that is polled together with the follower gets
/// its poll.
const TURNS: u32 = 3;

/// Where a future is polled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PolledIn {
    Task(tokio::task::Id),
    /// Outside of any task, in `block_on`.
    Thread(ThreadId),
}

impl PolledIn {
    fn here() -> Self {
        tokio::task::try_id().map_or_else(|| Self::Thread(thread::current().id()), Self::Task)
    }
}

/// The caller that runs the function of a run.
pub(crate) struct Lender {
    /// How many times it was polled.
    polls: AtomicU64,
    /// Whether it was woken since it was last polled.
    is_woken: AtomicBool,
    polled: Mutex<Option<(PolledIn, Waker)>>,
}

impl Lender {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { polls: AtomicU64::new(0), is_woken: AtomicBool::new(false), polled: Mutex::new(None) })
    }

    /// Records that the lender is polled. Everything it waits for must wake it through the waker
    /// made from this.
    pub(crate) fn note_poll(&self, context: &Context<'_>) {
        self.is_woken.store(false, Ordering::Release);
        self.polls.fetch_add(1, Ordering::AcqRel);
        let place = PolledIn::here();
        let mut polled = self.polled();
        let is_the_same = polled.as_ref().is_some_and(|(at, waker)| *at == place && waker.will_wake(context.waker()));
        let replaced = if is_the_same { None } else { polled.replace((place, context.waker().clone())) };
        drop(polled);
        drop(replaced);
    }

    fn is_polled_here(&self) -> bool {
        self.polled().as_ref().is_some_and(|(place, _)| *place == PolledIn::here())
    }

    fn polled(&self) -> MutexGuard<'_, Option<(PolledIn, Waker)>> {
        self.polled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Lender {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_woken.store(true, Ordering::Release);
        let waker = self.polled().as_ref().map(|(_, waker)| waker.clone());
        waker.into_iter().for_each(Waker::wake);
    }
}

/// What a follower has observed of its lender.
#[derive(Default)]
pub(crate) struct Watch {
    polls: u64,
    turns: u32,
}

impl Watch {
    /// Returns whether the lender is stalled by the task that polls this follower. Requests another
    /// poll if that is possible but not certain yet.
    pub(crate) fn is_held(&mut self, lender: &Lender, context: &Context<'_>) -> bool {
        if !lender.is_woken.load(Ordering::Acquire) || !lender.is_polled_here() {
            self.turns = 0;
            return false;
        }
        let polls = lender.polls.load(Ordering::Acquire);
        self.turns = if self.polls == polls { self.turns.saturating_add(1) } else { 0 };
        self.polls = polls;
        if self.turns >= TURNS {
            return true;
        }
        context.waker().wake_by_ref();
        false
    }
}
