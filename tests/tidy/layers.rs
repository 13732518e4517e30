//! A module of `cache-core` may use modules of its own row and of lower rows only.

use std::collections::BTreeMap;

use super::Finding;
use super::source::{Source, is_part_of_word};

/// Every module, lowest row first. Planned modules have a row too.
pub(super) const ROWS: &[&[&str]] = &[
    // Values without state, and the two modules that use the runtime: time, and the only spawn.
    &["clock", "error", "random", "recent", "background", "mutants", "sync"],
    &["key", "options"],
    &["observe"],
    &["value"],
    // The two tiers, and the versions of what is in them.
    &["store"],
    &["versions"],
    &["local"],
    // One compute a key, and the processes and builds that an invalidation must reach.
    &["coordination", "cell"],
    // The parts of one cache, and the path of a call through them.
    &["engine"],
    &["call"],
    // The types that users hold.
    &["cache", "builder", "entry", "fence", "object", "plain", "sweep", "why"],
    &["session", "private", "testing", "store_testing", "golden"],
];

/// Modules that must not depend on the runtime.
const PURE: &[&str] = &["key", "error", "options", "value"];

pub(super) fn check(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let exports = root_exports(sources, "cache-core/src/");
    for source in sources {
        let Some((module, depth)) = module(&source.path) else { continue };
        let Some(row) = row(module) else {
            findings.push(Finding::new(&source.path, 1, format!("`{module}` has no place in the table of layers")));
            continue;
        };
        for Use { line, path } in uses(&source.code, depth) {
            let Some(target) = path.first().map(|first| exports.get(first).unwrap_or(first)) else { continue };
            let target = if target == "__private" { "private" } else { target };
            let mut find = |what: String| findings.push(Finding::new(&source.path, line, what));
            match self::row(target) {
                None => find(format!("`crate::{target}` has no place in the table of layers")),
                Some(used) if used > row => find(format!("`{module}` uses `{target}` of a higher layer")),
                Some(_) => {}
            }
        }
        if PURE.contains(&module) {
            let row_of_runtime = source.code.lines().position(|line| line.contains("tokio::"));
            findings.extend(
                row_of_runtime.map(|at| Finding::new(&source.path, at + 1, format!("`{module}` knows no runtime"))),
            );
        }
    }
    findings
}

fn row(module: &str) -> Option<usize> {
    ROWS.iter().position(|row| row.contains(&module))
}

/// Returns the module at the crate's root that a file belongs to, and the file's depth in it.
/// Returns `None` for the root and for tests.
fn module(path: &str) -> Option<(&str, usize)> {
    let path = path.strip_prefix("cache-core/src/")?.strip_suffix(".rs")?;
    let parts: Vec<&str> = path.split('/').collect();
    if path == "lib" || parts.contains(&"tests") {
        return None;
    }
    Some((parts.first()?, parts.len()))
}

struct Use {
    line: usize,
    /// The path after `crate::`.
    path: Vec<String>,
}

/// Returns the paths from the crate's root: `crate::..` anywhere, and `super::..` in a `use` at the
/// beginning of a line, where it cannot be in an inner module.
fn uses(code: &str, depth: usize) -> Vec<Use> {
    let mut uses = Vec::new();
    let supers = format!("{}::", vec!["super"; depth].join("::"));
    let mut before = 0;
    for (index, line) in code.split_inclusive('\n').enumerate() {
        let mut starts: Vec<usize> = line
            .match_indices("crate::")
            .filter(|(at, _)| !line[..*at].ends_with(is_part_of_word))
            .map(|(at, text)| at + text.len())
            .collect();
        let top = line.strip_prefix("pub ").unwrap_or(line).strip_prefix("use ");
        if let Some(path) = top.and_then(|top| top.strip_prefix(supers.as_str())) {
            starts.push(line.len() - path.len());
        }
        for start in starts {
            let paths = paths(&code[before + start..]);
            uses.extend(paths.into_iter().map(|path| Use { line: index + 1, path }));
        }
        before += line.len();
    }
    uses
}

