//! The structural fingerprint of a value type: a number that changes when its stored form would.
//!
//! It is part of every key, so a build with a changed struct reads and writes separate entries.
//! serde cannot return a description of a type, but a type describes itself to a deserializer:
//! [`tracer`] answers its requests with made-up values and records them. One run sees one variant
//! of each enum, so there are several runs, until everything has been seen or a bound is hit.
//!
//! | part of the hash | not part of it |
//! |---|---|
//! | names of structs, fields, enums, variants, in order | module paths, [`std::any::type_name`] |
//! | the serde type of each leaf | its Rust type: `usize` is `u64`, `Box<T>` and `Arc<T>` are `T` |
//! | payloads of variants, recursively | meaning |
//!
//! No compiler guarantees stable values of [`std::any::type_name`]. Names of types are part of the
//! hash although a renamed struct decodes as before: a rename often comes with a change of meaning,
//! and one miss costs little compared with a wrong value. A change of meaning alone, such as cents
//! that become euros, needs a new name or `version`.
//!
//! Invariant: tracing terminates, unless the type's `Deserialize` loops without asking for
//! anything, and the result is the same on every platform. Golden files freeze the algorithm.

use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::de::DeserializeOwned;

use self::graph::Graph;
use self::tracer::Tracer;

mod graph;
mod halt;
mod samples;
mod tracer;

/// The maximum number of runs of a type's `Deserialize`. Ordinary types need one to a dozen.
const MAX_PASSES: usize = 512;

/// The structure of a type's stored form as a number. Displays as 16 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    pub(crate) hash: u64,
    /// Whether every change of the type's fields changes the hash. This is not the case for
    /// flattened, untagged and internally tagged types, `serde_json::Value`, and types that refuse
    /// all samples.
    pub(crate) complete: bool,
}

impl Fingerprint {
    /// Traces `T`. Runs its `Deserialize` code on made-up input; a panic in it is caught and ends
    /// the tracing.
    pub(crate) fn of<T: DeserializeOwned>() -> Self {
        let graph = RefCell::new(Graph::new());
        for _ in 0..MAX_PASSES {
            let before = graph.borrow().changes();
            let Ok(outcome) = one_pass::<T>(&graph) else {
                graph.borrow_mut().incomplete = true;
                break;
            };
            let mut graph = graph.borrow_mut();
            let found = graph.settle(Graph::ROOT, outcome).is_ok();
            if graph.exhausted() || graph.changes() == before || (found && !graph.is_pending(Graph::ROOT_DEF)) {
                break;
            }
        }
        let graph = graph.into_inner();
        let complete = graph.is_complete();
        Self { hash: graph.hash(complete), complete }
    }
}

/// Runs all code of the type that may panic, including the drop of the made-up value.
fn one_pass<T: DeserializeOwned>(graph: &RefCell<Graph>) -> Result<Result<(), halt::Halt>, Box<dyn Any + Send>> {
    catch_unwind(AssertUnwindSafe(|| T::deserialize(Tracer::root(graph)).map(drop)))
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.hash)
    }
}

/// Returns the fingerprint in a key: of the type's structure, the function's version and the codec.
pub(crate) fn fingerprint_text(of_type: Fingerprint, version: u64, codec: u8) -> String {
    let mut bytes = [0; 17];
    let parts = of_type.hash.to_le_bytes().into_iter().chain(version.to_le_bytes()).chain([codec]);
    bytes.iter_mut().zip(parts).for_each(|(byte, part)| *byte = part);
    format!("{:016x}", xxhash_rust::xxh3::xxh3_64(&bytes))
}

#[cfg(test)]
mod tests;
