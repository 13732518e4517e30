//! Generics, patterns, lifetimes, `where`, attributes, other names of the crate.

use std::fmt::Debug;
use std::sync::Arc;

use cache_core::value::CacheValue;
use cache_core::{KeyPart, cached};

use super::{Runs, User};

struct Path<T>(T);
struct Marker;

#[tokio::test]
async fn patterns() {
    #[cached]
    async fn shape(
        #[cached(skip)] runs: &Runs,
        Path(id): Path<u64>,
        (a, mut b): (u32, u32),
        Pair { left, .. }: Pair,
        _: Marker,
    ) -> u32 {
        b += a;
        let _seen = (id, b, left);
        runs.next()
    }
    struct Pair {
        left: u32,
        _right: f64,
    }
    let runs = Runs::default();
    let pair = |left, right| Pair { left, _right: right };
    assert_eq!(shape(&runs, Path(1), (1, 2), pair(1, 1.0), Marker).await, 1);
    assert_eq!(shape(&runs, Path(1), (1, 2), pair(1, 2.0), Marker).await, 1);
    assert_eq!(shape(&runs, Path(1), (2, 1), pair(1, 1.0), Marker).await, 2);
    assert_eq!(shape(&runs, Path(2), (1, 2), pair(1, 1.0), Marker).await, 3);
    shape::entry(Path(1), (1, 2), pair(1, 3.0)).invalidate().await.unwrap();
    assert_eq!(shape(&runs, Path(1), (1, 2), pair(1, 1.0), Marker).await, 4);
}

#[tokio::test]
async fn skipping_one_name_of_a_pattern_keeps_the_others() {
    // K1
    #[cached(skip(runs, b))]
    async fn shape(runs: &Runs, (a, b): (u32, u32)) -> u32 {
        let _seen = (a, b);
        runs.next()
    }
    let runs = Runs::default();
    assert_eq!(shape(&runs, (1, 1)).await, 1);
    assert_eq!(shape(&runs, (1, 2)).await, 1);
    assert_eq!(shape(&runs, (2, 1)).await, 2);
}

#[tokio::test]
async fn attributes_of_other_crates() {
    #[cached(skip(runs))]
    #[tracing::instrument(skip_all, fields(id))]
    async fn inside(runs: &Runs, id: u32) -> Result<u32, String> {
        Ok(runs.next() + id)
    }
    #[tracing::instrument(skip_all, fields(id))]
    #[cached(skip(runs))]
    async fn outside(runs: &Runs, id: u32) -> Result<u32, String> {
        Ok(runs.next() + id)
    }
    let runs = Runs::default();
    assert_eq!((inside(&runs, 1).await, inside(&runs, 1).await), (Ok(2), Ok(2)));
    assert_eq!((outside(&runs, 1).await, outside(&runs, 1).await), (Ok(3), Ok(3)));
    outside::entry(1).invalidate().await.unwrap();
    assert_eq!(outside(&runs, 1).await, Ok(4));
}

#[tokio::test]
async fn mutable_arguments() {
    #[cached]
    async fn shape(mut names: Vec<String>) -> usize {
        names.push(String::new());
        names.len()
    }
    assert_eq!(shape(vec![]).await, 1);
    assert_eq!(shape(vec!["a".to_owned()]).await, 2);
    assert_eq!(shape::refresh(vec![]).await, 1);
}

trait Database {
    fn runs(&self) -> &Runs;
}

impl Database for Runs {
    fn runs(&self) -> &Runs {
        self
    }
}

