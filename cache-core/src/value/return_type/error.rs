//! How a function's error reaches each caller that waited for its run, and how a passed deadline
//! becomes an error. Both use the first way that the error's type supports.

#[cfg(feature = "sqlx")]
mod sqlx;

use std::any::Any;
use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::sync::Arc;

use super::Typed;
use crate::error::DeadlineExceeded;
use crate::value::Erased;

/// Copies an error for another caller that waited for the failed run.
///
/// A caller that waited alone gets the very error that its function returned. If several callers
/// waited for one run, each other caller gets an equivalent copy: made by this trait if it is
/// implemented, else by `Clone`, else by `From<SharedError>`, as `anyhow::Error` and
/// `Box<dyn Error + Send + Sync>` have it; see [`SharedError`]. If the type has none of these, the
/// function does not compile.
///
/// Implemented for `std::io::Error`, and with the feature `sqlx` for `sqlx::Error`. Derive it for
/// your own errors:
///
/// ```
/// # use std::fmt;
/// use cache_core::value::ShareError;
/// use cache_core::cached;
///
/// #[derive(Debug, ShareError)]
/// enum AppError {
///     NotFound,
///     Io(std::io::Error),
/// }
/// # impl fmt::Display for AppError {
/// #     fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str("app") }
/// # }
///
/// impl From<std::io::Error> for AppError {
///     fn from(error: std::io::Error) -> Self {
///         Self::Io(error)
///     }
/// }
///
/// #[cached(ttl = "1h")]
/// async fn page(id: u64) -> Result<String, AppError> {
///     # let _ = id;
///     Err(AppError::NotFound) // for every caller that waited for this run
/// }
/// ```
///
/// See [the derive](derive@crate::value::ShareError) for fields whose types have none of these
/// ways. To implement the trait manually:
///
/// ```
/// # #[derive(Debug)] enum AppError { NotFound, Database(std::io::Error) }
/// impl cache_core::value::ShareError for AppError {
///     fn share(&self) -> Self {
///         match self {
///             Self::NotFound => Self::NotFound,
///             Self::Database(error) => Self::Database(error.share()),
///         }
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be returned to every caller that waits for one compute",
    label = "this error implements neither `Clone` nor `ShareError`",
    note = "add `#[derive(cache_core::value::ShareError)]` to `{Self}`, or `#[derive(Clone)]`; for `sqlx::Error` turn on the feature `sqlx` of cache-core",
    note = "an error of another crate goes into an `Arc`, or into your own error with `#[derive(ShareError)]`: there on its field `#[share(io)]` \
            copies by `From<std::io::Error>`, `#[share(with = path)]` by a function",
    note = "or let every caller compute for itself: `#[cached(single_flight = \"none\")]`"
)]
pub trait ShareError {
    /// Returns a copy for another caller.
    #[must_use]
    fn share(&self) -> Self;

    /// Returns a copy that may hold on to the original. Only the derive overrides this.
    #[doc(hidden)]
    #[must_use]
    fn __share_with(&self, original: Option<&Original<Self>>) -> Self
    where
        Self: Sized,
    {
        let _unused = original;
        self.share()
    }
}

/// An error of a run that several callers waited for, used if the error's type cannot be copied.
///
/// It displays the same text as the original, has the same sources, and gives access to the
/// original. So code that looks for a cause with [`find`](Self::find) gets the same result in the
/// caller that ran the function and in all callers that waited:
///
/// ```
/// use cache_core::value::SharedError;
/// # use std::{error::Error, io};
///
/// fn is_not_found(error: &(dyn Error + 'static)) -> bool {
///     SharedError::find::<io::Error>(error).is_some_and(|error| error.kind() == io::ErrorKind::NotFound)
/// }
/// # assert!(is_not_found(&io::Error::from(io::ErrorKind::NotFound)));
/// ```
#[derive(Clone)]
pub struct SharedError {
    message: Arc<str>,
    original: Option<Arc<dyn View>>,
}

