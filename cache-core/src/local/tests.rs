use std::sync::atomic::AtomicUsize;

use super::*;
use crate::store::Version;
use crate::versions::{self, Versions};

const LONG: Duration = Duration::from_secs(60);

fn local(clock: &Clock) -> Local {
    Local::new(1 << 20, LONG, Arc::new(Trust::absolute()), clock.clone()).unwrap()
}

fn value(number: u32) -> Erased {
    Arc::new(number)
}

/// Reads by both paths.
fn read(local: &Local, key: &str) -> Option<u32> {
    let plain = local.get_plain(&ParsedKey::parse(key).as_ref(), |value| value.downcast_ref().copied());
    match find(local, key) {
        None => assert_eq!(plain, None),
        Some(Hit::Fresh(value)) => assert_eq!(plain, Some(value)),
        Some(Hit::Due(..)) => panic!("it is fresh"),
    }
    plain
}

fn find(local: &Local, key: &str) -> Option<Hit<u32>> {
    local.get(&ParsedKey::parse(key).as_ref(), |value| value.downcast_ref().copied())
}

fn fresh_for(fresh: Duration) -> Service {
    let (calm, stale) = (Duration::ZERO, Duration::ZERO);
    Service { fresh, calm, stale, longest: Duration::MAX, ahead_ms: 0.0, fill_id: 7 }
}

#[test]
// R6, T4
fn a_change_between_read_and_fill_refuses_the_fill() {
    let local = local(&Clock::manual());
    let key: Arc<str> = "k".into();
    let (first, second) = (local.begin(&key), local.begin(&key));
    local.drop_key("k");
    let third = local.begin(&key);
    assert!(!first.keep(&value(1), 4, fresh_for(LONG), Dependencies::default()));
    assert!(third.keep(&value(2), 4, fresh_for(LONG), Dependencies::default()));
    assert!(!second.keep(&value(1), 4, fresh_for(LONG), Dependencies::default()));
    assert_eq!(read(&local, "k"), Some(2));
    assert_eq!(local.marked_keys(), 0);
}

#[test]
// T5, R6
fn keys_of_one_hash_are_kept_and_dropped_apart() {
    let local = local(&Clock::manual());
    let hash = |key: &str| local.look(ParsedKey::parse(key).as_ref()).hash;
    let mut seen = HashMap::new();
    let keys = (0..1_000_000).map(|number| format!("shop:user:{number}@f1"));
    let pairs = keys.filter_map(|key| Some((seen.insert(hash(&key), key.clone())?, key)));
    let pairs: Vec<_> = pairs.take(3).collect();
    assert_eq!(pairs.len(), 3);
    for (one, other) in pairs {
        for (dropped, stays) in [(&other, &one), (&one, &other)] {
            for (number, key) in [(1, &one), (2, &other)] {
                local.begin(&key.as_str().into()).keep(&value(number), 4, fresh_for(LONG), Dependencies::default());
            }
            assert_eq!((read(&local, &one), read(&local, &other)), (Some(1), Some(2)));
            assert!(local.drop_key(dropped));
            assert!(read(&local, dropped).is_none() && read(&local, stays).is_some());
        }
    }
}

#[test]
// R7
fn an_entry_found_without_trust_is_not_served_under_later_trust() {
    let trust = Arc::new(Trust::absolute());
    let local = Local::new(1 << 20, LONG, Arc::clone(&trust), Clock::manual()).unwrap();
    local.begin(&"k".into()).keep(&value(1), 4, fresh_for(LONG), Dependencies::default());
    assert_eq!(read(&local, "k"), Some(1));
    trust.revoke();
    // The connection is back while the value is being taken.
    let served = local.get_plain(&ParsedKey::parse("k").as_ref(), |value| {
        local.clear();
        trust.extend(u64::MAX);
        value.downcast_ref::<u32>().copied()
    });
    assert_eq!(served, None);
}

