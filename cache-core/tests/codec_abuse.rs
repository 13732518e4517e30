//! Hostile bytes against all readers. Deterministic: every run makes the same mutations.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "test helpers: a panic fails the test, as it should"
)]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Debug;
use std::sync::Mutex;

use cache_core::codec::{Codec, Json, MsgPack, Postcard};
use cache_core::testing::record;
use peak_alloc::PeakAlloc;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Memory is measured for the whole process, so one test runs at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// The memory that reading a record may take at its peak. Values can be larger than their bytes, by
/// the size of the largest element. The fixed part is for errors and the harness.
fn largest_peak(record: &[u8]) -> usize {
    64 * 1024 + 512 * record.len()
}

const KEY: &str = "app:posts.by:7@9f2c64b0d81e77aa";

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Post {
    id: u64,
    title: String,
    tags: Vec<String>,
    score: Option<f64>,
    raw: Vec<u8>,
    meta: HashMap<String, Vec<u32>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Tree {
    Leaf(u128),
    Node { left: Box<Tree>, right: Box<Tree> },
    Many(Vec<Tree>),
    Nothing,
}

/// Large in memory, but one byte each in a record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Wide {
    Small,
    Large([u64; 24]),
}

fn post(n: u64) -> Post {
    Post {
        id: n,
        title: format!("post {n} \u{1F980}"),
        tags: vec!["rust".into(), String::new()],
        score: Some(0.5),
        raw: vec![0, 1, 255],
        meta: [("views".to_owned(), vec![1, 2, 3])].into(),
    }
}

fn tree() -> Tree {
    let node = |left, right| Tree::Node { left: Box::new(left), right: Box::new(right) };
    Tree::Many(vec![node(Tree::Leaf(7), Tree::Nothing), node(Tree::Many(vec![Tree::Nothing]), Tree::Leaf(u128::MAX))])
}

/// xorshift64*: the same numbers everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound.max(1)).unwrap()).unwrap()
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next().to_be_bytes()[0]).collect()
    }
}

