//! Estimates the memory of a value by one pass of its own serializer.
//!
//! `size_of` is the size of a value itself; the size of what it points to is known only by its
//! type. Serializing shows the contents: a text's length, the number of elements and their kind. If
//! serde passes a field by its type, its size is exact; it passes the elements of a sequence by
//! reference, and their size is computed from what they write.
//!
//! Not counted: allocated memory that is not used, and what a type's `Serialize` does not write. A
//! part that several values share is counted for each.

use std::any::type_name;
use std::fmt::{self, Display, Write as _};

use serde::Serialize;
use serde::ser::{
    Error, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple, SerializeTupleStruct,
    SerializeTupleVariant, Serializer,
};

/// The size of `String` and `Vec`.
const VECTOR: usize = 24;
/// The size of `HashMap`.
const MAP: usize = 48;
/// The size of the tag of an enum without a niche.
const TAG: usize = 8;
/// The size of the counts in front of the content of an `Arc`.
const COUNTS: usize = 16;

/// Estimates the memory of a value in addition to its own `size`, as far as serializing shows it.
/// `None`: the value cannot be serialized.
pub(super) fn estimate<T: Serialize + ?Sized>(value: &T, size: usize) -> Option<usize> {
    let node = value.serialize(Scale).ok()?;
    Some(node.placed(Some(size)).heap)
}

/// A part of a value.
#[derive(Debug, Clone, Copy, Default)]
struct Node {
    /// Its inline size.
    own: usize,
    /// Its memory on the heap.
    heap: usize,
    sort: Sort,
}

/// How its `own` size is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Sort {
    /// By its parts: if the actual size is smaller, it is behind a pointer.
    #[default]
    Exact,
    /// A text or a sequence: some types of this kind take two words.
    Vector,
    /// A map: `BTreeMap` is smaller than `HashMap`.
    Map,
    /// Bytes: they may be an inline array.
    Bytes,
    /// A type that writes itself as a text, and may not contain one.
    Displayed,
    /// An enum: its other variants may be larger or smaller.
    Loose,
}

impl Node {
    const fn scalar(own: usize) -> Self {
        Self { own, heap: 0, sort: Sort::Exact }
    }

    const fn loose(own: usize, heap: usize) -> Self {
        Self { own, heap, sort: Sort::Loose }
    }

    /// Adjusts the part to its actual inline size, if that is known.
    fn placed(self, size: Option<usize>) -> Self {
        let Some(size) = size else { return self };
        let behind = match self.sort {
            _ if self.own <= size => 0,
            Sort::Loose => 0,
            Sort::Map if size >= VECTOR => 0,
            // `Box<str>`, `Arc<[T]>`.
            Sort::Vector if size == 16 => COUNTS,
            Sort::Bytes if self.heap <= rounded(size) => return Self { own: size, heap: 0, ..self },
            Sort::Displayed => return Self { own: size, heap: 0, ..self },
            Sort::Bytes if size == 16 => COUNTS,
            Sort::Exact | Sort::Vector | Sort::Map | Sort::Bytes => rounded(self.own.saturating_add(COUNTS)),
        };
        Self { own: size, heap: self.heap.saturating_add(behind), ..self }
    }
}

/// Rounds up as allocators do, to a multiple of 16 bytes.
const fn rounded(bytes: usize) -> usize {
    bytes.saturating_add(15) & !15
}

/// Returns the size of a value of this type; `None` if only a reference to it is available, or if
/// it has no fixed size.
fn size_of_known<T: ?Sized>(value: &T) -> Option<usize> {
    // Its variants differ most.
    if type_name::<T>().trim_start_matches('&') == type_name::<serde_json::Value>() {
        return Some(size_of::<serde_json::Value>());
    }
    match type_name::<T>().as_bytes() {
        [b'&' | b'[', ..] | b"str" | [b'd', b'y', b'n', b' ', ..] => None,
        _ => Some(size_of_val(value)),
    }
}

/// Returns the size of a type without heap memory whose values all have one size, by its name.
/// Elements of such a type need not be visited one by one.
fn size_of_plain<T>() -> Option<usize> {
    match type_name::<T>().trim_start_matches('&') {
        "bool" | "u8" | "i8" => Some(1),
        "u16" | "i16" => Some(2),
        "u32" | "i32" | "f32" | "char" => Some(4),
        "u64" | "i64" | "f64" | "usize" | "isize" => Some(8),
        "u128" | "i128" => Some(16),
        _ => None,
    }
}

fn array(count: usize, of: usize) -> usize {
    rounded(count.saturating_mul(of))
}

