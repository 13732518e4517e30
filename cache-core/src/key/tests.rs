#![allow(clippy::arithmetic_side_effects, reason = "a test that overflows fails, as it should")]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Debug;

use super::*;
use crate::golden;
use crate::store::lease_key;

fn rendered(key: &Key) -> String {
    let mut out = String::new();
    write_value_key(&mut out, "app", key.name(), key.args(), "9f2c64b0d81e77aa");
    assert_eq!(*value_key("app", key.name(), key.args(), "9f2c64b0d81e77aa"), *out);
    out
}

fn args<P: KeyPart>(part: P) -> String {
    Key::new("f").part(&part).args
}

/// Values of one type from a stream of random numbers, small and difficult, so that a collision
/// would be found.
trait Arbitrary: KeyPart + Clone + PartialEq + Debug {
    fn arbitrary(random: &mut dyn FnMut(usize) -> usize) -> Self;
}

/// All characters with a meaning in the rendering, and some that look like them.
const NASTY: &[char] = &[
    '%',
    ',',
    '(',
    ')',
    '[',
    ']',
    '{',
    '}',
    '"',
    '~',
    '!',
    '?',
    ':',
    '@',
    ' ',
    '\0',
    '\n',
    '\u{7f}',
    '\u{2028}',
    'a',
    '2',
    'C',
    '\u{e9}',
    '\u{1F980}',
    '\\',
    '\'',
    '-',
    '.',
];

impl Arbitrary for String {
    fn arbitrary(random: &mut dyn FnMut(usize) -> usize) -> Self {
        (0..random(4)).map(|_| NASTY[random(NASTY.len())]).collect()
    }
}

impl Arbitrary for u8 {
    fn arbitrary(random: &mut dyn FnMut(usize) -> usize) -> Self {
        u8::try_from(random(20)).unwrap()
    }
}

impl Arbitrary for () {
    fn arbitrary(_: &mut dyn FnMut(usize) -> usize) -> Self {}
}

impl<A: Arbitrary> Arbitrary for Option<A> {
    fn arbitrary(random: &mut dyn FnMut(usize) -> usize) -> Self {
        (random(3) > 0).then(|| A::arbitrary(random))
    }
}

impl<A: Arbitrary> Arbitrary for Vec<A> {
    fn arbitrary(random: &mut dyn FnMut(usize) -> usize) -> Self {
        (0..random(4)).map(|_| A::arbitrary(random)).collect()
    }
}

impl<A: Arbitrary, B: Arbitrary> Arbitrary for (A, B) {
    fn arbitrary(random: &mut dyn FnMut(usize) -> usize) -> Self {
        (A::arbitrary(random), B::arbitrary(random))
    }
}

/// Checks `values` random pairs of arguments: equal keys must come from equal arguments.
fn assert_injective<A: Arbitrary, B: Arbitrary>(seed: u64, values: usize) {
    let mut state = seed;
    let mut random = move |below: usize| {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        let word = state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(word).unwrap() % below
    };
    let mut seen: HashMap<String, (A, B)> = HashMap::new();
    for _ in 0..values {
        let pair = (A::arbitrary(&mut random), B::arbitrary(&mut random));
        let key = rendered(&Key::new("f").part(&pair.0).part(&pair.1));
        assert!(!key.contains(['{', '}', ' ', '\n', '\0']), "{key:?}");
        let earlier = seen.entry(key).or_insert_with(|| pair.clone());
        assert_eq!(*earlier, pair, "two arguments, one key");
    }
    assert!(seen.len() > values / 50, "the generator makes too few different values");
}

// K1
#[test]
fn distinct_arguments_give_distinct_keys() {
    assert_injective::<String, String>(1, 20_000);
    assert_injective::<Option<String>, Option<Option<String>>>(2, 20_000);
    assert_injective::<Vec<String>, Vec<Option<String>>>(3, 20_000);
    assert_injective::<(String, Option<u8>), Vec<(String, Vec<u8>)>>(4, 20_000);
    assert_injective::<Option<Vec<Option<(String, ())>>>, (Vec<()>, String)>(5, 20_000);
    assert_injective::<Vec<Vec<Vec<u8>>>, Option<Option<Option<()>>>>(6, 20_000);
}

