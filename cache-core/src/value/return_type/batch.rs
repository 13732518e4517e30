//! Recognizes what a batch function returns by trait: a container of the found values, bare or in a
//! `Result`, or the found values together with the failed ids.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::marker::PhantomData;

use indexmap::IndexMap;

/// What a batch function found, by id. An id that is not in the container is absent.
///
/// Implemented for `HashMap`, `BTreeMap`, `IndexMap` and `Vec<(Id, Value)>`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say which value belongs to which id",
    label = "a batch function returns a container of ids with their values",
    note = "return `HashMap<Id, Value>`, `BTreeMap<Id, Value>`, `IndexMap<Id, Value>` or `Vec<(Id, Value)>`, bare or in a `Result`; where \
            single ids can fail, `Partial<HashMap<Id, Value>, Error>`"
)]
pub trait BatchContainer: Sized {
    /// The type of the ids.
    type Id;
    /// The type of the cached values.
    type Value;

    /// Returns the ids with their values.
    fn into_pairs(self) -> Vec<(Self::Id, Self::Value)>;
    /// Makes the container from ids and values.
    fn from_pairs(pairs: Vec<(Self::Id, Self::Value)>) -> Self;
}

macro_rules! containers {
    ($([$($generics:tt)*] $container:ty),* $(,)?) => {$(
        impl<$($generics)*> BatchContainer for $container {
            type Id = K;
            type Value = V;

            fn into_pairs(self) -> Vec<(K, V)> {
                self.into_iter().collect()
            }
            fn from_pairs(pairs: Vec<(K, V)>) -> Self {
                pairs.into_iter().collect()
            }
        }
    )*};
}

containers! {
    [K: Eq + Hash, V, S: BuildHasher + Default] HashMap<K, V, S>,
    [K: Ord, V] BTreeMap<K, V>,
    [K: Eq + Hash, V, S: BuildHasher + Default] IndexMap<K, V, S>,
    [K, V] Vec<(K, V)>,
}

/// The return type of a batch function in which single ids can fail. Nothing is stored for ids in
/// `failed`; ids in neither part are absent.
///
/// ```
/// # use std::{collections::HashMap, io};
/// use cache_core::value::Partial;
/// use cache_core::cached;
///
/// # struct Api;
/// # impl Api { async fn user(&self, id: u64) -> Result<Option<String>, io::Error> { Ok(Some(id.to_string())) } }
/// #[cached(batch, name = "api_user", ttl = "1h", skip(api))]
/// async fn users(api: &Api, ids: &[u64]) -> Partial<HashMap<u64, String>, io::Error> {
///     let mut users: Partial<HashMap<_, _>, _> = Partial::default();
///     for id in ids {
///         match api.user(*id).await {
///             Ok(Some(user)) => drop(users.found.insert(*id, user)),
///             Ok(None) => {}
///             Err(error) => users.failed.push((*id, error)),
///         }
///     }
///     users
/// }
/// ```
pub struct Partial<C: BatchContainer, E> {
    /// The ids that have a value.
    pub found: C,
    /// The ids whose lookup failed, with their errors.
    pub failed: Vec<(C::Id, E)>,
}

impl<C: BatchContainer + Default, E> Default for Partial<C, E> {
    fn default() -> Self {
        Self { found: C::default(), failed: Vec::new() }
    }
}

impl<C: BatchContainer + Clone, E: Clone> Clone for Partial<C, E>
where
    C::Id: Clone,
{
    fn clone(&self) -> Self {
        Self { found: self.found.clone(), failed: self.failed.clone() }
    }
}

// Ids and values may be personal data.
impl<C: BatchContainer, E> fmt::Debug for Partial<C, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Partial").field("failed", &self.failed.len()).finish_non_exhaustive()
    }
}

/// The return type of a batch function, for generated code.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say which value belongs to which id",
    label = "a batch function returns a container of ids with their values",
    note = "return `HashMap<Id, Value>`, `BTreeMap<Id, Value>`, `IndexMap<Id, Value>` or `Vec<(Id, Value)>`, bare or in a `Result`; where \
            single ids can fail, `Partial<HashMap<Id, Value>, Error>`"
)]
pub trait BatchReturn: Sized {
    /// The type of the ids.
    type Id;
    /// The type of the cached values.
    type Value;
    /// The type of the errors.
    type Error;
    /// The return type that a function of one id would have.
    type One: 'static;
    /// Whether single ids can fail.
    const FAILS_BY_ID: bool;

    /// Splits the return value into what was found and what failed.
    ///
    /// # Errors
    /// The error of the whole call.
    fn split(self) -> Result<Parts<Self>, Self::Error>;
    /// Makes the return value from its parts.
    fn join(parts: Parts<Self>) -> Self;
    /// Makes the return value for a failure of the whole call. Gives the error back if the type has
    /// no such value.
    ///
    /// # Errors
    /// The given error.
    fn fail(error: Self::Error) -> Result<Self, Self::Error>;
}

/// What was found and what failed.
pub struct Parts<R: BatchReturn> {
    /// The ids with their values.
    pub found: Vec<(R::Id, R::Value)>,
    /// The ids with their errors.
    pub failed: Vec<(R::Id, R::Error)>,
}

impl<R: BatchReturn> fmt::Debug for Parts<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").field("found", &self.found.len()).field("failed", &self.failed.len()).finish()
    }
}

