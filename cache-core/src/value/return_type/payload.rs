//! Recognizes by trait what else the type of a payload can do: compare its values, and weigh them.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

/// Returns how much memory a value holds, for types for which the library's own estimate is wrong.
///
/// A value in the local tier counts its memory against
/// [`local_limit_bytes`](crate::CacheBuilder::local_limit_bytes). By default the memory is
/// estimated by a pass of the value's serializer. That pass sees every text, sequence and map. It
/// does not see fields that are not serialized, unused capacity, or parts that are shared with
/// other values. If the type that a cached function returns implements this trait, the trait is
/// used instead.
///
/// ```
/// use cache_core::value::Weigh;
/// use cache_core::cached;
///
/// #[derive(Clone, serde::Serialize, serde::Deserialize)]
/// struct Index {
///     words: Vec<String>,
///     #[serde(skip)]
///     lookup: Vec<u32>,
/// }
///
/// impl Weigh for Index {
///     fn held_bytes(&self) -> usize {
///         let words: usize = self.words.iter().map(|word| 24 + word.capacity()).sum();
///         words + 4 * self.lookup.capacity()
///     }
/// }
///
/// #[cached]
/// async fn index(book: u64) -> std::sync::Arc<Index> {
///     # let _ = book;
///     # std::sync::Arc::new(Index { words: Vec::new(), lookup: Vec::new() })
/// }
/// ```
///
/// It is found for functions with `#[cached]`, whatever they wrap the type in (`Result`, `Option`,
/// [`Arc`], `Vec`, `Box`). For keys without the attribute (`get_or_compute`) the estimate is used.
pub trait Weigh {
    /// Returns the bytes that this value holds besides its own `size_of`: what its texts, vectors
    /// and boxes have allocated.
    ///
    /// Called when the value is put into the local tier, not on a hit. If it panics, the estimate
    /// is used.
    fn held_bytes(&self) -> usize;
}

impl<T: Weigh + ?Sized> Weigh for Box<T> {
    fn held_bytes(&self) -> usize {
        size_of_val(&**self).saturating_add((**self).held_bytes())
    }
}

impl<T: Weigh + ?Sized> Weigh for Arc<T> {
    fn held_bytes(&self) -> usize {
        // The content is stored after two reference counts.
        size_of_val(&**self).saturating_add(16).saturating_add((**self).held_bytes())
    }
}

impl<T: Weigh> Weigh for Option<T> {
    fn held_bytes(&self) -> usize {
        self.as_ref().map_or(0, T::held_bytes)
    }
}

impl<T: Weigh> Weigh for Vec<T> {
    fn held_bytes(&self) -> usize {
        let own = self.capacity().saturating_mul(size_of::<T>());
        self.iter().fold(own, |sum, element| sum.saturating_add(element.held_bytes()))
    }
}

/// Marks a type whose values a cached function must never store: credentials, keys, rows with
/// password hashes.
///
/// Values are stored in Redis without encryption. A cached function that returns such a type, bare
/// or in `Option`, `Result`, [`Arc`], `Box`, `Vec` or a map, does not compile, even if the type is
/// serializable for another purpose. Return a type that contains only what may be stored.
///
/// ```compile_fail
/// #[derive(Clone, serde::Serialize, serde::Deserialize, cache_core::value::NotCacheable)]
/// struct Credentials {
///     password_hash: String,
/// }
///
/// #[cache_core::cached]
/// async fn credentials(user: u64) -> Option<Credentials> {
///     # let _ = user;
///     None
/// }
/// ```
///
/// This does not look into other types: a struct with a field of this type can be stored if the
/// field can be serialized. To prevent that too, do not derive `Serialize` for the type.
pub trait NotCacheable {}

impl<T: NotCacheable + ?Sized> NotCacheable for Box<T> {}
impl<T: NotCacheable + ?Sized> NotCacheable for Arc<T> {}
impl<T: NotCacheable> NotCacheable for Option<T> {}
impl<T: NotCacheable> NotCacheable for Vec<T> {}
impl<K, T: NotCacheable, S> NotCacheable for HashMap<K, T, S> {}
impl<K, T: NotCacheable> NotCacheable for BTreeMap<K, T> {}

