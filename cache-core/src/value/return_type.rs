//! Recognizes what a function returns by trait instead of by name: `T`, `Option<T>`, `Result<T, E>`
//! or `Result<Option<T>, E>`, through any alias.
//!
//! A macro sees tokens, not types. So the generated code asks a [`Probe`] of the return type for
//! its form. Method resolution picks the first trait that fits; each trait takes one reference less
//! than the one before it (autoref specialization, described by David Tolnay for `anyhow!`). The
//! result is a struct of plain function pointers.

mod batch;
mod error;
mod payload;

use std::any::TypeId;
use std::convert::Infallible;
use std::fmt;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{DeadlineExceeded, Error, ErrorKind, Result};
use crate::value::codec::{Codec, Coding, Finding};
use crate::value::fingerprint::Fingerprint;

pub(crate) use self::batch::via as batch_via;
pub use self::batch::{BatchContainer, BatchProbe, BatchReturn, Partial, Parts};
use self::error::Overdue;
pub(crate) use self::error::via as error_via;
pub use self::error::{ByIoError, ErrorProbe, Original, ShareError, SharedError, Sharing, share_field};
pub(crate) use self::payload::via as payload_via;
pub use self::payload::{NotCacheable, Weigh};
use self::payload::{PayloadProbe, Sight, Unseen};
use crate::value::Erased;

/// A value that can be cached: `Clone + Serialize + DeserializeOwned + Send + Sync + 'static`.
///
/// Implemented for all such types. Wrap large values in [`Arc`]: a local hit then clones a pointer.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be cached",
    label = "`{Self}` cannot be cached",
    note = "add `#[derive(Clone, serde::Serialize, serde::Deserialize)]` to `{Self}`; it also has to be `Send + Sync + 'static`"
)]
pub trait CacheValue: Clone + Serialize + DeserializeOwned + Send + Sync + 'static {}

impl<T: Clone + Serialize + DeserializeOwned + Send + Sync + 'static> CacheValue for T {}

/// The types of a [`Form`]. Also known if they cannot be cached, so that only that error is
/// reported.
pub trait Forms: 'static {
    /// The function's value, without its error.
    type Value: 'static;
    /// What is encoded and stored.
    type Payload: 'static;
}

/// How the function's `Ok` value relates to what is stored.
pub trait Form: Forms<Value: Clone + Send + Sync> {
    /// The size of what the engine's pointer points to.
    const SIZE: usize = size_of::<Self::Value>();

    /// Converts the value to the type-erased form that the engine holds.
    fn erase(value: Self::Value) -> Erased {
        Arc::new(value)
    }
    /// Returns the value that the engine holds. `None` only if it is of another form.
    #[inline(always)]
    fn restore(erased: &Erased) -> Option<Self::Value> {
        erased.downcast_ref().cloned()
    }
    /// Passes the payload of an erased value to `see`, if there is one.
    fn inspect<T>(erased: &Erased, see: impl FnOnce(&Self::Payload) -> T) -> Option<T> {
        erased.downcast_ref().and_then(Self::payload).map(see)
    }

    /// Returns what to store; `None` for an absent value.
    fn payload(value: &Self::Value) -> Option<&Self::Payload>;
    /// Makes the value from a stored payload.
    fn present(payload: Self::Payload) -> Self::Value;
    /// Makes the value of a stored absence, if this form has one.
    fn absent() -> Option<Self::Value>;
}

/// The value itself is stored.
#[derive(Debug)]
pub struct Plain<T>(PhantomData<fn() -> T>);

impl<T: 'static> Forms for Plain<T> {
    type Value = T;
    type Payload = T;
}

impl<T: Clone + Send + Sync + 'static> Form for Plain<T> {
    fn payload(value: &T) -> Option<&T> {
        Some(value)
    }
    fn present(payload: T) -> T {
        payload
    }
    fn absent() -> Option<T> {
        None
    }
}

/// The value itself is stored, and the engine holds the same allocation that callers get: a local
/// hit increments one reference count, instead of one for the engine's pointer and one behind it.
#[derive(Debug)]
pub struct Shared<T>(PhantomData<fn() -> T>);

