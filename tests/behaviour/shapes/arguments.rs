//! Each kind of argument gives different values different keys, and equal values the same key.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::num::NonZero;
use std::sync::Arc;

use cache_core::{KeyPart, cached};
use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, Utc};
use uuid::Uuid;

use super::Runs;

/// Calls a function of one argument with each value twice.
macro_rules! arguments {
    ($($name:ident: $type:ty = [$($value:expr),+ $(,)?];)*) => {$(
        #[tokio::test]
        async fn $name() {
            #[cached(skip(runs))]
            async fn shape(runs: &Runs, argument: $type) -> u32 {
                let _seen = &argument;
                runs.next()
            }
            let runs = Runs::default();
            let mut expected = 0;
            $(
                expected += 1;
                assert_eq!(shape(&runs, $value).await, expected, "{} was not distinguished", stringify!($value));
                assert_eq!(shape(&runs, $value).await, expected, "{} was not found again", stringify!($value));
                shape::entry($value).invalidate().await.unwrap();
                expected += 1;
                assert_eq!(shape(&runs, $value).await, expected, "the entry of {} is another", stringify!($value));
            )+
        }
    )*};
}

#[derive(Debug, Clone, Copy, KeyPart)]
enum Scope {
    All,
    Tenant(u32),
    Range { from: u32, to: u32 },
}

#[derive(Debug, Clone, KeyPart)]
struct Page {
    number: u32,
    filter: String,
}

#[derive(Debug, Clone, Copy, KeyPart)]
struct UserId(u64);

fn uuid(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

fn day(day: u32) -> NaiveDate {
    NaiveDate::from_ymd_opt(2026, 1, day).unwrap()
}

fn time(hour: u32) -> NaiveTime {
    NaiveTime::from_hms_opt(hour, 0, 0).unwrap()
}

fn utc(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(seconds, 0).unwrap()
}

arguments! {
    borrowed_text: &str = ["", "a", "a:b", "(a)", "a b", "ä"];
    owned_text: String = [String::new(), "a".to_owned(), "\"\"".to_owned()];
    borrowed_string: &String = [&"a".to_owned(), &"b".to_owned()];
    shared_text: Arc<str> = [Arc::from("a"), Arc::from("b")];
    cow_text: Cow<'_, str> = [Cow::Borrowed("a"), Cow::Owned("b".to_owned())];
    integer_u8: u8 = [0, 255];
    integer_u16: u16 = [0, 65_535];
    integer_u32: u32 = [0, u32::MAX];
    integer_u64: u64 = [0, u64::MAX];
    integer_u128: u128 = [0, u128::MAX];
    integer_usize: usize = [0, 1];
    integer_i8: i8 = [-1, 1];
    integer_i16: i16 = [-1, 1];
    integer_i32: i32 = [-1, 1];
    integer_i64: i64 = [i64::MIN, 1];
    integer_i128: i128 = [i128::MIN, 1];
    integer_isize: isize = [-1, 1];
    integer_non_zero: NonZero<u32> = [NonZero::new(1).unwrap(), NonZero::new(2).unwrap()];
    borrowed_integer: &u64 = [&1, &2];
    truth: bool = [true, false];
    character: char = ['a', ',', '\0'];
    unit: () = [()];
    pair: (u32, &str) = [(1, ""), (1, ","), (2, "")];
    nested_pair: ((u32, u32), u32) = [((1, 2), 3), ((1, 3), 2)];
    optional_text: Option<&str> = [None, Some(""), Some("!")];
    optional_number: Option<u32> = [None, Some(0)];
    nested_option: Option<Option<u32>> = [None, Some(None), Some(Some(0))];
    numbers: Vec<u32> = [vec![], vec![1], vec![1, 2], vec![12]];
    texts: Vec<String> = [vec![], vec![String::new()], vec!["a,b".to_owned()], vec!["a".to_owned(), "b".to_owned()]];
    slice: &[u32] = [&[], &[1], &[1, 2]];
    slice_of_text: &[&str] = [&["a", "b"], &["a,b"], &["ab"]];
    array: [u8; 2] = [[1, 2], [2, 1]];
    ordered_set: BTreeSet<u32> = [BTreeSet::from([1]), BTreeSet::from([1, 2])];
    ordered_map: BTreeMap<u32, String> = [BTreeMap::new(), BTreeMap::from([(1, "a".to_owned())])];
    address: IpAddr = [IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])];
    uuids: Uuid = [uuid(1), uuid(2)];
    borrowed_uuid: &Uuid = [&uuid(1), &uuid(2)];
    naive_date: NaiveDate = [day(1), day(2)];
    naive_time: NaiveTime = [time(1), time(2)];
    naive_date_time: NaiveDateTime = [day(1).and_time(time(1)), day(2).and_time(time(1))];
    date_time: DateTime<Utc> = [utc(1), utc(2)];
    derived_enum: Scope = [Scope::All, Scope::Tenant(1), Scope::Range { from: 1, to: 2 }, Scope::Range { from: 1, to: 3 }];
    derived_struct: &Page = [
        &Page { number: 1, filter: String::new() },
        &Page { number: 1, filter: "a".to_owned() },
        &Page { number: 2, filter: String::new() },
    ];
    derived_newtype: UserId = [UserId(1), UserId(2)];
    boxed: Box<u32> = [Box::new(1), Box::new(2)];
}

#[tokio::test]
async fn no_arguments() {
    #[cached]
    async fn shape() -> Arc<u32> {
        Arc::new(7)
    }
    assert!(Arc::ptr_eq(&shape().await, &shape().await) || *shape().await == 7);
    shape::entry().invalidate().await.unwrap();
    assert_eq!(*shape().await, 7);
}

#[tokio::test]
async fn many_arguments_do_not_run_together() {
    #[cached(skip(runs))]
    async fn shape(runs: &Runs, a: &str, b: &str, c: Option<&str>) -> u32 {
        let _seen = (a, b, c);
        runs.next()
    }
    let runs = Runs::default();
    let calls =
        [("a:b", "c", None), ("a", "b:c", None), ("a", "b", Some("c")), ("a,b", "", Some("c")), ("a", ",b", Some("c"))];
    for (at, (a, b, c)) in (1..).zip(calls) {
        assert_eq!(shape(&runs, a, b, c).await, at);
        assert_eq!(shape(&runs, a, b, c).await, at);
    }
}

#[tokio::test]
async fn skipped_arguments_are_not_in_the_key() {
    #[cached]
    async fn shape(#[cached(skip)] runs: &Runs, #[cached(skip)] trace: f64, id: u32) -> u32 {
        let _seen = (trace, id);
        runs.next()
    }
    let runs = Runs::default();
    assert_eq!(shape(&runs, 1.0, 7).await, 1);
    assert_eq!(shape(&runs, 2.0, 7).await, 1);
    assert_eq!(shape(&runs, 1.0, 8).await, 2);
}
