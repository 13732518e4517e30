//! The effect of the options on an entry.

use std::time::Duration;

use cache_core::clock::Clock;
use cache_core::{Cache, cached};

use super::{Runs, User};

fn cache_with_clock() -> (Cache, Clock) {
    let clock = Clock::manual();
    (Cache::builder().clock(clock.clone()).in_memory(), clock)
}

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn ttl_in_all_its_forms() {
    #[cached(ttl = 60, cache = cache, skip(cache, runs))]
    async fn seconds(cache: &Cache, runs: &Runs) -> u32 {
        runs.next()
    }
    #[cached(ttl = "1m", cache = cache, skip(cache, runs))]
    async fn text(cache: &Cache, runs: &Runs) -> u32 {
        runs.next()
    }
    #[cached(ttl = MINUTE, cache = cache, skip(cache, runs))]
    async fn constant(cache: &Cache, runs: &Runs) -> u32 {
        runs.next()
    }
    #[cached(ttl = Duration::from_secs(30) * 2, cache = cache, skip(cache, runs))]
    async fn expression(cache: &Cache, runs: &Runs) -> u32 {
        runs.next()
    }
    let (cache, clock) = cache_with_clock();
    let runs: [Runs; 4] = Default::default();
    for (after, expected) in [(0, 1), (20, 1), (60, 2)] {
        clock.advance(Duration::from_secs(after));
        assert_eq!(seconds(&cache, &runs[0]).await, expected, "seconds");
        assert_eq!(text(&cache, &runs[1]).await, expected, "text");
        assert_eq!(constant(&cache, &runs[2]).await, expected, "constant");
        assert_eq!(expression(&cache, &runs[3]).await, expected, "expression");
    }
}

#[tokio::test]
async fn ttl_by_value() {
    // V3
    #[cached(ttl = |runs| Duration::from_secs(u64::from(*runs) * 60), cache = cache, skip(cache, runs))]
    async fn shape(cache: &Cache, runs: &Runs) -> Result<u32, String> {
        Ok(runs.next())
    }
    let (cache, clock) = cache_with_clock();
    let runs = Runs::default();
    assert_eq!(shape(&cache, &runs).await, Ok(1));
    clock.advance(Duration::from_secs(61));
    assert_eq!(shape(&cache, &runs).await, Ok(2));
    clock.advance(Duration::from_secs(61));
    assert_eq!(shape(&cache, &runs).await, Ok(2));
    clock.advance(Duration::from_secs(60));
    assert_eq!(shape(&cache, &runs).await, Ok(3));
}

#[tokio::test]
async fn none_is_cached_for_the_negative_ttl() {
    // V2
    #[cached(ttl = "1h", negative_ttl = "30s", cache = cache, skip(cache, runs))]
    async fn shape(cache: &Cache, runs: &Runs, id: u64) -> Option<User> {
        runs.next();
        (id != 0).then(|| User::new(id))
    }
    let (cache, clock) = cache_with_clock();
    let runs = Runs::default();
    assert_eq!(shape(&cache, &runs, 0).await, None);
    assert_eq!(shape(&cache, &runs, 0).await, None);
    assert_eq!(runs.count(), 1);
    shape(&cache, &runs, 1).await;
    clock.advance(Duration::from_secs(31));
    assert_eq!(shape(&cache, &runs, 0).await, None);
    assert_eq!(runs.count(), 3);
    assert_eq!(shape(&cache, &runs, 1).await, Some(User::new(1)));
    assert_eq!(runs.count(), 3);
}

#[tokio::test]
async fn cache_if_false_is_not_stored() {
    // V5
    #[cached(cache_if = |value| *value > 2, skip(runs))]
    async fn shape(runs: &Runs) -> Result<u32, String> {
        Ok(runs.next())
    }
    let runs = Runs::default();
    for expected in [1, 2, 3, 3] {
        assert_eq!(shape(&runs).await, Ok(expected));
    }
}

#[tokio::test]
async fn cache_if_takes_a_function() {
    // V5
    #[cached(cache_if = is_even, skip(runs))]
    async fn shape(runs: &Runs) -> Result<u32, String> {
        Ok(runs.next())
    }
    fn is_even(value: &u32) -> bool {
        value.is_multiple_of(2)
    }
    let runs = Runs::default();
    for expected in [1, 2, 2] {
        assert_eq!(shape(&runs).await, Ok(expected));
    }
}

#[tokio::test]
async fn bypass_neither_reads_nor_stores() {
    // V6
    #[cached(bypass = fresh || *id == 0, skip(runs, fresh))]
    async fn shape(runs: &Runs, id: &u32, fresh: bool) -> u32 {
        let _seen = (id, fresh);
        runs.next()
    }
    let runs = Runs::default();
    assert_eq!(shape(&runs, &1, true).await, 1);
    assert_eq!(shape(&runs, &1, false).await, 2);
    assert_eq!(shape(&runs, &1, true).await, 3);
    assert_eq!(shape(&runs, &1, false).await, 2);
    assert_eq!(shape(&runs, &0, false).await, 4);
    assert_eq!(shape(&runs, &0, false).await, 5);
}

