//! Rules for the sources that no compiler checks. Each rule has a test with bad input that it must
//! find.
//!
//! A rule is a function from a [`Source`] to [`Finding`]s. The first tests below run them over the
//! workspace.

mod architecture;
mod blog;
mod circles;
mod columns;
mod layers;
mod options;
mod promises;
mod run;
mod source;
mod topics;

use std::fmt;
use std::io::Write as _;

use source::{Source, words};

/// The lines of code (without blank lines and comments) a file should have at most, and the hard
/// limit.
const LONG: usize = 450;
const TOO_LONG: usize = 500;

/// The place and description of a broken rule.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    path: String,
    line: usize,
    what: String,
}

impl Finding {
    fn new(path: &str, line: usize, what: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, what: what.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

#[track_caller]
fn assert_none(findings: &[Finding]) {
    let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert!(lines.is_empty(), "{} found:\n{}\n", lines.len(), lines.join("\n"));
}

#[test]
fn modules_use_only_layers_below_their_own() {
    assert_none(&layers::check(&source::below("cache-core/src")));
}

#[test]
fn the_page_of_the_architecture_names_what_is_there() {
    let page = source::text(architecture::PAGE).unwrap_or_default();
    assert_none(&architecture::check_layers(&page, layers::ROWS));
    assert_none(&architecture::check_pictures(&page, &source::below("cache-core/src")));
}

#[test]
fn comments_and_pages_have_at_most_a_hundred_columns() {
    // The lines of fixtures are quoted by the compiler.
    let is_fixture = |path: &str| path.starts_with("tests/ui/") || path.contains("/golden/");
    let sources: Vec<Source> = source::all().into_iter().filter(|source| !is_fixture(&source.path)).collect();
    let of_pages = source::pages().into_iter().flat_map(|(path, page)| columns::of_page(&path, &page));
    assert_none(&sources.iter().flat_map(columns::of_comments).chain(of_pages).collect::<Vec<_>>());
}

#[test]
fn no_two_files_import_each_other() {
    for folder in ["cache-core/src/", "cache-macros/src/"] {
        assert_none(&circles::check(&source::below(folder), folder));
    }
}

#[test]
fn claimed_promises_exist() {
    let page = source::text(promises::PAGE).unwrap_or_default();
    assert_none(&promises::misnumbered(&page));
    assert_none(&promises::unknown(&promises::of_page(&page), &source::all()));
}

#[test]
fn promises_of_what_is_built_are_tested() {
    let promises = promises::of_page(&source::text(promises::PAGE).unwrap_or_default());
    assert!(!promises.is_empty());
    assert_none(&promises::untested(&promises, &source::all()));
}

#[test]
fn the_page_of_options_names_only_options_that_the_macro_accepts() {
    let page = source::text(options::PAGE).unwrap_or_default();
    assert_none(&options::check(&page, &source::below("cache-macros/src")));
}

#[test]
fn what_users_must_know_is_two_clicks_from_the_readme() {
    let page = |name: &str| source::text(&format!("cache-core/docs/{name}.md"));
    assert_none(&topics::check(page, &source::text("README.md").unwrap_or_default()));
}

#[test]
fn files_are_short() {
    for source in source::all() {
        let rows = source.rows_of_code();
        if rows > LONG && rows <= TOO_LONG {
            // `eprintln!` would be captured in a passing test.
            let _written = writeln!(std::io::stderr(), "note: {}: {rows} rows of code; split it soon", source.path);
        }
    }
    // Golden files are generated.
    let written = |source: &&Source| !source.path.contains("/golden/");
    assert_none(&source::all().iter().filter(written).filter_map(too_long).collect::<Vec<_>>());
}

#[test]
fn nothing_forbidden_is_written() {
    assert_none(&source::all().iter().flat_map(forbidden).collect::<Vec<_>>());
}

fn too_long(source: &Source) -> Option<Finding> {
    let rows = source.rows_of_code();
    let what = format!("{rows} rows of code, {TOO_LONG} are the most: split it where a second concept appears");
    (rows > TOO_LONG).then(|| Finding::new(&source.path, 1, what))
}

fn forbidden(source: &Source) -> Vec<Finding> {
    let path = source.path.as_str();
    let mut findings = Vec::new();
    if path.ends_with("/mod.rs") {
        findings.push(Finding::new(path, 1, "write `foo.rs` and `foo/`, not `foo/mod.rs`"));
    }
    // Fixtures show mistakes, and their bodies are never run.
    let fixture = path.starts_with("tests/ui/");
    // The programs below `tests/peers` measure: there, a compute takes time.
    let may_sleep = ["tests/support/", "tests/peers/"].iter().any(|folder| path.starts_with(folder));
    let waits = path.starts_with("tests/") && !may_sleep;
    for (index, line) in source.code.lines().enumerate() {
        let mut find = |what: &str| findings.push(Finding::new(path, index + 1, what));
        for (word, rest) in words(line) {
            match word {
                "unsafe" if !fixture => find("no `unsafe`"),
                "todo" | "unimplemented" if rest.starts_with('!') && !fixture => find("not finished"),
                "sleep" | "sleep_until" if rest.trim_start().starts_with('(') && waits => {
                    find("a test waits for what happens (`support::eventually`), never for time");
                }
                _ => {}
            }
        }
        if line.replace(' ', "").contains("#[ignore") {
            find("an ignored test proves nothing");
        }
    }
    findings
}

/// Returns the lines in which `rule` finds something.
fn found(rule: fn(&Source) -> Vec<Finding>, path: &str, text: &str) -> Vec<usize> {
    rule(&Source::new(path, text)).iter().map(|finding| finding.line).collect()
}

#[test]
fn forbidden_words_are_found() {
    let path = "cache-core/src/key.rs";
    assert_eq!(found(forbidden, path, "fn f() {\n    unsafe { g() }\n}"), [2]);
    assert_eq!(found(forbidden, path, "todo!()\nunimplemented!(\"later\")"), [1, 2]);
    assert_eq!(found(forbidden, path, "#[test]\n#[ignore = \"slow\"]\nfn f() {}"), [2]);
    assert_eq!(found(forbidden, "cache-core/src/key/mod.rs", ""), [1]);
}

#[test]
fn forbidden_words_are_allowed_in_comments_text_and_longer_words() {
    let text = "// unsafe todo!()\n/* unsafe /* nested */ unsafe */ \"unsafe\" r#\"a \" unsafe\"# unsafe_code 'u'";
    assert!(found(forbidden, "cache-core/src/key.rs", text).is_empty());
    assert!(found(forbidden, "tests/ui/unknown_option.rs", "unsafe fn f() { todo!() }").is_empty());
}

#[test]
fn sleeping_tests_are_found() {
    let text = "std::thread::sleep(SHORT);\ntokio::time::sleep (SHORT).await;\na_waiter_sleeps_on();\nuse time::sleep;";
    assert_eq!(found(forbidden, "tests/faults/redis_down.rs", text), [1, 2]);
    assert!(found(forbidden, "tests/support/wait.rs", text).is_empty());
    assert!(found(forbidden, "tests/peers/src/bin/table/cold.rs", text).is_empty());
    assert!(found(forbidden, "cache-core/src/clock.rs", text).is_empty());
}

#[test]
fn long_files_are_found() {
    let long = |rows| Source::new("cache-core/src/key.rs", &"let a = \"\n// text\";\n\n// no code\n".repeat(rows / 2));
    assert_eq!(too_long(&long(TOO_LONG)), None);
    assert!(too_long(&long(TOO_LONG + 2)).is_some());
}
