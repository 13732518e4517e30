#![allow(clippy::arithmetic_side_effects, reason = "a test that overflows fails, as it should")]

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

#[cfg(feature = "bincode")]
use super::Bincode;
use super::{Codec, Coding, Json, MsgPack, Postcard};
use crate::error::ErrorKind;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Post {
    id: u64,
    title: String,
    tags: Vec<String>,
    shape: Shape,
    scores: BTreeMap<String, i32>,
    raw: Vec<u8>,
    parent: Option<Box<Post>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Shape {
    Dot,
    Line(f64),
    Box { width: u8, height: i128 },
}

fn post() -> Post {
    Post {
        id: 7,
        title: "on \u{1F980}".into(),
        tags: vec!["a".into(), String::new()],
        shape: Shape::Box { width: 1, height: -5 },
        scores: [("x".into(), -3)].into(),
        raw: vec![0, 255],
        parent: Some(Box::new(Post {
            id: u64::MAX,
            title: String::new(),
            tags: vec![],
            shape: Shape::Line(0.5),
            scores: BTreeMap::new(),
            raw: vec![],
            parent: None,
        })),
    }
}

/// Runs a generic check with every codec.
macro_rules! with_every_codec {
    ($check:ident) => {
        #[cfg(feature = "bincode")]
        $check::<Bincode>();
        $check::<Postcard>();
        $check::<MsgPack>();
        $check::<Json>();
    };
}

fn encoded<C: Codec>(value: &impl Serialize) -> Vec<u8> {
    let mut out = Vec::new();
    C::encode(value, &mut out).unwrap();
    out
}

#[test]
fn every_codec_round_trips_and_refuses_trailing_bytes() {
    fn check<C: Codec>() {
        fn one<C: Codec, T: Serialize + DeserializeOwned + PartialEq + Debug>(value: T) {
            let mut bytes = b"before".to_vec();
            C::encode(&value, &mut bytes).unwrap();
            let bytes = bytes.strip_prefix(b"before").unwrap().to_vec();
            assert_eq!(C::decode::<T>(&bytes).unwrap(), value, "{}", C::NAME);
            for more in [&[0_u8][..], &[0x91], &[0xc1], &[0xff; 9], b"}", b"1"] {
                let longer = [&bytes, more].concat();
                assert!(C::decode::<T>(&longer).is_err(), "{}: {more:x?} behind the value", C::NAME);
            }
            for len in 0..bytes.len() {
                assert!(C::decode::<T>(&bytes[..len]).is_err(), "{}: cut to {len}", C::NAME);
            }
        }
        one::<C, _>(post());
        one::<C, _>(vec![post(), post()]);
        one::<C, _>("text".to_owned());
        one::<C, _>(vec![Shape::Dot, Shape::Line(1.5)]);
        one::<C, _>((Some(1_u8), None::<u8>, [1_u16, 2], 'x'));
    }
    with_every_codec!(check);
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Nested {
    next: Option<Box<Nested>>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Chain {
    End,
    Link(Box<Chain>),
}

fn nested(depth: usize) -> Nested {
    (0..depth).fold(Nested { next: None }, |inner, _| Nested { next: Some(Box::new(inner)) })
}

// V7
#[test]
fn deep_nesting_is_an_error_and_not_a_stack_overflow() {
    fn check<C: Codec>() {
        assert_eq!(C::decode::<Nested>(&encoded::<C>(&nested(40))).unwrap(), nested(40), "{}", C::NAME);
    }
    with_every_codec!(check);
    // A megabyte of bytes that only say "there is more".
    #[cfg(feature = "bincode")]
    assert!(Bincode::decode::<Nested>(&vec![1; 1 << 20]).is_err());
    assert!(Postcard::decode::<Nested>(&vec![1; 1 << 20]).is_err());
    assert!(MsgPack::decode::<Chain>(&b"\x81\xa4Link".repeat(1 << 17)).is_err());
    assert!(MsgPack::decode::<serde_json::Value>(&vec![0x91; 1 << 20]).is_err());
    assert!(Json::decode::<Chain>(&b"{\"Link\":".repeat(1 << 17)).is_err());
}

// V7
#[test]
fn a_length_of_elements_without_bytes_is_bounded() {
    fn check<C: Codec>() {
        let value = vec![(); 60_000];
        assert_eq!(C::decode::<Vec<()>>(&encoded::<C>(&value)).unwrap().len(), 60_000, "{}", C::NAME);
    }
    with_every_codec!(check);
    let mut forged = vec![0xff; 9];
    forged.push(1);
    assert!(Postcard::decode::<Vec<()>>(&forged).is_err());
    assert!(Postcard::decode::<Vec<Vec<()>>>(&[&[2], &forged[..], &forged[..]].concat()).is_err());
    #[cfg(feature = "bincode")]
    assert!(Bincode::decode::<Vec<()>>(&[0xfd, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).is_err());
}

// Stored payloads outlive builds.
#[cfg(feature = "bincode")]
#[test]
fn golden_payloads_do_not_change() {
    let line = |bytes: Vec<u8>| crate::golden::hex(&bytes);
    crate::golden::compare(
        "payloads.txt",
        &[
            ("bincode", line(encoded::<Bincode>(&post()))),
            ("postcard", line(encoded::<Postcard>(&post()))),
            ("msgpack", line(encoded::<MsgPack>(&post()))),
            ("json", line(encoded::<Json>(&post()))),
        ],
    );
}

/// Writes a value. Returns the codec that was used, the bytes, and how often a replacement was
/// reported.
fn write<T: Serialize + DeserializeOwned + 'static>(coding: &Coding<T>, value: &T) -> (u8, Vec<u8>, u32) {
    let mut out = b"header".to_vec();
    let mut reports = 0;
    let codec = coding.encode_checked(value, &mut out, |_| reports += 1).unwrap();
    (codec, out.strip_prefix(b"header").unwrap().to_vec(), reports)
}

#[test]
fn a_type_its_codec_can_hold_stays_with_it() {
    fn check<C: Codec>() {
        let coding = Coding::<Post>::of::<C>();
        for _ in 0..20 {
            let (codec, bytes, reports) = write(&coding, &post());
            assert_eq!((codec, reports), (C::ID, 0), "{}", C::NAME);
            assert_eq!((coding.decode)(codec, &bytes).unwrap(), post());
        }
        assert_eq!((coding.decode)(99, b"").unwrap_err().kind(), ErrorKind::Decode);
    }
    with_every_codec!(check);
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Number(u64),
    Text(String),
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
enum Tagged {
    A { x: u8 },
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Flattened {
    id: u64,
    #[serde(flatten)]
    rest: HashMap<String, String>,
}

#[test]
fn a_type_its_codec_cannot_read_back_is_stored_as_msgpack_and_reported_once() {
    fn one<C: Codec, T: Serialize + DeserializeOwned + PartialEq + Debug + 'static>(value: T) {
        let coding = Coding::<T>::of::<C>();
        let reports: u32 = (0..20)
            .map(|_| {
                let (codec, bytes, reports) = write(&coding, &value);
                assert_eq!(codec, MsgPack::ID, "{}", C::NAME);
                assert_eq!((coding.decode)(codec, &bytes).unwrap(), value);
                reports
            })
            .sum();
        assert_eq!(reports, 1, "{}", C::NAME);
    }
    fn check<C: Codec>() {
        one::<C, _>(Untagged::Text("x".into()));
        one::<C, _>(Tagged::A { x: 1 });
        one::<C, _>(Flattened { id: 1, rest: [("a".into(), "b".into())].into() });
        one::<C, _>(serde_json::json!({"a": [1, "x"]}));
    }
    #[cfg(feature = "bincode")]
    check::<Bincode>();
    check::<Postcard>();
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Skipping {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    first: Option<u8>,
    second: Option<u8>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum LateUntagged {
    Plain(u8),
    Nested(Vec<serde_json::Value>),
}

#[test]
fn a_value_that_fails_only_later_is_found_then() {
    let full = Skipping { first: Some(1), second: None };
    let short = Skipping { first: None, second: Some(5) };
    let coding = Coding::<Vec<Skipping>>::of::<Postcard>();
    for _ in 0..20 {
        assert_eq!(write(&coding, &vec![full.clone()]).0, Postcard::ID);
    }
    // Long after the first few writes: the skipped field is found in the value itself.
    let mixed = vec![full, short];
    let (codec, bytes, reports) = write(&coding, &mixed);
    assert_eq!((codec, reports), (MsgPack::ID, 1));
    assert_eq!((coding.decode)(codec, &bytes).unwrap(), mixed);

    // Here the fingerprint is incomplete, so no number of good writes is enough.
    let coding = Coding::<LateUntagged>::of::<Postcard>();
    for _ in 0..20 {
        assert_eq!(write(&coding, &LateUntagged::Plain(1)).0, Postcard::ID);
    }
    let late = LateUntagged::Nested(vec![serde_json::json!({"a": null})]);
    let (codec, bytes, reports) = write(&coding, &late);
    assert_eq!((codec, reports), (MsgPack::ID, 1));
    assert_eq!((coding.decode)(codec, &bytes).unwrap(), late);
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Refusing(#[serde(serialize_with = "refuse_zero")] u8);

fn refuse_zero<S: serde::Serializer>(value: &u8, serializer: S) -> Result<S::Ok, S::Error> {
    if *value == 0 { Err(serde::ser::Error::custom("zero")) } else { serializer.serialize_u8(*value) }
}

#[test]
fn a_value_no_codec_can_hold_is_an_error_and_says_nothing_about_its_type() {
    let coding = Coding::<Refusing>::of::<Postcard>();
    let mut out = b"header".to_vec();
    let error = coding.encode_checked(&Refusing(0), &mut out, |_| panic!("nothing is found")).unwrap_err();
    assert_eq!((error.kind(), out.as_slice()), (ErrorKind::Encode, &b"header"[..]));
    assert_eq!(write(&coding, &Refusing(1)).0, Postcard::ID);
}

#[test]
fn a_value_that_self_describing_formats_would_change_is_refused_and_not_stored() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Wrapped(Option<u8>);

    fn refused<C: Codec, T: Serialize + DeserializeOwned + 'static>(value: T) {
        let error = Coding::<T>::of::<C>().encode_checked(&value, &mut Vec::new(), |_| panic!("nothing is found"));
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Encode, "{}", C::NAME);
    }
    fn self_describing<C: Codec>() {
        refused::<C, _>(vec![Some(None::<u8>)]);
        refused::<C, _>(Some(()));
        refused::<C, _>(Some(Wrapped(None)));
        for kept in [None, Some(Some(1_u8))] {
            assert_eq!(write(&Coding::of::<C>(), &kept).0, C::ID);
        }
    }
    self_describing::<MsgPack>();
    self_describing::<Json>();
    let coding = Coding::<Option<Option<u8>>>::of::<Postcard>();
    let (codec, bytes, _) = write(&coding, &Some(None));
    assert_eq!((coding.decode)(codec, &bytes).unwrap(), Some(None));
}

#[test]
fn errors_of_decoding_do_not_quote_the_bytes() {
    fn check<C: Codec>() {
        let secret = encoded::<C>(&"secret");
        let error = C::decode::<u64>(&secret).unwrap_err();
        assert!(!format!("{error:?}").contains("secret"), "{}", C::NAME);
    }
    with_every_codec!(check);
}