#[tokio::test]
async fn key_templates_keep_arguments_apart() {
    // K1, K3
    #[cached(name = "shapes.template", key = "of/{a}:{b}", skip(runs, ignored))]
    async fn shape(runs: &Runs, a: &str, b: &str, ignored: u8) -> u32 {
        let _seen = (a, b, ignored);
        runs.next()
    }
    let runs = Runs::default();
    for (at, (a, b)) in (1..).zip([("x:y", "z"), ("x", "y:z"), ("x%3Ay", "z"), ("", "x:y:z"), ("x:y:z", "")]) {
        assert_eq!(shape(&runs, a, b, 0).await, at);
        assert_eq!(shape(&runs, a, b, 1).await, at);
    }
    let key = shape::entry("ab", "7-8.9_0").key().to_owned();
    assert!(key.contains(":shapes.template:of/ab:7-8.9_0@"), "{key}");
}

/// Functions whose templates use each separator, called with values that contain it.
macro_rules! separators {
    ($($name:ident: $key:literal;)*) => {
        #[tokio::test]
        async fn every_separator_is_escaped_in_values() {
            // K1
            $(
                #[cached(key = $key, skip(runs))]
                async fn $name(runs: &Runs, a: &str, b: &str) -> u32 {
                    let _seen = (a, b);
                    runs.next()
                }
                let separator = $key.replace("{a}", "").replace("{b}", "");
                let runs = Runs::default();
                assert_eq!($name(&runs, &format!("x{separator}y"), "z").await, 1);
                assert_eq!($name(&runs, "x", &format!("y{separator}z")).await, 2, "{separator}");
            )*
        }
    };
}

separators! {
    colon: "{a}:{b}";
    slash: "{a}/{b}";
    equals: "{a}={b}";
    bar: "{a}|{b}";
    plus: "{a}+{b}";
    star: "{a}*{b}";
    ampersand: "{a}&{b}";
    hash: "{a}#{b}";
    dollar: "{a}${b}";
    caret: "{a}^{b}";
    semicolon: "{a};{b}";
    less: "{a}<{b}";
    greater: "{a}>{b}";
    quote: "{a}'{b}";
    backslash: "{a}\\{b}";
    backtick: "{a}`{b}";
    longer: "{a}-of:{b}";
}

#[tokio::test]
async fn key_templates_take_fields() {
    #[cached(name = "shapes.fields", key = "{user.id}/{pair.1}", skip(runs))]
    async fn shape(runs: &Runs, user: &User, pair: (f64, u8)) -> u32 {
        let _seen = (user, pair);
        runs.next()
    }
    let runs = Runs::default();
    assert_eq!(shape(&runs, &User::new(1), (1.0, 2)).await, 1);
    assert_eq!(shape(&runs, &User { id: 1, name: String::new() }, (2.0, 2)).await, 1);
    assert_eq!(shape(&runs, &User::new(1), (1.0, 3)).await, 2);
    assert!(shape::entry(&User::new(1), (1.0, 2)).key().contains(":1/2@"));
}

#[tokio::test]
async fn every_codec() {
    #[cached(codec = "bincode")]
    async fn bincode(id: u64) -> User {
        User::new(id)
    }
    #[cached(codec = "postcard")]
    async fn postcard(id: u64) -> User {
        User::new(id)
    }
    #[cached(codec = "msgpack")]
    async fn msgpack(id: u64) -> User {
        User::new(id)
    }
    #[cached(codec = "json")]
    async fn json(id: u64) -> User {
        User::new(id)
    }
    #[cached(codec = cache_core::codec::Json)]
    async fn by_path(id: u64) -> User {
        User::new(id)
    }
    for _ in 0..2 {
        assert_eq!(bincode(1).await, User::new(1));
        assert_eq!(postcard(1).await, User::new(1));
        assert_eq!(msgpack(1).await, User::new(1));
        assert_eq!(json(1).await, User::new(1));
        assert_eq!(by_path(1).await, User::new(1));
    }
}

#[tokio::test]
async fn every_flight() {
    #[cached(single_flight = "cluster")]
    async fn cluster(id: u64) -> User {
        User::new(id)
    }
    #[cached(single_flight = "process")]
    async fn process(id: u64) -> User {
        User::new(id)
    }
    #[cached(single_flight = "none")]
    async fn none(id: u64) -> User {
        User::new(id)
    }
    for _ in 0..2 {
        assert_eq!(cluster(1).await, User::new(1));
        assert_eq!(process(1).await, User::new(1));
        assert_eq!(none(1).await, User::new(1));
    }
}

struct State {
    cache: Cache,
    runs: Runs,
}

#[tokio::test]
async fn a_cache_from_the_arguments() {
    #[cached(cache = &state.cache, skip(state))]
    async fn shape(state: &State, id: u64) -> u32 {
        let _seen = id;
        state.runs.next()
    }
    let state = || State { cache: Cache::in_memory(), runs: Runs::default() };
    let (one, two) = (state(), state());
    assert_eq!(shape(&one, 1).await, 1);
    assert_eq!(shape(&one, 1).await, 1);
    assert_eq!(shape(&two, 1).await, 1);
    shape::entry(1).on(&one.cache).invalidate().await.unwrap();
    assert_eq!(shape(&one, 1).await, 2);
    assert_eq!(shape(&two, 1).await, 1);
    assert_eq!(shape::refresh(&two, 1).await, 2);
    assert_eq!(shape(&two, 1).await, 2);
}
