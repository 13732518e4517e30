//! Runs an operation again whose connection was lost with its runtime (D9).
//!
//! Invariant: each try makes its commands anew. So a version or another random value is never sent
//! twice, and the commands fit the session of their try. Only operations that may be executed twice
//! are retried.

use std::future::Future;

use futures::future::BoxFuture;

use super::RedisStore;
use super::connection::Link;
use crate::error::{Error, Result};

/// How often an operation is tried. Tests that run at the same time end one after the other, and
/// each may take the runtime of the connection with it.
const TRIES_MAX: u32 = 8;

/// The tries of one operation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tries {
    failed: u32,
    /// How often the connection had been taken over when the last try began.
    takeovers: u64,
}

impl Tries {
    /// Makes the count for an operation that begins now.
    pub(super) fn new(link: &Link) -> Self {
        Self { failed: 0, takeovers: link.takeovers() }
    }

    /// Returns whether the operation that failed with this error is to be tried again now.
    pub(super) fn is_retryable(&mut self, link: &Link, error: &Error) -> bool {
        self.failed = self.failed.saturating_add(1);
        let is_retryable = self.failed < TRIES_MAX && link.was_lost_with_its_runtime(error, self.takeovers);
        self.takeovers = link.takeovers();
        is_retryable
    }
}

/// Runs an operation that may be executed twice.
pub(super) async fn retry<T, F: Future<Output = Result<T>>>(link: &Link, operation: impl Fn() -> F) -> Result<T> {
    let mut tries = Tries::new(link);
    loop {
        match operation().await {
            Err(error) if tries.is_retryable(link, &error) => {}
            done => return done,
        }
    }
}

impl RedisStore {
    /// Makes the future of an operation that may be executed twice.
    pub(super) fn retried<'a, T, F>(&'a self, operation: impl Fn() -> F + Send + 'a) -> BoxFuture<'a, Result<T>>
    where
        T: Send + 'a,
        F: Future<Output = Result<T>> + Send + 'a,
    {
        Box::pin(retry(&self.link, operation))
    }
}
