//! What generated code names; nothing else may. It changes without notice.

use std::any::TypeId;
use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use futures::FutureExt as _;
use futures::future::BoxFuture;

pub use crate::codec::{Codec, DefaultCodec};
pub use crate::shape::{Probe, Returns, Rules, via};

use crate::cache::Cache;
use crate::entry::{CachedEntry, EntryKey};
use crate::key::{self, KeyWriter};
use crate::read_through::{self, Landing, Plan};

/// The cache that is installed, or one in memory.
#[must_use]
pub fn installed() -> &'static Cache {
    Cache::global()
}

/// What is fixed about one cached function. One `static` each.
pub struct Function {
    ident: &'static str,
    named: Option<&'static str>,
    version: u64,
    first: OnceLock<Resolved>,
    /// Further instances of a generic function or of a method of a generic type; leaked, one per instance.
    others: Mutex<Vec<&'static Resolved>>,
}

/// A function's name and fingerprint, for one value type and one owner.
#[derive(Debug)]
struct Resolved {
    owner: &'static str,
    of: &'static str,
    value: TypeId,
    name: Arc<str>,
    fingerprint: Arc<str>,
    fingerprint_complete: bool,
    type_name: &'static str,
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Function").field(&self.named.unwrap_or(self.ident)).finish()
    }
}

impl Function {
    /// A function called `ident`.
    #[must_use]
    pub const fn new(ident: &'static str) -> Self {
        Self { ident, named: None, version: 0, first: OnceLock::new(), others: Mutex::new(Vec::new()) }
    }

    /// With a key name of the user's choice, which the macro has checked.
    #[must_use]
    pub const fn named(mut self, name: &'static str) -> Self {
        self.named = Some(name);
        self
    }

    /// With a version that is part of the fingerprint.
    #[must_use]
    pub const fn version(mut self, version: u64) -> Self {
        self.version = version;
        self
    }
}

/// A cached function with its types: what its companions share.
pub struct Cached<R: 'static> {
    function: &'static Function,
    owner: Owner,
    of: &'static str,
    returns: Returns<R>,
}

/// What a function belongs to, by `type_name`.
#[derive(Debug, Clone, Copy)]
enum Owner {
    /// A free function: the path of its companion type is its own path.
    Path(&'static str),
    /// A method of this type.
    Type(&'static str),
}

impl<R> Clone for Cached<R> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<R> Copy for Cached<R> {}

impl<R> fmt::Debug for Cached<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.function.fmt(f)
    }
}

impl<R: Send + 'static> Cached<R> {
    /// A free function; `path` is the `type_name` of its companion.
    #[must_use]
    pub const fn function(function: &'static Function, path: &'static str, returns: Returns<R>) -> Self {
        Self { function, owner: Owner::Path(path), of: "", returns }
    }

    /// A method; `owner` is the `type_name` of `Self`.
    #[must_use]
    pub const fn method(function: &'static Function, owner: &'static str, returns: Returns<R>) -> Self {
        Self { function, owner: Owner::Type(owner), of: "", returns }
    }

    /// One instance of a function whose return type depends on a type parameter; `of` is the `type_name` of the return type.
    #[must_use]
    pub const fn instance(mut self, of: &'static str) -> Self {
        self.of = of;
        self
    }

    /// The value, if the store has it at hand. `args` writes the key's arguments.
    ///
    /// Neither waits nor, beyond the value itself, allocates.
    ///
    /// # Errors
    /// The miss, to be run.
    pub fn look_up(&self, cache: &Cache, args: impl FnOnce(&mut KeyWriter<'_>)) -> Result<R, Miss<R>> {
        todo!()
    }

    /// The entry of these arguments.
    #[must_use]
    pub fn entry(&self, cache: &Cache, rules: Rules, args: impl FnOnce(&mut KeyWriter<'_>)) -> CachedEntry<R> {
        todo!()
    }

    /// The entry of these arguments, where only the caller can say in which cache.
    #[must_use]
    pub fn unbound_entry(&self, rules: Rules, args: impl FnOnce(&mut KeyWriter<'_>)) -> crate::UnboundEntry<R> {
        todo!()
    }
}

/// A call that found nothing at hand. Boxed once it runs, so that the calling future stays small.
#[must_use = "a miss does nothing until it runs"]
pub struct Miss<R: 'static> {
    cache: Cache,
    key: EntryKey,
    returns: Returns<R>,
}

impl<R: Send + 'static> Miss<R> {
    /// Runs the pipeline with a future that owns all it needs: callers that join share this very run, and it goes on
    /// while any of them waits.
    pub fn run_shared<F>(self, rules: Rules, function: F) -> BoxFuture<'static, R>
    where
        F: Future<Output = R> + Send + 'static,
    {
        todo!()
    }

    /// Runs the pipeline with a future that borrows from its caller: if that caller is dropped, one of the callers
    /// that joined starts its own.
    pub fn run_here<'a, F>(self, rules: Rules, function: F) -> BoxFuture<'a, R>
    where
        F: Future<Output = R> + Send + 'a,
    {
        todo!()
    }
}
