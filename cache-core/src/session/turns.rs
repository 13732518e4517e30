//! Whose turn it is to write a session. Each writer leaves for the next one what it wrote.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;

/// What stands under which key, as far as the last writer knows.
pub(super) type Last = Option<(String, Bytes)>;

/// Whose turn it is to write a session, for those sessions that are being written in this process.
#[derive(Default)]
pub(super) struct Turns(Mutex<HashMap<String, Weak<Turn>>>);

pub(super) struct Turn {
    key: String,
    turns: Arc<Turns>,
    pub(super) last: tokio::sync::Mutex<Last>,
}

impl Turns {
    pub(super) fn of(self: &Arc<Self>, key: &str) -> Arc<Turn> {
        let new =
            || Arc::new(Turn { key: key.to_owned(), turns: Arc::clone(self), last: tokio::sync::Mutex::default() });
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match turns.entry(key.to_owned()) {
            Entry::Occupied(mut entry) => entry.get().upgrade().unwrap_or_else(|| {
                let turn = new();
                entry.insert(Arc::downgrade(&turn));
                turn
            }),
            Entry::Vacant(entry) => {
                let turn = new();
                entry.insert(Arc::downgrade(&turn));
                turn
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut turns = self.turns.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Somebody may have come for this key after the last holder had gone.
        if turns.get(&self.key).is_some_and(|turn| turn.strong_count() == 0) {
            turns.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_kept_only_while_somebody_writes() {
        let turns = Arc::<Turns>::default();
        for key in 0..100 {
            let (one, two) = (turns.of(&key.to_string()), turns.of(&key.to_string()));
            assert!(Arc::ptr_eq(&one, &two), "one turn for one session");
            drop(one);
            assert!(Arc::ptr_eq(&two, &turns.of(&key.to_string())));
        }
        assert_eq!(turns.0.lock().unwrap().len(), 0);
    }

    #[test]
    fn turns_that_many_take_at_the_same_time_are_all_given_back() {
        let turns = Arc::<Turns>::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..20_000).for_each(|n| drop(turns.of(["a", "b"][n % 2]))));
            }
        });
        assert_eq!(turns.0.lock().unwrap().len(), 0);
    }
}
