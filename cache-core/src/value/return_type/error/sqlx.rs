//! Copies of `sqlx::Error` that keep the variant: `RowNotFound` stays `RowNotFound`. Questions
//! about a database error are answered by the original.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::io;

use sqlx_core::Error;
use sqlx_core::error::{BoxDynError, DatabaseError, ErrorKind};

use super::{Original, ShareError, SharedError};

impl ShareError for Error {
    fn share(&self) -> Self {
        self.__share_with(None)
    }

    fn __share_with(&self, original: Option<&Original<Self>>) -> Self {
        match self {
            Self::Configuration(error) => Self::Configuration(boxed(error, original)),
            Self::InvalidArgument(text) => Self::InvalidArgument(text.clone()),
            Self::Database(error) => Self::Database(Box::new(SharedDatabaseError::of(&**error, original))),
            Self::Io(error) => Self::Io(
                error.__share_with(
                    original
                        .map(|original| {
                            original.part(|whole| match whole {
                                Self::Io(error) => Some(error),
                                _ => None,
                            })
                        })
                        .as_ref(),
                ),
            ),
            Self::Tls(error) => Self::Tls(boxed(error, original)),
            Self::Protocol(text) => Self::Protocol(text.clone()),
            Self::RowNotFound => Self::RowNotFound,
            Self::TypeNotFound { type_name } => Self::TypeNotFound { type_name: type_name.clone() },
            Self::ColumnIndexOutOfBounds { index, len } => Self::ColumnIndexOutOfBounds { index: *index, len: *len },
            Self::ColumnNotFound(name) => Self::ColumnNotFound(name.clone()),
            Self::ColumnDecode { index, source } => {
                Self::ColumnDecode { index: index.clone(), source: boxed(source, original) }
            }
            Self::Encode(error) => Self::Encode(boxed(error, original)),
            Self::Decode(error) => Self::Decode(boxed(error, original)),
            Self::AnyDriverError(error) => Self::AnyDriverError(boxed(error, original)),
            Self::PoolTimedOut => Self::PoolTimedOut,
            Self::PoolClosed => Self::PoolClosed,
            Self::WorkerCrashed => Self::WorkerCrashed,
            Self::InvalidSavePointStatement => Self::InvalidSavePointStatement,
            Self::BeginFailed => Self::BeginFailed,
            // Migrations, and variants of later versions.
            other => Self::Io(io::Error::other(SharedError::viewed(other, original, |error| Some(error)))),
        }
    }
}

/// Returns the boxed cause of an error, if it has one.
fn cause(error: &Error) -> Option<&BoxDynError> {
    match error {
        Error::Configuration(error)
        | Error::Tls(error)
        | Error::ColumnDecode { source: error, .. }
        | Error::Encode(error)
        | Error::Decode(error)
        | Error::AnyDriverError(error) => Some(error),
        _ => None,
    }
}

/// Returns a copy of a boxed cause.
fn boxed(error: &BoxDynError, original: Option<&Original<Error>>) -> BoxDynError {
    let original = original.map(|original| original.part(cause));
    Box::new(SharedError::viewed(error, original.as_ref(), |error| Some(&**error)))
}

/// A database error for another caller. The original answers, including with the driver's own
/// types.
struct SharedDatabaseError {
    shared: SharedError,
    original: Option<Original<Error>>,
    code: Option<String>,
    kind: ErrorKind,
}

impl SharedDatabaseError {
    fn of(error: &dyn DatabaseError, original: Option<&Original<Error>>) -> Self {
        Self {
            shared: SharedError::told(&error.message()),
            original: original.cloned(),
            code: error.code().map(Cow::into_owned),
            kind: error.kind(),
        }
    }

    fn original(&self) -> Option<&dyn DatabaseError> {
        self.original.as_ref()?.0.get()?.as_database_error()
    }
}

impl fmt::Display for SharedDatabaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.original() {
            Some(original) => fmt::Display::fmt(original, f),
            None => fmt::Display::fmt(&self.shared, f),
        }
    }
}

impl fmt::Debug for SharedDatabaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.shared, f)
    }
}

impl StdError for SharedDatabaseError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.original()?.source()
    }
}

impl DatabaseError for SharedDatabaseError {
    fn message(&self) -> &str {
        self.original().map_or(&self.shared.message, DatabaseError::message)
    }

    fn code(&self) -> Option<Cow<'_, str>> {
        self.code.as_deref().map(Cow::Borrowed)
    }

    fn as_error(&self) -> &(dyn StdError + Send + Sync + 'static) {
        match self.original() {
            Some(original) => original.as_error(),
            None => self,
        }
    }

    fn as_error_mut(&mut self) -> &mut (dyn StdError + Send + Sync + 'static) {
        self
    }

    fn into_error(self: Box<Self>) -> Box<dyn StdError + Send + Sync + 'static> {
        self
    }

    fn is_transient_in_connect_phase(&self) -> bool {
        self.original().is_some_and(DatabaseError::is_transient_in_connect_phase)
    }

    fn constraint(&self) -> Option<&str> {
        self.original()?.constraint()
    }

    fn table(&self) -> Option<&str> {
        self.original()?.table()
    }

    fn kind(&self) -> ErrorKind {
        match self.kind {
            ErrorKind::UniqueViolation => ErrorKind::UniqueViolation,
            ErrorKind::ForeignKeyViolation => ErrorKind::ForeignKeyViolation,
            ErrorKind::NotNullViolation => ErrorKind::NotNullViolation,
            ErrorKind::CheckViolation => ErrorKind::CheckViolation,
            _ => ErrorKind::Other,
        }
    }
}
