//! The deserializer that makes up values and records what it was asked for.

use std::any::type_name;
use std::cell::RefCell;

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor};

use super::graph::{FieldPath, Graph, Identity, Kind, Leaf, Target};
use super::halt::Halt;
use super::samples::{BYTES, CHARS, FRACTIONS, NUMBERS, TEXTS};

/// How deep a made-up value may nest. Each level takes a few hundred to a few thousand bytes of
/// stack.
const MAX_DEPTH: usize = 96;

/// A deserializer for one slot of the graph.
#[derive(Clone, Copy)]
pub(super) struct Tracer<'g> {
    graph: &'g RefCell<Graph>,
    at: FieldPath,
    depth: usize,
}

impl<'g> Tracer<'g> {
    pub(super) fn root(graph: &'g RefCell<Graph>) -> Self {
        Self { graph, at: Graph::ROOT, depth: 0 }
    }

    /// Returns the index of the sample to offer at a leaf.
    fn leaf<V>(&self, leaf: Leaf) -> Result<usize, Halt> {
        let mut graph = self.graph.borrow_mut();
        graph.step()?;
        graph.record(self.at, Target::Leaf(leaf));
        Ok(graph.sample(self.at, type_name::<V>(), leaf.samples()))
    }

    fn accepted<V, T>(&self, sample: usize, outcome: Result<T, Halt>) -> Result<T, Halt> {
        if outcome.is_ok() {
            self.graph.borrow_mut().accept(type_name::<V>(), sample);
        }
        outcome
    }

    /// Enters a definition with `len` slots at this place.
    fn def<V>(
        &self,
        kind: Kind,
        name: &'static str,
        len: usize,
        labels: &'static [&'static str],
    ) -> Result<Inside<'g>, Halt> {
        let mut graph = self.graph.borrow_mut();
        graph.step()?;
        let def = graph.define(Identity { kind, visitor: type_name::<V>(), name, len }, labels);
        graph.record(self.at, Target::Def(def));
        if self.depth >= MAX_DEPTH {
            graph.incomplete = true;
            return Err(Halt::Dead);
        }
        Ok(Inside { graph: self.graph, def, depth: self.depth.saturating_add(1) })
    }

    /// Reads structs, tuples and their variants: a known number of parts, all of them required.
    fn product<'de, V: Visitor<'de>>(
        self,
        inside: Inside<'g>,
        len: usize,
        visitor: V,
        fields: Fields,
    ) -> Result<V::Value, Halt> {
        let mut items = Items { inside, at: 0, len, slots: len, fields };
        if fields.is_some() && self.graph.borrow().is_by_map(inside.def) {
            return visitor.visit_map(items);
        }
        let outcome = visitor.visit_seq(&mut items);
        match outcome {
            Ok(value) => {
                self.graph.borrow_mut().leave_unasked(inside.def, items.at);
                Ok(value)
            }
            // Hand-written code may accept a struct only as a map.
            Err(Halt::Fresh(_))
                if items.at == 0 && fields.is_some() && self.graph.borrow_mut().ask_by_map(inside.def) =>
            {
                Err(Halt::Retry)
            }
            Err(halt) => Err(halt),
        }
    }
}

type Fields = Option<&'static [&'static str]>;

/// A position inside a definition.
#[derive(Clone, Copy)]
struct Inside<'g> {
    graph: &'g RefCell<Graph>,
    def: usize,
    depth: usize,
}

impl<'g> Inside<'g> {
    fn slot(self, slot: usize) -> Tracer<'g> {
        Tracer { graph: self.graph, at: FieldPath { def: self.def, slot }, depth: self.depth }
    }

    /// Lets the type's code fill a slot. The graph is not borrowed meanwhile.
    fn fill<T>(self, slot: usize, fill: impl FnOnce(Tracer<'g>) -> Result<T, Halt>) -> Result<T, Halt> {
        let place = FieldPath { def: self.def, slot };
        self.graph.borrow_mut().activate(place, true);
        let outcome = fill(self.slot(slot));
        let mut graph = self.graph.borrow_mut();
        graph.activate(place, false);
        graph.settle(place, outcome)
    }

    /// Converts the failure of a slot for a type that does not need its content.
    fn around<T>(self, slot: usize, outcome: Result<T, Halt>) -> Result<T, Halt> {
        outcome.map_err(|halt| self.graph.borrow().around(FieldPath { def: self.def, slot }, halt))
    }
}

