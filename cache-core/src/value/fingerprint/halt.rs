//! Why a pass of the tracer was aborted.

use std::fmt;

use serde::de;

/// Why a pass was aborted.
#[derive(Debug)]
pub(super) enum Halt {
    /// The type's own code refused the input; the names that its error mentions.
    Fresh(Vec<&'static str>),
    /// The next pass tries something else here.
    Retry,
    /// No value can be made here.
    Dead,
    /// Recursion without an exit at this place; there may be one elsewhere.
    Cut,
}

impl fmt::Display for Halt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("tracing")
    }
}

impl std::error::Error for Halt {}

impl de::Error for Halt {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self::Fresh(Vec::new())
    }

    fn missing_field(field: &'static str) -> Self {
        Self::Fresh(vec![field])
    }

    fn unknown_field(_: &str, expected: &'static [&'static str]) -> Self {
        Self::Fresh(expected.to_vec())
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        Self::Fresh(expected.to_vec())
    }
}