#[test]
// R7, T1
fn a_delayed_call_does_not_serve_an_entry_that_ended_meanwhile() {
    let (clock, trust) = (Clock::manual(), Arc::new(Trust::absolute()));
    let local = Local::new(1 << 20, LONG, Arc::clone(&trust), clock.clone()).unwrap();
    let held_up = |by: Duration| {
        local.get_plain(&ParsedKey::parse("k").as_ref(), |value| {
            clock.advance(by);
            value.downcast_ref::<u32>().copied()
        })
    };
    local.begin(&"k".into()).keep(&value(1), 4, fresh_for(LONG), Dependencies::default());
    assert_eq!((held_up(LONG / 2), held_up(LONG / 2)), (Some(1), None));
    local.begin(&"k".into()).keep(&value(1), 4, fresh_for(LONG), Dependencies::default());
    trust.extend(clock.coarse() + 2000);
    assert_eq!((held_up(Duration::from_secs(1)), held_up(Duration::from_secs(1))), (Some(1), None));
}

#[test]
// R7
fn a_gap_empties_the_tier_and_refuses_fills_from_before() {
    let local = local(&Clock::manual());
    let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
    assert!(local.begin(&a).keep(&value(1), 4, fresh_for(LONG), Dependencies::default()));
    let pending = local.begin(&b);
    local.clear();
    assert!(!pending.keep(&value(2), 4, fresh_for(LONG), Dependencies::default()));
    assert_eq!((read(&local, "a"), read(&local, "b")), (None, None));
}

#[test]
// T1, T2
fn a_value_is_served_for_the_shorter_of_its_ttl_and_that_of_the_tier() {
    let clock = Clock::manual();
    let local = local(&clock);
    for (left, served) in [(Duration::from_secs(5), 5), (Duration::from_secs(500), 60)] {
        local.begin(&"k".into()).keep(&value(1), 4, fresh_for(left), Dependencies::default());
        clock.advance(Duration::from_secs(served) - Duration::from_millis(1));
        assert_eq!(read(&local, "k"), Some(1));
        clock.advance(Duration::from_millis(1));
        assert_eq!(read(&local, "k"), None);
    }
}

#[test]
// R7
fn nothing_is_served_beyond_trust() {
    let (clock, trust) = (Clock::manual(), Arc::new(Trust::default()));
    let local = Local::new(1 << 20, LONG, Arc::clone(&trust), clock.clone()).unwrap();
    local.begin(&"k".into()).keep(&value(1), 4, fresh_for(LONG), Dependencies::default());
    assert_eq!(read(&local, "k"), None);
    trust.extend(clock.coarse() + 2000);
    assert_eq!(read(&local, "k"), Some(1));
    clock.advance(Duration::from_secs(2));
    assert_eq!(read(&local, "k"), None);
}

#[test]
// T3
fn the_tier_is_bounded_by_bytes() {
    let local = local(&Clock::manual());
    for number in 0..10_000 {
        local.begin(&format!("key {number}").into()).keep(
            &value(number),
            1000,
            fresh_for(LONG),
            Dependencies::default(),
        );
    }
    let bytes = local.order().bytes();
    assert!(bytes <= 1 << 20, "{bytes}");
    assert!(local.entries.len() > 500, "{}", local.entries.len());
}

#[test]
// F1, F4
fn a_value_in_its_stale_window_is_served_and_due() {
    let clock = Clock::manual();
    let local = local(&clock);
    let service = Service { stale: Duration::from_secs(5), ..fresh_for(Duration::from_secs(10)) };
    local.begin(&"k".into()).keep(&value(1), 4, service, Dependencies::default());
    for (after_ms, found) in
        [(9_999, Some(Hit::Fresh(1))), (1, Some(Hit::Due(1, 7))), (4_999, Some(Hit::Due(1, 7))), (1, None)]
    {
        clock.advance(Duration::from_millis(after_ms));
        assert_eq!(find(&local, "k"), found);
    }
    // A tier that keeps a value for less than it is fresh serves no stale value.
    local.begin(&"k".into()).keep(
        &value(1),
        4,
        Service { longest: Duration::from_secs(3), ..service },
        Dependencies::default(),
    );
    clock.advance(Duration::from_secs(3));
    assert_eq!(find(&local, "k"), None);
}

