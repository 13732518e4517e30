//! What is generated, decided: nothing after this stage can fail.

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
    /// Which names the entry's key needs.
    pub(crate) entry: Entry,
    pub(crate) run: Run,
    /// For a function of many ids.
    pub(crate) batch: Option<Batch>,
    pub(crate) function: FunctionOptions,
    /// Whether the key is all there is of it: plain JSON that other programs share.
    pub(crate) plain: bool,
    pub(crate) codec: Option<Codec>,
    pub(crate) flight: Flight,
    pub(crate) local: Option<Local>,
    pub(crate) ttl: Option<Lifetime>,
    pub(crate) negative_ttl: Option<Lifetime>,
    /// Where `negative_ttl` stands.
    pub(crate) negative_ttl_at: Option<proc_macro2::Span>,
    pub(crate) freshness: Freshness,
    pub(crate) cache: Option<Expr>,
    pub(crate) cache_if: Option<Expr>,
    pub(crate) bypass: Option<Expr>,
}

/// When a value is computed anew, and what is served until then.
pub(crate) struct Freshness {
    pub(crate) jitter: Option<Expr>,
    pub(crate) stale_while_revalidate: Option<Lifetime>,
    pub(crate) stale_if_error: Option<Lifetime>,
    pub(crate) refresh_in_caller: bool,
    pub(crate) soft_timeout: Option<Lifetime>,
    pub(crate) deadline: Option<Deadline>,
    pub(crate) early: Option<Expr>,
}

/// Where the companions live.
pub(crate) enum Home {
    /// A free function: in a type of this name.
    Companion(Ident),
    /// A method: beside it, with its name in front.
    Impl,
}

/// What goes into the function's `static`.
pub(crate) struct FunctionOptions {
    pub(crate) name: Option<String>,
    pub(crate) version: Option<u64>,
}

/// One step of writing a key's arguments.
pub(crate) enum KeyStep {
    /// An argument, or a name that a pattern binds.
    Member(TokenStream, proc_macro2::Span),
    /// An argument of an `impl Trait` type: its type's name is part of the key too.
    Unnamed(TokenStream, proc_macro2::Span),
    /// Literal text of a template.
    Literal(String),
    /// A placeholder of a template.
    Placeholder(TokenStream, proc_macro2::Span),
    /// A placeholder that is written by `Display`.
    Displayed(TokenStream, proc_macro2::Span),
}

impl KeyStep {
    /// What is written, where it is no literal.
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
    /// Known by the value.
    OfValue(OfValue),
}

/// A tag by the value, or one for each element of a list in it.
pub(crate) struct OfValue {
    pub(crate) kind: String,
    /// In which the value is called `value`, and an element of the list as [`tags`](crate::tags) says.
    pub(crate) steps: Vec<KeyStep>,
    /// The list.
    pub(crate) list: Option<TokenStream>,
}

/// The signature of the companion that makes entries.
pub(crate) struct Entry {
    /// Whether it takes `&self`.
    pub(crate) takes_self: bool,
    /// Which parameters it takes, by position in [`Plan::params`].
    pub(crate) takes: Vec<usize>,
    /// Whether it can say in which cache.
    pub(crate) bound: bool,
}

/// The parameter of a batch's ids.
pub(crate) struct Batch {
    /// Its position in [`Plan::params`].
    pub(crate) at: usize,
    pub(crate) ident: Ident,
    /// The type of one id.
    pub(crate) element: Type,
    /// `Vec<Id>`, not `&[Id]`.
    pub(crate) owned: bool,
}

/// How a miss runs the function.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Run {
    /// The future owns what it needs: callers share it.
    Shared,
    /// The future borrows from its caller.
    Here,
}
