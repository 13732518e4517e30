//! The page `promises` names every promise. The comment above or inside a test lists the ids it
//! proves: `// S1, R18`, `// R1: a DEL typed by hand`.

use std::collections::BTreeSet;

use super::Finding;
use super::source::Source;

pub(super) const PAGE: &str = "cache-core/docs/promises.md";

/// A promise on the page.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Promise {
    id: String,
    line: usize,
    /// Planned only, so no test can prove it.
    is_planned: bool,
}

/// Returns the promises of the page: `- **S1** text`, `- **D3** (planned) text`.
pub(super) fn of_page(page: &str) -> Vec<Promise> {
    let promise = |(index, line): (usize, &str)| {
        let (id, text) = line.strip_prefix("- **")?.split_once("** ")?;
        Some(Promise { id: id.to_owned(), line: index + 1, is_planned: text.starts_with("(planned)") })
    };
    page.lines().enumerate().filter_map(promise).collect()
}

/// Finds malformed ids, and ids that do not count up within their family.
pub(super) fn misnumbered(page: &str) -> Vec<Finding> {
    let mut last: Option<(char, u32)> = None;
    let mut families = BTreeSet::new();
    let mut findings = Vec::new();
    for Promise { id, line, .. } in of_page(page) {
        let family = id.chars().next().filter(char::is_ascii_uppercase);
        let number = id.get(1..).and_then(|number| number.parse().ok());
        let Some((family, number)) = family.zip(number) else {
            findings.push(Finding::new(PAGE, line, format!("`{id}` is no id: a capital letter and a number")));
            continue;
        };
        let follows = match last {
            Some((of, last)) if of == family => number == last + 1,
            _ => number == 1 && families.insert(family),
        };
        if !follows {
            findings.push(Finding::new(PAGE, line, format!("`{id}` does not follow the promise above it")));
        }
        last = Some((family, number));
    }
    findings
}

/// Finds claims of promises that do not exist or are only planned.
pub(super) fn unknown(promises: &[Promise], sources: &[Source]) -> Vec<Finding> {
    let claims = sources.iter().flat_map(|source| claims(source).into_iter().map(move |claim| (source, claim)));
    let wrong = |(source, (line, id)): (&Source, (usize, String))| {
        let what = match promises.iter().find(|promise| promise.id == id) {
            None => format!("there is no promise `{id}`"),
            Some(promise) if promise.is_planned => format!("{PAGE} says that `{id}` is planned only"),
            Some(_) => return None,
        };
        Some(Finding::new(&source.path, line, what))
    };
    claims.filter_map(wrong).collect()
}

/// Finds promises that no test claims to prove.
pub(super) fn untested(promises: &[Promise], sources: &[Source]) -> Vec<Finding> {
    let proven: BTreeSet<String> = sources.iter().flat_map(claims).map(|(_, id)| id).collect();
    let missing = promises.iter().filter(|promise| !promise.is_planned && !proven.contains(&promise.id));
    missing.map(|promise| Finding::new(PAGE, promise.line, format!("no test of promise `{}`", promise.id))).collect()
}

/// Returns the ids in comments of test code, with their lines. Comments in shipped code may name
/// ids too, but prove nothing.
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

/// Returns the ids at the start of a comment line, up to its end, a colon or a full stop.
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

const SOME: &str = "# Promises\n- **R1** One.\n- **R2** (planned) Another.\n- **S1** A third,\n  in two lines.\n";

#[test]
fn promises_are_read_from_their_page() {
    let ids: Vec<_> = of_page(SOME).into_iter().map(|promise| (promise.id, promise.line, promise.is_planned)).collect();
    assert_eq!(ids, [("R1".to_owned(), 2, false), ("R2".to_owned(), 3, true), ("S1".to_owned(), 4, false)]);
    assert!(misnumbered(SOME).is_empty());
    for wrong in ["- **R2** One.", "- **R1** One.\n- **R3** Another.", "- **r1** One.", "- **R1** A\n- **R1** B"] {
        assert_eq!(misnumbered(wrong).len(), 1, "{wrong}");
    }
    assert_eq!(misnumbered("- **R1** One.\n- **S1** Two.\n- **R1** Three.").len(), 1);
}

#[test]
fn a_claim_of_an_unknown_or_planned_promise_is_found() {
    let claimed = "// R1\n// R2\n// R3\n// S0\n// S1: what?\n// Q1";
    let found = unknown(&of_page(SOME), &[Source::new("tests/behaviour/races.rs", claimed)]);
    assert_eq!(found.iter().map(|finding| finding.line).collect::<Vec<_>>(), [2, 3, 4, 6]);
}

#[test]
fn a_promise_without_a_test_is_found() {
    let promises = of_page(SOME);
    let test = Source::new("tests/behaviour/races.rs", "// R1");
    // A comment in shipped code proves nothing.
    let shipped = Source::new("cache-core/src/lease.rs", "// S1: the token is compared");
    let found = untested(&promises, &[test, shipped]);
    assert_eq!(found, [Finding::new(PAGE, 4, "no test of promise `S1`")]);
    let inner = Source::new("cache-core/src/lease.rs", "#[cfg(test)]\nmod tests {\n    // S1\n}");
    assert_eq!(untested(&promises, &[inner]), [Finding::new(PAGE, 2, "no test of promise `R1`")]);
}