impl Leaf {
    pub(super) fn samples(self) -> usize {
        match self {
            Self::Bool => 2,
            Self::F32 | Self::F64 => FRACTIONS.len(),
            Self::Char => CHARS.len(),
            Self::Str => TEXTS.len(),
            Self::Bytes => BYTES.len(),
            Self::Unit => 1,
            Self::Any => ANY_SAMPLES,
            _ => NUMBERS.len(),
        }
    }
}

macro_rules! numbers {
    ($($method:ident $leaf:ident $visit:ident $samples:ident;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Halt> {
            let sample = self.leaf::<V>(Leaf::$leaf)?;
            let value = $samples.get(sample).copied().unwrap_or_default();
            self.accepted::<V, _>(sample, visitor.$visit(value.into()))
        }
    )*};
}

impl<'de> Deserializer<'de> for Tracer<'_> {
    type Error = Halt;

    fn is_human_readable(&self) -> bool {
        false
    }

    numbers! {
        deserialize_i16 I16 visit_i16 NUMBERS;
        deserialize_i32 I32 visit_i32 NUMBERS;
        deserialize_i64 I64 visit_i64 NUMBERS;
        deserialize_i128 I128 visit_i128 NUMBERS;
        deserialize_u8 U8 visit_u8 NUMBERS;
        deserialize_u16 U16 visit_u16 NUMBERS;
        deserialize_u32 U32 visit_u32 NUMBERS;
        deserialize_u64 U64 visit_u64 NUMBERS;
        deserialize_u128 U128 visit_u128 NUMBERS;
        deserialize_f32 F32 visit_f32 FRACTIONS;
        deserialize_f64 F64 visit_f64 FRACTIONS;
        deserialize_char Char visit_char CHARS;
        deserialize_str Str visit_str TEXTS;
        deserialize_bytes Bytes visit_bytes BYTES;
    }

    fn deserialize_i8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Halt> {
        let sample = self.leaf::<V>(Leaf::I8)?;
        let value = NUMBERS.get(sample).copied().unwrap_or_default();
        self.accepted::<V, _>(sample, visitor.visit_i8(i8::try_from(value).unwrap_or(1)))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Halt> {
        let sample = self.leaf::<V>(Leaf::Bool)?;
        self.accepted::<V, _>(sample, visitor.visit_bool(sample == 0))
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Halt> {
        self.deserialize_str(visitor)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Halt> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Halt> {
        self.leaf::<V>(Leaf::Unit)?;
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Halt> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Halt> {
        let sample = self.leaf::<V>(Leaf::Any)?;
        self.graph.borrow_mut().incomplete = true;
        self.accepted::<V, _>(sample, any(sample, visitor))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Halt> {
        self.deserialize_any(visitor)
    }

    // The keys come from the data instead of from us: a flattened struct.
    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Halt> {
        self.graph.borrow_mut().incomplete = true;
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Halt> {
        let inside = self.def::<V>(Kind::Option, "", 1, &[])?;
        if !self.graph.borrow_mut().wants_items(inside.def) {
            return visitor.visit_none();
        }
        inside.around(0, inside.fill(0, |tracer| visitor.visit_some(tracer)))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Halt> {
        let inside = self.def::<V>(Kind::Newtype, name, 1, &[])?;
        inside.fill(0, |tracer| visitor.visit_newtype_struct(tracer))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Halt> {
        let inside = self.def::<V>(Kind::Seq, "", 1, &[])?;
        collection(inside, 1, |items| visitor.visit_seq(items))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Halt> {
        let inside = self.def::<V>(Kind::Map, "", 2, &[])?;
        collection(inside, 2, |items| visitor.visit_map(items))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Halt> {
        let inside = self.def::<V>(Kind::Tuple, "", len, &[])?;
        self.product(inside, len, visitor, None)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Halt> {
        let inside = self.def::<V>(Kind::TupleStruct, name, len, &[])?;
        self.product(inside, len, visitor, None)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Halt> {
        let inside = self.def::<V>(Kind::Struct, name, fields.len(), fields)?;
        self.product(inside, fields.len(), visitor, Some(fields))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Halt> {
        let inside = self.def::<V>(Kind::Enum, name, variants.len(), variants)?;
        let at = self.graph.borrow_mut().variant(inside.def)?;
        let name = variants.get(at).copied().unwrap_or_default();
        let outcome = inside.fill(at, |tracer| visitor.visit_enum(Variant { tracer, name, owner: type_name::<V>() }));
        inside.around(at, outcome)
    }
}

/// Reads a sequence or a map: `slots` is 1 or 2.
fn collection<'g, T>(
    inside: Inside<'g>,
    slots: usize,
    visit: impl FnOnce(&mut Items<'g>) -> Result<T, Halt>,
) -> Result<T, Halt> {
    let wanted = inside.graph.borrow_mut().wants_items(inside.def);
    let len = if wanted { inside.graph.borrow().length(inside.def) } else { 0 };
    let mut items = Items { inside, at: 0, len, slots, fields: None };
    match visit(&mut items) {
        // The elements were accepted, but not their number. Flattened structs fail here too: they
        // miss fields.
        Err(Halt::Fresh(names)) => {
            let mut graph = inside.graph.borrow_mut();
            let more = graph.refuse_length(inside.def, len > 0);
            Err(if more { Halt::Retry } else { Halt::Fresh(names) })
        }
        outcome => inside.around(0, outcome),
    }
}

/// The elements of a sequence (all in slot 0), the entries of a map (keys in slot 0, values in slot
/// 1), the parts of a tuple or struct (one slot each).
struct Items<'g> {
    inside: Inside<'g>,
    at: usize,
    len: usize,
    slots: usize,
    fields: Fields,
}

impl Items<'_> {
    fn has_next(&self) -> Result<bool, Halt> {
        self.inside.graph.borrow_mut().step()?;
        Ok(self.at < self.len)
    }
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Halt;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Halt> {
        if !self.has_next()? {
            return Ok(None);
        }
        let slot = self.at.checked_rem(self.slots).unwrap_or_default();
        self.at = self.at.saturating_add(1);
        self.inside.fill(slot, |tracer| seed.deserialize(tracer)).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.len.saturating_sub(self.at))
    }
}

impl<'de> MapAccess<'de> for Items<'_> {
    type Error = Halt;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Halt> {
        if !self.has_next()? {
            return Ok(None);
        }
        match self.fields {
            Some(fields) => seed.deserialize(Name(fields.get(self.at).copied().unwrap_or_default())).map(Some),
            None => self.inside.fill(0, |tracer| seed.deserialize(tracer)).map(Some),
        }
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Halt> {
        let slot = if self.fields.is_some() { self.at } else { 1 };
        self.at = self.at.saturating_add(1);
        self.inside.fill(slot, |tracer| seed.deserialize(tracer))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.len.saturating_sub(self.at))
    }
}

/// One variant of an enum.
struct Variant<'g> {
    tracer: Tracer<'g>,
    name: &'static str,
    /// The enum's visitor: variants of two enums may share a name.
    owner: &'static str,
}

impl<'g> Variant<'g> {
    fn def(&self, kind: Kind, len: usize, labels: &'static [&'static str]) -> Result<Inside<'g>, Halt> {
        let mut graph = self.tracer.graph.borrow_mut();
        graph.step()?;
        let def = graph.define(Identity { kind, visitor: self.owner, name: self.name, len }, labels);
        graph.record(self.tracer.at, Target::Def(def));
        Ok(Inside { graph: self.tracer.graph, def, depth: self.tracer.depth })
    }
}

impl<'de> EnumAccess<'de> for Variant<'_> {
    type Error = Halt;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Halt> {
        Ok((seed.deserialize(Name(self.name))?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_> {
    type Error = Halt;

    fn unit_variant(self) -> Result<(), Halt> {
        self.def(Kind::UnitVariant, 0, &[]).map(drop)
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Halt> {
        self.def(Kind::NewtypeVariant, 1, &[])?.fill(0, |tracer| seed.deserialize(tracer))
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Halt> {
        let inside = self.def(Kind::TupleVariant, len, &[])?;
        self.tracer.product(inside, len, visitor, None)
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Halt> {
        let inside = self.def(Kind::StructVariant, fields.len(), fields)?;
        self.tracer.product(inside, fields.len(), visitor, Some(fields))
    }
}

/// The name of a field or a variant.
struct Name(&'static str);

impl<'de> Deserializer<'de> for Name {
    type Error = Halt;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Halt> {
        visitor.visit_str(self.0)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

const ANY_SAMPLES: usize = 7;

/// Passes a sample to a type that accepts anything.
fn any<'de, V: Visitor<'de>>(sample: usize, visitor: V) -> Result<V::Value, Halt> {
    match sample {
        0 => visitor.visit_unit(),
        1 => visitor.visit_map(MapDeserializer::new(std::iter::empty::<(&str, &str)>())),
        2 => visitor.visit_seq(SeqDeserializer::new(std::iter::empty::<u64>())),
        3 => visitor.visit_str("a"),
        4 => visitor.visit_u64(1),
        5 => visitor.visit_bool(true),
        _ => visitor.visit_f64(1.0),
    }
}
