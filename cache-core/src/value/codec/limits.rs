//! A deserializer around another one that keeps hostile bytes from exhausting the stack, the heap
//! or the processor.
//!
//! The formats trust their input in different places. bincode and postcard recurse as deep as the
//! bytes say. bincode allocates a text before it has seen it and, like postcard, counts to any
//! length if an element takes no bytes. rmp-serde's depth limit does not include enums. Here all of
//! them get the same three bounds.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor,
};

/// The maximum nesting of values, where each struct, sequence, option and enum is a level. Twice
/// what serde_json allows, and in a debug build still within the 2 MiB stack of a tokio worker.
const MAX_DEPTH: u16 = 256;

/// How many elements without bytes (`()` in a positional format) a value may have in all, in
/// addition to one for each byte.
const ZERO_SIZED_ITEMS: usize = 65_536;

/// The bounds of one decode, derived from its input.
pub(super) struct Limits {
    items_left: Cell<usize>,
    largest_hint: usize,
}

impl Limits {
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self {
            items_left: Cell::new(bytes.len().saturating_add(ZERO_SIZED_ITEMS)),
            // Only collections whose elements take no memory have more elements than bytes.
            largest_hint: bytes.len(),
        }
    }

    fn claim_item<E: Error>(&self) -> Result<(), E> {
        let left = self.items_left.get().checked_sub(1).ok_or_else(|| E::custom("too many elements"))?;
        self.items_left.set(left);
        Ok(())
    }
}

/// Reads a `T` through a [`Bounded`] deserializer, for formats that pass theirs only to a seed.
pub(super) struct BoundedSeed<'l, T> {
    limits: &'l Limits,
    value: PhantomData<T>,
}

impl<'l, T> BoundedSeed<'l, T> {
    pub(super) fn new(limits: &'l Limits) -> Self {
        Self { limits, value: PhantomData }
    }
}

impl<'de, T: Deserialize<'de>> DeserializeSeed<'de> for BoundedSeed<'_, T> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<T, D::Error> {
        T::deserialize(Bounded { inner, at: At { limits: self.limits, depth: 0, counted: true } })
    }
}

/// The position in the value.
#[derive(Clone, Copy)]
struct At<'l> {
    limits: &'l Limits,
    depth: u16,
    /// Whether the number of elements comes from the bytes, not from the type.
    counted: bool,
}

impl At<'_> {
    fn deeper<E: Error>(self, counted: bool) -> Result<Self, E> {
        if self.depth >= MAX_DEPTH {
            return Err(E::custom("nested too deeply"));
        }
        Ok(Self { depth: self.depth.saturating_add(1), counted, ..self })
    }
}

/// A deserializer, visitor, seed or access of the format or the type, and its position.
struct Bounded<'l, T> {
    inner: T,
    at: At<'l>,
}

macro_rules! scalars {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.inner.$method(visitor)
        }
    )*};
}

macro_rules! nested {
    ($($method:ident($($arg:ident: $type:ty),*) $counted:literal;)*) => {$(
        fn $method<V: Visitor<'de>>(self, $($arg: $type,)* visitor: V) -> Result<V::Value, D::Error> {
            let at = self.at.deeper($counted)?;
            self.inner.$method($($arg,)* Bounded { inner: visitor, at })
        }
    )*};
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Bounded<'_, D> {
    type Error = D::Error;

    scalars! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
        deserialize_f32 deserialize_f64 deserialize_char deserialize_unit deserialize_identifier
    }
    nested! {
        deserialize_any() true;
        deserialize_ignored_any() true;
        deserialize_str() true;
        deserialize_bytes() true;
        deserialize_option() true;
        deserialize_seq() true;
        deserialize_map() true;
        deserialize_unit_struct(name: &'static str) true;
        deserialize_newtype_struct(name: &'static str) true;
        deserialize_tuple(len: usize) false;
        deserialize_tuple_struct(name: &'static str, len: usize) false;
        deserialize_struct(name: &'static str, fields: &'static [&'static str]) false;
        deserialize_enum(name: &'static str, variants: &'static [&'static str]) false;
    }

    // For an owned text, bincode allocates the stated length before it checks that the input has
    // that much. For a borrowed one it checks the length against the input, and the visitor copies.
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.deserialize_bytes(visitor)
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

macro_rules! visits {
    ($($method:ident: $type:ty),* $(,)?) => {$(
        fn $method<E: Error>(self, value: $type) -> Result<V::Value, E> {
            self.inner.$method(value)
        }
    )*};
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Bounded<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    visits! {
        visit_bool: bool, visit_i8: i8, visit_i16: i16, visit_i32: i32, visit_i64: i64, visit_i128: i128,
        visit_u8: u8, visit_u16: u16, visit_u32: u32, visit_u64: u64, visit_u128: u128,
        visit_f32: f32, visit_f64: f64, visit_char: char,
        visit_str: &str, visit_borrowed_str: &'de str, visit_string: String,
        visit_bytes: &[u8], visit_borrowed_bytes: &'de [u8], visit_byte_buf: Vec<u8>,
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.inner.visit_some(Bounded { inner, at: self.at })
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.inner.visit_newtype_struct(Bounded { inner, at: self.at })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        self.inner.visit_seq(Bounded { inner, at: self.at })
    }

    fn visit_map<A: MapAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        self.inner.visit_map(Bounded { inner, at: self.at })
    }

    fn visit_enum<A: EnumAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        self.inner.visit_enum(Bounded { inner, at: self.at })
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Bounded<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<S::Value, D::Error> {
        self.inner.deserialize(Bounded { inner, at: self.at })
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Bounded<'_, A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        if self.at.counted {
            self.at.limits.claim_item()?;
        }
        self.inner.next_element_seed(Bounded { inner: seed, at: self.at })
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.inner.size_hint()?.min(self.at.limits.largest_hint))
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Bounded<'_, A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        if self.at.counted {
            self.at.limits.claim_item()?;
        }
        self.inner.next_key_seed(Bounded { inner: seed, at: self.at })
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.inner.next_value_seed(Bounded { inner: seed, at: self.at })
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.inner.size_hint()?.min(self.at.limits.largest_hint))
    }
}

impl<'de, 'l, A: EnumAccess<'de>> EnumAccess<'de> for Bounded<'l, A> {
    type Error = A::Error;
    type Variant = Bounded<'l, A::Variant>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self::Variant), A::Error> {
        let (value, variant) = self.inner.variant_seed(seed)?;
        Ok((value, Bounded { inner: variant, at: self.at }))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Bounded<'_, A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.inner.unit_variant()
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        self.inner.newtype_variant_seed(Bounded { inner: seed, at: self.at })
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        self.inner.tuple_variant(len, Bounded { inner: visitor, at: self.at })
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.inner.struct_variant(fields, Bounded { inner: visitor, at: self.at })
    }
}
