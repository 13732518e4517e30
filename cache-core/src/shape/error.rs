//! How a function's error reaches each caller that waited for its run, and how it tells of a passed deadline: by the first way that its type has.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::sync::Arc;

use super::Typed;
use crate::error::DeadlineExceeded;
use crate::local::Erased;

/// Makes the error that another caller gets when the run it waited for failed.
///
/// A caller that was alone gets the very error its function returned. When several waited for one run, the last to
/// look gets it and each other one a copy: by this trait if it is implemented, else by `Clone`, else by
/// `From<SharedError>` (as `anyhow::Error` and `Box<dyn Error + Send + Sync>` have), else by `From<std::io::Error>`
/// (as `sqlx::Error` has). Implement it where a copy should keep more than the text:
///
/// ```
/// # #[derive(Debug)] enum AppError { NotFound, Database(std::io::Error) }
/// impl cache_core::ShareError for AppError {
///     fn share(&self) -> Self {
///         match self {
///             Self::NotFound => Self::NotFound,
///             Self::Database(error) => Self::Database(std::io::Error::other(error.to_string())),
///         }
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot reach every caller that waits for one run",
    label = "this error can be copied neither by `Clone` nor in another way",
    note = "add `#[derive(Clone)]` to `{Self}`, or `impl From<cache_core::SharedError> for {Self}`, or `impl cache_core::ShareError for {Self}`",
    note = "or let every caller run the function itself: `#[cached(flight = \"none\")]`"
)]
pub trait ShareError {
    /// A copy for another caller.
    #[must_use]
    fn share(&self) -> Self;
}

/// The text of an error that happened in a run which several callers waited for.
#[derive(Clone)]
pub struct SharedError {
    message: Arc<str>,
}

impl SharedError {
    fn of(error: &dyn fmt::Display) -> Self {
        // The alternate form is the whole chain of causes for the errors that have one.
        Self { message: format!("{error:#}").into() }
    }
}

impl fmt::Display for SharedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for SharedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SharedError").field(&self.message).finish()
    }
}

impl std::error::Error for SharedError {}

/// An error that can say that a deadline has passed.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot say that the `deadline` has passed",
    label = "a function with a `deadline` returns a `Result` whose error can be made from `cache_core::DeadlineExceeded`",
    note = "add `impl From<cache_core::DeadlineExceeded> for {Self}` if that is your error type",
    note = "or remove `deadline`: the cache's own then frees the key, and the function goes on for its callers"
)]
pub trait DeadlineError {}
impl<E: From<DeadlineExceeded>> DeadlineError for E {}

/// How a function tells of a passed deadline, if it can.
#[derive(Debug)]
pub struct Overdue(pub(super) Option<fn(DeadlineExceeded) -> Erased>);

/// A way to copy an error.
pub trait Sharing<E>: 'static {
    /// A copy for another caller.
    fn share(error: &E) -> E;
}

/// By [`ShareError`].
#[derive(Debug)]
pub struct ByImpl;
impl<E: ShareError> Sharing<E> for ByImpl {
    fn share(error: &E) -> E {
        error.share()
    }
}

/// By `Clone`.
#[derive(Debug)]
pub struct ByClone;
impl<E: Clone> Sharing<E> for ByClone {
    fn share(error: &E) -> E {
        error.clone()
    }
}

/// By `From<SharedError>`.
#[derive(Debug)]
pub struct ByMessage;
impl<E: From<SharedError> + fmt::Display> Sharing<E> for ByMessage {
    fn share(error: &E) -> E {
        SharedError::of(error).into()
    }
}

/// By `From<std::io::Error>`.
#[derive(Debug)]
pub struct ByIoError;
impl<E: From<io::Error> + fmt::Display> Sharing<E> for ByIoError {
    fn share(error: &E) -> E {
        io::Error::other(SharedError::of(error)).into()
    }
}

/// Asks how an error can reach every caller that waits for one run.
pub struct ErrorProbe<E>(PhantomData<fn() -> E>);

// The last resort is taken by value, through the references.
impl<E> Clone for ErrorProbe<E> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<E> Copy for ErrorProbe<E> {}

impl<E> fmt::Debug for ErrorProbe<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ErrorProbe")
    }
}

