//! Reports what this run of the tests leaves out. `tests/run` counts it: it sets `TESTS_TELL` to a
//! file, to which tests add lines.
//!
//! ```text
//! short   <test> <what>    a long form that did not run
//! long    <test> <what>    a long form that runs
//! skipped <test> <why>     a test that cannot run here
//! ```
//!
//! Fields are separated by tabs.

use std::fs::OpenOptions;
use std::io::Write as _;

/// The variable with the path of the file.
const TELL: &str = "TESTS_TELL";
/// If set to anything but `0`, tests run their long form.
const LONG: &str = "CACHE_LONG";

/// Returns whether the calling test runs its long form (`CACHE_LONG=1`, set by `tests/run --long`).
/// If not, `what` is counted as left out: "a soak of 1,000,000 keys".
#[must_use]
pub fn long_form(what: &str) -> bool {
    let long = std::env::var_os(LONG).is_some_and(|value| !value.is_empty() && value != "0");
    tell(if long { "long" } else { "short" }, what);
    long
}

/// Counts `what` as left out by the short form of the calling test.
pub fn left_out(what: &str) {
    tell("short", what);
}

/// Counts the calling test as skipped. The test has to return afterwards.
///
/// # Panics
///
/// If `TESTS_TELL` is not set: without `tests/run`, a test that cannot run fails.
pub fn skipped(why: &str) {
    assert!(tell("skipped", why), "this test cannot run here: {why}; tests/run counts it as skipped");
}

/// Adds a line to the file. Returns `false` if `TESTS_TELL` is not set.
fn tell(kind: &str, what: &str) -> bool {
    let Some(file) = std::env::var_os(TELL) else { return false };
    let thread = std::thread::current();
    let line = format!("{kind}\t{}\t{what}\n", thread.name().unwrap_or("a test"));
    // A single write to the end of the file, because many tests write at the same time.
    let written =
        OpenOptions::new().append(true).create(true).open(&file).and_then(|mut file| file.write_all(line.as_bytes()));
    written.unwrap_or_else(|error| panic!("{TELL}={}: {error}", file.display()));
    true
}