#[test]
// F8
fn early_refreshes_of_kept_values_follow_the_formula() {
    let clock = Clock::manual();
    let local = local(&clock);
    let service = Service { ahead_ms: 100.0, ..fresh_for(Duration::from_secs(10)) };
    local.begin(&"k".into()).keep(&value(1), 4, service, Dependencies::default());
    let (key, guard) = (ParsedKey::parse("k"), local.entries.guard());
    let (kept, ()) = local.entries.get_key_value(&local.look(key.as_ref()), &guard).unwrap();
    // Before the last 37 times the cost there is no draw; from then on each read draws for itself.
    assert_eq!(kept.until, clock.coarse() + 10_000 - 3_700);
    clock.advance(Duration::from_millis(9_800));
    let mut state = 42_u64;
    let mut due = 0;
    for _ in 0..10_000 {
        // A linear congruential generator with Knuth's constants: the same draws in every run.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let random = (state >> 11) as f64 / (1_u64 << 53) as f64;
        due += u32::from(kept.is_due(clock.coarse(), || random).unwrap());
    }
    // P = exp(-200 ms / 100 ms) = 0.1353: within three standard deviations, 34 each.
    assert!((1353 - 103..=1353 + 103).contains(&due), "{due} of 10,000");
}

/// A value that counts its drops.
struct Told(Arc<AtomicUsize>);

