//! Each kind of return type is stored by its content, whatever alias it has.

use std::io;
use std::sync::Arc;

use cache_core::cached;

use super::{AppError, Runs, User};

type Res<T> = Result<T, AppError>;
type Found<T> = Result<Option<T>, AppError>;

/// Runs a function of this return type twice and compares the results.
macro_rules! returns {
    ($($name:ident: $type:ty = $value:expr, runs $count:expr;)*) => {$(
        #[tokio::test]
        async fn $name() {
            #[cached(skip(runs))]
            async fn shape(runs: &Runs) -> $type {
                runs.next();
                $value
            }
            let runs = Runs::default();
            let first = format!("{:?}", shape(&runs).await);
            let second = format!("{:?}", shape(&runs).await);
            // The lines after the first line of an error are a backtrace.
            assert_eq!(first.lines().next(), second.lines().next());
            assert_eq!(runs.count(), $count);
        }
    )*};
}

returns! {
    bare_value: User = User::new(1), runs 1;
    shared_value: Arc<User> = Arc::new(User::new(1)), runs 1;
    tuple: (u32, String) = (1, "a".to_owned()), runs 1;
    list: Vec<User> = vec![User::new(1)], runs 1;
    some: Option<User> = Some(User::new(1)), runs 1;
    ok: Result<User, AppError> = Ok(User::new(1)), runs 1;
    ok_through_an_alias: Res<User> = Ok(User::new(1)), runs 1;
    ok_shared: Res<Arc<User>> = Ok(Arc::new(User::new(1))), runs 1;
    ok_unit: Result<(), AppError> = Ok(()), runs 1;
    ok_some: Result<Option<User>, AppError> = Ok(Some(User::new(1))), runs 1;
    ok_some_through_an_alias: Found<User> = Ok(Some(User::new(1))), runs 1;
    ok_anyhow: anyhow::Result<User> = Ok(User::new(1)), runs 1;
    ok_io: io::Result<User> = Ok(User::new(1)), runs 1;
    ok_boxed: Result<User, Box<dyn std::error::Error + Send + Sync>> = Ok(User::new(1)), runs 1;
    nested_option: Option<Option<u32>> = Some(None), runs 1;
    // V1: an `Err` is never cached.
    err: Res<User> = Err(AppError::NotFound), runs 2;
    err_anyhow: anyhow::Result<User> = Err(anyhow::anyhow!("gone")), runs 2;
    err_io: io::Result<User> = Err(io::Error::other("gone")), runs 2;
    // V2: `None` is cached only with `negative_ttl`.
    none: Option<User> = None, runs 2;
    ok_none: Found<User> = Ok(None), runs 2;
}

/// Not `Clone`, so it could not reach a second waiter.
#[derive(Debug, PartialEq, Eq)]
struct Unshared;

#[tokio::test]
async fn an_error_that_cannot_be_copied_with_flight_none() {
    #[cached(single_flight = "none", skip(runs))]
    async fn shape(runs: &Runs, fails: bool) -> Result<u32, Unshared> {
        if fails { Err(Unshared) } else { Ok(runs.next()) }
    }
    let runs = Runs::default();
    assert_eq!(shape(&runs, true).await, Err(Unshared));
    assert_eq!(shape(&runs, false).await, Ok(1));
    assert_eq!(shape(&runs, false).await, Ok(1));
}

#[tokio::test]
async fn the_callers_own_error_comes_back() {
    #[cached]
    async fn shape(id: u32) -> anyhow::Result<u32> {
        Err(anyhow::Error::new(io::Error::other(format!("no {id}"))).context("loading"))
    }
    let error = shape(1).await.unwrap_err();
    assert!(error.root_cause().downcast_ref::<io::Error>().is_some());
}
