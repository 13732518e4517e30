//! The error type of the crate: what failed, at which step, and why.
//!
//! Its texts never contain keys, payloads or credentials.

use std::error::Error as StdError;
use std::fmt;

/// A failure of the cache itself.
///
/// A cached function never returns it: there the failure is an [`Event`](crate::events::Event) and
/// the function computes. Explicit operations (`connect`, `set`, `invalidate`, objects, `plain`)
/// return it.
pub struct Error {
    kind: ErrorKind,
    step: &'static str,
    detail: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
    /// The request never left this process, so nothing was executed.
    is_unsent: bool,
}

/// The kind of an [`Error`], which says how to react to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The configuration can never work: a wrong URL, a wrong password, a name that is not allowed.
    Configuration,
    /// The store cannot be reached, did not answer in time or lost the connection.
    ///
    /// Trying again later may work. A write that failed with this kind may or may not have been
    /// executed.
    Unavailable,
    /// The store answered with a refusal: read-only, out of memory, no permission, wrong type.
    Refused,
    /// The primary executed the write, but fewer replicas acknowledged it than
    /// [`CacheBuilder::wait_for_replicas`](crate::CacheBuilder::wait_for_replicas) requires.
    ///
    /// A failover may undo it.
    NotReplicated,
    /// A value could not be encoded.
    Encode,
    /// The stored bytes are not what this program would have written.
    Decode,
    /// A limit was hit: a value over the size limit, too many conflicting updates.
    Limit,
    /// The cache was shut down.
    Closed,
}

/// The result of an explicit cache operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The compute of a cached function exceeded its deadline and was dropped.
///
/// If an old value may be served (`stale_if_error`, `stale_while_revalidate`), callers get that.
/// Otherwise they get the function's own error: by `From<DeadlineExceeded>` if the error type
/// implements it (as `anyhow::Error` and `Box<dyn Error + Send + Sync>` do), or else by
/// `From<std::io::Error>` with the kind `TimedOut` (as `sqlx::Error` does).
///
/// If neither is possible (no such conversion, no `Result`, or
/// [`Cache::get_or_compute`](crate::Cache::get_or_compute)), the deadline only frees the key: other
/// callers start a new compute, and the old one goes on for its own callers without being stored. A
/// `deadline` in the attribute requires the conversion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeadlineExceeded {
    after: std::time::Duration,
}

impl DeadlineExceeded {
    pub(crate) fn new(after: std::time::Duration) -> Self {
        Self { after }
    }

    /// Returns the deadline that was exceeded.
    #[must_use]
    pub fn after(&self) -> std::time::Duration {
        self.after
    }
}

impl fmt::Display for DeadlineExceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the cached function did not return within {:?}", self.after)
    }
}

impl StdError for DeadlineExceeded {}

impl Error {
    pub(crate) fn new(kind: ErrorKind, step: &'static str) -> Self {
        Self { kind, step, detail: None, source: None, is_unsent: false }
    }

    /// Marks that the request never left this process, so nothing was executed.
    pub(crate) fn unsent(mut self) -> Self {
        self.is_unsent = true;
        self
    }

    /// Returns whether the operation may have been executed, or may still be: there was no answer.
    pub(crate) fn may_have_happened(&self) -> bool {
        self.kind == ErrorKind::Unavailable && !self.is_unsent
    }

    /// Adds what went wrong and what to do about it. Never a key, a payload or a credential.
    pub(crate) fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    pub(crate) fn source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Copies the error for another caller, without its source.
    pub(crate) fn again(&self) -> Self {
        Self { kind: self.kind, step: self.step, detail: self.detail.clone(), source: None, is_unsent: self.is_unsent }
    }

    /// Adds that `done` of the `all` parts of the operation were completed before the failure.
    pub(crate) fn after(self, done: usize, all: usize) -> Self {
        let part = format!("{done} of {all} were completed before; the others may or may not have been");
        let detail = self.detail.as_ref().map_or_else(|| part.clone(), |detail| format!("{detail}; {part}"));
        self.detail(detail)
    }

    /// Adds the name by which the user knows the failed item.
    pub(crate) fn of(mut self, name: &str) -> Self {
        self.detail = Some(match self.detail {
            Some(detail) => format!("{name}: {detail}"),
            None => name.to_owned(),
        });
        self
    }

    /// Returns what went wrong and its causes, without the step and the kind.
    pub(crate) fn why(&self) -> String {
        let mut text = self.detail.clone().unwrap_or_else(|| self.what().to_owned());
        self.add_causes(&mut text);
        text
    }

    fn add_causes(&self, text: &mut String) {
        let mut source = StdError::source(self);
        while let Some(error) = source {
            text.push_str(": ");
            text.push_str(&error.to_string());
            source = error.source();
        }
    }

    fn what(&self) -> &'static str {
        match self.kind {
            ErrorKind::Configuration => "the cache is not configured correctly",
            ErrorKind::Unavailable => "the cache's store is unavailable",
            ErrorKind::Refused => "the cache's store refused the operation",
            ErrorKind::NotReplicated => "too few replicas have acknowledged the write",
            ErrorKind::Encode => "the value could not be encoded",
            ErrorKind::Decode => "the stored bytes could not be decoded",
            ErrorKind::Limit => "a limit was reached",
            ErrorKind::Closed => "the cache is shut down",
        }
    }

    /// Returns the kind of the failure.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Returns the step that failed, such as `"connect"` or `"fill"`.
    #[must_use]
    pub fn step(&self) -> &'static str {
        self.step
    }

    /// Returns whether trying again later may work without any change.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.kind == ErrorKind::Unavailable
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = self.what();
        match (&self.detail, self.kind) {
            // The detail of a configuration error is a complete sentence, made for a single line on
            // a terminal.
            (Some(detail), ErrorKind::Configuration) => f.write_str(detail),
            (Some(detail), _) => write!(f, "{}: {what}: {detail}", self.step),
            (None, _) => write!(f, "{}: {what}", self.step),
        }
    }
}

/// Writes the error as a sentence with its causes, since a program prints this form if it returns
/// the error from `main`.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.to_string();
        self.add_causes(&mut text);
        f.write_str(&text)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_that_leaves_main_is_a_sentence_with_its_causes() {
        let cause = std::io::Error::new(std::io::ErrorKind::NotFound, "no such file");
        let error = Error::new(ErrorKind::Configuration, "connect").detail("the file cannot be read").source(cause);
        for text in [format!("{error:?}"), format!("{error:#?}")] {
            assert_eq!(text, "the file cannot be read: no such file");
        }
        let error = Error::new(ErrorKind::Unavailable, "connect");
        assert_eq!(format!("{error:?}"), "connect: the cache's store is unavailable");
        assert_eq!(error.why(), "the cache's store is unavailable");
    }
}
