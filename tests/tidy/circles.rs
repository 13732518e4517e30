//! Finds circular imports between two files of a crate. A module and its own children may import
//! each other.

use std::collections::{BTreeMap, BTreeSet};

use super::Finding;
use super::layers::{paths, root_exports};
use super::source::{Source, is_part_of_word};

/// The path of a module from the crate root.
type Module = Vec<String>;

/// Finds the circular imports of the crate with this source folder.
pub(super) fn check(sources: &[Source], folder: &str) -> Vec<Finding> {
    let files = files(sources, folder);
    let exports = root_exports(sources, folder);
    let mut imports: BTreeMap<&Module, BTreeSet<&Module>> = BTreeMap::new();
    for (module, source) in &files {
        for path in named(&source.code, module) {
            let path = match path.first().and_then(|first| exports.get(first)) {
                Some(exporter) if !files.contains_key(&path[..1]) => vec![exporter.clone()],
                _ => path,
            };
            let target = (1..=path.len()).rev().find_map(|len| files.get_key_value(&path[..len]));
            if let Some((target, _)) = target
                && !is_kin(module, target)
            {
                imports.entry(module).or_default().insert(target);
            }
        }
    }
    let reach: BTreeMap<&Module, BTreeSet<&Module>> =
        imports.keys().map(|module| (*module, reached(&imports, module))).collect();
    let mut findings = Vec::new();
    for (module, targets) in &imports {
        for target in targets {
            if reach.get(*target).is_some_and(|back| back.contains(*module)) {
                let what = format!("`{}` uses `{}`, which leads back to it", module.join("::"), target.join("::"));
                findings.push(Finding::new(&files[*module].path, 1, what));
            }
        }
    }
    findings
}

/// Returns the modules of a crate with their files. Leaves out modules that only tests use.
fn files<'a>(sources: &'a [Source], folder: &str) -> BTreeMap<Module, &'a Source> {
    let module = |source: &'a Source| {
        let path = source.path.strip_prefix(folder)?.strip_suffix(".rs")?;
        let parts: Module = path.split('/').map(str::to_owned).collect();
        (path != "lib" && !parts.iter().any(|part| part == "tests")).then_some((parts, source))
    };
    sources.iter().filter_map(module).collect()
}

/// Returns whether one of them is an ancestor of the other.
fn is_kin(one: &Module, other: &Module) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

fn reached<'a>(imports: &BTreeMap<&'a Module, BTreeSet<&'a Module>>, from: &Module) -> BTreeSet<&'a Module> {
    let mut seen = BTreeSet::new();
    let mut open: Vec<&'a Module> = imports.get(from).into_iter().flatten().copied().collect();
    while let Some(module) = open.pop() {
        if seen.insert(module) {
            open.extend(imports.get(module).into_iter().flatten());
        }
    }
    seen
}

/// Returns all paths that begin with `crate::`, `super::` or `self::`, as paths from the crate
/// root.
fn named(code: &str, module: &Module) -> Vec<Module> {
    let code = code.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let inner = inline_modules(code);
    let mut found = Vec::new();
    for start in ["crate::", "super::", "self::"] {
        for (at, _) in code.match_indices(start) {
            if code[..at].ends_with(|c| is_part_of_word(c) || c == ':') {
                continue;
            }
            let mut here = module.clone();
            here.extend(inner.iter().filter(|span| span.contains(&at)).map(|_| "?".to_owned()));
            for path in paths(&code[at..]) {
                let mut base = here.clone();
                let mut rest = path.as_slice();
                if rest.first().is_some_and(|first| first == "crate") {
                    base.clear();
                }
                while let Some((first, others)) = rest.split_first()
                    && matches!(first.as_str(), "crate" | "self" | "super")
                {
                    if first == "super" {
                        base.pop();
                    }
                    rest = others;
                }
                base.extend_from_slice(rest);
                found.push(base);
            }
        }
    }
    found
}

/// Returns the spans of inline modules.
fn inline_modules(code: &str) -> Vec<std::ops::Range<usize>> {
    let mut spans = Vec::new();
    for (at, _) in code.match_indices("mod ") {
        let rest = &code[at + 4..];
        let name = rest.find(|c| !is_part_of_word(c)).unwrap_or(rest.len());
        if code[..at].ends_with(is_part_of_word) || !rest[name..].starts_with(" {") {
            continue;
        }
        let mut depth = 0_usize;
        let end = rest.char_indices().find_map(|(index, c)| {
            match c {
                '{' => depth += 1,
                '}' if depth == 1 => return Some(at + 4 + index),
                '}' => depth -= 1,
                _ => {}
            }
            None
        });
        spans.push(at..end.unwrap_or(code.len()));
    }
    spans
}

/// Returns the circular imports among files with these contents.
fn found(files: &[(&str, &str)]) -> Vec<String> {
    let lib = Source::new("cache-core/src/lib.rs", "pub use a::A;\n");
    let files = files.iter().map(|(path, text)| Source::new(&format!("cache-core/src/{path}.rs"), text));
    let sources: Vec<Source> = std::iter::once(lib).chain(files).collect();
    check(&sources, "cache-core/src/").iter().map(ToString::to_string).collect()
}

#[test]
fn circular_imports_are_found_in_every_notation() {
    let both = [
        "cache-core/src/a.rs:1: `a` uses `b`, which leads back to it",
        "cache-core/src/b.rs:1: `b` uses `a`, which leads back to it",
    ];
    assert_eq!(found(&[("a", "use crate::b::B;"), ("b", "use crate::a::A;")]), both);
    assert_eq!(found(&[("a", "fn f() { crate::b::f() }"), ("b", "use super::{a::A};")]), both);
    assert_eq!(found(&[("a", "use crate::{b::{self, B}};"), ("b", "fn f(a: crate::A) {}")]), both);
    let longer = found(&[("a", "use crate::b::B;"), ("b", "use crate::c::C;"), ("c", "use crate::a::A;")]);
    assert_eq!(longer.len(), 3, "{longer:?}");
    let siblings = found(&[("a/x", "use super::y::Y;"), ("a/y", "use super::x::X;"), ("a", "")]);
    assert_eq!(siblings.len(), 2, "{siblings:?}");
}

#[test]
fn a_module_and_its_children_are_no_circle() {
    assert!(found(&[("a", "use self::x::X;"), ("a/x", "use super::A;\nuse crate::b::B;"), ("b", "")]).is_empty());
    // In an inner module, `super` is the file itself.
    assert!(found(&[("a", "use crate::b::B;"), ("b", "mod c {\n    use super::A;\n}")]).is_empty());
    assert!(
        found(&[("a", "use crate::b::B;"), ("b", "#[cfg(test)]\nmod tests {\n    use crate::a::A;\n}")]).is_empty()
    );
}
