//! Errors of a failing run: callers that waited for it get as much information as the one that ran
//! it.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::{fmt, io};

use cache_core::value::{ShareError, SharedError};
use cache_core::{Cache, cached};
use sqlx_core::error::{DatabaseError, ErrorKind};
use support::{Gate, Nodes, eventually, on_both_stores, soon};

/// Returns the errors of ten callers that wait for one failing run.
async fn failures<F, T, E>(nodes: &Nodes, function: impl Fn(Cache, Gate) -> F) -> Vec<E>
where
    F: Future<Output = Result<T, E>> + Send + 'static,
    T: fmt::Debug + Send + 'static,
    E: Send + 'static,
{
    let (cache, gate) = (nodes.node().await, Gate::shut());
    let calls: Vec<_> = (0..10).map(|_| tokio::spawn(function(cache.clone(), gate.clone()))).collect();
    gate.arrival().await;
    eventually("the callers have joined", || async { cache.stats().joined >= 9 }).await;
    gate.let_through(1);
    let mut errors = Vec::new();
    for call in calls {
        match soon("it fails", call).await.unwrap() {
            Ok(value) => panic!("{value:?}"),
            Err(error) => errors.push(error),
        }
    }
    assert_eq!(gate.runs(), 1);
    errors
}

/// A typical application error, with conversions from the errors of other crates.
#[derive(Debug, ShareError)]
enum AppError {
    NotFound,
    Forbidden { user: u64, why: String },
    Io(io::Error),
    Database(sqlx_core::Error),
    Other(anyhow::Error),
    Nested(Box<Nested>),
    Old(#[share(io)] Old),
    Parse(#[share(with = same_parse)] Parse),
}

#[derive(Debug, Clone, PartialEq)]
struct Nested(u8);

/// An error of a crate that offers only `From<io::Error>`.
#[derive(Debug)]
struct Old(String);

#[derive(Debug, PartialEq)]
struct Parse(usize);

fn same_parse(error: &Parse) -> Parse {
    Parse(error.0)
}

macro_rules! displays {
    ($($type:ty),*) => {$(
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "shown {self:?}")
            }
        }
        impl StdError for $type {}
    )*};
}
displays!(AppError, Old, Cause, Broken);

impl From<io::Error> for AppError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<io::Error> for Old {
    fn from(error: io::Error) -> Self {
        Self(error.to_string())
    }
}

#[derive(Debug, PartialEq)]
struct Cause(u32);

/// Returns the status that a handler derives from an error. It must be the same for the first
/// caller and the waiters.
fn status(error: &AppError) -> u16 {
    match error {
        AppError::NotFound | AppError::Database(sqlx_core::Error::RowNotFound) => 404,
        AppError::Forbidden { .. } => 403,
        AppError::Io(error) if error.kind() == io::ErrorKind::NotFound => 404,
        AppError::Database(error) if error.as_database_error().is_some_and(DatabaseError::is_unique_violation) => 409,
        AppError::Other(error) if SharedError::find::<Cause>(&**error) == Some(&Cause(7)) => 410,
        AppError::Nested(nested) => 400 + u16::from(nested.0),
        AppError::Old(old) if old.0.contains("it broke") => 502,
        AppError::Parse(Parse(at)) => 400 + u16::try_from(*at).unwrap(),
        _ => 500,
    }
}

#[cached(name = "app", ttl = 60, key = "{which}", skip(cache, gate), cache = &cache)]
async fn app(cache: Cache, gate: Gate, which: u32) -> Result<u32, AppError> {
    gate.pass().await;
    Err(match which {
        0 => AppError::NotFound,
        1 => AppError::Forbidden { user: 7, why: "no".to_owned() },
        2 => io::Error::from(io::ErrorKind::NotFound).into(),
        3 => AppError::Database(sqlx_core::Error::RowNotFound),
        4 => AppError::Database(sqlx_core::Error::Database(Box::new(Broken("users_name")))),
        5 => AppError::Other(anyhow::Error::new(Cause(7)).context("while reading")),
        6 => AppError::Nested(Box::new(Nested(18))),
        7 => AppError::Old(Old("it broke".to_owned())),
        8 => AppError::Parse(Parse(22)),
        9 => io::Error::from_raw_os_error(2).into(),
        _ => io::Error::new(io::ErrorKind::NotFound, Cause(7)).into(),
    })
}