impl SharedError {
    /// Returns the first error of type `T` in an error and its sources, looking into shared errors
    /// too.
    #[must_use]
    pub fn find<'e, T: StdError + 'static>(error: &'e (dyn StdError + 'static)) -> Option<&'e T> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref() {
                return Some(found);
            }
            if let Some(shared) = error.downcast_ref::<Self>() {
                // Its sources are those of the original.
                return shared.downcast_ref();
            }
            next = error.source();
        }
        None
    }

    /// Returns the original, or the first of its sources, that is of type `T`.
    #[must_use]
    pub fn downcast_ref<T: StdError + 'static>(&self) -> Option<&T> {
        let original = self.original.as_ref()?;
        let itself = original.any().and_then(<dyn Any>::downcast_ref);
        itself.or_else(|| original.error().and_then(Self::find))
    }

    /// Returns the original, if it is of type `T`. Also works for `anyhow::Error`, which does not
    /// implement `Error` itself.
    #[must_use]
    pub fn original<T: 'static>(&self) -> Option<&T> {
        self.original.as_ref()?.any()?.downcast_ref()
    }

    /// Makes a shared error that gives access to the original error.
    fn viewed<E: fmt::Display + 'static>(
        error: &E,
        original: Option<&Original<E>>,
        view: fn(&E) -> Option<&(dyn StdError + 'static)>,
    ) -> Self {
        match original {
            Some(original) => Self {
                message: error.to_string().into(),
                original: Some(Arc::new(Viewed { original: original.clone(), view })),
            },
            None => Self::told(error),
        }
    }

    /// Makes a shared error of the text alone.
    fn told(error: &dyn fmt::Display) -> Self {
        // The alternate form prints the whole chain of causes, for errors that have one.
        Self { message: format!("{error:#}").into(), original: None }
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

impl StdError for SharedError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.original.as_ref()?.error()?.source()
    }
}

/// The error of a run, or a part of it, kept alive by the copies.
pub struct Original<E>(Arc<dyn Held<E>>);

impl<E> Clone for Original<E> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

// The error may contain personal data.
impl<E> fmt::Debug for Original<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Original")
    }
}

impl<E: 'static> Original<E> {
    pub(super) fn whole(error: &Arc<E>) -> Self
    where
        E: Send + Sync,
    {
        Self(Arc::new(Whole(Arc::clone(error))))
    }

    fn part<P: 'static>(&self, part: fn(&E) -> Option<&P>) -> Original<P> {
        Original(Arc::new(Part { of: self.clone(), part }))
    }
}

trait Held<E>: Send + Sync {
    fn get(&self) -> Option<&E>;
}

struct Whole<E>(Arc<E>);

impl<E: Send + Sync> Held<E> for Whole<E> {
    fn get(&self) -> Option<&E> {
        Some(&self.0)
    }
}

struct Part<E, P> {
    of: Original<E>,
    part: fn(&E) -> Option<&P>,
}

impl<E, P> Held<P> for Part<E, P> {
    fn get(&self) -> Option<&P> {
        self.of.0.get().and_then(self.part)
    }
}