impl Drop for Told {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn keep(local: &Local, key: &str, value: Erased) -> bool {
    local.begin(&key.into()).keep(&value, 0, fresh_for(LONG), Dependencies::default())
}

/// Waits until `is_so`: all tests share one list of removed values, and another test may be
/// dropping some of ours.
fn until(mut is_so: impl FnMut() -> bool) {
    while !is_so() {
        std::thread::yield_now();
    }
}

#[test]
// R7, C6
fn dropping_everything_is_one_step_and_memory_is_freed_in_small_steps() {
    const ENTRIES: usize = 50_000;
    let (dropped, clock) = (Arc::new(AtomicUsize::new(0)), Clock::manual());
    let local = Local::new(1 << 30, LONG, Arc::new(Trust::absolute()), clock).unwrap();
    for number in 0..ENTRIES {
        assert!(keep(&local, &format!("shop:user:{number}@f1"), Arc::new(Told(Arc::clone(&dropped)))));
    }
    local.clear();
    assert_eq!(dropped.load(Ordering::SeqCst), 0, "no value is looked at");
    assert_eq!(local.entries.len(), ENTRIES, "an entry is not served either");
    for number in [0, 1, ENTRIES - 1] {
        let key = format!("shop:user:{number}@f1");
        assert!(local.get_plain(&ParsedKey::parse(&key).as_ref(), |_| Some(())).is_none());
        assert!(local.get(&ParsedKey::parse(&key).as_ref(), |_| Some(())).is_none());
        assert!(local.inspect(&key).is_none());
    }
    assert_eq!(local.order().bytes(), 0, "what is dead is not counted as kept");
    let before = local.entries.len();
    assert!(local.give_back());
    assert!(before - local.entries.len() <= GIVEN_BACK_AT_ONCE);
    until(|| !local.give_back() && dropped.load(Ordering::SeqCst) == ENTRIES);
    assert_eq!(local.entries.len(), 0);
}

#[test]
// C5
fn dead_entries_are_evicted_first_and_count_towards_the_limit() {
    let local = local(&Clock::manual());
    let fill = |from: u32| {
        for number in from..from + 2000 {
            local.begin(&number.to_string().into()).keep(&value(number), 100, fresh_for(LONG), Dependencies::default());
            let weight: u64 = local.entries.pin().keys().map(LocalEntry::weight).sum();
            assert!(number % 100 != 0 || weight <= 1 << 20, "{weight}");
        }
    };
    fill(0);
    for from in [10_000, 20_000, 30_000] {
        local.clear();
        fill(from);
        let there = (from..from + 2000).filter(|number| read(&local, &number.to_string()).is_some()).count();
        assert_eq!(there, 2000, "nothing that is alive had to go");
    }
    assert_eq!(local.entries.len(), 2000, "and nothing that is dead is left");
}

#[test]
// T5, R7
fn a_dead_entry_is_neither_reported_nor_in_the_way() {
    let local = local(&Clock::manual());
    assert!(keep(&local, "k", value(1)));
    local.clear();
    assert!(!local.drop_key("k"), "there was no value any more");
    assert!(keep(&local, "k", value(1)));
    local.clear();
    assert!(keep(&local, "k", value(2)));
    assert_eq!((read(&local, "k"), local.entries.len()), (Some(2), 1));
    while local.give_back() {}
    assert_eq!(read(&local, "k"), Some(2), "it has the ticket of one that was dead");
    assert!(local.drop_key("k"));
    assert_eq!((local.order().bytes(), local.entries.len()), (0, 0));
}

#[test]
// S10
fn a_destructor_may_panic_or_use_the_tier() {
    struct Bomb(Arc<Local>, Arc<AtomicUsize>);
    impl Drop for Bomb {
        fn drop(&mut self) {
            // Under a lock of the tier this would wait forever.
            self.0.drop_key("another");
            self.0.clear();
            self.1.fetch_add(1, Ordering::SeqCst);
            // A panic that is not printed.
            std::panic::resume_unwind(Box::new("a destructor"));
        }
    }
    let (local, dropped) = (Arc::new(local(&Clock::manual())), Arc::new(AtomicUsize::new(0)));
    for number in 0..100 {
        let bomb = Arc::new(Bomb(Arc::clone(&local), Arc::clone(&dropped)));
        assert!(keep(&local, &format!("shop:user:{number}@f1"), bomb));
        if number % 2 == 0 {
            local.drop_key(&format!("shop:user:{number}@f1"));
        }
    }
    local.clear();
    until(|| !local.give_back() && dropped.load(Ordering::SeqCst) == 100);
    assert!(keep(&local, "k", value(1)));
    assert_eq!(read(&local, "k"), Some(1));
}

#[test]
// R4, R7
fn a_value_under_versions_from_before_a_gap_is_not_kept_after_it() {
    let (local, versions, version) = (local(&Clock::manual()), Versions::new(0), Version::random());
    let cell = versions.cell("v");
    let learn = || cell.learn(cell.begin(), version);
    learn();
    let under = versions::shared(None, vec![cell.depend(version).unwrap()]);
    versions.clear();
    local.clear();
    // The fill is sent after the gap, and its versions were known before it.
    assert!(!local.begin(&"k".into()).keep(&value(1), 4, fresh_for(LONG), under.clone()));
    assert_eq!(read(&local, "k"), None);
    learn();
    assert!(local.begin(&"k".into()).keep(&value(1), 4, fresh_for(LONG), under));
    assert_eq!(read(&local, "k"), Some(1), "the version did not change");
}

#[test]
// F12
fn no_kept_value_is_refreshed_before_half_of_its_ttl_has_passed() {
    let clock = Clock::manual();
    let local = local(&clock);
    // The compute takes longer than the ttl: without a floor, each read would refresh it.
    let (fresh, calm) = (Duration::from_secs(10), Duration::from_secs(5));
    let service = Service { calm, ahead_ms: 1e9, ..fresh_for(fresh) };
    local.begin(&"k".into()).keep(&value(1), 4, service, Dependencies::default());
    clock.advance(calm - Duration::from_millis(1));
    for _ in 0..1000 {
        assert_eq!(find(&local, "k"), Some(Hit::Fresh(1)));
    }
    clock.advance(Duration::from_millis(1));
    let due = (0..1000).filter(|_| find(&local, "k") == Some(Hit::Due(1, 7))).count();
    assert!(due > 900, "{due}");
}
