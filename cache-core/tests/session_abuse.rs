//! Hostile cookies and stored sessions against their readers. Deterministic: every run makes the
//! same mutations.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "test helpers: a panic fails the test, as it should"
)]
#![allow(clippy::disallowed_methods, reason = "the elapsed real time is what is measured")]

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use cache_core::session::raw;
use peak_alloc::PeakAlloc;
use serde_json::value::RawValue;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Memory is measured for the whole process, so one test runs at a time.
static ALONE: Mutex<()> = Mutex::new(());

const NAME: &str = "connect.sid";
const SECRET: &[u8] = b"a secret of thirty-two bytes....";
const ID: &str = "R1UqolVb-Rd2gJef9Rbx-PLyuQev7t3y";
/// A name that no mutation produces.
const NEW: &str = "a name that is not there";

/// The memory that reading may take at its peak: the input in a few forms, and each member's entry
/// in a table.
fn largest_peak(input: &[u8]) -> usize {
    64 * 1024 + 256 * input.len()
}

/// Runs this, and checks that it took no more memory than allowed.
fn bounded<T>(input: &[u8], run: impl FnOnce() -> T) -> T {
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    let outcome = run();
    let taken = ALLOCATOR.peak_usage().saturating_sub(before);
    assert!(taken <= largest_peak(input), "{taken} bytes of memory for {} bytes", input.len());
    outcome
}

/// xorshift64*: the same numbers everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(number).unwrap() % bound.max(1)
    }
}

/// Makes one mutation; `pieces` of the grammar are sometimes inserted.
fn mutate(random: &mut Random, bytes: &mut Vec<u8>, pieces: &[&[u8]]) {
    let at = random.below(bytes.len());
    match random.below(7) {
        0 => bytes.truncate(at),
        1 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
        2 if !bytes.is_empty() => drop(bytes.remove(at)),
        3 => bytes.insert(at, u8::try_from(random.below(256)).unwrap()),
        4 if !bytes.is_empty() => {
            let end = (at + 1 + random.below(40)).min(bytes.len());
            let piece = bytes[at..end].to_vec();
            let to = random.below(bytes.len());
            bytes.splice(to..to, piece);
        }
        _ => {
            let piece = pieces[random.below(pieces.len())];
            let end = (at + random.below(piece.len() + 1)).min(bytes.len());
            bytes.splice(at..end, piece.iter().copied());
        }
    }
}

fn verified(header: &[u8]) -> Option<String> {
    bounded(header, || raw::verified_id(&[header], NAME, &[b"old", SECRET]))
}

/// Returns whether a header that this test has made contains the value, with percent-encoding
/// decoded.
fn shows(header: &[u8], value: &str) -> bool {
    let decoded = |text: &str| {
        let lower = [("%3a", ":"), ("%3A", ":"), ("%2b", "+"), ("%2B", "+"), ("%2f", "/"), ("%2F", "/")];
        lower.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
    };
    decoded(&String::from_utf8_lossy(header)).contains(&decoded(value))
}

#[test]
fn no_mutated_cookie_shows_an_id_that_was_not_signed() {
    const PIECES: &[&[u8]] = &[
        b"connect.sid=",
        b"s%3A",
        b"s:",
        b"; ",
        b"\"",
        b"%",
        b"%00",
        b"%2B",
        b"%ff",
        b".",
        b"=",
        b"\t",
        b"\xff",
        b"old",
    ];
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let value = raw::cookie_value(ID, SECRET).unwrap();
    let stranger = raw::cookie_value(ID, b"the secret of somebody else.....").unwrap();
    let (mut random, mut accepted, mut refused) = (Random(1), 0, 0);
    for round in 0..60_000 {
        let good = round % 3 > 0;
        let mut header = format!("theme=dark; {NAME}={}; c=d", if good { &value } else { &stranger }).into_bytes();
        for _ in 0..=random.below(4) {
            mutate(&mut random, &mut header, PIECES);
        }
        match verified(&header) {
            None => refused += 1,
            Some(id) => {
                accepted += 1;
                // Only what was signed: the same id under the same signature, complete.
                assert_eq!(id, ID, "{}", String::from_utf8_lossy(&header));
                assert!(good && shows(&header, &value), "{}", String::from_utf8_lossy(&header));
            }
        }
    }
    assert!(accepted > 1_000 && refused > 20_000, "{accepted} accepted, {refused} refused");
    // Every bit of the signature counts, and its length.
    let signed = format!("{ID}{}", value.split_once(ID).unwrap().1.replace("%2B", "+").replace("%2F", "/"));
    assert_eq!(raw::verified_token(&signed, SECRET).as_deref(), Some(ID));
    for at in 0..signed.len() {
        for bit in 0..7 {
            let mut wrong = signed.clone().into_bytes();
            wrong[at] ^= 1 << bit;
            let wrong = String::from_utf8(wrong).unwrap();
            assert_eq!(bounded(wrong.as_bytes(), || raw::verified_token(&wrong, SECRET)), None, "{wrong}");
        }
        assert_eq!(raw::verified_token(&signed[..at], SECRET), None);
    }
}

