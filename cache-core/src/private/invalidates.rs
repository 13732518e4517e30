//! One call of a function with `#[invalidates]`.
//!
//! ```text
//! begin ── a fence on everything that is named ──> the function's body
//!   Ok, or no `Result` ──> lift       Err ──> withdraw; with `always`: lift
//!   a panic, a dropped future ──> the write may have happened: lifted in the background
//! ```
//!
//! Invariant: a store error is an event. It is never the caller's error, and it does not prevent
//! the write.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, join_all};

use super::Cached;
use crate::cache::Cache;
use crate::entry::CachedEntry;
use crate::fence::{Fence, FenceBuilder};
use crate::key::TagWriter;

/// The entries, tags and functions that a write invalidates.
#[must_use = "nothing is fenced before `begin`"]
pub struct Write {
    /// One for each cache involved.
    fences: Vec<FenceBuilder>,
    always: bool,
}

impl Write {
    /// Makes a write in the caches of its entries. Without entries, in the installed cache.
    #[expect(clippy::new_without_default, reason = "only generated code makes one")]
    pub const fn new() -> Self {
        Self { fences: Vec::new(), always: false }
    }

    /// Makes a write in this cache.
    pub fn on(cache: &Cache) -> Self {
        Self { fences: vec![cache.fence()], always: false }
    }

    /// Adds an entry. All entries must be added before tags and functions.
    pub fn entry<E: OfItsCache>(mut self, entry: E) -> Self {
        let at = self.fences.iter().position(|fence| Arc::ptr_eq(&fence.cache().0, &entry.cache().0));
        let fence = match at {
            Some(at) => self.fences.swap_remove(at),
            None => entry.cache().fence(),
        };
        self.fences.push(entry.fenced(fence));
        self
    }

    /// Adds a tag.
    pub fn tag(self, write: impl FnOnce(&mut TagWriter)) -> Self {
        let mut tag = TagWriter::default();
        write(&mut tag);
        match tag.into_text() {
            Some(text) => self.each(|fence| fence.tag(text.as_str())),
            // A placeholder is `None`, and no entry has such a tag.
            None => self,
        }
    }

    /// Adds all entries of a function.
    pub fn all<R: Send + 'static>(self, function: Cached<R>) -> Self {
        self.each(|fence| {
            let name = Arc::clone(&function.resolve(fence.cache()).name);
            fence.function(&name)
        })
    }

    /// Sets how long the fence stays raised if its holder dies.
    pub fn limit(self, limit: Duration) -> Self {
        self.each(|fence| fence.limit(limit))
    }

    /// Invalidates also after an `Err`.
    pub const fn always(mut self) -> Self {
        self.always = true;
        self
    }

    /// Raises the fences, as far as the store can be reached.
    pub fn begin(self) -> BoxFuture<'static, Begun> {
        async move {
            let raise = |fence: FenceBuilder| async move {
                let cache = fence.cache().clone();
                // A fence that may be raised in part is kept: it must be lifted after the write,
                // not before it.
                let (fence, raised) = fence.try_raise().await;
                raised.unwrap_or_else(|error| cache.0.store_failed(&error));
                (cache, fence)
            };
            Begun { fences: join_all(self.fences.into_iter().map(raise)).await, always: self.always }
        }
        .boxed()
    }

    fn each(mut self, change: impl Fn(FenceBuilder) -> FenceBuilder) -> Self {
        if self.fences.is_empty() {
            self.fences.push(super::installed().fence());
        }
        self.fences = self.fences.into_iter().map(change).collect();
        self
    }
}

impl fmt::Debug for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Write").field("fences", &self.fences).finish_non_exhaustive()
    }
}

/// A write under its fences. If it is dropped, they are lifted in the background.
#[must_use = "the fences are to be ended when the write's outcome is known"]
pub struct Begun {
    fences: Vec<(Cache, Fence)>,
    always: bool,
}

impl Begun {
    /// Lifts the fences of a write that happened, and withdraws those of one that did not.
    ///
    /// If the future is dropped, the remaining fences are lifted in the background.
    pub fn end(self, happened: bool) -> BoxFuture<'static, ()> {
        let happened = happened || self.always;
        let end = move |(cache, fence): (Cache, Fence)| async move {
            let ended = if happened { fence.lift().await } else { fence.withdraw().await };
            ended.unwrap_or_else(|error| cache.0.store_failed(&error));
        };
        join_all(self.fences.into_iter().map(end)).map(drop).boxed()
    }
}

impl fmt::Debug for Begun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Begun({} fences)", self.fences.len())
    }
}

/// An entry with a known cache.
#[diagnostic::on_unimplemented(
    message = "the cache of this entry depends on an argument of the cached function",
    label = "the cache is not known here",
    note = "name the cache of everything that is invalidated here: `#[invalidates(cache = &state.cache, ..)]`",
    note = "a function with `plain` has no fences: call `f::entry(..).invalidate()` after the write instead"
)]
pub trait OfItsCache {
    /// Returns the cache.
    fn cache(&self) -> &Cache;
    /// Adds this entry to the fence.
    fn fenced(&self, fence: FenceBuilder) -> FenceBuilder;
}

impl<R> OfItsCache for CachedEntry<R> {
    fn cache(&self) -> &Cache {
        CachedEntry::cache(self)
    }

    fn fenced(&self, fence: FenceBuilder) -> FenceBuilder {
        fence.entry(self)
    }
}

/// An argument that both the entry and the body need.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not implement `Clone`, so it cannot be passed to both the entry and the body",
    label = "needed twice: for the entry, and in the body",
    note = "pass a part of it to the entry, such as `user(form.id)`, or a reference if the cached function takes one: \
        `user(&id)`"
)]
pub trait Argument: Clone {}
impl<T: Clone> Argument for T {}

/// Returns a copy for the entry.
pub fn argument<T: Argument>(argument: &T) -> T {
    argument.clone()
}

/// The value that the body returned, to find out the outcome: `(&Returned(&value)).happened()`.
pub struct Returned<'a, R>(pub &'a R);

// The fallback takes it by value, through the reference.
impl<R> Clone for Returned<'_, R> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<R> Copy for Returned<'_, R> {}

// The returned value may be personal data.
impl<R> fmt::Debug for Returned<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Returned")
    }
}

/// The traits that determine the outcome.
pub(super) mod via {
    use super::Returned;

    /// Tried first: a `Result`, under any alias.
    pub trait OfResult {
        /// Returns whether the write happened.
        fn happened(self) -> bool;
    }
    impl<T, E> OfResult for &Returned<'_, Result<T, E>> {
        fn happened(self) -> bool {
            self.0.is_ok()
        }
    }

    /// Tried last: any other type. Returning it means that the write happened.
    pub trait OfAny {
        /// Returns whether the write happened.
        fn happened(self) -> bool;
    }
    impl<R> OfAny for Returned<'_, R> {
        fn happened(self) -> bool {
            true
        }
    }
}