/// Returns the memory of a hash table: at most seven eighths full, a power of two, a control byte
/// for each slot. B-trees take about as much.
fn table(count: usize, of: usize) -> usize {
    if count == 0 {
        return 0;
    }
    let places = count.saturating_mul(8).div_ceil(7).max(4).checked_next_power_of_two().unwrap_or(usize::MAX);
    rounded(places.saturating_mul(of.saturating_add(1)).saturating_add(16))
}

/// The serializer.
#[derive(Clone, Copy)]
struct Scale;

/// The error if the type itself fails to serialize.
#[derive(Debug)]
struct GivenUp;

impl Display for GivenUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("given up")
    }
}

impl std::error::Error for GivenUp {}

impl Error for GivenUp {
    fn custom<T: Display>(_message: T) -> Self {
        Self
    }
}

type Weighed = Result<Node, GivenUp>;

macro_rules! scalars {
    ($($method:ident: $type:ty),* $(,)?) => {$(
        fn $method(self, _value: $type) -> Weighed {
            Ok(Node::scalar(size_of::<$type>()))
        }
    )*};
}

impl Serializer for Scale {
    type Ok = Node;
    type Error = GivenUp;
    type SerializeSeq = Elements;
    type SerializeTuple = Fields;
    type SerializeTupleStruct = Fields;
    type SerializeTupleVariant = Fields;
    type SerializeMap = Entries;
    type SerializeStruct = Fields;
    type SerializeStructVariant = Fields;

    scalars! {
        serialize_bool: bool, serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64,
        serialize_i128: i128, serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64,
        serialize_u128: u128, serialize_f32: f32, serialize_f64: f64, serialize_char: char,
    }