/// Lengths as the formats write them, all far larger than what follows.
const FORGED: &[&[u8]] = &[
    &[0xff; 10],
    &[0xfc, 0xff, 0xff, 0xff, 0x7f],
    &[0xfd, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00],
    &[0xfb, 0xff, 0xff],
    &[0xfc, 0x00, 0x00, 0x00, 0x10],
    &[0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
    &[0xdd, 0xff, 0xff, 0xff, 0xff],
    &[0xdf, 0xff, 0xff, 0xff, 0xff],
    &[0xdb, 0xff, 0xff, 0xff, 0xff],
    &[0xc6, 0xff, 0xff, 0xff, 0xff],
    &[0xc9, 0xff, 0xff, 0xff, 0xff, 0x00],
    b"[[[[[[[[",
    b"1e999999999",
];

/// Returns one mutation of `bytes`; `other` is sometimes spliced in.
fn mutate(random: &mut Random, bytes: &[u8], other: &[u8]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    let at = random.below(out.len());
    match random.below(8) {
        0 => out.truncate(at),
        1 => {
            for _ in 0..=random.below(4) {
                let at = random.below(out.len());
                if let Some(byte) = out.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
            }
        }
        2 => {
            let forged = FORGED[random.below(FORGED.len())];
            let end = (at + forged.len()).min(out.len());
            out.splice(at..end, forged.iter().copied());
        }
        3 => {
            let forged = FORGED[random.below(FORGED.len())];
            out.splice(at..at, forged.iter().copied());
        }
        4 => {
            let len = random.below(64);
            out = random.bytes(len);
        }
        5 => {
            let from = random.below(other.len());
            out.truncate(at);
            out.extend_from_slice(&other[from..]);
        }
        6 => {
            let len = 1 + random.below(16);
            out.extend(random.bytes(len));
        }
        _ => {
            let end = (at + 1 + random.below(8)).min(out.len());
            let piece = out[at.min(end)..end].to_vec();
            for _ in 0..random.below(40) {
                out.splice(at..at, piece.iter().copied());
            }
        }
    }
    out
}

/// Calls a check with every codec and every kind of value: codec, value type, two values.
macro_rules! with_everything {
    ($check:ident, $random:expr) => {{
        let random = $random;
        let mut done = 0;
        #[cfg(feature = "bincode")]
        with_everything!(@values $check, cache_core::codec::Bincode, random, done);
        with_everything!(@values $check, Postcard, random, done);
        with_everything!(@values $check, MsgPack, random, done);
        with_everything!(@values $check, Json, random, done);
        // Maps whose keys are not text, which JSON does not have; and a type that needs field
        // names.
        let points = |n: u8| (0..n).map(|x| ((x, 1_u16), vec![(); 3])).collect::<BTreeMap<_, _>>();
        done += $check::<MsgPack, _>(random, &points(3), &points(9));
        done += $check::<Postcard, _>(random, &points(3), &points(9));
        let json = |n: u8| serde_json::json!({"a": [n, "x", null, {"b": 1.5}]});
        done += $check::<MsgPack, _>(random, &json(1), &json(2));
        done += $check::<Json, _>(random, &json(1), &json(2));
        done += $check::<Postcard, _>(random, &json(1), &json(2));
        done
    }};
    (@values $check:ident, $codec:ty, $random:ident, $done:ident) => {
        $done += $check::<$codec, _>($random, &post(1), &post(2));
        $done += $check::<$codec, _>($random, &vec![post(1), post(2), post(3)], &vec![post(4)]);
        $done += $check::<$codec, _>($random, &tree(), &Tree::Nothing);
        $done += $check::<$codec, _>($random, &"some text".to_owned(), &"other".to_owned());
        $done += $check::<$codec, _>($random, &vec![(); 5], &vec![(); 6]);
        $done += $check::<$codec, _>($random, &vec![Wide::Small, Wide::Large([1; 24])], &vec![Wide::Small]);
        $done += $check::<$codec, _>($random, &(Some(1_u8), None::<i64>, [1_u16; 3], 'x'), &(None, Some(-1), [0; 3], 'y'));
        $done += $check::<$codec, _>($random, &HashSet::from([1_u64, 2, 3]), &HashSet::from([u64::MAX]));
    };
}

trait Value: Serialize + DeserializeOwned + PartialEq + Debug + 'static {}
impl<T: Serialize + DeserializeOwned + PartialEq + Debug + 'static> Value for T {}

/// Reads a record, and checks that it took no more memory than allowed.
fn open<C: Codec, T: Value>(bytes: &[u8]) -> cache_core::Result<T> {
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    let outcome = record::open::<C, T>(KEY, bytes);
    let taken = ALLOCATOR.peak_usage().saturating_sub(before);
    assert!(
        taken <= largest_peak(bytes),
        "{} of {}: {taken} bytes of memory for {} bytes",
        C::NAME,
        std::any::type_name::<T>(),
        bytes.len()
    );
    outcome
}

// V7
#[test]
fn every_mutated_record_is_an_error_and_never_a_panic_or_an_allocation_bomb() {
    const EACH: usize = 3_600;
    fn check<C: Codec, T: Value>(random: &mut Random, value: &T, other: &T) -> usize {
        let stored = record::seal::<C, T>(KEY, value).unwrap();
        let other = record::seal::<C, T>(KEY, other).unwrap();
        assert_eq!(&open::<C, T>(&stored).unwrap(), value, "{}", C::NAME);
        let mut done = 0;
        while done < EACH {
            let mutated = mutate(random, &stored, &other);
            if mutated == stored || mutated == other {
                continue;
            }
            assert!(open::<C, T>(&mutated).is_err(), "{}: a mutated record was accepted", C::NAME);
            done += 1;
        }
        // The whole record, copied to another key.
        let foreign = record::seal::<C, T>("app:posts.by:8@9f2c64b0d81e77aa", value).unwrap();
        assert!(open::<C, T>(&foreign).is_err());
        done
    }
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let done = with_everything!(check, &mut Random(1));
    assert!(done >= 100_000, "{done} mutations");
}

// V7
#[test]
fn hostile_payloads_under_a_valid_checksum_are_read_without_a_panic_and_in_bounded_memory() {
    const EACH: usize = 3_600;
    fn check<C: Codec, T: Value>(random: &mut Random, value: &T, other: &T) -> usize {
        let stored = record::seal::<C, T>(KEY, value).unwrap();
        let other = record::seal::<C, T>(KEY, other).unwrap();
        let (codec, stored) = record::payload(KEY, &stored).unwrap();
        let (_, other) = record::payload(KEY, &other).unwrap();
        for _ in 0..EACH {
            let mut payload = mutate(random, stored, other);
            // Mutations of mutations reach deeper.
            for _ in 0..random.below(3) {
                payload = mutate(random, &payload, other);
            }
            let forged = record::seal_payload(KEY, codec, &payload).unwrap();
            // Another value and an error are both fine; the bytes decide.
            drop(open::<C, T>(&forged));
        }
        EACH
    }
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let done = with_everything!(check, &mut Random(2));
    assert!(done >= 100_000, "{done} payloads");
}

// V7
#[test]
fn megabytes_of_one_repeated_byte_are_read_in_bounded_memory() {
    fn check<C: Codec, T: Value>(_: &mut Random, _: &T, _: &T) -> usize {
        for byte in [0x00, 0x01, 0x02, 0x7f, 0x81, 0x91, 0xc0, 0xdd, 0xff, b'['] {
            let forged = record::seal_payload(KEY, C::ID, &vec![byte; 100_000]).unwrap();
            drop(open::<C, T>(&forged));
        }
        10
    }
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    with_everything!(check, &mut Random(3));
}
