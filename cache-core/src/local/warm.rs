//! Collects the entries that were hit: the store does not see local hits, and takes those entries
//! for cold.
//!
//! An entry has no room for its whole key, so the text that all keys of a function and build have
//! in common is stored here once.

use std::collections::HashMap;
use std::sync::PoisonError;

use super::Local;
use super::entry::LocalEntry;
use super::key::{LocalKey, Origin};
use crate::sync::RwLock;
use crate::versions::Dependencies;

/// How many functions and builds are known. Hits of further ones are not reported. About 150 bytes
/// each.
const MOST_ORIGINS: usize = 4096;
/// How many entries are visited before the task yields.
const ENTRIES_AT_A_TIME: usize = 1024;

/// The text in front of and behind the arguments in the keys of each function and build.
#[derive(Default)]
pub(super) struct Origins(RwLock<HashMap<Origin, Around>>);

struct Around {
    before: Box<str>,
    behind: Box<str>,
}

impl Origins {
    /// Records a key of this origin.
    pub(super) fn learn(&self, origin: Origin, key: &str) {
        let is_known = |known: &HashMap<Origin, Around>| known.contains_key(&origin) || known.len() >= MOST_ORIGINS;
        if is_known(&self.0.read().unwrap_or_else(PoisonError::into_inner)) {
            return;
        }
        let Some(around) = Around::of(key) else { return };
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if !is_known(&known) {
            known.insert(origin, around);
        }
    }

    /// Returns the key as stored.
    fn whole(&self, key: &LocalKey) -> Option<String> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let around = match key.origin() {
            Some(origin) => Some(known.get(&origin)?),
            None => None,
        };
        let mut whole = around.map_or_else(String::new, |around| (*around.before).to_owned());
        key.write_args(&mut whole);
        whole.push_str(around.map_or("", |around| &around.behind));
        Some(whole)
    }
}

impl Around {
    fn of(key: &str) -> Option<Self> {
        let (namespace, rest) = key.split_once(':')?;
        let (name, _) = rest.split_once(':')?;
        let before = key.get(..namespace.len().saturating_add(name.len()).saturating_add(2))?;
        let behind = key.get(key.rfind('@')?..)?;
        Some(Self { before: before.into(), behind: behind.into() })
    }
}

impl Local {
    /// Returns the stored keys of the entries that were hit since the last call, with the versions
    /// of those values.
    pub(crate) async fn take_hits(&self) -> Vec<(String, Dependencies)> {
        // While it is held, removed entries stay in memory.
        let table = self.entries.pin_owned();
        let mut hits = Vec::new();
        for (number, (kept, ())) in (1_usize..).zip(&table) {
            hits.extend(self.hit(kept));
            if number % ENTRIES_AT_A_TIME == 0 {
                tokio::task::yield_now().await;
            }
        }
        hits
    }

    fn hit(&self, kept: &LocalEntry) -> Option<(String, Dependencies)> {
        let key = kept.take_hit().then(|| self.origins.whole(&kept.key))??;
        Some((key, kept.under.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::key::ParsedKey;
    use super::*;

    #[test]
    // T8
    fn a_key_is_rebuilt_exactly_as_it_is_stored() {
        let origins = Origins::default();
        let long = format!("app:f:{}@f1", "x".repeat(100));
        let keys = [
            "app:f:7@f1",
            "app:f:07@f1",
            "app:f:@f1",
            "app:f:\"\"@f1",
            "app:f:a,b@f1",
            "app:f:a%20b@f1",
            "app:f:%C3%9F@f1",
            "app:f:7,de@f2",
            "app:g:x:y@z@f1",
            "app:f:%zz@f1",
            &long,
            "no-function",
            "app:only",
        ];
        for key in keys {
            let parsed = ParsedKey::parse(key);
            origins.learn(parsed.origin(), key);
            assert_eq!(origins.whole(&parsed.as_ref().to_owned()).as_deref(), Some(key));
        }
        let unknown = ParsedKey::parse("app:other:7@f1").as_ref().to_owned();
        assert_eq!(origins.whole(&unknown), None);
    }

    #[test]
    // C1
    fn functions_that_are_remembered_are_bounded() {
        let origins = Origins::default();
        for number in 0..MOST_ORIGINS + 10 {
            let key = format!("app:f{number}:7@f1");
            origins.learn(ParsedKey::parse(&key).origin(), &key);
        }
        assert_eq!(origins.0.read().unwrap().len(), MOST_ORIGINS);
    }
}