impl<T: 'static> Forms for Shared<T> {
    type Value = Arc<T>;
    type Payload = Arc<T>;
}

impl<T: Send + Sync + 'static> Form for Shared<T> {
    const SIZE: usize = size_of::<T>();

    fn erase(value: Arc<T>) -> Erased {
        value
    }
    #[inline(always)]
    fn restore(erased: &Erased) -> Option<Arc<T>> {
        Arc::clone(erased).downcast().map_or_else(of_another_type, Some)
    }
    fn inspect<U>(erased: &Erased, see: impl FnOnce(&Arc<T>) -> U) -> Option<U> {
        Arc::clone(erased).downcast().ok().map(|value| see(&value))
    }
    fn payload(value: &Arc<T>) -> Option<&Arc<T>> {
        Some(value)
    }
    fn present(payload: Arc<T>) -> Arc<T> {
        payload
    }
    fn absent() -> Option<Arc<T>> {
        None
    }
}

/// `Some` is stored as its content. `None` is stored as an absence with `negative_ttl`, and
/// otherwise not at all.
#[derive(Debug)]
pub struct Optional<T>(PhantomData<fn() -> T>);

impl<T: 'static> Forms for Optional<T> {
    type Value = Option<T>;
    type Payload = T;
}

impl<T: Clone + Send + Sync + 'static> Form for Optional<T> {
    fn payload(value: &Option<T>) -> Option<&T> {
        value.as_ref()
    }
    fn present(payload: T) -> Option<T> {
        Some(payload)
    }
    fn absent() -> Option<Option<T>> {
        Some(None)
    }
}

/// A form that can represent absence. Required of a function with `negative_ttl`.
#[diagnostic::on_unimplemented(
    message = "`negative_ttl` is how long a `None` is served, and this function never returns one",
    label = "no `Option<T>` and no `Result<Option<T>, E>`",
    note = "return `Option<T>` or `Result<Option<T>, E>`, or remove `negative_ttl`"
)]
pub trait MayBeAbsent {}
impl<T> MayBeAbsent for Optional<T> {}

/// Asks for the form of the return type `R`.
pub struct Probe<R>(PhantomData<fn() -> R>);

impl<R> Probe<R> {
    /// Makes a probe of the type; no value of it is needed.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "only generated code makes one")]
    pub const fn new() -> Self {
        Self(PhantomData)
    }
}

// The last method takes the probe by value, through the references.
impl<R> Clone for Probe<R> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<R> Copy for Probe<R> {}

impl<R> fmt::Debug for Probe<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Probe")
    }
}

/// Whether the function returns its value in a `Result` or bare.
pub trait Wrap<V, E>: 'static {
    /// The function's return type.
    type Returned;

    /// Splits the return value into value or error.
    ///
    /// # Errors
    /// The function's own error.
    fn split(returned: Self::Returned) -> Result<V, E>;
    /// Makes the return value from a value.
    fn ok(value: V) -> Self::Returned;
    /// Makes the return value from an error.
    fn err(error: E) -> Self::Returned;
}

/// The function returns `Result<V, E>`.
#[derive(Debug)]
pub struct Fallible;

impl<V, E> Wrap<V, E> for Fallible {
    type Returned = Result<V, E>;

    fn split(returned: Result<V, E>) -> Result<V, E> {
        returned
    }
    fn ok(value: V) -> Result<V, E> {
        Ok(value)
    }
    fn err(error: E) -> Result<V, E> {
        Err(error)
    }
}

/// The function returns `V`.
#[derive(Debug)]
pub struct NoResult;

impl<V> Wrap<V, Infallible> for NoResult {
    type Returned = V;

    fn split(returned: V) -> Result<V, Infallible> {
        Ok(returned)
    }
    fn ok(value: V) -> V {
        value
    }
    fn err(error: Infallible) -> V {
        match error {}
    }
}

/// A return type taken apart: form, error type, wrapping.
pub struct Typed<F, E, W>(PhantomData<Phantoms<F, E, W>>);

/// A marker that neither owns nor borrows any of the types.
type Phantoms<F, E, W> = fn() -> (F, E, W);

