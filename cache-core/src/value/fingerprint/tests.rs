#![allow(dead_code, reason = "the types are only traced")]

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZero;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, SeqAccess, Visitor};

use super::Fingerprint;
use crate::golden;

#[derive(Deserialize)]
struct Post {
    id: u64,
    title: String,
    tags: Vec<String>,
    author: Option<Author>,
    kind: Kind,
}

#[derive(Deserialize)]
struct Author {
    name: String,
    born: Option<i32>,
}

#[derive(Deserialize)]
enum Kind {
    Draft,
    Note(String),
    Pair(u8, u16),
    Link { url: String, weight: f64 },
}

#[derive(Deserialize)]
struct List {
    next: Option<Box<List>>,
    value: u32,
}

#[derive(Deserialize)]
struct Tree {
    children: Vec<Tree>,
    by_name: HashMap<String, Tree>,
    value: u32,
}

#[derive(Deserialize)]
enum Expr {
    Add(Box<Expr>, Box<Expr>),
    Many(Vec<Expr>),
    Not { inner: Box<Expr>, times: u8 },
    Number(f64),
    Nothing,
}

#[derive(Deserialize)]
struct Folder {
    files: Vec<File>,
    owner: Owner,
}
#[derive(Deserialize)]
struct File {
    parent: Option<Box<Folder>>,
    owner: Owner,
}
#[derive(Deserialize)]
enum Owner {
    Folder(Box<Folder>, u64),
    User(u64),
}

#[derive(Deserialize)]
struct Page<T> {
    items: Vec<T>,
    next: Option<u64>,
}

#[derive(Deserialize)]
struct Dated {
    at: chrono::DateTime<chrono::Utc>,
    day: chrono::NaiveDate,
    time: chrono::NaiveTime,
    naive: Option<chrono::NaiveDateTime>,
}

#[derive(Deserialize)]
struct Deep {
    a: Outer,
    b: Outer,
}
#[derive(Deserialize)]
enum Outer {
    A(Inner),
    B,
}
#[derive(Deserialize)]
enum Inner {
    X,
    Y(Kind),
    Z { list: List },
}

#[derive(Deserialize, PartialEq, Eq, Hash)]
#[serde(try_from = "String")]
struct Email(String);
impl TryFrom<String> for Email {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        if text.contains('@') { Ok(Self(text)) } else { Err("no @".into()) }
    }
}

#[derive(Deserialize)]
struct Aliased {
    #[serde(alias = "old_name")]
    name: String,
    #[serde(skip)]
    cached: u32,
    count: u8,
}

#[derive(Deserialize)]
struct Unit;

#[derive(Deserialize)]
struct Meters(f64);

fn of<T: DeserializeOwned>() -> Fingerprint {
    Fingerprint::of::<T>()
}

fn hash<T: DeserializeOwned>() -> u64 {
    let fingerprint = of::<T>();
    assert!(fingerprint.complete, "{} is incomplete", std::any::type_name::<T>());
    fingerprint.hash
}

#[test]
fn ordinary_and_recursive_types_have_complete_fingerprints_that_all_differ() {
    let all = [
        hash::<()>(),
        hash::<bool>(),
        hash::<u8>(),
        hash::<i8>(),
        hash::<u64>(),
        hash::<i64>(),
        hash::<u128>(),
        hash::<f32>(),
        hash::<char>(),
        hash::<String>(),
        hash::<Option<String>>(),
        hash::<Option<Option<String>>>(),
        hash::<Vec<u8>>(),
        hash::<Vec<Vec<u8>>>(),
        hash::<[u8; 4]>(),
        hash::<[u8; 5]>(),
        hash::<[[u8; 4]; 4]>(),
        hash::<(u8, u16)>(),
        hash::<(u16, u8)>(),
        hash::<(u8,)>(),
        hash::<HashMap<u8, String>>(),
        hash::<HashMap<String, u8>>(),
        hash::<Result<u8, String>>(),
        hash::<Result<String, u8>>(),
        hash::<Duration>(),
        hash::<SystemTime>(),
        hash::<IpAddr>(),
        hash::<SocketAddr>(),
        hash::<Post>(),
        hash::<Author>(),
        hash::<Kind>(),
        hash::<List>(),
        hash::<Tree>(),
        hash::<Expr>(),
        hash::<Folder>(),
        hash::<File>(),
        hash::<Owner>(),
        hash::<Page<Post>>(),
        hash::<Page<Author>>(),
        hash::<Dated>(),
        hash::<Deep>(),
        hash::<Inner>(),
        hash::<uuid::Uuid>(),
        hash::<Meters>(),
        hash::<Aliased>(),
        hash::<Vec<Option<(Post, BTreeMap<String, Result<Vec<Kind>, String>>)>>>(),
    ];
    let distinct: HashSet<u64> = all.iter().copied().collect();
    assert_eq!(distinct.len(), all.len());
}