impl<C: BatchContainer> BatchReturn for C
where
    C::Value: 'static,
{
    type Id = C::Id;
    type Value = C::Value;
    type Error = Infallible;
    type One = Result<Option<C::Value>, Infallible>;
    const FAILS_BY_ID: bool = false;

    fn split(self) -> Result<Parts<Self>, Infallible> {
        Ok(Parts { found: self.into_pairs(), failed: Vec::new() })
    }
    fn join(parts: Parts<Self>) -> Self {
        Self::from_pairs(parts.found)
    }
    fn fail(error: Infallible) -> Result<Self, Infallible> {
        Err(error)
    }
}

impl<C: BatchContainer, E: 'static> BatchReturn for Result<C, E>
where
    C::Value: 'static,
{
    type Id = C::Id;
    type Value = C::Value;
    type Error = E;
    type One = Result<Option<C::Value>, E>;
    const FAILS_BY_ID: bool = false;

    fn split(self) -> Result<Parts<Self>, E> {
        self.map(|container| Parts { found: container.into_pairs(), failed: Vec::new() })
    }
    fn join(parts: Parts<Self>) -> Self {
        Ok(C::from_pairs(parts.found))
    }
    fn fail(error: E) -> Result<Self, E> {
        Ok(Err(error))
    }
}

impl<C: BatchContainer, E: 'static> BatchReturn for Partial<C, E>
where
    C::Value: 'static,
{
    type Id = C::Id;
    type Value = C::Value;
    type Error = E;
    type One = Result<Option<C::Value>, E>;
    const FAILS_BY_ID: bool = true;

    fn split(self) -> Result<Parts<Self>, E> {
        Ok(Parts { found: self.found.into_pairs(), failed: self.failed })
    }
    fn join(parts: Parts<Self>) -> Self {
        Self { found: C::from_pairs(parts.found), failed: parts.failed }
    }
    fn fail(error: E) -> Result<Self, E> {
        Err(error)
    }
}

impl<C: BatchContainer, E: 'static> BatchReturn for Result<Partial<C, E>, E>
where
    C::Value: 'static,
{
    type Id = C::Id;
    type Value = C::Value;
    type Error = E;
    type One = Result<Option<C::Value>, E>;
    const FAILS_BY_ID: bool = true;

    fn split(self) -> Result<Parts<Self>, E> {
        self.map(|Partial { found, failed }| Parts { found: found.into_pairs(), failed })
    }
    fn join(parts: Parts<Self>) -> Self {
        Ok(Partial { found: C::from_pairs(parts.found), failed: parts.failed })
    }
    fn fail(error: E) -> Result<Self, E> {
        Ok(Err(error))
    }
}

/// Asks for the form of a batch's values: the form of a function of one id that returns
/// `Result<Option<Value>, Error>`.
pub struct BatchProbe<V, E>(PhantomData<fn() -> (V, E)>);

impl<V, E> BatchProbe<V, E> {
    /// Makes a probe of the return type `R`.
    #[must_use]
    pub const fn of<R: BatchReturn<Value = V, Error = E>>() -> Self {
        Self(PhantomData)
    }
}

// The last method takes the probe by value, through the reference.
impl<V, E> Clone for BatchProbe<V, E> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<V, E> Copy for BatchProbe<V, E> {}

impl<V, E> fmt::Debug for BatchProbe<V, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BatchProbe")
    }
}

/// A type that can be a value of a batch. Required only of types that cannot, for the error
/// message.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a value of a batch",
    label = "the values of a batch are the values that exist, without `Option` or `Result`",
    note = "leave an id that has no value out of the container: it is absent, which `negative_ttl` caches",
    note = "put an id that failed into a `Partial`: `Partial<HashMap<Id, Value>, Error>`"
)]
pub trait BatchValue {}

/// The traits of [`BatchProbe`]'s methods.
pub(crate) mod via {
    use std::marker::PhantomData;

    use super::{BatchProbe, BatchValue};
    use crate::value::return_type::{CacheValue, Fallible, Optional, Typed};

    /// Tried first: an `Option`. Never compiles; the message of the bound says what to do.
    pub trait BatchOfOptions<T, E> {
        /// Returns the form.
        fn returns(self) -> Typed<Optional<Option<T>>, E, Fallible>
        where
            Option<T>: BatchValue;
    }
    impl<T, E> BatchOfOptions<T, E> for &BatchProbe<Option<T>, E> {
        fn returns(self) -> Typed<Optional<Option<T>>, E, Fallible>
        where
            Option<T>: BatchValue,
        {
            Typed(PhantomData)
        }
    }

    /// Tried first too: a `Result`. Never compiles either.
    pub trait BatchOfResults<T, X, E> {
        /// Returns the form.
        fn returns(self) -> Typed<Optional<Result<T, X>>, E, Fallible>
        where
            Result<T, X>: BatchValue;
    }
    impl<T, X, E> BatchOfResults<T, X, E> for &BatchProbe<Result<T, X>, E> {
        fn returns(self) -> Typed<Optional<Result<T, X>>, E, Fallible>
        where
            Result<T, X>: BatchValue,
        {
            Typed(PhantomData)
        }
    }

    /// Tried last: any other type.
    pub trait BatchOfValues<T, E> {
        /// Returns the form.
        fn returns(self) -> Typed<Optional<T>, E, Fallible>
        where
            T: CacheValue;
    }
    impl<T, E> BatchOfValues<T, E> for BatchProbe<T, E> {
        fn returns(self) -> Typed<Optional<T>, E, Fallible>
        where
            T: CacheValue,
        {
            Typed(PhantomData)
        }
    }
}
