//! Gathers the writes of one key by many callers of this process, so that they go out in one swap.
//!
//! Invariant: at most one task works on a key, and it takes the waiting jobs in the order in which
//! they came. If a caller goes away, its job is still done or not, as with a write whose reply was
//! lost. A key without waiting jobs takes no memory.
//!
//! ```text
//! caller 1 ── job ─┐                             ┌── its answer
//! caller 2 ── job ─┼── all that wait ── swap ────┼── its answer
//! caller 3 ── job ─┘                             └── its answer
//!                     meanwhile others gather for the next swap
//! ```
//!
//! The parent module defines what a job is and how several jobs become one swap. This module only
//! tracks which jobs wait for which key.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The waiting jobs, by key.
pub(crate) struct Gathering<J>(Mutex<HashMap<Arc<str>, Vec<J>>>);

/// Exclusive right to work on a key. The holder has to do all its waiting jobs.
pub(crate) struct Turn<J> {
    gathering: Arc<Gathering<J>>,
    key: Arc<str>,
    over: bool,
}

impl<J> Default for Gathering<J> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<J> Gathering<J> {
    /// Adds a job. Returns the turn if no task works on this key yet: the caller then has to do the
    /// job.
    pub(crate) fn add(self: &Arc<Self>, key: &str, job: J) -> Option<Turn<J>> {
        let mut waiting = self.waiting();
        if let Some(jobs) = waiting.get_mut(key) {
            jobs.push(job);
            return None;
        }
        let key: Arc<str> = key.into();
        waiting.insert(Arc::clone(&key), vec![job]);
        Some(Turn { gathering: Arc::clone(self), key, over: false })
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<Arc<str>, Vec<J>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<J> Turn<J> {
    /// Returns all waiting jobs, the oldest first. `None` if there are none; the turn is over then.
    pub(crate) fn next(&mut self) -> Option<Vec<J>> {
        if self.over {
            return None;
        }
        let mut waiting = self.gathering.waiting();
        match waiting.get_mut(&self.key) {
            Some(jobs) if !jobs.is_empty() => Some(std::mem::take(jobs)),
            _ => {
                self.over = true;
                waiting.remove(&self.key);
                None
            }
        }
    }
}

/// Ending a turn early drops the waiting jobs; their callers see a closed channel.
impl<J> Drop for Turn<J> {
    fn drop(&mut self) {
        if !self.over {
            let left = self.gathering.waiting().remove(&self.key);
            // Dropped outside the lock: dropping a job may run arbitrary code.
            drop(left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_added_during_a_round_join_the_next_round() {
        let gathering = Arc::<Gathering<u32>>::default();
        let mut turn = gathering.add("a", 1).unwrap();
        assert!(gathering.add("a", 2).is_none());
        let other = gathering.add("b", 9);
        assert_eq!(turn.next(), Some(vec![1, 2]));
        assert!(gathering.add("a", 3).is_none(), "a worker holds the turn");
        assert_eq!((turn.next(), turn.next()), (Some(vec![3]), None));
        // The turn is over. The next caller begins another, which the old one does not affect.
        let mut next = gathering.add("a", 4).unwrap();
        drop(turn);
        assert_eq!((next.next(), next.next()), (Some(vec![4]), None));
        drop((next, other));
        assert!(gathering.waiting().is_empty());
    }

    #[test]
    fn dropping_a_turn_drops_its_jobs() {
        let gathering = Arc::<Gathering<Arc<()>>>::default();
        let job = Arc::new(());
        let turn = gathering.add("a", Arc::clone(&job));
        assert!(gathering.add("a", Arc::clone(&job)).is_none());
        drop(turn);
        assert_eq!((Arc::strong_count(&job), gathering.waiting().len()), (1, 0));
        assert!(gathering.add("a", job).is_some());
    }

    #[test]
    fn jobs_of_many_threads_are_all_taken_once() {
        let gathering = Arc::<Gathering<u32>>::default();
        let taken = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (gathering, taken) = (&gathering, &taken);
                scope.spawn(move || {
                    for n in 0..5_000 {
                        let Some(mut turn) = gathering.add(["a", "b"][n % 2], thread) else { continue };
                        while let Some(jobs) = turn.next() {
                            taken.lock().unwrap().extend(jobs);
                        }
                    }
                });
            }
        });
        assert_eq!((taken.into_inner().unwrap().len(), gathering.waiting().len()), (20_000, 0));
    }
}