/// A database error as a driver reports it.
#[derive(Debug)]
struct Broken(&'static str);

impl DatabaseError for Broken {
    fn message(&self) -> &str {
        "duplicate"
    }
    fn code(&self) -> Option<Cow<'_, str>> {
        Some("23505".into())
    }
    fn constraint(&self) -> Option<&str> {
        Some(self.0)
    }
    fn table(&self) -> Option<&str> {
        Some("users")
    }
    fn kind(&self) -> ErrorKind {
        ErrorKind::UniqueViolation
    }
    fn as_error(&self) -> &(dyn StdError + Send + Sync + 'static) {
        self
    }
    fn as_error_mut(&mut self) -> &mut (dyn StdError + Send + Sync + 'static) {
        self
    }
    fn into_error(self: Box<Self>) -> Box<dyn StdError + Send + Sync + 'static> {
        self
    }
}

#[cached(name = "queried", ttl = 60, key = "{which}", skip(cache, gate), cache = &cache)]
async fn queried(cache: Cache, gate: Gate, which: u32) -> Result<u32, sqlx_core::Error> {
    gate.pass().await;
    Err(match which {
        0 => sqlx_core::Error::RowNotFound,
        1 => sqlx_core::Error::Database(Box::new(Broken("users_name"))),
        2 => sqlx_core::Error::ColumnDecode { index: "id".to_owned(), source: Box::new(Cause(7)) },
        3 => sqlx_core::Error::PoolTimedOut,
        _ => sqlx_core::Error::Io(io::Error::new(io::ErrorKind::ConnectionReset, Cause(7))),
    })
}

#[cached(name = "dynamic", ttl = 60, skip(cache, gate), cache = &cache)]
async fn dynamic(cache: Cache, gate: Gate) -> Result<u32, Box<dyn StdError + Send + Sync>> {
    gate.pass().await;
    Err(Box::new(Cause(7)))
}

#[cached(name = "any", ttl = 60, skip(cache, gate), cache = &cache)]
async fn any(cache: Cache, gate: Gate) -> anyhow::Result<u32> {
    gate.pass().await;
    Err(anyhow::Error::new(Cause(7)).context("no row").context("no user"))
}

/// An error that can be made from a shared error, without a copy of its variants.
#[derive(Debug)]
enum Taking {
    Cause,
    Shared(SharedError),
}
displays!(Taking);

impl From<SharedError> for Taking {
    fn from(error: SharedError) -> Self {
        Self::Shared(error)
    }
}

#[cached(name = "taking", ttl = 60, skip(cache, gate), cache = &cache)]
async fn taking(cache: Cache, gate: Gate) -> Result<u32, Taking> {
    gate.pass().await;
    Err(Taking::Cause)
}