impl<F, E, W> Clone for Typed<F, E, W> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<F, E, W> Copy for Typed<F, E, W> {}

impl<F, E, W> fmt::Debug for Typed<F, E, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Typed")
    }
}

/// The traits of [`Probe`]'s methods. Bring all of them into scope, then call
/// `(&&&&probe).method()`.
pub(crate) mod via {
    use std::convert::Infallible;
    use std::marker::PhantomData;
    use std::sync::Arc;

    use super::{CacheValue, Fallible, NoResult, Optional, Plain, Probe, Shared, Typed};

    /// Tried first: `Result<Option<T>, E>`.
    pub trait ResultOption<T, E> {
        /// Returns the form.
        fn returns(self) -> Typed<Optional<T>, E, Fallible>
        where
            T: CacheValue;
    }
    impl<T, E> ResultOption<T, E> for &&&Probe<Result<Option<T>, E>> {
        fn returns(self) -> Typed<Optional<T>, E, Fallible>
        where
            T: CacheValue,
        {
            Typed(PhantomData)
        }
    }

    /// Tried first too: `Result<Arc<T>, E>`.
    pub trait ResultShared<T, E> {
        /// Returns the form.
        fn returns(self) -> Typed<Shared<T>, E, Fallible>
        where
            Arc<T>: CacheValue;
    }
    impl<T: Send + Sync + 'static, E> ResultShared<T, E> for &&&Probe<Result<Arc<T>, E>> {
        fn returns(self) -> Typed<Shared<T>, E, Fallible>
        where
            Arc<T>: CacheValue,
        {
            Typed(PhantomData)
        }
    }

    /// Tried second: `Result<T, E>`.
    pub trait ResultPlain<T, E> {
        /// Returns the form.
        fn returns(self) -> Typed<Plain<T>, E, Fallible>
        where
            T: CacheValue;
    }
    impl<T, E> ResultPlain<T, E> for &&Probe<Result<T, E>> {
        fn returns(self) -> Typed<Plain<T>, E, Fallible>
        where
            T: CacheValue,
        {
            Typed(PhantomData)
        }
    }

    /// Tried third: `Option<T>`.
    pub trait JustOption<T> {
        /// Returns the form.
        fn returns(self) -> Typed<Optional<T>, Infallible, NoResult>
        where
            T: CacheValue;
    }
    impl<T> JustOption<T> for &Probe<Option<T>> {
        fn returns(self) -> Typed<Optional<T>, Infallible, NoResult>
        where
            T: CacheValue,
        {
            Typed(PhantomData)
        }
    }

    /// Tried third too: `Arc<T>`.
    pub trait JustShared<T> {
        /// Returns the form.
        fn returns(self) -> Typed<Shared<T>, Infallible, NoResult>
        where
            Arc<T>: CacheValue;
    }
    impl<T: Send + Sync + 'static> JustShared<T> for &Probe<Arc<T>> {
        fn returns(self) -> Typed<Shared<T>, Infallible, NoResult>
        where
            Arc<T>: CacheValue,
        {
            Typed(PhantomData)
        }
    }

    /// Tried last: any other type.
    pub trait JustPlain<T> {
        /// Returns the form.
        fn returns(self) -> Typed<Plain<T>, Infallible, NoResult>
        where
            T: CacheValue;
    }
    impl<T> JustPlain<T> for Probe<T> {
        fn returns(self) -> Typed<Plain<T>, Infallible, NoResult>
        where
            T: CacheValue,
        {
            Typed(PhantomData)
        }
    }
}

/// Appends a value's payload and returns the id of the codec that was used.
pub(crate) type Encode = fn(&Erased, &mut Vec<u8>, &mut dyn FnMut(Finding)) -> Result<u8>;

