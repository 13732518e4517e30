//! What the tracer has found out so far, as a graph of definitions, and the hash over it.

use std::collections::{BTreeSet, HashMap};

use xxhash_rust::xxh3::xxh3_64;

use super::halt::Halt;
use super::samples::LENGTHS;

/// The limit of questions that a type may ask. A large type asks a few thousand.
const MAX_STEPS: usize = 200_000;
/// How often a slot may end in recursion without an exit before it is given up.
const MAX_CUTS: u8 = 8;
/// Rounds of the hash: the largest distance from the root at which a difference is still detected.
const MAX_ROUNDS: usize = 512;

/// The kind of a definition. The numbers are part of the hash: they never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(super) enum Kind {
    Root = 0,
    Option = 1,
    Newtype = 2,
    Seq = 3,
    Map = 4,
    Tuple = 5,
    TupleStruct = 6,
    Struct = 7,
    Enum = 8,
    UnitVariant = 9,
    NewtypeVariant = 10,
    TupleVariant = 11,
    StructVariant = 12,
}

/// A type without parts. The numbers are part of the hash: they never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(super) enum Leaf {
    Bool = 0,
    I8 = 1,
    I16 = 2,
    I32 = 3,
    I64 = 4,
    I128 = 5,
    U8 = 6,
    U16 = 7,
    U32 = 8,
    U64 = 9,
    U128 = 10,
    F32 = 11,
    F64 = 12,
    Char = 13,
    Str = 14,
    Bytes = 15,
    Unit = 16,
    /// Accepts any type: its shape is in the data.
    Any = 17,
}

/// The content of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    Leaf(Leaf),
    Def(usize),
}

/// One slot of a definition: a field, an element, a variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FieldPath {
    pub(super) def: usize,
    pub(super) slot: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Untried,
    /// A value was made; a lower number was made earlier. The earliest variant of an enum needs no
    /// other one.
    Good(usize),
    /// The slot accepts nothing that we offer.
    Dead,
    /// The type never asked for it: an alias of another field.
    Unasked,
}

#[derive(Debug, Clone)]
struct Slot {
    target: Option<Target>,
    state: State,
    /// The number of refused samples, and the index of the first sample.
    refused: usize,
    first_sample: usize,
    cuts: u8,
    /// Its last try ended in recursion: another slot is tried first.
    resting: bool,
    /// How often it is being filled right now, up the stack.
    active: usize,
}

#[derive(Debug)]
struct Def {
    kind: Kind,
    name: &'static str,
    labels: &'static [&'static str],
    slots: Vec<Slot>,
    active: usize,
    /// The number of refused lengths.
    refused_lengths: usize,
    /// The type refused to be read as a sequence; it is read as a map.
    by_map: bool,
    needs_items: bool,
}

/// Identifies definitions within one tracing. The visitor's type name is not part of the hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    pub(super) kind: Kind,
    pub(super) visitor: &'static str,
    pub(super) name: &'static str,
    pub(super) len: usize,
}

#[derive(Debug)]
pub(super) struct Graph {
    defs: Vec<Def>,
    by_identity: HashMap<Identity, usize>,
    /// The sample that a visitor accepted before.
    accepted: HashMap<&'static str, usize>,
    /// Names from errors: the only difference between types whose shape is in the data.
    hints: BTreeSet<&'static str>,
    pub(super) incomplete: bool,
    steps: usize,
    changes: usize,
}

impl Graph {
    pub(super) const ROOT_DEF: usize = 0;
    pub(super) const ROOT: FieldPath = FieldPath { def: Self::ROOT_DEF, slot: 0 };

    pub(super) fn new() -> Self {
        let mut graph = Self {
            defs: Vec::new(),
            by_identity: HashMap::new(),
            accepted: HashMap::new(),
            hints: BTreeSet::new(),
            incomplete: false,
            steps: 0,
            changes: 0,
        };
        graph.define(Identity { kind: Kind::Root, visitor: "", name: "", len: 1 }, &[]);
        graph
    }

    /// Returns a number that rises with everything that makes the next pass different from this
    /// one.
    pub(super) fn changes(&self) -> usize {
        self.changes
    }

    pub(super) fn exhausted(&self) -> bool {
        self.steps > MAX_STEPS
    }