on_both_stores! {
    // S13
    async fn every_waiter_answers_as_the_first_caller_does(nodes: &Nodes) {
        for (which, expected) in (0..).zip([404, 403, 404, 404, 409, 410, 418, 502, 422, 404, 404]) {
            let errors = failures(nodes, |cache, gate| app(cache, gate, which)).await;
            let answers: Vec<u16> = errors.iter().map(status).collect();
            assert_eq!(answers, [expected; 10], "{which}");
        }
        let errors = failures(nodes, |cache, gate| app(cache, gate, 1)).await;
        assert!(errors.iter().all(|error| matches!(error, AppError::Forbidden { user: 7, why } if why == "no")));
        let errors = failures(nodes, |cache, gate| app(cache, gate, 9)).await;
        assert!(errors.iter().all(|error| matches!(error, AppError::Io(error) if error.raw_os_error() == Some(2))));
        let errors = failures(nodes, |cache, gate| app(cache, gate, 10)).await;
        assert!(errors.iter().all(|error| matches!(error, AppError::Io(error)
            if SharedError::find::<Cause>(error.get_ref().unwrap()) == Some(&Cause(7)))));
        let errors = failures(nodes, |cache, gate| app(cache, gate, 7)).await;
        let texts: Vec<bool> = errors.iter().map(|error| error.to_string().contains("it broke")).collect();
        assert_eq!(texts, [true; 10]);
    }

    // S13
    async fn a_row_that_is_not_found_is_not_found_for_all(nodes: &Nodes) {
        use sqlx_core::Error;
        for error in failures(nodes, |cache, gate| queried(cache, gate, 0)).await {
            assert!(matches!(error, Error::RowNotFound), "{error:?}");
        }
        for error in failures(nodes, |cache, gate| queried(cache, gate, 1)).await {
            assert_eq!(error.to_string(), "error returned from database: shown Broken(\"users_name\")");
            let error = error.as_database_error().unwrap();
            assert_eq!((error.message(), error.code().as_deref()), ("duplicate", Some("23505")));
            assert_eq!((error.constraint(), error.table()), (Some("users_name"), Some("users")));
            assert!(error.is_unique_violation());
            assert_eq!(error.try_downcast_ref::<Broken>().unwrap().0, "users_name");
        }
        for error in failures(nodes, |cache, gate| queried(cache, gate, 2)).await {
            assert!(matches!(&error, Error::ColumnDecode { index, .. } if index == "id"));
            assert_eq!(SharedError::find::<Cause>(&error), Some(&Cause(7)));
        }
        for error in failures(nodes, |cache, gate| queried(cache, gate, 3)).await {
            assert!(matches!(error, Error::PoolTimedOut));
        }
        for error in failures(nodes, |cache, gate| queried(cache, gate, 4)).await {
            assert!(matches!(&error, Error::Io(error) if error.kind() == io::ErrorKind::ConnectionReset));
            let Error::Io(error) = error else { unreachable!() };
            assert_eq!(SharedError::find::<Cause>(error.get_ref().unwrap()), Some(&Cause(7)));
        }
    }

    // S13
    async fn causes_are_found_in_the_error_of_every_waiter(nodes: &Nodes) {
        for error in failures(nodes, any).await {
            assert_eq!(format!("{error:#}"), "no user: no row: shown Cause(7)");
            assert_eq!(SharedError::find::<Cause>(&*error), Some(&Cause(7)));
            assert_eq!(error.root_cause().downcast_ref::<Cause>(), Some(&Cause(7)));
        }
        for error in failures(nodes, dynamic).await {
            assert_eq!(error.to_string(), "shown Cause(7)");
            assert_eq!(SharedError::find::<Cause>(&*error), Some(&Cause(7)));
        }
        let errors = failures(nodes, taking).await;
        let originals = errors.iter().filter(|error| match error {
            Taking::Cause => true,
            Taking::Shared(shared) => {
                shared.original::<Taking>().is_some_and(|error| matches!(error, Taking::Cause))
                    && shared.downcast_ref::<Taking>().is_some()
            }
        });
        assert_eq!(originals.count(), 10);
    }
}

#[test]
// S13
fn a_copy_that_cannot_hold_the_error_has_its_text() {
    let copy = AppError::Other(anyhow::Error::new(Cause(7)).context("while reading")).share();
    assert!(matches!(copy, AppError::Other(error) if error.to_string() == "while reading: shown Cause(7)"));
    let copy = io::Error::new(io::ErrorKind::NotFound, Cause(7)).share();
    assert_eq!((copy.kind(), copy.to_string()), (io::ErrorKind::NotFound, "shown Cause(7)".to_owned()));
    assert_eq!(io::Error::from(io::ErrorKind::TimedOut).share().kind(), io::ErrorKind::TimedOut);
}