/// How a [`SharedError`] looks into its original.
trait View: Send + Sync {
    fn any(&self) -> Option<&dyn Any>;
    fn error(&self) -> Option<&(dyn StdError + 'static)>;
}

struct Viewed<E> {
    original: Original<E>,
    view: fn(&E) -> Option<&(dyn StdError + 'static)>,
}

impl<E: 'static> View for Viewed<E> {
    fn any(&self) -> Option<&dyn Any> {
        self.original.0.get().map(|error| -> &dyn Any { error })
    }
    fn error(&self) -> Option<&(dyn StdError + 'static)> {
        self.original.0.get().and_then(self.view)
    }
}

/// Returns the user's error inside an I/O error.
fn inner(error: &io::Error) -> Option<&(dyn StdError + 'static)> {
    error.get_ref().map(|inner| -> &(dyn StdError + 'static) { inner })
}

/// A copy keeps the kind, the OS error code and the text. An inner error is available through the
/// copy's [`SharedError`].
impl ShareError for io::Error {
    fn share(&self) -> Self {
        self.__share_with(None)
    }

    fn __share_with(&self, original: Option<&Original<Self>>) -> Self {
        if let Some(code) = self.raw_os_error() {
            return Self::from_raw_os_error(code);
        }
        let plain = Self::from(self.kind());
        if self.get_ref().is_none() && self.to_string() == plain.to_string() {
            return plain;
        }
        Self::new(self.kind(), SharedError::viewed(self, original, inner))
    }
}

/// An error that can represent a passed deadline.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot say that the `deadline` has passed",
    label = "a function with a `deadline` returns a `Result` whose error can be made from `cache_core::error::DeadlineExceeded`",
    note = "add `impl From<cache_core::error::DeadlineExceeded> for {Self}` if that is your error type",
    note = "or remove `deadline`: the cache's default deadline then frees the key, and the function continues for its \
        callers"
)]
pub trait DeadlineError {}
impl<E: From<DeadlineExceeded>> DeadlineError for E {}

/// How a function reports a passed deadline, if its error type can.
#[derive(Debug)]
pub struct Overdue(pub(super) Option<fn(DeadlineExceeded) -> Erased>);

/// A way to copy an error.
pub trait Sharing<E>: 'static {
    /// Returns a copy for another caller.
    fn share(error: &E, original: Option<&Original<E>>) -> E;
}

/// Copies a field, for the derive.
pub fn share_field<E: 'static, P: 'static, S: Sharing<P>>(
    _way: S,
    field: &P,
    original: Option<&Original<E>>,
    part: fn(&E) -> Option<&P>,
) -> P {
    let original = original.map(|original| original.part(part));
    S::share(field, original.as_ref())
}

/// Copies with [`ShareError`].
#[derive(Debug)]
pub struct ByImpl;
impl<E: ShareError> Sharing<E> for ByImpl {
    fn share(error: &E, original: Option<&Original<E>>) -> E {
        error.__share_with(original)
    }
}

/// Copies with `Clone`.
#[derive(Debug)]
pub struct ByClone;
impl<E: Clone> Sharing<E> for ByClone {
    fn share(error: &E, _: Option<&Original<E>>) -> E {
        error.clone()
    }
}

/// Copies with `From<SharedError>`, for a type that wraps another error.
#[derive(Debug)]
pub struct ByView;
impl<E> Sharing<E> for ByView
where
    E: From<SharedError> + AsRef<dyn StdError + Send + Sync + 'static> + fmt::Display + 'static,
{
    fn share(error: &E, original: Option<&Original<E>>) -> E {
        SharedError::viewed(error, original, |error| Some(error.as_ref())).into()
    }
}

/// Copies with `From<SharedError>`, for a type that is an error.
#[derive(Debug)]
pub struct ByError;
impl<E: From<SharedError> + StdError + 'static> Sharing<E> for ByError {
    fn share(error: &E, original: Option<&Original<E>>) -> E {
        SharedError::viewed(error, original, |error| Some(error)).into()
    }
}

/// Copies with `From<SharedError>`, for a type that only has a text.
#[derive(Debug)]
pub struct ByMessage;
impl<E: From<SharedError> + fmt::Display + 'static> Sharing<E> for ByMessage {
    fn share(error: &E, original: Option<&Original<E>>) -> E {
        let mut shared = SharedError::told(error);
        shared.original = original
            .map(|original| -> Arc<dyn View> { Arc::new(Viewed { original: original.clone(), view: |_| None }) });
        shared.into()
    }
}

