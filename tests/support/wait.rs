//! Waits for a condition, with a deadline that only a failing test reaches.

use std::future::Future;
use std::time::Duration;

use tokio::time::{sleep, timeout};

/// Long enough for a busy machine. A passing test never waits for it.
const DEADLINE: Duration = Duration::from_secs(20);

/// Runs a whole test, which fails if it hangs.
///
/// # Panics
///
/// After five minutes. No test takes that long on a busy machine.
pub async fn ends(test: impl Future<Output = ()>) {
    assert!(timeout(Duration::from_secs(300), test).await.is_ok(), "the test hangs");
}

/// Returns the result of `future`, which must complete on its own.
///
/// # Panics
///
/// After 20 s.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("this never happened: {what}"),
    }
}

/// Repeats a check until it returns `true`.
///
/// # Panics
///
/// After 20 s.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    soon(what, async {
        while !holds().await {
            sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}
