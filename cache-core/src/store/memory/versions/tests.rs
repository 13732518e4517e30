//! A tag of the value and its kind are read one after the other, each under its own lock.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use futures::FutureExt as _;

use crate::clock::Clock;
use crate::key::versions::{kind_key, tag_key};
use crate::observe::events::Events;
use crate::observe::function_stats::FunctionNumber;
use crate::observe::history::History;
use crate::options::EntryOptions;
use crate::store::VERSION_EXPIRY;
use crate::store::memory::MemoryStore;
use crate::store::memory::versions::new_version;
use crate::value::Erased;
use crate::value::rules::Rules;
use crate::versions::Versions;
use crate::versions::snapshot::{VersionReader, VersionSnapshot};

/// Only a failing test waits this long.
const DEADLINE: Duration = Duration::from_secs(20);

/// Returns whether a run's value is stored, if both versions are renewed between the reads of
/// them, or not at all.
fn is_stored(renews: bool) -> bool {
    let clock = Clock::manual();
    let events = Events::new(Vec::new(), &clock);
    let store = Arc::new(MemoryStore::new(clock.clone(), events.clone(), usize::MAX));
    let (cells, history) = (Arc::new(Versions::new(1 << 20)), Arc::new(History::new(0, clock.clone())));
    let reader = VersionReader::new(Arc::clone(&store) as _, "app", cells, clock, history, events);
    let kind = kind_key("app", "owner");
    // An owner whose tag has another lock than its kind.
    let mut owners = (0..).map(|number| format!("owner:{number}"));
    let has_own_lock = |owner: &String| store.shard_index(&tag_key("app", owner)) != store.shard_index(&kind);
    let owner = owners.find(has_own_lock).unwrap();
    let tag = tag_key("app", &owner);
    let of_owner = move |_: &Erased| vec![owner.as_str().into()];
    let rules = Rules { tags_of: Some(Box::new(of_owner)), kinds: &["owner"], ..Rules::of(EntryOptions::new()) };
    store.versions(&[Arc::from(&*tag), Arc::from(&*kind)], true).unwrap();
    let mut basis = VersionSnapshot::new(&reader, "f", FunctionNumber::OTHER, &rules);
    basis.read_unknown(&reader).now_or_never().unwrap().unwrap();

    // The run has ended with its value, and its tag and kind are read on a thread of their own.
    let (value, name): (Erased, Arc<str>) = (Arc::new(7_u32), "f".into());
    let read = || {
        let under = basis.of_value(&reader, &name, &rules, &value).now_or_never();
        under.unwrap().unwrap().is_some()
    };
    thread::scope(|scope| {
        let mut reads = None;
        let renewal = store.with(&kind, |access| {
            let uses = store.tick.load(Ordering::Relaxed);
            reads = Some(scope.spawn(read));
            #[expect(clippy::disallowed_methods, reason = "a limit, so that a broken order does not hang")]
            let began = Instant::now();
            // Every read counts as a use. The next one waits for the lock of this closure.
            while store.tick.load(Ordering::Relaxed) == uses {
                assert!(began.elapsed() < DEADLINE, "the tag is not read before its kind");
                thread::yield_now();
            }
            if renews {
                access.put(&kind, new_version(), Some(VERSION_EXPIRY));
                store.with(&tag, |access| {
                    access.put(&tag, new_version(), Some(VERSION_EXPIRY));
                    Ok(())
                })?;
            }
            Ok(())
        });
        renewal.unwrap();
        reads.unwrap().join().unwrap()
    })
}

#[test]
// R4: of the kind and then of the tag, between the reads of both.
fn a_renewal_between_the_reads_of_a_tag_and_of_its_kind_keeps_the_value_from_being_stored() {
    assert!(is_stored(false));
    assert!(!is_stored(true));
}
