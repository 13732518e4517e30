//! Checks that the runtime in which `connect` is called has what a connection needs, and reports
//! what is missing as an error.
//!
//! tokio has no way to ask whether a runtime has timers and I/O; it panics where they are missing.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, resume_unwind};

use futures::FutureExt;
use tokio::runtime::Handle;

use crate::error::{Error, ErrorKind, Result};

/// Awaits `connecting`, and turns a panic about the runtime into an error.
///
/// # Errors
/// [`ErrorKind::Configuration`] if there is no tokio runtime, or the runtime lacks timers or I/O.
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