/// What the engine has to know about a value type. It consists of function pointers, so that the
/// engine is compiled once for all types.
#[derive(Clone, Copy)]
pub(crate) struct ValueType {
    pub(crate) type_id: fn() -> TypeId,
    pub(crate) type_name: fn() -> &'static str,
    pub(crate) codec_id: u8,
    pub(crate) codec_name: &'static str,
    pub(crate) fingerprint: fn() -> Fingerprint,
    /// Returns whether there is a payload to store.
    pub(crate) is_present: fn(&Erased) -> bool,
    /// Appends the payload and returns the codec that was used. Calls the last argument with
    /// findings about the type.
    pub(crate) encode: Encode,
    /// Returns the memory that a value takes. The second argument is the payload's encoded length,
    /// used if there is no better estimate.
    pub(crate) weigh: fn(&Erased, usize) -> usize,
    /// Decodes a record from codec, presence and payload. `None` for a stored absence that this
    /// form cannot represent.
    pub(crate) decode: fn(u8, bool, &[u8]) -> Result<Option<Erased>>,
}

impl ValueType {
    /// Makes the value type without knowledge about comparison or weight.
    pub(crate) const fn of<F: Form, E: 'static, C: Codec>() -> Self
    where
        F::Payload: CacheValue,
    {
        Self::seen::<F, E, C, Unseen>()
    }

    const fn seen<F: Form, E: 'static, C: Codec, S: Sight<F::Payload>>() -> Self
    where
        F::Payload: CacheValue,
    {
        Self {
            // Of form and error: functions that hold the same type differently, or fail
            // differently, do not share runs.
            type_id: TypeId::of::<(PhantomData<F>, PhantomData<E>)>,
            type_name: std::any::type_name::<F::Payload>,
            codec_id: C::ID,
            codec_name: C::NAME,
            fingerprint: const { Coding::<F::Payload>::of::<C>() }.fingerprint,
            is_present: |value| F::inspect(value, |_| ()).is_some(),
            encode: |value, out, on_finding| {
                let coding = Coding::<F::Payload>::of::<C>().comparing(S::EQUAL);
                let encode = || F::inspect(value, |payload| coding.encode_checked(payload, out, on_finding));
                let encoded = caught(ErrorKind::Encode, "encode", encode)?;
                encoded.unwrap_or_else(|| Err(Error::new(ErrorKind::Encode, "encode")))
            },
            weigh: |value, encoded| {
                // An absent value holds no memory besides itself.
                let held = F::inspect(value, |payload| held::<F, S>(payload).unwrap_or(encoded)).unwrap_or(0);
                F::SIZE.saturating_add(held)
            },
            decode: |codec, present, bytes| {
                let decoded = caught(ErrorKind::Decode, "decode", || decode_value::<F, C>(codec, present, bytes))?;
                Ok(decoded?.map(F::erase))
            },
        }
    }
}

/// Returns the bytes a payload holds besides the value itself, or `None` if there is no estimate.
fn held<F: Form, S: Sight<F::Payload>>(payload: &F::Payload) -> Option<usize>
where
    F::Payload: CacheValue,
{
    // Both are the user's code and may panic.
    let told = S::WEIGH.and_then(|weigh| catch_unwind(AssertUnwindSafe(|| weigh(payload))).ok());
    told.or_else(|| catch_unwind(AssertUnwindSafe(|| Coding::weigh(payload, F::SIZE))).ok().flatten())
}

/// Runs code of the user's type. A panic in `Serialize` or `Deserialize` becomes an ordinary error
/// (S10, V7).
fn caught<T>(kind: ErrorKind, step: &'static str, code: impl FnOnce() -> T) -> Result<T> {
    catch_unwind(AssertUnwindSafe(code))
        .map_err(|_payload| Error::new(kind, step).detail("the type's own code panicked"))
}

fn decode_value<F: Form, C: Codec>(codec: u8, present: bool, bytes: &[u8]) -> Result<Option<F::Value>>
where
    F::Payload: CacheValue,
{
    if present {
        (Coding::<F::Payload>::of::<C>().decode)(codec, bytes).map(|payload| Some(F::present(payload)))
    } else {
        Ok(F::absent())
    }
}

/// A return type as the engine uses it. `Copy` and small, since every call makes one.
pub struct Returns<R: 'static> {
    pub(crate) of: &'static Returning<R>,
    /// Makes the function's error for a passed deadline, if its type can represent that.
    pub(crate) overdue: Option<fn(DeadlineExceeded) -> Erased>,
}

