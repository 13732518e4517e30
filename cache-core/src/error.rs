//! The one error type: what failed, at which step, and why.
//!
//! Its texts never contain keys, payloads or credentials.

use std::error::Error as StdError;
use std::fmt;

/// A fault of the cache itself.
///
/// A cached function never returns it: there a fault is an [`Event`](crate::events::Event) and the function runs.
/// Explicit operations (`connect`, `set`, `invalidate`, objects, `plain`) do.
pub struct Error {
    kind: ErrorKind,
    step: &'static str,
    detail: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
    /// The request never left this process, so nothing was executed.
    is_unsent: bool,
}

/// What sort of fault it is, for deciding what to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The configuration can never work: a wrong URL, a wrong password, a name that is not allowed.
    Configuration,
    /// The store cannot be reached, did not answer in time or lost the connection. Trying later may work.
    /// A write that ended like this may or may not have been executed.
    Unavailable,
    /// The store answered, and refused: read-only, out of memory, no permission, wrong type.
    Refused,
    /// The write is done on the primary, and fewer replicas have acknowledged it than
    /// [`CacheBuilder::wait_for_replicas`](crate::CacheBuilder::wait_for_replicas) asks for. A failover may undo it.
    NotReplicated,
    /// A value could not be encoded.
    Encode,
    /// Stored bytes are not what this program would have written.
    Decode,
    /// A bound was hit: a value over the size limit, too many conflicting updates.
    Limit,
    /// The cache was shut down.
    Closed,
}

/// The result of an explicit cache operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A run of a cached function took longer than its deadline and was dropped.
///
/// Where an old value may be served, its callers get that (`stale_if_error`, `stale_while_revalidate`). Else they get
/// the function's own error, made by `From<DeadlineExceeded>` if it has that (as `anyhow::Error` and `Box<dyn Error + Send + Sync>`
/// have), else by `From<std::io::Error>` of the kind `TimedOut` (as `sqlx::Error` has). Where there is no way to tell them
/// (no such conversion, no `Result`, or [`Cache::get_or_compute`](crate::Cache::get_or_compute)), the deadline frees the key, so that other callers start
/// anew, and the run goes on for its own callers without being stored. A `deadline` in the attribute asks for the conversion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeadlineExceeded {
    after: std::time::Duration,
}

impl DeadlineExceeded {
    pub(crate) fn new(after: std::time::Duration) -> Self {
        Self { after }
    }

    /// The deadline.
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

    /// The request never left this process, so nothing was executed.
    pub(crate) fn unsent(mut self) -> Self {
        self.is_unsent = true;
        self
    }

    /// Whether the operation may have been executed, or may still be: no answer came.
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

    /// The same fault for another caller, without its source.
    pub(crate) fn again(&self) -> Self {
        Self { kind: self.kind, step: self.step, detail: self.detail.clone(), source: None, is_unsent: self.is_unsent }
    }

    /// The same fault, of an operation in parts of which so many were done before.
    pub(crate) fn after(self, done: usize, all: usize) -> Self {
        let part = format!("{done} of {all} were done before, the others may or may not have been");
        let detail = self.detail.as_ref().map_or_else(|| part.clone(), |detail| format!("{detail}; {part}"));
        self.detail(detail)
    }

    /// The same fault, of what is called `name` in the user's world.
    pub(crate) fn of(mut self, name: &str) -> Self {
        self.detail = Some(match self.detail {
            Some(detail) => format!("{name}: {detail}"),
            None => name.to_owned(),
        });
        self
    }

    /// What went wrong, without the step and the kind, with its causes.
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
            ErrorKind::Configuration => "the cache is not configured right",
            ErrorKind::Unavailable => "the cache's store is unavailable",
            ErrorKind::Refused => "the cache's store refused the operation",
            ErrorKind::NotReplicated => "the write has not reached enough replicas",
            ErrorKind::Encode => "the value could not be encoded",
            ErrorKind::Decode => "the stored bytes could not be decoded",
            ErrorKind::Limit => "a limit was reached",
            ErrorKind::Closed => "the cache is shut down",
        }
    }

    /// What sort of fault it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The step that failed, such as `"connect"` or `"fill"`.
    #[must_use]
    pub fn step(&self) -> &'static str {
        self.step
    }

    /// Whether trying again later may work without any change.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.kind == ErrorKind::Unavailable
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = self.what();
        match (&self.detail, self.kind) {
            // Its detail is a sentence of its own, for whoever reads one line on a terminal.
            (Some(detail), ErrorKind::Configuration) => f.write_str(detail),
            (Some(detail), _) => write!(f, "{}: {what}: {detail}", self.step),
            (None, _) => write!(f, "{}: {what}", self.step),
        }
    }
}

/// The error as a sentence with its causes: what a program prints that returns it from `main`.
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
