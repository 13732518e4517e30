//! The decisions of a function that depend on its value.

use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::key::TagWriter;
use crate::options::EntryOptions;
use crate::value::Erased;
use crate::value::return_type::{Form, Typed};

/// A decision about a value.
pub(crate) type ByValue<T> = Box<dyn Fn(&Erased) -> T + Send + Sync>;

/// The decisions of a function that depend on its value, together with its options.
pub struct Rules {
    pub(crate) options: EntryOptions,
    pub(crate) ttl_of: Option<ByValue<Option<Duration>>>,
    pub(crate) cache_if: Option<ByValue<bool>>,
    /// The tags that depend on the value, and their kinds.
    pub(crate) tags_of: Option<ByValue<Vec<Box<str>>>>,
    pub(crate) kinds: &'static [&'static str],
}

impl Rules {
    /// Adds a tag that is known before the run.
    #[must_use]
    pub fn tag(mut self, write: impl FnOnce(&mut TagWriter)) -> Self {
        let mut tag = TagWriter::default();
        write(&mut tag);
        if let Some(name) = tag.name() {
            self.options.push_tag(name);
        }
        self
    }

    /// Returns whether nothing depends on the value.
    pub(crate) fn is_plain(&self) -> bool {
        self.ttl_of.is_none() && self.cache_if.is_none() && self.tags_of.is_none() && self.kinds.is_empty()
    }

    /// Makes rules under which nothing depends on the value.
    pub(crate) fn of(options: EntryOptions) -> Self {
        Self { options, ttl_of: None, cache_if: None, tags_of: None, kinds: &[] }
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rules").field("options", &self.options).finish_non_exhaustive()
    }
}

/// The rules of a function's first call, if they do not depend on the value. Most later calls have
/// the same rules and share these.
#[derive(Debug, Default)]
pub(crate) struct SharedRules(OnceLock<Arc<Rules>>);

impl SharedRules {
    /// Returns these rules in memory that is shared by calls with the same rules.
    pub(crate) fn share(&self, rules: Rules) -> Arc<Rules> {
        if !rules.is_plain() {
            return Arc::new(rules);
        }
        if let Some(known) = self.0.get().filter(|known| known.options == rules.options) {
            return Arc::clone(known);
        }
        let rules = Arc::new(rules);
        // If two first calls race, one sets the rules and the other keeps its own.
        let _set_by_the_other = self.0.set(Arc::clone(&rules));
        rules
    }
}

/// Collects the tags that generated code makes from a value.
pub struct Tags(Vec<Box<str>>);

impl Tags {
    /// Adds a tag.
    pub fn add(&mut self, write: impl FnOnce(&mut TagWriter)) {
        let mut tag = TagWriter::default();
        write(&mut tag);
        self.0.extend(tag.name());
    }
}

// Tags may contain personal data.
impl fmt::Debug for Tags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tags", self.0.len())
    }
}

/// [`Rules`] while the payload's type is known.
pub struct TypedRules<F> {
    pub(super) rules: Rules,
    pub(super) form: PhantomData<fn() -> F>,
}

impl<F> fmt::Debug for TypedRules<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rules.fmt(f)
    }
}

impl<F> TypedRules<F> {
    /// Sets how the ttl is derived from the value.
    #[must_use]
    pub fn ttl_of(mut self, ttl_of: fn(&F::Payload) -> Duration) -> Self
    where
        F: Form,
    {
        self.rules.ttl_of = Some(Box::new(move |value| F::inspect(value, ttl_of)));
        self
    }

    /// Sets whether a value is stored. Absent values are governed by `negative_ttl` instead.
    #[must_use]
    pub fn cache_if(mut self, cache_if: fn(&F::Payload) -> bool) -> Self
    where
        F: Form,
    {
        self.rules.cache_if = Some(Box::new(move |value| F::inspect(value, cache_if).unwrap_or(true)));
        self
    }

    /// Sets the tags that are only known from the value. Each belongs to one of these kinds: the
    /// text before its first `:`.
    #[must_use]
    pub fn tags_of(mut self, kinds: &'static [&'static str], tags_of: fn(&F::Payload, &mut Tags)) -> Self
    where
        F: Form,
    {
        self.rules.kinds = kinds;
        self.rules.tags_of = Some(Box::new(move |value| {
            let mut tags = Tags(Vec::new());
            // An absent value has no such tags.
            let _present = F::inspect(value, |payload| tags_of(payload, &mut tags));
            tags.0
        }));
        self
    }

    /// Erases the payload's type, for the engine.
    #[must_use]
    pub fn erase(self) -> Rules {
        self.rules
    }
}

impl<F, E, W> Typed<F, E, W> {
    /// Returns the rules of one function, whose closures see its payload.
    #[must_use]
    pub fn rules(self, options: EntryOptions) -> TypedRules<F>
    where
        F: Form,
    {
        TypedRules { rules: Rules::of(options), form: PhantomData }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    fn tagged(tag: &str) -> Rules {
        let mut rules = Rules::of(EntryOptions::default());
        rules.options.push_tag(tag.into());
        rules
    }

    #[test]
    // I1, S8
    fn two_first_calls_at_the_same_time_each_have_their_own_tags() {
        for _ in 0..2_000 {
            let (shared, start) = (SharedRules::default(), Barrier::new(2));
            let call = |tag: &str| {
                let rules = tagged(tag);
                start.wait();
                assert_eq!(shared.share(rules).options, tagged(tag).options);
            };
            thread::scope(|scope| {
                let _first = scope.spawn(|| call("user:1"));
                call("user:2");
            });
        }
    }

    #[test]
    fn calls_with_the_same_rules_share_them() {
        let shared = SharedRules::default();
        let first = shared.share(tagged("users"));
        assert!(Arc::ptr_eq(&first, &shared.share(tagged("users"))));
        assert!(!Arc::ptr_eq(&first, &shared.share(tagged("posts"))));
    }
}