/// Returns the paths of the `use` tree, or the single path, that begins here.
pub(super) fn paths(code: &str) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    let _rest = tree(code, &[], &mut paths);
    paths
}

/// Adds the paths of one tree. Returns the text after it.
fn tree<'a>(code: &'a str, parent: &[String], paths: &mut Vec<Vec<String>>) -> &'a str {
    let code = code.trim_start();
    if let Some(mut rest) = code.strip_prefix('{') {
        loop {
            rest = tree(rest, parent, paths);
            // Skip `as name`.
            rest = rest.trim_start_matches(|c| !matches!(c, ',' | '}'));
            match rest.strip_prefix(',').map(str::trim_start) {
                Some(next) if !next.starts_with('}') => rest = next,
                Some(next) => return next.strip_prefix('}').unwrap_or(next),
                None => return rest.strip_prefix('}').unwrap_or(rest),
            }
        }
    }
    let end = code.find(|c| !is_part_of_word(c)).unwrap_or(code.len());
    let (name, rest) = code.split_at(end);
    let mut path = parent.to_vec();
    if !name.is_empty() {
        path.push(name.to_owned());
    }
    match rest.strip_prefix("::") {
        Some(rest) if !name.is_empty() => tree(rest, &path, paths),
        _ => {
            paths.push(path);
            rest
        }
    }
}

/// Returns the module of each name that the crate's root exports.
pub(super) fn root_exports(sources: &[Source], folder: &str) -> BTreeMap<String, String> {
    let mut exports = BTreeMap::new();
    let root = sources.iter().find(|source| source.path == format!("{folder}lib.rs")).map_or("", |root| &root.code);
    for (at, text) in root.match_indices("pub use ") {
        for path in paths(&root[at + text.len()..]) {
            if let [module, .., name] = path.as_slice() {
                exports.insert(name.clone(), module.clone());
            }
        }
    }
    exports
}

/// Returns the findings in one file.
fn found(path: &str, text: &str) -> Vec<String> {
    let sources = [
        Source::new("cache-core/src/lib.rs", "pub use cache::Cache;\npub use error::{Error, ErrorKind};"),
        Source::new(path, text),
    ];
    check(&sources).iter().map(ToString::to_string).collect()
}

#[test]
fn a_use_of_a_higher_layer_is_found() {
    let higher = ["cache-core/src/store/memory.rs:2: `store` uses `cache` of a higher layer"];
    let path = "cache-core/src/store/memory.rs";
    assert_eq!(found(path, "\nuse crate::cache::Cache;"), higher);
    assert_eq!(found(path, "\nuse crate::{error::{self, Error}, clock::Clock as C, cache::{Cache}};"), higher);
    assert_eq!(found(path, "\nfn f() { crate::cache::f::<u8>() }"), higher);
    assert_eq!(found(path, "\nuse super::super::cache::Cache;"), higher);
    // Through the name at the crate's root.
    assert_eq!(found(path, "\nfn f(cache: &crate::Cache) {}"), higher);
}

#[test]
fn a_use_of_a_lower_layer_is_no_finding() {
    let text =
        "// crate::cache\nuse crate::{ErrorKind, error::Error};\nuse super::{Store, memory};\nuse crate::observe;";
    assert!(found("cache-core/src/store/memory.rs", text).is_empty());
    assert!(found("cache-core/src/store/tests.rs", "use crate::cache::Cache;").is_empty());
}

#[test]
fn a_module_outside_the_table_is_found() {
    let nowhere = ["cache-core/src/util.rs:1: `util` has no place in the table of layers"];
    assert_eq!(found("cache-core/src/util.rs", ""), nowhere);
    let unknown = ["cache-core/src/store.rs:1: `crate::util` has no place in the table of layers"];
    assert_eq!(found("cache-core/src/store.rs", "use crate::util::f;"), unknown);
}

#[test]
fn a_runtime_in_a_pure_module_is_found() {
    let runtime = ["cache-core/src/value/codec/json.rs:2: `value` knows no runtime"];
    assert_eq!(found("cache-core/src/value/codec/json.rs", "\nuse tokio::time::sleep;"), runtime);
}