// K1
#[test]
fn separators_inside_arguments_do_not_move_them() {
    let two = |a: &str, b: &str| rendered(&Key::new("f").part(a).part(b));
    assert_ne!(two("a:b", "c"), two("a", "b:c"));
    assert_ne!(two("a,b", "c"), two("a", "b,c"));
    assert_ne!(two("", "a"), two("a", ""));
    assert_ne!(two("a%2C", "b"), two("a,", "b"));
    assert_ne!(rendered(&Key::new("f").part("a").part("b")), rendered(&Key::new("f").part("a,b")));
    assert_ne!(rendered(&Key::new("f").part(&("a", "b"))), rendered(&Key::new("f").part("(a,b)")));
    assert_ne!(rendered(&Key::new("f")), rendered(&Key::new("f").part("")));
    assert_ne!(rendered(&Key::new("f").part("a")), rendered(&Key::new("f").part("a").part("")));
    assert_ne!(rendered(&Key::new("f").part("a")), rendered(&Key::new("f").part("a").part(&())));
}

// K1
#[test]
fn none_empty_text_and_empty_lists_have_different_keys() {
    let all = [args(None::<&str>), args(Some("")), args(Some("\"\"")), args(Some("!")), args(Some("?"))];
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
    assert_ne!(args(None::<Option<u8>>), args(Some(None::<u8>)));
    assert_ne!(args(Vec::<&str>::new()), args(vec![""]));
    assert_ne!(args(vec![()]), args(Vec::<()>::new()));
    assert_ne!(args(vec![(), ()]), args(vec![()]));
    assert_ne!(args(vec![vec![1], vec![2, 3]]), args(vec![vec![1, 2], vec![3]]));
    assert_ne!(args(BTreeMap::from([("a", "b")])), args(BTreeMap::from([("a,b", "")])));
}

// K1
#[test]
fn a_part_that_writes_nothing_can_still_be_counted() {
    struct Silent;
    impl KeyPart for Silent {
        fn write_key(&self, _: &mut KeyWriter<'_>) {}
    }
    assert_ne!(args(vec![Silent]), args(Vec::<Silent>::new()));
    assert_ne!(args(vec![Silent, Silent]), args(vec![Silent]));
    assert_ne!(Key::new("f").part(&Silent), Key::new("f"));
}

// K2
#[test]
fn names_cannot_reach_into_the_arguments() {
    assert_ne!(rendered(&Key::new("f:1")), rendered(&Key::new("f").part(&1)));
    assert_ne!(rendered(&Key::new("f@x")), rendered(&Key::new("f%40x")));
    assert_eq!(Key::new("f{1}: @").name(), "f%7B1%7D%3A%20%40");
    assert_ne!(builds_key("app", "f"), rendered(&Key::new("f")));
}

// K3
#[test]
fn a_key_can_be_read() {
    let key = Key::new("blog.posts.by_author").part(&7).part("rust").part(&Some("de")).part(&[1, 2][..]);
    assert_eq!(rendered(&key), "app:blog.posts.by_author:7,rust,?de,[1,2]@9f2c64b0d81e77aa");
    assert_eq!(args("caf\u{e9} & bar"), "caf\u{e9}%20&%20bar");
}

// K3
#[test]
fn the_tail_of_a_long_key_becomes_a_hash_of_all_of_it() {
    let long = |tail: &str| rendered(&Key::new("f").part(&format!("{}{tail}", "x".repeat(600))));
    let (one, two) = (long("1"), long("2"));
    assert_eq!(one[..479], two[..479]);
    assert_ne!(one, two);
    assert_ne!(long(""), long("x"));
    for key in [&one, &two] {
        let bare = key.strip_suffix("@9f2c64b0d81e77aa").unwrap();
        assert!(bare.len() <= MAX_KEY_LEN);
        assert!(bare.starts_with("app:f:xxxx"), "its beginning stays readable");
    }
    // Lengths around the limit: at most one of them is the longest that is not cut.
    let keys: BTreeSet<String> = (500..520).map(|len| rendered(&Key::new("f").part(&"x".repeat(len)))).collect();
    assert_eq!(keys.len(), 20);
    // A cut inside a character of several bytes.
    for shift in 0..4 {
        let key = rendered(&Key::new("f").part(&format!("{}{}", "x".repeat(shift), "\u{1F980}".repeat(200))));
        assert!(key.len() <= MAX_KEY_LEN + 17);
    }
    // An argument that looks like a shortened key does not give the same key.
    let forged = one.strip_prefix("app:f:").unwrap().strip_suffix("@9f2c64b0d81e77aa").unwrap().to_owned();
    assert_ne!(rendered(&Key::new("f").part(&forged)), one);
}

/// Returns Redis Cluster's slot of a key: CRC16 (XMODEM), modulo 16384, of the key, or of the text
/// between its first `{` and the next `}` if that is not empty.
fn slot(key: &str) -> u16 {
    let bytes = key.as_bytes();
    let tag = bytes.iter().position(|byte| *byte == b'{').and_then(|open| {
        let inner = &bytes[open + 1..];
        let close = inner.iter().position(|byte| *byte == b'}')?;
        (close > 0).then(|| &inner[..close])
    });
    let crc = tag.unwrap_or(bytes).iter().fold(0_u16, |crc, byte| {
        (0..8).fold(
            crc ^ (u16::from(*byte) << 8),
            |crc, _| if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 },
        )
    });
    crc % 16384
}

