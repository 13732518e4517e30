//! Applies the store's notifications to the state of this process.
//!
//! A change of a key drops its L1 entry and poisons its pending fill. A change of a version makes
//! it unknown, and computes whose values depend on it cannot be joined any more. A gap does this
//! for all keys, in a few steps for any number of entries, since it is handled on the connection's
//! task. The memory is freed in a separate task. A compute is also not joined for longer than the
//! staleness bound unless its lease was seen to be held: see
//! [`Lease::keep`](crate::coordination::lease::Lease::keep).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::background::Background;
use crate::coordination::keep_warm::Changes;
use crate::coordination::single_flight::Flights;
use crate::local::Local;
use crate::mutants::{self, Invariant};
use crate::observe::history::{Actor, History, HistoryEvent};
use crate::store::Listener;
use crate::versions::keys;
use crate::versions::{Notification, Versions};

/// Applies the notifications of a store.
pub(crate) struct Coherence {
    pub(crate) local: Option<Arc<Local>>,
    pub(crate) versions: Arc<Versions>,
    pub(crate) flights: Arc<Flights>,
    pub(crate) history: Arc<History>,
    pub(crate) background: Arc<Background>,
    /// Whether a task is freeing memory.
    pub(crate) giving_back: Arc<AtomicBool>,
    pub(crate) changes: Arc<Changes>,
}

impl Listener for Coherence {
    fn changed(&self, key: &str) {
        let local = self.local.as_ref().filter(|_| !mutants::removed(Invariant::PushDropsEntry));
        if local.is_some_and(|local| local.drop_key(key)) {
            self.history.note(key, HistoryEvent::Changed);
            self.changes.told();
            if local.is_some_and(|local| local.has_let_go()) {
                self.give_back();
            }
        }
        let told = self.versions.changed(key);
        // After an invalidation by this process the version is not known any more.
        if told == Notification::Known {
            self.changes.told();
            self.history.note(key, HistoryEvent::Invalidated(keys::scope(key), Actor::Another));
        }
    }

    fn gap(&self) {
        // The versions first: values of the next epoch of L1 then depend only on versions that were
        // read after the gap.
        if !mutants::removed(Invariant::GapForgetsVersions) {
            self.versions.clear();
        }
        if let Some(local) = &self.local
            && !mutants::removed(Invariant::GapEmptiesLocal)
        {
            local.clear();
        }
        // Renewing a lease does not detect an invalidation by version, and the notification of that
        // may be what was lost.
        self.flights.detach_all();
        self.history.note_of_all(HistoryEvent::ConnectionLost);
        self.give_back();
    }
}

impl Coherence {
    /// Frees the memory of dropped entries in small steps, in at most one task. Without a runtime
    /// the fills do it.
    fn give_back(&self) {
        let Some(local) = &self.local else { return };
        let Some(turn) = Turn::take(&self.giving_back) else { return };
        let (local, versions) = (Arc::clone(local), Arc::clone(&self.versions));
        self.background.service(async move {
            let mut turn = turn;
            loop {
                while local.give_back() || versions.give_back() {
                    tokio::task::yield_now().await;
                }
                let flag = turn.give();
                // A caller that dropped something meanwhile found the turn taken.
                match Turn::take(&flag) {
                    Some(again) if local.has_let_go() => turn = again,
                    _ => return,
                }
            }
        });
    }
}

/// The right to free memory, held by one task. Dropping it lets another task take it.
struct Turn(Arc<AtomicBool>);

impl Turn {
    fn take(flag: &Arc<AtomicBool>) -> Option<Self> {
        (!flag.swap(true, Ordering::AcqRel)).then(|| Self(Arc::clone(flag)))
    }

