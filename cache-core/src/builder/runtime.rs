//! What a connection needs of the runtime that `connect` is called in, said in a sentence.
//!
//! tokio has no way to ask whether a runtime has timers and I/O, and panics where it lacks them.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, resume_unwind};

use futures::FutureExt;
use tokio::runtime::Handle;

use crate::error::{Error, ErrorKind, Result};

/// Runs `connecting`, whose first panic about the runtime becomes an error.
///
/// # Errors
/// [`ErrorKind::Configuration`]: there is no tokio runtime, or one without timers or I/O.
pub(super) async fn checked<T>(connecting: impl Future<Output = Result<T>>) -> Result<T> {
    let wrong = |detail: &str| Error::new(ErrorKind::Configuration, "connect").detail(detail);
    if Handle::try_current().is_err() {
        return Err(wrong(
            "a cache on Redis needs a running tokio runtime: connect inside `#[tokio::main]`, `#[tokio::test]` or \
             `Runtime::block_on`",
        ));
    }
    match AssertUnwindSafe(connecting).catch_unwind().await {
        Ok(done) => done,
        Err(panic) if is_about_the_runtime(&*panic) => Err(wrong(
            "the tokio runtime lacks timers or I/O, which a cache on Redis needs: build it with `.enable_all()`",
        )),
        Err(panic) => resume_unwind(panic),
    }
}

fn is_about_the_runtime(panic: &(dyn Any + Send)) -> bool {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.is_some_and(|text| text.contains("Tokio 1.x context was found, but"))
}