    /// Counts a question. After too many of them every answer is an error. Code that goes on asking
    /// gets a panic that prints nothing and is caught above.
    pub(super) fn step(&mut self) -> Result<(), Halt> {
        self.steps = self.steps.saturating_add(1);
        if !self.exhausted() {
            return Ok(());
        }
        self.incomplete = true;
        #[cfg(panic = "unwind")]
        if self.steps > MAX_STEPS.saturating_mul(2) {
            std::panic::resume_unwind(Box::new("a `Deserialize` implementation that never ends"));
        }
        Err(Halt::Dead)
    }

    /// Returns the definition for `identity`, made if it is new, with `identity.len` slots.
    pub(super) fn define(&mut self, identity: Identity, labels: &'static [&'static str]) -> usize {
        if let Some(id) = self.by_identity.get(&identity) {
            let same = self.defs.get(*id).is_some_and(|def| def.labels == labels);
            // Two types of the same name from two versions of a crate, or a type whose shape
            // changes each time.
            self.incomplete |= !same;
            return *id;
        }
        let slot = Slot {
            target: None,
            state: State::Untried,
            refused: 0,
            first_sample: 0,
            cuts: 0,
            resting: false,
            active: 0,
        };
        // More slots than there are steps could never be visited.
        let slots = vec![slot; identity.len.min(MAX_STEPS)];
        let id = self.defs.len();
        self.defs.push(Def {
            kind: identity.kind,
            name: identity.name,
            labels,
            slots,
            active: 0,
            refused_lengths: 0,
            by_map: false,
            needs_items: false,
        });
        self.by_identity.insert(identity, id);
        self.changed();
        id
    }

    /// Records what a slot holds.
    pub(super) fn record(&mut self, place: FieldPath, target: Target) {
        let Some(slot) = self.slot_mut(place) else { return };
        match slot.target {
            None => {
                slot.target = Some(target);
                self.changed();
            }
            Some(known) => self.incomplete |= known != target,
        }
    }

    /// Returns which of `count` samples to offer in a slot. The result for `visitor` may be known
    /// from another slot.
    pub(super) fn sample(&mut self, place: FieldPath, visitor: &'static str, count: usize) -> usize {
        let known = self.accepted.get(visitor).copied().unwrap_or_default();
        let Some(slot) = self.slot_mut(place) else { return 0 };
        if slot.refused == 0 && slot.state == State::Untried {
            slot.first_sample = known;
        }
        slot.first_sample.saturating_add(slot.refused).checked_rem(count).unwrap_or_default()
    }

    pub(super) fn accept(&mut self, visitor: &'static str, sample: usize) {
        self.accepted.insert(visitor, sample);
    }

    /// Ends the filling of a slot: updates the slot and returns the result for the level above.
    pub(super) fn settle<T>(&mut self, place: FieldPath, outcome: Result<T, Halt>) -> Result<T, Halt> {
        let rank = self.changes;
        if let Err(Halt::Fresh(names)) = &outcome {
            self.hints.extend(names.iter().copied());
        }
        let Some(slot) = self.slot_mut(place) else { return outcome };
        let halt = match outcome {
            Ok(value) => {
                if matches!(slot.state, State::Untried) {
                    slot.state = State::Good(rank);
                    self.changed();
                }
                return Ok(value);
            }
            Err(Halt::Fresh(_)) => match slot.target {
                Some(Target::Leaf(leaf)) if slot.refused.saturating_add(1) < leaf.samples() => {
                    slot.refused = slot.refused.saturating_add(1);
                    Halt::Retry
                }
                _ => {
                    // It refuses all samples, or the value made of its parts.
                    self.incomplete = true;
                    Halt::Dead
                }
            },
            Err(halt) => halt,
        };
        if let Some(slot) = self.slot_mut(place) {
            match halt {
                Halt::Dead => slot.state = State::Dead,
                Halt::Cut => {
                    slot.cuts = slot.cuts.saturating_add(1);
                    slot.resting = true;
                }
                Halt::Retry | Halt::Fresh(_) => {}
            }
        }
        self.changed();
        Err(halt)
    }

    /// Turns a failure into a retry for a type with an alternative: an option can be `None`, a
    /// sequence empty, an enum another variant.
    pub(super) fn around(&self, place: FieldPath, halt: Halt) -> Halt {
        match halt {
            Halt::Dead | Halt::Cut if !self.exhausted() && self.slot(place).is_some() => Halt::Retry,
            halt => halt,
        }
    }

    /// Returns whether an option should be `Some`, or a sequence or map have elements. Its slot is
    /// the first.
    pub(super) fn wants_items(&mut self, def: usize) -> bool {
        let pending = self.is_pending(def);
        let reentered = self.defs.get(def).is_some_and(|def| def.active > 0);
        let needed = self.defs.get(def).is_some_and(|def| def.needs_items);
        let Some(slot) = self.slot_mut(FieldPath { def, slot: 0 }) else { return false };
        if std::mem::take(&mut slot.resting) {
            // Skipped for one pass; the next may try again.
            self.changed();
            return false;
        }
        match slot.state {
            State::Dead | State::Unasked => false,
            _ if reentered => false,
            State::Untried => slot.cuts < MAX_CUTS,
            State::Good(_) => pending || needed,
        }
    }

    /// Returns the length of a sequence or map that has elements.
    pub(super) fn length(&self, def: usize) -> usize {
        let refused = self.defs.get(def).map_or(0, |def| def.refused_lengths);
        LENGTHS.get(refused).copied().unwrap_or_default()
    }

    /// Records that a sequence or map refused its elements as a whole. Returns whether there is
    /// another length to try.
    pub(super) fn refuse_length(&mut self, def: usize, had_items: bool) -> bool {
        let Some(def) = self.defs.get_mut(def) else { return false };
        let more = if had_items {
            def.refused_lengths = def.refused_lengths.saturating_add(1);
            def.refused_lengths < LENGTHS.len()
        } else {
            !std::mem::replace(&mut def.needs_items, true)
        };
        self.changed();
        more
    }

    /// Returns which variant an enum should be.
    pub(super) fn variant(&mut self, def: usize) -> Result<usize, Halt> {
        let reentered = self.defs.get(def).is_some_and(|def| def.active > 0);
        let slots = self.defs.get(def).map(|def| def.slots.as_slice()).unwrap_or_default();
        let open = |slot: &Slot| slot.state == State::Untried && slot.cuts < MAX_CUTS && slot.active == 0;
        let untried = || slots.iter().enumerate().filter(|(_, slot)| open(slot)).min_by_key(|(_, slot)| slot.cuts);
        let good = || {
            let rank = |slot: &Slot| if let State::Good(rank) = slot.state { Some(rank) } else { None };
            slots.iter().enumerate().filter_map(|(at, slot)| Some((rank(slot)?, at))).min().map(|(_, at)| at)
        };
        let unfinished = || slots.iter().position(|slot| slot.state != State::Dead && self.leads_to_pending(slot));
        let chosen = if reentered {
            // Within a recursion: the variant that ends soonest.
            good().or_else(|| untried().map(|(at, _)| at))
        } else {
            untried().map(|(at, _)| at).or_else(unfinished).or_else(good)
        };
        match chosen {
            Some(at) => Ok(at),
            None if slots.iter().any(|slot| slot.active > 0) => Err(Halt::Cut),
            None => {
                self.incomplete = true;
                Err(Halt::Dead)
            }
        }
    }

    /// Marks a definition, and a variant of it, as being filled or not.
    pub(super) fn activate(&mut self, place: FieldPath, is: bool) {
        let step = |count: &mut usize| *count = if is { count.saturating_add(1) } else { count.saturating_sub(1) };
        if let Some(def) = self.defs.get_mut(place.def) {
            step(&mut def.active);
        }
        if let Some(slot) = self.slot_mut(place) {
            step(&mut slot.active);
        }
    }

    /// Marks the slots from `from` on as not asked for: the type is complete without them.
    pub(super) fn leave_unasked(&mut self, def: usize, from: usize) {
        let slots = self.defs.get_mut(def).map(|def| def.slots.as_mut_slice()).unwrap_or_default();
        for slot in slots.iter_mut().skip(from).filter(|slot| slot.state == State::Untried) {
            slot.state = State::Unasked;
        }
    }

    pub(super) fn is_by_map(&self, def: usize) -> bool {
        self.defs.get(def).is_some_and(|def| def.by_map)
    }

    /// Switches a definition to be read as a map. Returns `false` if it was already.
    pub(super) fn ask_by_map(&mut self, def: usize) -> bool {
        self.changed();
        self.defs.get_mut(def).is_some_and(|def| !std::mem::replace(&mut def.by_map, true))
    }

    /// Returns whether a definition, or one below it, is not complete yet.
    pub(super) fn is_pending(&self, def: usize) -> bool {
        self.reachable(def).into_iter().any(|def| def.slots.iter().any(Slot::is_open))
    }

    fn leads_to_pending(&self, slot: &Slot) -> bool {
        matches!(slot.target, Some(Target::Def(def)) if self.is_pending(def))
    }

    /// Returns whether all of the type was seen, and was the same each time.
    pub(super) fn is_complete(&self) -> bool {
        let seen = |slot: &Slot| matches!((slot.state, slot.target), (State::Good(_), Some(_)) | (State::Unasked, _));
        // A slot that always ends in recursion is known by its target.
        let known = |slot: &Slot| slot.cuts > 0 && slot.state == State::Untried && slot.target.is_some();
        !self.incomplete
            && self
                .reachable(Self::ROOT_DEF)
                .into_iter()
                .all(|def| def.slots.iter().all(|slot| seen(slot) || known(slot)))
    }

    /// Returns a hash of the structure alone, independent of the order of the tracing.
    ///
    /// Each definition starts with its own description and includes its neighbours' hashes in each
    /// round. After as many rounds as there are definitions it covers everything that can be
    /// reached from it. Recursion needs no special case.
    pub(super) fn hash(&self, complete: bool) -> u64 {
        let mut hashes = vec![0_u64; self.defs.len()];
        let mut bytes = Vec::new();
        for _ in 0..=self.defs.len().min(MAX_ROUNDS) {
            let mut next = Vec::with_capacity(hashes.len());
            for def in &self.defs {
                bytes.clear();
                def.describe(&hashes, &mut bytes);
                next.push(xxh3_64(&bytes));
            }
            hashes = next;
        }
        let root = hashes.first().copied().unwrap_or_default();
        if complete {
            return root;
        }
        bytes.clear();
        bytes.extend_from_slice(&root.to_le_bytes());
        self.hints.iter().for_each(|name| put_text(&mut bytes, name));
        xxh3_64(&bytes)
    }

    fn reachable(&self, from: usize) -> Vec<&Def> {
        let mut seen = vec![false; self.defs.len()];
        let mut found = Vec::new();
        let mut left = vec![from];
        while let Some(id) = left.pop() {
            let (Some(seen), Some(def)) = (seen.get_mut(id), self.defs.get(id)) else { continue };
            if std::mem::replace(seen, true) {
                continue;
            }
            found.push(def);
            left.extend(def.slots.iter().filter_map(|slot| match slot.target {
                Some(Target::Def(def)) => Some(def),
                _ => None,
            }));
        }
        found
    }

    fn slot(&self, place: FieldPath) -> Option<&Slot> {
        self.defs.get(place.def)?.slots.get(place.slot)
    }

    fn slot_mut(&mut self, place: FieldPath) -> Option<&mut Slot> {
        self.defs.get_mut(place.def)?.slots.get_mut(place.slot)
    }

    fn changed(&mut self) {
        self.changes = self.changes.saturating_add(1);
    }
}

impl Slot {
    fn is_open(&self) -> bool {
        self.state == State::Untried && self.cuts < MAX_CUTS
    }
}

impl Def {
    fn describe(&self, hashes: &[u64], out: &mut Vec<u8>) {
        out.push(self.kind as u8);
        put_text(out, self.name);
        put_len(out, self.labels.len());
        self.labels.iter().for_each(|label| put_text(out, label));
        put_len(out, self.slots.len());
        for slot in &self.slots {
            match slot.target {
                None => out.push(0),
                Some(Target::Leaf(leaf)) => out.extend_from_slice(&[1, leaf as u8]),
                Some(Target::Def(def)) => {
                    out.push(2);
                    out.extend_from_slice(&hashes.get(def).copied().unwrap_or_default().to_le_bytes());
                }
            }
        }
    }
}

fn put_len(out: &mut Vec<u8>, len: usize) {
    out.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_len(out, text.len());
    out.extend_from_slice(text.as_bytes());
}
