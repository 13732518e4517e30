//! V7: no bytes make reading a record panic, overflow the stack or allocate without bound
//! (`-malloc_limit_mb`).
//!
//! The first byte of the input selects the meaning of the rest: 0 is a whole record, anything else
//! a payload under a valid checksum.

#![no_main]

use std::collections::BTreeMap;

use cache_core::codec::{Bincode, Codec, Json, MsgPack, Postcard};
use cache_core::testing::record;
use libfuzzer_sys::fuzz_target;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Post {
    id: u64,
    title: String,
    tags: Vec<String>,
    score: Option<f64>,
    meta: BTreeMap<String, Vec<u32>>,
    tree: Tree,
    nothing: Vec<()>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Tree {
    Leaf(u128),
    Node { left: Box<Tree>, right: Option<Box<Tree>> },
    Many(Vec<Tree>),
    Nothing,
}

const KEY: &str = "app:f:7@0000000000000000";

fn read<C: Codec, T: Serialize + DeserializeOwned + 'static>(whole: bool, bytes: &[u8]) {
    let forged = if whole { Some(bytes.to_vec()) } else { record::seal_payload(KEY, C::ID, bytes).ok() };
    if let Some(value) = forged.and_then(|forged| record::open::<C, T>(KEY, &forged).ok()) {
        // A value that was read can be written and read again, unless the format changes it and
        // reports that.
        if let Ok(again) = record::seal::<C, T>(KEY, &value) {
            assert!(record::open::<C, T>(KEY, &again).is_ok());
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((choice, bytes)) = data.split_first() else { return };
    let whole = *choice == 0;
    read::<Bincode, Post>(whole, bytes);
    read::<Postcard, Post>(whole, bytes);
    read::<MsgPack, Post>(whole, bytes);
    read::<Json, Post>(whole, bytes);
    read::<MsgPack, serde_json::Value>(whole, bytes);
    read::<Postcard, Vec<Tree>>(whole, bytes);
});