/// Copies with `From<std::io::Error>`, for a field that asks for it.
#[derive(Debug)]
pub struct ByIoError;
impl<E: From<io::Error> + StdError + 'static> Sharing<E> for ByIoError {
    fn share(error: &E, original: Option<&Original<E>>) -> E {
        io::Error::other(SharedError::viewed(error, original, |error| Some(error))).into()
    }
}

/// Asks how an error can reach every caller that waits for one run.
pub struct ErrorProbe<E>(PhantomData<fn() -> E>);

impl<E> ErrorProbe<E> {
    /// Makes a probe of the type; no value of it is needed.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "only generated code makes one")]
    pub const fn new() -> Self {
        Self(PhantomData)
    }
}

// The last method takes the probe by value, through the references.
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
    /// Returns a probe of how the error can reach every caller that waits for one run.
    #[must_use]
    pub const fn error(self) -> ErrorProbe<E> {
        ErrorProbe(PhantomData)
    }
}

/// The traits of [`ErrorProbe`]'s methods.
pub(crate) mod via {
    use std::sync::Arc;

    use std::error::Error as StdError;

    use super::{
        ByClone, ByError, ByImpl, ByMessage, ByView, DeadlineError, DeadlineExceeded, ErrorProbe, Overdue, ShareError,
        SharedError,
    };

    /// Tried first: the error implements [`ShareError`].
    pub trait SharesByImpl<E> {
        /// Returns the way.
        fn sharing(self) -> ByImpl;
    }
    impl<E: ShareError> SharesByImpl<E> for &&&&&ErrorProbe<E> {
        fn sharing(self) -> ByImpl {
            ByImpl
        }
    }

    /// Tried second: a clone for each caller.
    pub trait SharesByClone<E> {
        /// Returns the way.
        fn sharing(self) -> ByClone;
    }
    impl<E: Clone> SharesByClone<E> for &&&&ErrorProbe<E> {
        fn sharing(self) -> ByClone {
            ByClone
        }
    }

    /// Tried third: a type that wraps another error (`anyhow::Error`,
    /// `Box<dyn Error + Send + Sync>`).
    pub trait SharesByView<E> {
        /// Returns the way.
        fn sharing(self) -> ByView;
    }
    impl<E> SharesByView<E> for &&&ErrorProbe<E>
    where
        E: From<SharedError> + AsRef<dyn StdError + Send + Sync + 'static> + std::fmt::Display,
    {
        fn sharing(self) -> ByView {
            ByView
        }
    }

    /// Tried fourth: an error that can be made from a shared one.
    pub trait SharesByError<E> {
        /// Returns the way.
        fn sharing(self) -> ByError;
    }
    impl<E: From<SharedError> + StdError> SharesByError<E> for &&ErrorProbe<E> {
        fn sharing(self) -> ByError {
            ByError
        }
    }

    /// Tried fifth: the same without sources.
    pub trait SharesByMessage<E> {
        /// Returns the way.
        fn sharing(self) -> ByMessage;
    }
    impl<E: From<SharedError> + std::fmt::Display> SharesByMessage<E> for &ErrorProbe<E> {
        fn sharing(self) -> ByMessage {
            ByMessage
        }
    }

    /// Tried first: the error can be made from `DeadlineExceeded`.
    pub trait OverdueByItself<E> {
        /// For a deadline that may come from the cache's default.
        fn overdue(self) -> Overdue;
        /// For a deadline that the function sets itself.
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

    /// Tried second: the error can be made from `std::io::Error`.
    pub trait OverdueByIoError<E> {
        /// For a deadline that may come from the cache's default.
        fn overdue(self) -> Overdue;
        /// For a deadline that the function sets itself.
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

    /// Tried last: the error cannot represent a passed deadline.
    pub trait CannotBeOverdue<E> {
        /// For a deadline that may come from the cache's default.
        fn overdue(self) -> Overdue;
        /// For a deadline that the function sets itself. Never compiles; the message of the bound
        /// says what to do.
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

    /// Tried last: the error cannot be copied. The message of the bound says what to do.
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