#[test]
fn megabytes_of_cookies_are_searched_in_bounded_memory_and_time() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let value = raw::cookie_value(ID, SECRET).unwrap();
    let begun = Instant::now();
    for piece in ["; ", "a=b;", "=", "%", "%41", "\"", " ", "connect.sid;", "connect.sid =s%3A.", "s:", "."] {
        let many = piece.repeat(1_000_000 / piece.len());
        for header in [
            many.clone(),
            format!("{NAME}={many}"),
            format!("{many}; {NAME}={value}"),
            format!("{NAME}=s:{many}.{value}"),
        ] {
            let found = verified(header.as_bytes());
            assert!(found.is_none_or(|id| id == ID));
        }
    }
    // Far more than a linear search takes, and far less than a quadratic one.
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
}

type Members = BTreeMap<String, Box<RawValue>>;

/// Returns whether stored bytes are a session. Checks that untouched values are written back
/// unchanged.
fn is_session(stored: &[u8]) -> bool {
    let Some(same) = bounded(stored, || raw::rewritten(stored, None)) else { return false };
    assert_eq!(raw::rewritten(&same, None).unwrap(), same);
    let changed = bounded(stored, || raw::rewritten(stored, (NEW, 7))).unwrap();
    let before: Members = serde_json::from_slice(stored).unwrap();
    let mut after: Members = serde_json::from_slice(&changed).unwrap();
    assert_eq!(after.remove(NEW).unwrap().get(), "7");
    assert!(before.keys().filter(|name| *name != NEW).eq(after.keys()));
    for (name, value) in after.iter().filter(|(name, _)| *name != "cookie") {
        assert_eq!(before[name].get(), value.get(), "`{name}` was not touched");
    }
    true
}

#[test]
fn foreign_sessions_are_read_without_a_panic_and_untouched_parts_are_kept() {
    const PIECES: &[&[u8]] = &[
        b"{",
        b"}",
        b"[",
        b"]",
        b"\"",
        b",",
        b":",
        b"\\",
        b"\\ud800",
        b"\\u0000",
        b"1e999999999",
        b"18446744073709551616",
        b"-0",
        b"null",
        b"\"cookie\":",
        b"{\"cookie\":{}}",
        b"\"originalMaxAge\":\"1\"",
        b"\"expires\":false",
        b"\"a\":1,",
        b"\"_m\":{\"u\":\"x\"},",
        b"\xe2\x80\xa8",
        b"\xff",
        b" ",
        b"\n",
        b"TOMBSTONE",
    ];
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let stored = br#"{"cookie":{"originalMaxAge":600000,"expires":"2026-11-20T09:21:22.716Z","httpOnly":true,"path":"/"},"views":1,"odd":[1.0,-0,"\ud800",18446744073709551616],"user":{"name" : "ada","cookie":{}}}"#;
    assert!(is_session(stored));
    let (mut random, mut sessions) = (Random(2), 0);
    for _ in 0..40_000 {
        let mut bytes = stored.to_vec();
        for _ in 0..=random.below(4) {
            mutate(&mut random, &mut bytes, PIECES);
        }
        sessions += usize::from(is_session(&bytes));
    }
    assert!(sessions > 2_000, "{sessions} were sessions");
}

#[test]
fn megabytes_of_one_repeated_piece_are_read_in_bounded_memory_time_and_stack() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let begun = Instant::now();
    for piece in ["[", "{\"a\":", "\"", "\\u0000", "1", "[],", "\"a\":1,", " ", "{\"cookie\":{},\"a\":"] {
        let many = piece.repeat(1_000_000 / piece.len());
        for text in [
            many.clone(),
            format!("{{\"cookie\":{{}},\"a\":{many}"),
            format!("{{\"cookie\":{many}"),
            format!("{{{many}\"cookie\":{{}}}}"),
        ] {
            is_session(text.as_bytes());
        }
    }
    // Nested as deeply as possible, and complete.
    let deep = format!("{{\"cookie\":{{}},\"a\":{}{}}}", "[".repeat(400_000), "]".repeat(400_000));
    assert_eq!(raw::rewritten(deep.as_bytes(), None).unwrap(), deep.as_bytes());
    // As many members as fit.
    let members: String = (0..50_000).map(|n| format!("\"{n}\":{n},")).collect();
    assert!(is_session(format!("{{{members}\"cookie\":{{}}}}").as_bytes()));
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
}