impl<F, E, W> Typed<F, E, W> {
    /// Asks how the error can reach every caller that waits for one run.
    #[must_use]
    pub const fn error(self) -> ErrorProbe<E> {
        ErrorProbe(PhantomData)
    }
}

/// The traits of [`ErrorProbe`]'s methods.
pub(crate) mod via {
    use std::sync::Arc;

    use super::{
        ByClone, ByImpl, ByIoError, ByMessage, DeadlineError, DeadlineExceeded, ErrorProbe, Overdue, ShareError,
        SharedError,
    };

    /// First: the error says itself how.
    pub trait SharesByImpl<E> {
        /// The way.
        fn sharing(self) -> ByImpl;
    }
    impl<E: ShareError> SharesByImpl<E> for &&&&ErrorProbe<E> {
        fn sharing(self) -> ByImpl {
            ByImpl
        }
    }

    /// Second: a clone for each.
    pub trait SharesByClone<E> {
        /// The way.
        fn sharing(self) -> ByClone;
    }
    impl<E: Clone> SharesByClone<E> for &&&ErrorProbe<E> {
        fn sharing(self) -> ByClone {
            ByClone
        }
    }

    /// Third: an error that carries its text (`anyhow::Error`, `Box<dyn Error + Send + Sync>`).
    pub trait SharesByMessage<E> {
        /// The way.
        fn sharing(self) -> ByMessage;
    }
    impl<E: From<SharedError> + std::fmt::Display> SharesByMessage<E> for &&ErrorProbe<E> {
        fn sharing(self) -> ByMessage {
            ByMessage
        }
    }

    /// Fourth: the same, by way of `std::io::Error` (`sqlx::Error`).
    pub trait SharesByIoError<E> {
        /// The way.
        fn sharing(self) -> ByIoError;
    }
    impl<E: From<std::io::Error> + std::fmt::Display> SharesByIoError<E> for &ErrorProbe<E> {
        fn sharing(self) -> ByIoError {
            ByIoError
        }
    }

    /// First: the error says itself that a deadline has passed.
    pub trait OverdueByItself<E> {
        /// Where a deadline may be the cache's.
        fn overdue(self) -> Overdue;
        /// Where a deadline was asked for.
        fn overdue_told(self) -> Overdue;
    }
    impl<E: From<DeadlineExceeded> + Send + Sync + 'static> OverdueByItself<E> for &&ErrorProbe<E> {
        fn overdue(self) -> Overdue {
            Overdue(Some(|deadline| Arc::new(E::from(deadline))))
        }
        fn overdue_told(self) -> Overdue {
            self.overdue()
        }
    }

    /// Second: by way of `std::io::Error`.
    pub trait OverdueByIoError<E> {
        /// Where a deadline may be the cache's.
        fn overdue(self) -> Overdue;
        /// Where a deadline was asked for.
        fn overdue_told(self) -> Overdue;
    }
    impl<E: From<std::io::Error> + Send + Sync + 'static> OverdueByIoError<E> for &ErrorProbe<E> {
        fn overdue(self) -> Overdue {
            Overdue(Some(|deadline| {
                let error = std::io::Error::new(std::io::ErrorKind::TimedOut, deadline);
                Arc::new(E::from(error))
            }))
        }
        fn overdue_told(self) -> Overdue {
            self.overdue()
        }
    }

    /// Last: it cannot.
    pub trait CannotBeOverdue<E> {
        /// Where a deadline may be the cache's.
        fn overdue(self) -> Overdue;
        /// Never compiles: the bound's message says what to do.
        fn overdue_told(self) -> Overdue
        where
            E: DeadlineError;
    }
    impl<E> CannotBeOverdue<E> for ErrorProbe<E> {
        fn overdue(self) -> Overdue {
            Overdue(None)
        }
        fn overdue_told(self) -> Overdue
        where
            E: DeadlineError,
        {
            Overdue(None)
        }
    }

    /// Last: no way is left; the bound's message says what to do.
    pub trait CannotShare<E> {
        /// Never compiles.
        fn sharing(self) -> ByImpl
        where
            E: ShareError;
    }
    impl<E> CannotShare<E> for ErrorProbe<E> {
        fn sharing(self) -> ByImpl
        where
            E: ShareError,
        {
            ByImpl
        }
    }
}
