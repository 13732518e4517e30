//! What else the type of a payload can do, seen by trait: compare its values, and tell what they
//! weigh.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

/// Tells how much memory a value holds, where the library's own estimate is wrong for its type.
///
/// A value that is kept in this process counts against
/// [`local_limit_bytes`](crate::CacheBuilder::local_limit_bytes) with what it takes in memory. By
/// default that is estimated by a pass of its serializer, which sees every text, sequence and map,
/// and does not see fields that are not serialized, spare room, or that parts are shared with other
/// values. Implement this for the type that a cached function returns, and it is asked instead.
///
/// ```
/// use cache_core::{Weigh, cached};
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
/// [`Arc`], `Vec`, `Box`). For keys by hand the estimate stands.
pub trait Weigh {
    /// The bytes that this value holds beside its own `size_of`: what its texts, vectors and boxes
    /// have allocated.
    ///
    /// Called when the value is put into the tier in this process, not on a hit. Should it panic,
    /// the estimate stands.
    fn held_bytes(&self) -> usize;
}

impl<T: Weigh + ?Sized> Weigh for Box<T> {
    fn held_bytes(&self) -> usize {
        size_of_val(&**self).saturating_add((**self).held_bytes())
    }
}

impl<T: Weigh + ?Sized> Weigh for Arc<T> {
    fn held_bytes(&self) -> usize {
        // Behind two counts.
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

/// A type whose values are never stored by a cached function: credentials, keys, rows with hashes
/// of passwords.
///
/// Stored values stand in Redis as they are, without encryption. A cached function that returns
/// such a type, bare or in `Option`, `Result`, [`Arc`], `Box`, `Vec` or a map, does not compile,
/// also where it is serializable for another purpose. Return a type with what may be stored.
///
/// ```compile_fail
/// #[derive(Clone, serde::Serialize, serde::Deserialize, cache_core::NotCacheable)]
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
/// It does not look into other types: a struct that has a field of this type can be stored if the
/// field can. Where that is to be impossible, do not derive `Serialize` for the type.
pub trait NotCacheable {}

impl<T: NotCacheable + ?Sized> NotCacheable for Box<T> {}
impl<T: NotCacheable + ?Sized> NotCacheable for Arc<T> {}
impl<T: NotCacheable> NotCacheable for Option<T> {}
impl<T: NotCacheable> NotCacheable for Vec<T> {}
impl<K, T: NotCacheable, S> NotCacheable for HashMap<K, T, S> {}
impl<K, T: NotCacheable> NotCacheable for BTreeMap<K, T> {}

/// What no [`NotCacheable`] type has. Asked only of those, for its message.
#[diagnostic::on_unimplemented(
    message = "`{Self}` must not be cached: it is marked as `NotCacheable`",
    label = "its values would stand in Redis as they are",
    note = "return a type with what may be stored, without the secret; or do not cache this function"
)]
pub trait MayBeCached {}

/// Asks what else a payload's type can do.
pub struct PayloadProbe<T>(pub(super) PhantomData<fn() -> T>);

// The last resort is taken by value, through the references.
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

/// What was seen of a payload's type.
pub trait Sight<T>: 'static {
    /// Whether two values are equal.
    const EQUAL: Option<fn(&T, &T) -> bool>;
    /// [`Weigh::held_bytes`].
    const WEIGH: Option<fn(&T) -> usize>;
}

/// It can be compared, and weighs its values.
#[derive(Debug)]
pub struct Both;
/// It can be compared.
#[derive(Debug)]
pub struct Comparable;
/// It weighs its values.
#[derive(Debug)]
pub struct Weighable;
/// Neither, or nobody asked.
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

/// The traits of [`PayloadProbe`]'s method. Bring all into scope, then call `(&&probe).seen()`.
pub(crate) mod via {
    use super::{Both, Comparable, MayBeCached, NotCacheable, PayloadProbe, Unseen, Weigh, Weighable};

    /// First: a type that is not to be stored. Never compiles: the bound's message says what to do.
    pub trait RefusesSecrets<T> {
        /// Whether it may be stored.
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

    /// Last: all other types.
    pub trait AllowsTheRest {
        /// Whether it may be stored.
        fn may_be_cached(self);
    }
    impl<T> AllowsTheRest for PayloadProbe<T> {
        #[inline(always)]
        fn may_be_cached(self) {}
    }

    /// First: both.
    pub trait SeesBoth {
        /// What was seen.
        fn seen(self) -> Both;
    }
    impl<T: PartialEq + Weigh> SeesBoth for &&PayloadProbe<T> {
        fn seen(self) -> Both {
            Both
        }
    }

    /// Second: values that can be compared.
    pub trait SeesComparable {
        /// What was seen.
        fn seen(self) -> Comparable;
    }
    impl<T: PartialEq> SeesComparable for &PayloadProbe<T> {
        fn seen(self) -> Comparable {
            Comparable
        }
    }

    /// Beside it: values that are weighed.
    pub trait SeesWeighable {
        /// What was seen.
        fn seen(self) -> Weighable;
    }
    impl<T: Weigh> SeesWeighable for &PayloadProbe<T> {
        fn seen(self) -> Weighable {
            Weighable
        }
    }

    /// Last: neither.
    pub trait SeesNothing {
        /// What was seen.
        fn seen(self) -> Unseen;
    }
    impl<T> SeesNothing for PayloadProbe<T> {
        fn seen(self) -> Unseen {
            Unseen
        }
    }
}