/// The part that is the same for all functions that return `R`. It consists of function pointers.
pub(crate) struct Returning<R> {
    pub(crate) value: ValueType,
    /// Splits what the function returned into value or error.
    pub(crate) split: fn(R) -> Result<Erased, Erased>,
    /// Makes the function's `Ok` from a value. `None` only if the value is of another type.
    pub(crate) ok: fn(&Erased) -> Option<R>,
    /// Makes the function's `Err` from an error: the last caller gets the error itself, the others
    /// a copy.
    pub(crate) err: fn(Erased) -> Option<R>,
}

impl<R> Clone for Returns<R> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<R> Copy for Returns<R> {}

impl<R> Returns<R> {
    /// Sets how a passed deadline becomes an error.
    #[must_use]
    pub fn overdue(mut self, overdue: Overdue) -> Self {
        self.overdue = overdue.0;
        self
    }
}

impl<R> fmt::Debug for Returns<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Returns").field("codec", &self.of.value.codec_name).finish_non_exhaustive()
    }
}

/// A separate function, so that a hit of the right type does not reserve memory for this.
#[cold]
#[inline(never)]
fn of_another_type<T>(other: Erased) -> Option<T> {
    drop(other);
    None
}

/// A function, because a closure that became a function pointer is not inlined into a hit.
#[inline(always)]
fn restored<F: Form, E, W: Wrap<F::Value, E>>(value: &Erased) -> Option<W::Returned> {
    F::restore(value).map(W::ok)
}

// The bounds are on the methods, so that an unmet bound is reported as itself, with the trait's own
// advice.
impl<F, E, W> Typed<F, E, W> {
    /// Returns a probe of what else the payload's type can do.
    #[must_use]
    pub fn payload(&self) -> PayloadProbe<F::Payload>
    where
        F: Forms,
    {
        PayloadProbe(PhantomData)
    }

    /// Requires a form that can represent absence, for `negative_ttl`.
    #[must_use]
    pub fn may_be_absent(self) -> Self
    where
        F: MayBeAbsent,
    {
        self
    }

    /// Completes the return type with the codec `C`, the findings about the payload, and a way to
    /// copy errors.
    #[must_use]
    pub fn with<C: Codec, P: Sight<F::Payload>, S: Sharing<E>>(self, _seen: P, _sharing: S) -> Returns<W::Returned>
    where
        F: Form,
        F::Payload: CacheValue,
        E: Send + Sync + 'static,
        W: Wrap<F::Value, E>,
    {
        let of = const {
            &Returning {
                err: |error| {
                    let error = error.downcast::<E>().ok()?;
                    let error = Arc::try_unwrap(error)
                        .unwrap_or_else(|shared| S::share(&shared, Some(&Original::whole(&shared))));
                    Some(W::err(error))
                },
                ..Self::returning::<C, P>()
            }
        };
        Returns { of, overdue: None }
    }

    /// Completes the return type with the codec `C`, for runs with one caller each: errors are
    /// never copied.
    #[must_use]
    pub fn unshared<C: Codec, P: Sight<F::Payload>>(self, _seen: P) -> Returns<W::Returned>
    where
        F: Form,
        F::Payload: CacheValue,
        E: Send + Sync + 'static,
        W: Wrap<F::Value, E>,
    {
        Returns { of: const { &Self::returning::<C, P>() }, overdue: None }
    }

    const fn returning<C: Codec, P: Sight<F::Payload>>() -> Returning<W::Returned>
    where
        F: Form,
        F::Payload: CacheValue,
        E: Send + Sync + 'static,
        W: Wrap<F::Value, E>,
    {
        Returning {
            value: ValueType::seen::<F, E, C, P>(),
            split: |returned| match W::split(returned) {
                Ok(value) => Ok(F::erase(value)),
                Err(error) => Err(Arc::new(error)),
            },
            ok: restored::<F, E, W>,
            err: |error| {
                let error = error.downcast::<E>().ok()?;
                Arc::into_inner(error).map(W::err)
            },
        }
    }
}
