//! The decisions about the generated code. No stage after this one can fail.

use proc_macro2::TokenStream;
use syn::{Expr, Ident, Path, Type};

use crate::args::{Codec, Deadline, Flight, Lifetime, Local};
use crate::signature::Param;

/// A cached function.
pub(crate) struct Plan {
    pub(crate) krate: Path,
    pub(crate) home: Home,
    pub(crate) params: Vec<Param>,
    pub(crate) returned: Type,
    pub(crate) key: Vec<KeyStep>,
    pub(crate) tags: Vec<Tag>,
    /// The parameters of the companion that makes entries.
    pub(crate) entry: Entry,
    pub(crate) run: Run,
    /// Set for a function of many ids.
    pub(crate) batch: Option<Batch>,
    pub(crate) function: FunctionOptions,
    /// Whether the entry is plain JSON without a header, shared with other programs.
    pub(crate) plain: bool,
    pub(crate) codec: Option<Codec>,
    pub(crate) flight: Flight,
    pub(crate) local: Option<Local>,
    pub(crate) ttl: Option<Lifetime>,
    pub(crate) negative_ttl: Option<Lifetime>,
    /// The span of `negative_ttl`.
    pub(crate) negative_ttl_at: Option<proc_macro2::Span>,
    pub(crate) freshness: Freshness,
    pub(crate) cache: Option<Expr>,
    pub(crate) cache_if: Option<Expr>,
    pub(crate) bypass: Option<Expr>,
}

/// When a value is recomputed, and what is served until then.
pub(crate) struct Freshness {
    pub(crate) jitter: Option<Expr>,
    pub(crate) stale_while_revalidate: Option<Lifetime>,
    pub(crate) stale_if_error: Option<Lifetime>,
    pub(crate) refresh_in_caller: bool,
    pub(crate) soft_timeout: Option<Lifetime>,
    pub(crate) deadline: Option<Deadline>,
    pub(crate) early: Option<Expr>,
}

/// Where the companions are defined.
pub(crate) enum Home {
    /// For a free function: in a type of this name.
    Companion(Ident),
    /// For a method: in the same `impl`, with the method's name as prefix.
    Impl,
}

/// The options in the function's `static`.
pub(crate) struct FunctionOptions {
    pub(crate) name: Option<String>,
    pub(crate) version: Option<u64>,
}

/// One step of writing a key's arguments.
pub(crate) enum KeyStep {
    /// An argument, or a name bound by a pattern.
    Member(TokenStream, proc_macro2::Span),
    /// An argument of an `impl Trait` type. Its type's name is part of the key too.
    Unnamed(TokenStream, proc_macro2::Span),
    /// Literal text of a template.
    Literal(String),
    /// A placeholder of a template.
    Placeholder(TokenStream, proc_macro2::Span),
    /// A placeholder that is written by `Display`.
    Displayed(TokenStream, proc_macro2::Span),
}

impl KeyStep {
    /// Returns the expression that is written, unless it is a literal.
    pub(crate) fn expression(&self) -> Option<&TokenStream> {
        match self {
            Self::Member(expression, _)
            | Self::Unnamed(expression, _)
            | Self::Placeholder(expression, _)
            | Self::Displayed(expression, _) => Some(expression),
            Self::Literal(_) => None,
        }
    }
}

/// One tag of an entry.
pub(crate) enum Tag {
    /// Known before the run.
    Known(Vec<KeyStep>),
    /// Depends on the value.
    OfValue(OfValue),
}

/// A tag that depends on the value, or one tag for each element of a list in the value.
pub(crate) struct OfValue {
    pub(crate) kind: String,
    /// The value is called `value` here. The name of a list element is defined in
    /// [`tags`](crate::tags).
    pub(crate) steps: Vec<KeyStep>,
    /// The list, if the tag depends on its elements.
    pub(crate) list: Option<TokenStream>,
}

/// The signature of the companion that makes entries.
pub(crate) struct Entry {
    /// Whether it takes `&self`.
    pub(crate) takes_self: bool,
    /// The parameters it takes, by position in [`Plan::params`].
    pub(crate) takes: Vec<usize>,
    /// Whether it can determine the cache.
    pub(crate) bound: bool,
}

/// The parameter of a batch's ids.
pub(crate) struct Batch {
    /// Its position in [`Plan::params`].
    pub(crate) at: usize,
    pub(crate) ident: Ident,
    /// The type of one id.
    pub(crate) element: Type,
    /// Whether it is a `Vec<Id>` rather than a `&[Id]`.
    pub(crate) owned: bool,
}

/// How a miss runs the function.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Run {
    /// The future owns its data, so callers share it.
    Shared,
    /// The future borrows from its caller.
    Here,
}
