//! No stored bytes make reading a session panic, overflow the stack or allocate without bound
//! (`-malloc_limit_mb`). Values that a request does not change are written back byte for byte.

#![no_main]

use std::collections::BTreeMap;

use cache_core::session::raw;
use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;

const NEW: &str = "a name that is not there";

fn members(json: &[u8]) -> BTreeMap<String, Box<RawValue>> {
    serde_json::from_slice(json).expect("an object")
}

fuzz_target!(|data: &[u8]| {
    let Some(same) = raw::rewritten(data, None) else { return };
    assert_eq!(raw::rewritten(&same, None).as_ref(), Some(&same));
    let changed = raw::rewritten(data, (NEW, 7)).expect("it was read before");
    let (before, mut after) = (members(data), members(&changed));
    assert_eq!(after.remove(NEW).expect("it was set").get(), "7");
    assert!(before.keys().filter(|name| *name != NEW).eq(after.keys()));
    for (name, value) in after.iter().filter(|(name, _)| *name != "cookie") {
        assert_eq!(before[name].get(), value.get());
    }
});
