//! The comment above or in a test says which promises it proves: `// S1, R18`, `// R1: a DEL typed by hand`.

use std::collections::BTreeSet;

use super::Finding;
use super::source::Source;

/// The families of promises, and how many each has.
const FAMILIES: &[(char, usize)] = &[
    ('R', 24), // races
    ('S', 8),  // single flight in one process
    ('X', 6),  // and across processes
    ('F', 11), // staleness
    ('V', 8),  // values
    ('K', 6),  // keys
    ('T', 7),  // tiers
    ('D', 7),  // failure
    ('B', 5),  // batch
    ('I', 4),  // invalidation
];

/// What is built, and so must have a test. Grows until it is all of them.
const TESTED: &[&str] = &[
    "S1", "S2", "S3", "S4", "S5", "S6", "S7", "S8", //
    "F1", "F2", "F3", "F4", "F5", "F6", "F7", "F8", "F9", "F10", "F11", //
    "V1", "V2", "V3", "V4", "V5", "V6", "V7", "V8", //
    "K1", "K2", "K3", "K4", "K5", "K6", //
    "D1", "D2", "D5", "D7", //
    "B1", "B2", "B3", "B4", "B5", //
    "I1", "I2", "I3", "I4", //
    "T1", "T2", "T3", "T4", "T5", "T6", "T7", //
    "X1", "X2", "X3", "X4", "X5", "X6", //
    "R1", "R2", "R3", "R4", "R5", "R6", "R7", "R8", "R9", "R10", "R11", "R12", "R13", "R14", "R15", "R16",
    "R17", //
    "R18", "R19", "R20", "R22", "R23", "R24", "R21",
];

/// Claims of promises that do not exist.
pub(super) fn unknown(sources: &[Source]) -> Vec<Finding> {
    let claims = sources.iter().flat_map(|source| claims(source).into_iter().map(move |claim| (source, claim)));
    claims
        .filter(|(_, (_, id))| !exists(id))
        .map(|(source, (line, id))| Finding::new(&source.path, line, format!("there is no promise `{id}`")))
        .collect()
}

/// Promises that no test claims to prove.
pub(super) fn untested(sources: &[Source]) -> Vec<Finding> {
    let proven: BTreeSet<String> = sources.iter().flat_map(claims).map(|(_, id)| id).collect();
    let missing = TESTED.iter().filter(|id| !proven.contains(**id));
    missing.map(|id| Finding::new("tests", 1, format!("no test of promise `{id}`"))).collect()
}

fn exists(id: &str) -> bool {
    let family = FAMILIES.iter().find(|(family, _)| id.starts_with(*family));
    let number = id.get(1..).and_then(|number| number.parse().ok());
    family.zip(number).is_some_and(|((_, most), number)| (1..=*most).contains(&number))
}

/// The ids in comments of test code, with their lines. Shipped code names races too, and proves none.
fn claims(source: &Source) -> Vec<(usize, String)> {
    let is_test_file = source.path.starts_with("tests/") || source.path.contains("/tests");
    if !is_test_file && !source.path.starts_with("cache-core/") {
        return Vec::new();
    }
    let first = if is_test_file { Some(0) } else { source.text.lines().position(|line| line.contains("#[cfg(test)]")) };
    let Some(first) = first else { return Vec::new() };
    let lines = source.text.lines().enumerate().skip(first);
    lines.flat_map(|(index, line)| claimed(line).into_iter().map(move |id| (index + 1, id))).collect()
}

/// The ids with which a comment line begins: to its end, or to a colon or full stop.
fn claimed(line: &str) -> Vec<String> {
    let Some(comment) = line.trim().strip_prefix("// ") else { return Vec::new() };
    let ids: Vec<&str> = comment.split([':', '.']).next().unwrap_or(comment).split(", ").collect();
    // `L1` and `L2` are the tiers.
    let is_id = |id: &&str| {
        let mut chars = id.chars();
        chars.next().is_some_and(|family| family.is_ascii_uppercase() && family != 'L')
            && matches!(id.len(), 2..=3)
            && chars.all(|c| c.is_ascii_digit())
    };
    if ids.iter().all(is_id) { ids.into_iter().map(str::to_owned).collect() } else { Vec::new() }
}

#[test]
fn a_claim_is_a_comment_that_begins_with_ids() {
    assert_eq!(claimed("    // S1, R18"), ["S1", "R18"]);
    assert_eq!(claimed("// R1: a DEL typed by hand."), ["R1"]);
    for none in ["// R1 is proven elsewhere", "// L2: the record", "/// S1", "S1", "// A lease", "// Redis, R1"] {
        assert!(claimed(none).is_empty(), "{none}");
    }
}

#[test]
fn a_claim_of_an_unknown_promise_is_found() {
    let claimed = "// R24\n// R25\n// S0\n// Q1: what?";
    let found = unknown(&[Source::new("tests/behaviour/races.rs", claimed)]);
    assert_eq!(found.iter().map(|finding| finding.line).collect::<Vec<_>>(), [2, 3, 4]);
}

#[test]
fn a_promise_without_a_test_is_found() {
    let all_but_the_last = TESTED[..TESTED.len() - 1].join(", ");
    let test = Source::new("tests/behaviour/races.rs", &format!("// {all_but_the_last}"));
    // A comment of shipped code proves nothing.
    let shipped = Source::new("cache-core/src/lease.rs", "// R21: the token is compared");
    let found = untested(&[test, shipped]);
    assert_eq!(found, [Finding::new("tests", 1, "no test of promise `R21`")]);
    let inner = Source::new("cache-core/src/lease.rs", "#[cfg(test)]\nmod tests {\n    // R21\n}");
    assert_eq!(untested(&[inner]).len(), TESTED.len() - 1);
    assert!(TESTED.iter().all(|id| exists(id)));
}
