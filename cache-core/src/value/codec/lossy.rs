//! Detects values that do not survive a round trip in a format.
//!
//! Only some values of a type are affected, so each value is checked: one walk that writes nothing,
//! a few nanoseconds per field.
//!
//! | what | in | because |
//! |---|---|---|
//! | a field left out (`skip_serializing_if`) | positional formats | the next one takes its place |
//! | `Some` of nothing (`Some(None)`, `Some(())`) | self-describing formats | written like `None` |

use std::fmt;

use serde::ser::{self, Serialize, Serializer};

/// Returns a description of a part of this value that the kind of format cannot represent.
pub(super) fn lossy_part<T: Serialize + ?Sized>(value: &T, self_describing: bool) -> Option<&'static str> {
    match value.serialize(Probe { self_describing, in_some: false }) {
        Err(Found::SkippedField) => Some("cannot represent a skipped field"),
        Err(Found::SomeOfNothing) => Some("cannot distinguish `Some(None)` from `None`"),
        Ok(()) | Err(Found::Refused) => None,
    }
}

#[derive(Clone, Copy)]
struct Probe {
    self_describing: bool,
    /// Directly inside `Some`.
    in_some: bool,
}

impl Probe {
    fn below(self) -> Self {
        Self { in_some: false, ..self }
    }

    fn nothing(self) -> Result<(), Found> {
        if self.in_some && self.self_describing { Err(Found::SomeOfNothing) } else { Ok(()) }
    }
}

#[derive(Debug)]
enum Found {
    SkippedField,
    SomeOfNothing,
    /// The value's own code refuses to be serialized; the codec will get the same error.
    Refused,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("probe")
    }
}

impl std::error::Error for Found {}

impl ser::Error for Found {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self::Refused
    }
}

macro_rules! scalars {
    ($($method:ident: $type:ty),* $(,)?) => {$(
        fn $method(self, _: $type) -> Result<(), Found> {
            Ok(())
        }
    )*};
}

macro_rules! compounds {
    ($($method:ident($($arg:ty),*);)*) => {$(
        fn $method(self, $(_: $arg),*) -> Result<Self, Found> {
            Ok(self.below())
        }
    )*};
}

impl Serializer for Probe {
    type Ok = ();
    type Error = Found;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = Self;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;

    scalars! {
        serialize_bool: bool, serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64,
        serialize_i128: i128, serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64,
        serialize_u128: u128, serialize_f32: f32, serialize_f64: f64, serialize_char: char, serialize_str: &str,
        serialize_bytes: &[u8],
    }
    compounds! {
        serialize_seq(Option<usize>);
        serialize_tuple(usize);
        serialize_tuple_struct(&'static str, usize);
        serialize_tuple_variant(&'static str, u32, &'static str, usize);
        serialize_map(Option<usize>);
        serialize_struct(&'static str, usize);
        serialize_struct_variant(&'static str, u32, &'static str, usize);
    }

    fn serialize_none(self) -> Result<(), Found> {
        self.nothing()
    }

    fn serialize_unit(self) -> Result<(), Found> {
        self.nothing()
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Found> {
        self.nothing()
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, _: &'static str) -> Result<(), Found> {
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Found> {
        value.serialize(Self { in_some: true, ..self })
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<(), Found> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Result<(), Found> {
        value.serialize(self.below())
    }

    // The default would build the text.
    fn collect_str<T: fmt::Display + ?Sized>(self, _: &T) -> Result<(), Found> {
        Ok(())
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

macro_rules! members {
    ($($compound:ident { $($method:ident)* })*) => {$(
        impl ser::$compound for Probe {
            type Ok = ();
            type Error = Found;

            $(fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Found> {
                value.serialize(*self)
            })*

            fn end(self) -> Result<(), Found> {
                Ok(())
            }
        }
    )*};
}
members! {
    SerializeSeq { serialize_element }
    SerializeTuple { serialize_element }
    SerializeTupleStruct { serialize_field }
    SerializeTupleVariant { serialize_field }
    SerializeMap { serialize_key serialize_value }
}

macro_rules! fields {
    ($($compound:ident)*) => {$(
        impl ser::$compound for Probe {
            type Ok = ();
            type Error = Found;

            fn serialize_field<T: Serialize + ?Sized>(&mut self, _: &'static str, value: &T) -> Result<(), Found> {
                value.serialize(*self)
            }

            fn skip_field(&mut self, _: &'static str) -> Result<(), Found> {
                if self.self_describing { Ok(()) } else { Err(Found::SkippedField) }
            }

            fn end(self) -> Result<(), Found> {
                Ok(())
            }
        }
    )*};
}
fields!(SerializeStruct SerializeStructVariant);