    fn give(self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::AtomicUsize;
    use std::thread::{self, ThreadId};
    use std::time::Duration;

    use super::*;
    use crate::clock::Clock;
    use crate::local::Service;
    use crate::store::Trust;
    use crate::versions::Dependencies;

    #[derive(Default)]
    struct Drops {
        count: AtomicUsize,
        /// The thread that is notifying changes at the moment.
        telling: Mutex<Option<ThreadId>>,
        /// Destructors that ran on that thread meanwhile.
        in_telling: AtomicUsize,
    }

    impl Drops {
        fn count(&self) -> usize {
            self.count.load(Ordering::SeqCst)
        }

        fn tell(&self, tell: impl FnOnce()) {
            *self.telling.lock().unwrap() = Some(thread::current().id());
            tell();
            *self.telling.lock().unwrap() = None;
            assert_eq!(self.in_telling.load(Ordering::SeqCst), 0, "destructors on the task that reports the gap");
        }
    }

    struct Bomb(Arc<Drops>);

    impl Drop for Bomb {
        fn drop(&mut self) {
            // Another test's thread may drop it: all tests share one list of removed values.
            let is_telling = *self.0.telling.lock().unwrap() == Some(thread::current().id());
            self.0.in_telling.fetch_add(usize::from(is_telling), Ordering::SeqCst);
            self.0.count.fetch_add(1, Ordering::SeqCst);
            // A panic that is not printed.
            std::panic::resume_unwind(Box::new("a destructor"));
        }
    }

    fn coherence() -> Coherence {
        let (clock, long) = (Clock::manual(), Duration::from_secs(60));
        let local = Local::new(1 << 24, long, Arc::new(Trust::absolute()), clock.clone());
        Coherence {
            local: local.map(Arc::new),
            versions: Arc::new(Versions::new(1 << 24)),
            flights: Flights::new(clock.clone(), long),
            history: Arc::new(History::new(64, clock)),
            background: Arc::new(Background::new()),
            giving_back: Arc::default(),
            changes: Arc::default(),
        }
    }

    fn keep(coherence: &Coherence, key: &str, drops: &Arc<Drops>) {
        let long = Duration::from_secs(60);
        let service = Service {
            fresh: long,
            stale: Duration::ZERO,
            longest: long,
            ahead_ms: 0.0,
            fill_id: 1,
            calm: Duration::ZERO,
        };
        let local = coherence.local.as_ref().unwrap();
        let bomb: crate::value::Erased = Arc::new(Bomb(Arc::clone(drops)));
        assert!(local.begin(&key.into()).keep(&bomb, 8, service, Dependencies::default()));
    }

    async fn until(mut is_so: impl FnMut() -> bool) {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    // R7, S10, C6
    async fn a_gap_leaves_destructors_to_a_task_that_survives_their_panics() {
        let (coherence, drops) = (coherence(), Arc::new(Drops::default()));
        for round in 1..=3 {
            (0..1000).for_each(|number| keep(&coherence, &format!("shop:user:{number}@f1"), &drops));
            drops.tell(|| {
                coherence.gap();
                coherence.gap();
            });
            until(|| drops.count() == round * 1000).await;
            until(|| !coherence.giving_back.load(Ordering::SeqCst)).await;
        }
    }

    #[tokio::test]
    // T5, S10
    async fn changes_run_no_destructor_either() {
        let (coherence, drops) = (coherence(), Arc::new(Drops::default()));
        (0..1000).for_each(|number| keep(&coherence, &format!("shop:user:{number}@f1"), &drops));
        drops.tell(|| (0..1000).for_each(|number| coherence.changed(&format!("shop:user:{number}@f1"))));
        // The last few dozen leave the table with the next ones.
        until(|| drops.count() >= 1000 - 64).await;
    }

    #[test]
    // S10, C6
    fn without_a_runtime_fills_free_the_entries_that_a_gap_dropped() {
        let (coherence, drops) = (coherence(), Arc::new(Drops::default()));
        (0..1000).for_each(|number| keep(&coherence, &format!("shop:user:{number}@f1"), &drops));
        drops.tell(|| coherence.gap());
        assert!(!coherence.giving_back.load(Ordering::SeqCst));
        (0..1000).for_each(|number| keep(&coherence, &format!("shop:post:{number}@f1"), &drops));
        // Another test's thread may be dropping some of them.
        while drops.count() < 900 {
            thread::yield_now();
        }
    }
}