/// Implemented by no [`NotCacheable`] type. Required only of those, for the error message.
#[diagnostic::on_unimplemented(
    message = "`{Self}` must not be cached: it is marked as `NotCacheable`",
    label = "its values would be stored unencrypted in Redis",
    note = "return a type with what may be stored, without the secret; or do not cache this function"
)]
pub trait MayBeCached {}

/// Asks what else a payload's type can do.
pub struct PayloadProbe<T>(pub(super) PhantomData<fn() -> T>);

// The last method takes the probe by value, through the references.
impl<T> Clone for PayloadProbe<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for PayloadProbe<T> {}

impl<T> fmt::Debug for PayloadProbe<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PayloadProbe")
    }
}

/// What is known about a payload's type.
pub trait Sight<T>: 'static {
    /// Compares two values.
    const EQUAL: Option<fn(&T, &T) -> bool>;
    /// [`Weigh::held_bytes`].
    const WEIGH: Option<fn(&T) -> usize>;
}

/// The type has `PartialEq` and [`Weigh`].
#[derive(Debug)]
pub struct Both;
/// The type has `PartialEq`.
#[derive(Debug)]
pub struct Comparable;
/// The type has [`Weigh`].
#[derive(Debug)]
pub struct Weighable;
/// The type has neither, or the probe was not asked.
#[derive(Debug)]
pub struct Unseen;

impl<T: PartialEq + Weigh> Sight<T> for Both {
    const EQUAL: Option<fn(&T, &T) -> bool> = Some(T::eq);
    const WEIGH: Option<fn(&T) -> usize> = Some(T::held_bytes);
}

impl<T: PartialEq> Sight<T> for Comparable {
    const EQUAL: Option<fn(&T, &T) -> bool> = Some(T::eq);
    const WEIGH: Option<fn(&T) -> usize> = None;
}

impl<T: Weigh> Sight<T> for Weighable {
    const EQUAL: Option<fn(&T, &T) -> bool> = None;
    const WEIGH: Option<fn(&T) -> usize> = Some(T::held_bytes);
}

impl<T> Sight<T> for Unseen {
    const EQUAL: Option<fn(&T, &T) -> bool> = None;
    const WEIGH: Option<fn(&T) -> usize> = None;
}

/// The traits of [`PayloadProbe`]'s method. Bring all of them into scope, then call
/// `(&&probe).seen()`.
pub(crate) mod via {
    use super::{Both, Comparable, MayBeCached, NotCacheable, PayloadProbe, Unseen, Weigh, Weighable};

    /// Tried first: a type that must not be stored. Never compiles; the message of the bound says
    /// what to do.
    pub trait RefusesSecrets<T> {
        /// Compiles only if the type may be stored.
        fn may_be_cached(self)
        where
            T: MayBeCached;
    }
    impl<T: NotCacheable> RefusesSecrets<T> for &PayloadProbe<T> {
        fn may_be_cached(self)
        where
            T: MayBeCached,
        {
        }
    }

    /// Tried last: all other types.
    pub trait AllowsTheRest {
        /// Compiles only if the type may be stored.
        fn may_be_cached(self);
    }
    impl<T> AllowsTheRest for PayloadProbe<T> {
        #[inline(always)]
        fn may_be_cached(self) {}
    }

    /// Tried first: both.
    pub trait SeesBoth {
        /// Returns what is known.
        fn seen(self) -> Both;
    }
    impl<T: PartialEq + Weigh> SeesBoth for &&PayloadProbe<T> {
        fn seen(self) -> Both {
            Both
        }
    }

    /// Tried second: values that can be compared.
    pub trait SeesComparable {
        /// Returns what is known.
        fn seen(self) -> Comparable;
    }
    impl<T: PartialEq> SeesComparable for &PayloadProbe<T> {
        fn seen(self) -> Comparable {
            Comparable
        }
    }

    /// Tried second too: values that weigh themselves.
    pub trait SeesWeighable {
        /// Returns what is known.
        fn seen(self) -> Weighable;
    }
    impl<T: Weigh> SeesWeighable for &PayloadProbe<T> {
        fn seen(self) -> Weighable {
            Weighable
        }
    }

    /// Tried last: neither.
    pub trait SeesNothing {
        /// Returns what is known.
        fn seen(self) -> Unseen;
    }
    impl<T> SeesNothing for PayloadProbe<T> {
        fn seen(self) -> Unseen {
            Unseen
        }
    }
}