#[test]
fn validating_leaves_are_found_a_sample() {
    assert!(of::<NonZero<u32>>().complete);
    assert!(of::<NonZero<i8>>().complete);
    assert!(of::<Email>().complete);
    assert!(of::<HashMap<Email, Vec<Email>>>().complete);
    assert!(of::<Vec<uuid::Uuid>>().complete);
}

#[test]
fn pointers_and_platform_sizes_leave_no_trace() {
    assert_eq!(hash::<Arc<Post>>(), hash::<Post>());
    assert_eq!(hash::<Box<Post>>(), hash::<Post>());
    assert_eq!(hash::<Vec<Arc<Post>>>(), hash::<Vec<Box<Post>>>());
    assert_eq!(hash::<usize>(), hash::<u64>());
    assert_eq!(hash::<isize>(), hash::<i64>());
    assert_eq!(hash::<BTreeSet<u8>>(), hash::<Vec<u8>>());
    assert_eq!(hash::<Arc<str>>(), hash::<String>());
}

/// Each module has the same type at another state of the program.
macro_rules! changed {
    ($($name:ident { $($item:item)* })*) => {$(
        mod $name {
            use super::*;
            $(#[derive(Deserialize)] $item)*
        }
    )*};
}
changed! {
    first { pub(super) struct T { a: u32, b: u32, kind: K } enum K { One, Two(u8) } }
    int_type { pub(super) struct T { a: i32, b: u32, kind: K } enum K { One, Two(u8) } }
    swapped { pub(super) struct T { b: u32, a: u32, kind: K } enum K { One, Two(u8) } }
    added { pub(super) struct T { a: u32, b: u32, kind: K, #[serde(default)] c: u32 } enum K { One, Two(u8) } }
    removed { pub(super) struct T { a: u32, kind: K } enum K { One, Two(u8) } }
    renamed_field { pub(super) struct T { a: u32, c: u32, kind: K } enum K { One, Two(u8) } }
    payload { pub(super) struct T { a: u32, b: u32, kind: K } enum K { One, Two(u16) } }
    payload_form { pub(super) struct T { a: u32, b: u32, kind: K } enum K { One, Two(u8, u8) } }
    variant { pub(super) struct T { a: u32, b: u32, kind: K } enum K { One, Two(u8), Three } }
    variant_order { pub(super) struct T { a: u32, b: u32, kind: K } enum K { Two(u8), One } }
    optional { pub(super) struct T { a: u32, b: Option<u32>, kind: K } enum K { One, Two(u8) } }
    renamed_type { pub(super) struct T { a: u32, b: u32, kind: L } enum L { One, Two(u8) } }
    again { pub(super) struct T { a: u32, b: u32, kind: K } enum K { One, Two(u8) } }
}

#[test]
fn every_change_of_the_structure_changes_the_hash() {
    let states = [
        hash::<first::T>(),
        hash::<int_type::T>(),
        hash::<swapped::T>(),
        hash::<added::T>(),
        hash::<removed::T>(),
        hash::<renamed_field::T>(),
        hash::<payload::T>(),
        hash::<payload_form::T>(),
        hash::<variant::T>(),
        hash::<variant_order::T>(),
        hash::<optional::T>(),
        hash::<renamed_type::T>(),
    ];
    let distinct: HashSet<u64> = states.iter().copied().collect();
    assert_eq!(distinct.len(), states.len());
    assert_eq!(hash::<again::T>(), hash::<first::T>(), "module paths are not part of it");
}

changed! {
    deep_first { pub(super) struct T { a: Option<Box<T>>, v: Vec<M> } enum M { Up(Box<T>), Leaf(L) } struct L { x: u8 } }
    deep_other { pub(super) struct T { a: Option<Box<T>>, v: Vec<M> } enum M { Up(Box<T>), Leaf(L) } struct L { x: u16 } }
}

#[test]
fn a_change_deep_inside_recursion_changes_the_hash() {
    assert_ne!(hash::<deep_first::T>(), hash::<deep_other::T>());
}

#[derive(Deserialize)]
struct Flattened {
    id: u64,
    #[serde(flatten)]
    rest: HashMap<String, String>,
}
#[derive(Deserialize)]
struct FlattenedOther {
    key: u64,
    #[serde(flatten)]
    rest: HashMap<String, String>,
}
#[derive(Deserialize)]
#[serde(untagged)]
enum Untagged {
    Number(u64),
    Text(String),
}
#[derive(Deserialize)]
#[serde(tag = "type")]
enum Tagged {
    A { x: u8 },
    B { y: u8 },
}
#[derive(Deserialize)]
#[serde(try_from = "u64")]
struct Picky;
impl TryFrom<u64> for Picky {
    type Error = String;
    fn try_from(number: u64) -> Result<Self, String> {
        if number == 77_777 { Ok(Self) } else { Err("only 77777".into()) }
    }
}
#[derive(Deserialize)]
struct HalfKnown {
    first: u8,
    value: serde_json::Value,
    last: Kind,
}

#[test]
fn types_whose_shape_is_in_the_data_are_reported_incomplete() {
    assert!(!of::<Flattened>().complete);
    assert!(!of::<Untagged>().complete);
    assert!(!of::<Tagged>().complete);
    assert!(!of::<Picky>().complete);
    assert!(!of::<serde_json::Value>().complete);
    assert!(!of::<HalfKnown>().complete);
    assert!(!of::<Vec<Option<Untagged>>>().complete);
    assert_ne!(of::<Flattened>().hash, of::<FlattenedOther>().hash, "names seen on the way still count");
}

struct Endless;
impl<'de> Deserialize<'de> for Endless {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Loop;
        impl<'de> Visitor<'de> for Loop {
            type Value = Endless;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("anything")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Endless, A::Error> {
                loop {
                    drop(seq.next_element::<u8>());
                }
            }
        }
        deserializer.deserialize_seq(Loop)
    }
}

struct Panicking;
impl<'de> Deserialize<'de> for Panicking {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u8::deserialize(deserializer)?;
        // Like a panic, but prints nothing.
        std::panic::resume_unwind(Box::new("made-up input"));
    }
}

/// Contains itself without an exit: no value of it exists.
#[derive(Deserialize)]
struct Impossible {
    inner: Box<Impossible>,
}
#[derive(Deserialize)]
enum ImpossibleToo {
    A(Box<ImpossibleToo>),
    B { both: Box<(ImpossibleToo, ImpossibleToo)> },
}

#[test]
fn tracing_ends_whatever_the_type_does() {
    assert!(!of::<Endless>().complete);
    assert!(!of::<Panicking>().complete);
    assert!(!of::<Impossible>().complete);
    of::<ImpossibleToo>();
    of::<std::marker::PhantomData<u8>>();
}

macro_rules! doubling {
    ($($name:ident $next:ident)*) => {$(
        #[derive(Deserialize)]
        struct $name { a: Vec<$next>, b: Option<$next>, c: HashMap<u8, $next> }
    )*};
}
doubling!(D0 D1 D1 D2 D2 D3 D3 D4 D4 D5 D5 D6 D6 D7 D7 D8 D8 D9 D9 D10 D10 D11 D11 D12 D12 Kind);

#[test]
fn a_type_that_is_used_in_many_places_is_traced_once() {
    assert!(of::<D0>().complete);
}

// K6
#[test]
fn golden_fingerprints_do_not_change() {
    let line = |fingerprint: Fingerprint| {
        format!("{fingerprint} {}", if fingerprint.complete { "complete" } else { "incomplete" })
    };
    golden::compare(
        "fingerprints.txt",
        &[
            ("u64", line(of::<u64>())),
            ("String", line(of::<String>())),
            ("Vec<Option<(u8, String)>>", line(of::<Vec<Option<(u8, String)>>>())),
            ("HashMap<String, [u16; 3]>", line(of::<HashMap<String, [u16; 3]>>())),
            ("Result<Duration, IpAddr>", line(of::<Result<Duration, IpAddr>>())),
            ("Post", line(of::<Post>())),
            ("Tree", line(of::<Tree>())),
            ("Expr", line(of::<Expr>())),
            ("Folder", line(of::<Folder>())),
            ("Dated", line(of::<Dated>())),
            ("Uuid", line(of::<uuid::Uuid>())),
            ("Flattened", line(of::<Flattened>())),
            ("Untagged", line(of::<Untagged>())),
        ],
    );
}