    fn serialize_str(self, text: &str) -> Weighed {
        Ok(Node { own: VECTOR, heap: rounded(text.len()), sort: Sort::Vector })
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Weighed {
        Ok(Node { own: VECTOR, heap: rounded(bytes.len()), sort: Sort::Bytes })
    }

    fn collect_str<T: Display + ?Sized>(self, value: &T) -> Weighed {
        let mut length = Length(0);
        // A type that cannot be written cannot be weighed.
        write!(length, "{value}").map_err(|_error| GivenUp)?;
        Ok(Node { own: VECTOR, heap: rounded(length.0), sort: Sort::Displayed })
    }

    fn serialize_none(self) -> Weighed {
        Ok(Node::loose(0, 0))
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Weighed {
        let node = value.serialize(self)?.placed(size_of_known(value));
        // A number has no niche for `None`.
        let tag = if node.own <= TAG { node.own } else { 0 };
        Ok(Node::loose(node.own.saturating_add(tag), node.heap))
    }

    fn serialize_unit(self) -> Weighed {
        Ok(Node::scalar(0))
    }

    fn serialize_unit_struct(self, _name: &'static str) -> Weighed {
        Ok(Node::scalar(0))
    }

    fn serialize_unit_variant(self, _name: &'static str, _index: u32, _variant: &'static str) -> Weighed {
        Ok(Node::loose(TAG, 0))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _name: &'static str, value: &T) -> Weighed {
        Ok(value.serialize(self)?.placed(size_of_known(value)))
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        _index: u32,
        _variant: &'static str,
        value: &T,
    ) -> Weighed {
        let node = value.serialize(self)?.placed(size_of_known(value));
        Ok(with_tag(node))
    }

    fn serialize_seq(self, _len: Option<usize>) -> Result<Elements, GivenUp> {
        Ok(Elements::default())
    }

    fn collect_seq<I>(self, elements: I) -> Weighed
    where
        I: IntoIterator<Item: Serialize>,
    {
        let elements = elements.into_iter();
        if let Some(of) = size_of_plain::<I::Item>()
            && let (count, Some(most)) = elements.size_hint()
            && count == most
        {
            return Ok(Node { own: VECTOR, heap: array(count, of), sort: Sort::Vector });
        }
        let mut weighed = Elements::default();
        for element in elements {
            weighed.add(&element)?;
        }
        Ok(weighed.sum())
    }

    fn collect_map<K, V, I>(self, entries: I) -> Weighed
    where
        K: Serialize,
        V: Serialize,
        I: IntoIterator<Item = (K, V)>,
    {
        let entries = entries.into_iter();
        if let (Some(key), Some(value)) = (size_of_plain::<K>(), size_of_plain::<V>())
            && let (count, Some(most)) = entries.size_hint()
            && count == most
        {
            return Ok(Node { own: MAP, heap: table(count, key.max(value).saturating_mul(2)), sort: Sort::Map });
        }
        let mut weighed = Entries::default();
        for (key, value) in entries {
            weighed.keys.add(&key)?;
            weighed.values.add(&value)?;
        }
        Ok(weighed.sum())
    }

    fn serialize_tuple(self, _len: usize) -> Result<Fields, GivenUp> {
        Ok(Fields::default())
    }

    fn serialize_tuple_struct(self, _name: &'static str, _len: usize) -> Result<Fields, GivenUp> {
        Ok(Fields::default())
    }

    fn serialize_tuple_variant(
        self,
        _name: &'static str,
        _index: u32,
        _variant: &'static str,
        _len: usize,
    ) -> Result<Fields, GivenUp> {
        Ok(Fields::default())
    }

    fn serialize_map(self, _len: Option<usize>) -> Result<Entries, GivenUp> {
        Ok(Entries::default())
    }

    fn serialize_struct(self, _name: &'static str, _len: usize) -> Result<Fields, GivenUp> {
        Ok(Fields::default())
    }

    fn serialize_struct_variant(
        self,
        _name: &'static str,
        _index: u32,
        _variant: &'static str,
        _len: usize,
    ) -> Result<Fields, GivenUp> {
        Ok(Fields::default())
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

/// Adds the tag of an enum.
fn with_tag(node: Node) -> Node {
    let tag = if node.own <= TAG { TAG } else { 0 };
    Node::loose(node.own.saturating_add(tag), node.heap)
}

/// Counts the bytes written.
struct Length(usize);

impl fmt::Write for Length {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 = self.0.saturating_add(text.len());
        Ok(())
    }
}

/// A sequence: elements of one type, each as large as the largest.
#[derive(Default)]
struct Elements {
    count: usize,
    own: usize,
    heap: usize,
}

impl Elements {
    fn add<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), GivenUp> {
        let node = value.serialize(Scale)?.placed(size_of_known(value));
        self.count = self.count.saturating_add(1);
        self.own = self.own.max(node.own);
        self.heap = self.heap.saturating_add(node.heap);
        Ok(())
    }

    fn sum(&self) -> Node {
        let heap = self.heap.saturating_add(array(self.count, self.own));
        Node { own: VECTOR, heap, sort: Sort::Vector }
    }
}

impl SerializeSeq for Elements {
    type Ok = Node;
    type Error = GivenUp;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), GivenUp> {
        self.add(value)
    }

    fn end(self) -> Weighed {
        Ok(self.sum())
    }
}

/// A map.
#[derive(Default)]
struct Entries {
    keys: Elements,
    values: Elements,
}

impl Entries {
    fn sum(&self) -> Node {
        let of = self.keys.own.saturating_add(self.values.own);
        let contents = self.keys.heap.saturating_add(self.values.heap);
        Node { own: MAP, heap: contents.saturating_add(table(self.keys.count, of)), sort: Sort::Map }
    }
}

impl SerializeMap for Entries {
    type Ok = Node;
    type Error = GivenUp;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), GivenUp> {
        self.keys.add(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), GivenUp> {
        self.values.add(value)
    }

    fn end(self) -> Weighed {
        Ok(self.sum())
    }
}

/// The fields of a struct or a tuple.
#[derive(Default)]
struct Fields {
    own: usize,
    align: usize,
    heap: usize,
}

impl Fields {
    fn add<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), GivenUp> {
        let size = size_of_known(value);
        let node = value.serialize(Scale)?.placed(size);
        let align = if size.is_some() { align_of_val(value) } else { node.own.min(8) };
        self.align = self.align.max(align);
        self.own = self.own.saturating_add(node.own);
        self.heap = self.heap.saturating_add(node.heap);
        Ok(())
    }

    fn sum(&self) -> Node {
        let own = self.own.checked_next_multiple_of(self.align.max(1)).unwrap_or(self.own);
        Node { own, heap: self.heap, sort: Sort::Exact }
    }
}

macro_rules! fields {
    ($($trait:ident $method:ident,)*) => {$(
        impl $trait for Fields {
            type Ok = Node;
            type Error = GivenUp;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), GivenUp> {
                self.add(value)
            }

            fn end(self) -> Weighed {
                Ok(self.sum())
            }
        }
    )*};
}

fields! {
    SerializeTuple serialize_element,
    SerializeTupleStruct serialize_field,
}

impl SerializeTupleVariant for Fields {
    type Ok = Node;
    type Error = GivenUp;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), GivenUp> {
        self.add(value)
    }

    fn end(self) -> Weighed {
        Ok(with_tag(self.sum()))
    }
}

impl SerializeStruct for Fields {
    type Ok = Node;
    type Error = GivenUp;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, _name: &'static str, value: &T) -> Result<(), GivenUp> {
        self.add(value)
    }

    fn end(self) -> Weighed {
        Ok(self.sum())
    }
}

impl SerializeStructVariant for Fields {
    type Ok = Node;
    type Error = GivenUp;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, _name: &'static str, value: &T) -> Result<(), GivenUp> {
        self.add(value)
    }

    fn end(self) -> Weighed {
        Ok(with_tag(self.sum()))
    }
}