#[tokio::test]
async fn generics_with_bounds_where_and_lifetimes() {
    #[cached(skip(db))]
    async fn shape<'a, D: Database + ?Sized + Sync, K, const N: usize>(db: &'a D, keys: [&'a K; N]) -> u32
    where
        K: KeyPart + Sync,
    {
        let _seen = keys;
        db.runs().next()
    }
    let runs = Runs::default();
    assert_eq!(shape(&runs, [&1_u32, &2]).await, 1);
    assert_eq!(shape(&runs, [&1_u32, &2]).await, 1);
    assert_eq!(shape(&runs, [&1_u32]).await, 2);
    shape::entry([&1_u32]).invalidate().await.unwrap();
    assert_eq!(shape(&runs, [&1_u32]).await, 3);
}

#[tokio::test]
async fn generic_return_types_have_an_entry_each() {
    // K2: two instances of a function never share a key.
    #[cached(skip(runs))]
    async fn shape<T: CacheValue + From<u8>>(runs: &Runs, id: u8) -> Option<T> {
        runs.next();
        Some(T::from(id))
    }
    let runs = Runs::default();
    assert_eq!(shape::<u32>(&runs, 1).await, Some(1_u32));
    assert_eq!(shape::<u64>(&runs, 1).await, Some(1_u64));
    assert_eq!(shape::<u64>(&runs, 1).await, Some(1_u64));
    assert_eq!(runs.count(), 2);
    shape::entry::<u64>(1).invalidate().await.unwrap();
    shape::<u32>(&runs, 1).await;
    assert_eq!(runs.count(), 2);
    assert_ne!(shape::entry::<u32>(1).key(), shape::entry::<u64>(1).key());
}

trait Table {
    const NAME: &'static str;
}
struct Posts;
impl Table for Posts {
    const NAME: &'static str = "posts";
}
struct Users;
impl Table for Users {
    const NAME: &'static str = "users";
}

#[derive(KeyPart)]
struct ById(u32);
#[derive(KeyPart)]
struct ByAge(u32);

#[tokio::test]
async fn type_parameters_used_only_in_the_body_separate_entries() {
    // K2
    #[cached]
    async fn shape<T: Table, const UPPER: bool, const N: usize>() -> String {
        if UPPER { T::NAME.to_uppercase().repeat(N) } else { T::NAME.repeat(N) }
    }
    assert_eq!(shape::<Posts, false, 1>().await, "posts");
    assert_eq!(shape::<Users, false, 1>().await, "users");
    assert_eq!(shape::<Users, true, 1>().await, "USERS");
    assert_eq!(shape::<Users, true, 2>().await, "USERSUSERS");
    assert_eq!(shape::entry::<Users, true, 1>().get().await.unwrap(), Some("USERS".to_owned()));
}

#[tokio::test]
async fn equal_texts_of_different_types_are_different_keys() {
    // K1
    #[cached]
    async fn generic<K: KeyPart + Send>(#[cached(skip)] runs: &Runs, key: K) -> u32 {
        let _seen = key;
        runs.next()
    }
    #[cached]
    async fn unnamed(#[cached(skip)] runs: &Runs, key: impl KeyPart + Send) -> u32 {
        let _seen = key;
        runs.next()
    }
    let runs = Runs::default();
    assert_eq!((generic(&runs, ById(7)).await, generic(&runs, ByAge(7)).await, generic(&runs, "7").await), (1, 2, 3));
    assert_eq!((generic(&runs, ById(7)).await, generic(&runs, ByAge(7)).await, generic(&runs, "7").await), (1, 2, 3));
    assert_eq!((unnamed(&runs, ById(7)).await, unnamed(&runs, ByAge(7)).await), (4, 5));
    assert_eq!((unnamed(&runs, ById(7)).await, unnamed(&runs, ByAge(7)).await), (4, 5));
    unnamed::entry(ById(7)).invalidate().await.unwrap();
    assert_eq!((unnamed(&runs, ById(7)).await, unnamed(&runs, ByAge(7)).await), (6, 5));
}

#[tokio::test]
async fn impl_trait_arguments() {
    #[cached(skip(runs))]
    async fn shape(runs: &(impl Database + Sync), id: impl KeyPart + Debug + Send) -> String {
        format!("{id:?} {}", runs.runs().next())
    }
    let runs = Runs::default();
    assert_eq!(shape(&runs, 1).await, "1 1");
    assert_eq!(shape(&runs, 1).await, "1 1");
    assert_eq!(shape(&runs, "a").await, "\"a\" 2");
    assert_eq!(shape::entry("a").get().await.unwrap().unwrap(), "\"a\" 2");
}

#[tokio::test]
async fn named_lifetimes() {
    #[cached(skip(runs))]
    async fn shape<'r, 'i>(runs: &'r Runs, id: &'i str, other: &'r str) -> String
    where
        'r: 'i,
    {
        format!("{id}{other}{}", runs.next())
    }
    let runs = Runs::default();
    assert_eq!(shape(&runs, "a", "b").await, "ab1");
    assert_eq!(shape(&runs, "a", "b").await, "ab1");
}

#[tokio::test]
async fn names_that_generated_code_could_use() {
    /// Each of these is also a name in the library or in its generated code.
    #[allow(clippy::too_many_arguments, dead_code, reason = "the names are what matters")]
    mod hostile {
        use super::super::Runs;

        pub(super) struct Ok;
        pub(super) struct Err;
        pub(super) struct Result;
        pub(super) struct Some;
        pub(super) struct Option;
        pub(super) struct Probe;
        pub(super) struct JustPlain;
        pub(super) struct Cached;
        pub(super) const FUNCTION: u8 = 0;

        #[cache_core::cached(skip(shape))]
        pub(super) async fn shape(
            shape: &Runs,
            cache: u8,
            key: u8,
            miss: u8,
            __key: u8,
            __cache: u8,
            __cached: u8,
            __miss: u8,
            __hit: u8,
            r#type: u8,
        ) -> u32 {
            let _seen = (cache, key, miss, __key, __cache, __cached, __miss, __hit, r#type);
            shape.next()
        }
    }
    let runs = Runs::default();
    assert_eq!(hostile::shape(&runs, 1, 2, 3, 4, 5, 6, 7, 8, 9).await, 1);
    assert_eq!(hostile::shape(&runs, 1, 2, 3, 4, 5, 6, 7, 8, 9).await, 1);
    assert_eq!(hostile::shape(&runs, 1, 2, 3, 4, 5, 6, 7, 8, 0).await, 2);
}

#[tokio::test]
async fn raw_names() {
    #[cached(key = "{r#type}/{match}")]
    async fn r#loop(r#type: u8, r#match: &str) -> String {
        format!("{}{}", r#type, r#match)
    }
    assert_eq!(r#loop(1, "a").await, "1a");
    assert_eq!(r#loop::entry(1, "a").get().await.unwrap().unwrap(), "1a");
}

mod renamed {
    pub(super) use cache_core as store;
}

#[tokio::test]
async fn another_path_to_the_crate() {
    #[cached(crate = renamed::store)]
    async fn shape(id: u64) -> User {
        User::new(id)
    }
    assert_eq!(shape(1).await, User::new(1));
    assert_eq!(shape::entry(1).get().await.unwrap(), Some(User::new(1)));
}

#[tokio::test]
async fn a_companion_of_another_name() {
    mod user {
        pub(super) const ID: u64 = 3;
    }
    #[cached(companion = UserCache)]
    async fn user(id: u64) -> User {
        User::new(id)
    }
    assert_eq!(user(user::ID).await, User::new(3));
    assert_eq!(UserCache::entry(3).get().await.unwrap(), Some(User::new(3)));
}

#[tokio::test]
async fn early_return_question_mark_and_recursion() {
    // A recursive future needs a box with a named type somewhere in the cycle, cached or not.
    fn boxed(n: u64) -> futures::future::BoxFuture<'static, Result<u64, std::num::ParseIntError>> {
        Box::pin(factorial(n))
    }
    #[cached]
    async fn factorial(n: u64) -> Result<u64, std::num::ParseIntError> {
        if n == 0 {
            return "1".parse();
        }
        let less = boxed(n - 1).await?;
        Ok(n * less)
    }
    assert_eq!(factorial(5).await, Ok(120));
    assert_eq!(factorial::entry(3).get().await.unwrap(), Some(6));
}

#[tokio::test]
async fn a_cached_function_can_be_spawned() {
    #[cached(skip(runs))]
    async fn shape(runs: Arc<Runs>, id: String) -> u32 {
        let _seen = id;
        runs.next()
    }
    fn is_send<T: Send + 'static>(task: T) -> T {
        task
    }
    let runs = Arc::new(Runs::default());
    assert_eq!(is_send(shape(Arc::clone(&runs), "a".to_owned())).await, 1);
    assert_eq!(is_send(shape::refresh(Arc::clone(&runs), "a".to_owned())).await, 2);
}

#[tokio::test]
async fn the_future_of_a_call_does_not_contain_the_body() {
    #[cached(bypass = id == 0, skip(runs))]
    async fn borrowing(runs: &Runs, id: u8) -> usize {
        let large = [id; 10_000];
        tokio::task::yield_now().await;
        runs.next();
        large.len()
    }
    #[cached]
    async fn owning(id: u8) -> usize {
        let large = [id; 10_000];
        tokio::task::yield_now().await;
        large.len()
    }
    let runs = Runs::default();
    let sizes = [size_of_val(&borrowing(&runs, 0)), size_of_val(&owning(0)), size_of_val(&owning::refresh(0))];
    assert!(sizes.iter().all(|size| *size < 200), "{sizes:?}");
    assert_eq!((borrowing(&runs, 0).await, borrowing(&runs, 1).await, owning(0).await), (10_000, 10_000, 10_000));
}

trait Row<'a>: From<&'a str> {}
impl<'a> Row<'a> for String {}

#[tokio::test]
async fn a_return_type_bound_by_a_lifetime() {
    #[cached]
    async fn shape<'a, T>(text: &'a str) -> Result<Vec<T>, String>
    where
        T: Row<'a> + CacheValue,
    {
        Ok(vec![T::from(text)])
    }
    assert_eq!(shape::<String>("a").await, Ok(vec!["a".to_owned()]));
    assert_eq!(shape::entry::<String>("a").get().await.unwrap(), Some(vec!["a".to_owned()]));
}

#[tokio::test]
async fn type_parameters_beside_impl_trait() {
    #[cached]
    async fn shape<T: KeyPart + Send, const N: usize>(ids: [T; N], other: impl KeyPart + Send) -> usize {
        let _seen = (ids, other);
        N
    }
    assert_eq!(shape([1_u8, 2], "a").await, 2);
    assert_eq!(shape::refresh([1_u8], "a").await, 1);
}

/// A cached function generated by a macro of the user.
macro_rules! cached_getter {
    ($name:ident, $ttl:expr, $argument:ident: $type:ty, $returned:ty, $value:expr) => {
        #[cached(ttl = $ttl, key = "{id}", skip($argument))]
        async fn $name(id: u64, $argument: $type) -> $returned {
            let _seen = (id, $argument);
            $value
        }
    };
}
cached_getter!(by_macro, 60, text: &str, Option<String>, Some("x".to_owned()));

#[tokio::test]
async fn functions_made_by_a_macro() {
    assert_eq!(by_macro(1, "a").await, Some("x".to_owned()));
    assert_eq!(by_macro::entry(1).get().await.unwrap(), Some(Some("x".to_owned())));
}

/// A trait with a lifetime, like database handles.
trait Handle<'a>: Send + Sync {
    fn number(&self) -> u64;
}
impl Handle<'_> for &u64 {
    fn number(&self) -> u64 {
        **self
    }
}

#[tokio::test]
async fn hidden_lifetimes_in_impl_trait() {
    #[cached(skip(handle, fresh), bypass = fresh)]
    async fn shape(handle: impl Handle<'_>, fresh: bool, id: u64) -> u64 {
        let _ = fresh;
        handle.number() + id
    }
    assert_eq!(shape(&7, false, 1).await, 8);
    assert_eq!(shape(&8, false, 1).await, 8);
    assert_eq!(shape(&8, true, 1).await, 9);
    assert_eq!(shape::refresh(&9, false, 1).await, 10);
}