// K4
#[test]
fn a_value_key_and_its_lease_are_in_one_cluster_slot() {
    // From the specification: CRC16("123456789") is 0x31C3, and these two share a slot.
    assert_eq!(slot("123456789"), 0x31C3);
    assert_eq!(slot("{user1000}.following"), slot("{user1000}.followers"));
    let parts = ["7", "", "{a}", "{}", "}{", "{", "}", "{{", "a{b}c", "\u{1F980}", "\0"];
    for a in parts {
        for b in parts {
            let long = b.repeat(300);
            for key in [Key::new("f").part(a).part(b), Key::new(format!("f{a}")).part(b), Key::new("f").part(&long)] {
                let key = rendered(&key);
                assert!(!key.contains(['{', '}']), "{key}");
                assert_eq!(slot(&key), slot(&lease_key(&key)), "{key}");
            }
        }
    }
}

// K1
#[test]
fn placeholders_of_a_template_never_run_together() {
    fn with_template(a: &(impl KeyPart + ?Sized), b: &(impl KeyPart + ?Sized)) -> String {
        let mut out = KeyText::new();
        let mut writer = KeyWriter::new(&mut out);
        writer.literal("of-");
        writer.placeholder(a);
        writer.literal("-:-");
        writer.placeholder(b);
        out.as_str().to_owned()
    }
    // All texts of up to four of the characters that are structure somewhere: the separator itself,
    // its escape, its neighbours.
    let letters = [':', '-', '%', '3', 'A', '"', '(', ',', 'é'];
    let mut texts = vec![String::new()];
    let mut from = 0;
    for _length in 0..4 {
        let end = texts.len();
        for at in from..end {
            let longer = letters.map(|letter| format!("{}{letter}", texts[at]));
            texts.extend(longer);
        }
        from = end;
    }
    let mut seen = HashMap::new();
    for text in &texts {
        for (a, b) in [(text.as_str(), "x"), ("x", text.as_str()), (text.as_str(), ":"), (":", text.as_str())] {
            let key = with_template(a, b);
            assert_eq!(*seen.entry(key).or_insert((a, b)), (a, b));
        }
    }
    let structured = [("a", vec!["b"]), ("a:[b", vec![]), ("", vec!["a:", ":b"]), ("", vec!["a::b"])];
    let keys: BTreeSet<String> = structured.iter().map(|(a, b)| with_template(a, b)).collect();
    assert_eq!(keys.len(), structured.len());
    assert_eq!(with_template("a:b", &std::net::Ipv6Addr::LOCALHOST), "of-a%3Ab-:-%3A%3A1");
}

// K6
#[test]
fn golden_keys_do_not_change() {
    let key = || Key::new("blog.posts");
    golden::compare(
        "keys.txt",
        &[
            ("none", rendered(&key())),
            ("integers", rendered(&key().part(&0_u8).part(&-1_i64).part(&u128::MAX).part(&7_usize))),
            ("texts", rendered(&key().part("").part("a:b@c").part("a b,c").part("{x}~\"%\u{e9}\0"))),
            ("options", rendered(&key().part(&None::<u8>).part(&Some(1)).part(&Some(None::<u8>)).part(&Some("")))),
            ("lists", rendered(&key().part(&["a", ""][..]).part(&Vec::<u8>::new()).part(&vec![vec![1], vec![]]))),
            ("groups", rendered(&key().part(&()).part(&(1,)).part(&(1, ("x", true), 'c')))),
            ("maps", rendered(&key().part(&BTreeMap::from([("k", 1), ("l", 2)])).part(&BTreeSet::from([3, 4])))),
            (
                "addresses",
                rendered(&key().part(&std::net::IpAddr::from([127, 0, 0, 1])).part(&std::net::Ipv6Addr::LOCALHOST)),
            ),
            ("long", rendered(&key().part(&"long ".repeat(200)))),
            ("name", rendered(&Key::new("a name: {with} everything@%~"))),
            ("builds", builds_key("app", "blog.posts")),
            ("lease", lease_key(&rendered(&key().part(&7)))),
        ],
    );
}
