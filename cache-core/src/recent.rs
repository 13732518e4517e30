//! A bounded map that keeps the most recently used entries.
//!
//! ```text
//! new or used ──> young ── young is half full: young becomes old, and what was old is forgotten
//! ```
//!
//! Invariant: at most `most` entries, and no step takes longer than a lookup. A forgotten entry was
//! not used since at least half as many others were.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;

#[derive(Debug)]
pub(crate) struct Recent<K, V> {
    half: usize,
    young: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K: Hash + Eq, V> Recent<K, V> {
    pub(crate) fn new(most: usize) -> Self {
        Self { half: most / 2, young: HashMap::new(), old: HashMap::new() }
    }

    /// Returns the value under this key, without counting it as a use.
    pub(crate) fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    /// Returns the entry and counts a use; inserts a default if there is none.
    ///
    /// The `bool` is `true` if other entries were forgotten to make room.
    pub(crate) fn entry(&mut self, key: K) -> (&mut V, bool)
    where
        V: Default,
    {
        let mut has_forgotten = false;
        if !self.young.contains_key(&key) && self.young.len() >= self.half {
            let known = self.old.remove_entry(&key);
            has_forgotten = !self.old.is_empty();
            self.old = std::mem::take(&mut self.young);
            self.young.extend(known);
        }
        let old = self.old.remove(&key);
        (self.young.entry(key).or_insert_with(|| old.unwrap_or_default()), has_forgotten)
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.young.len().saturating_add(self.old.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    // C1
    fn a_million_names_stay_within_the_bound_and_keep_those_in_use() {
        let mut recent = Recent::<String, u64>::new(100);
        let mut forgotten = 0;
        for number in 0..1_000_000_u64 {
            let (value, has_forgotten) = recent.entry(number.to_string());
            *value = number;
            forgotten += u32::from(has_forgotten);
            *recent.entry("in use".to_owned()).0 += 1;
            assert!(recent.len() <= 100);
        }
        assert_eq!(recent.get("in use"), Some(&1_000_000));
        assert_eq!((recent.get("999999"), recent.get("0")), (Some(&999_999), None));
        assert!(forgotten > 0);
    }

    #[test]
    fn nothing_is_forgotten_below_the_bound() {
        let mut recent = Recent::<u32, u32>::new(100);
        for round in 0..3 {
            for key in 0..50 {
                let (value, has_forgotten) = recent.entry(key);
                assert!(*value == round && !has_forgotten);
                *value += 1;
            }
        }
    }
}
