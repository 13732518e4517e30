//! Checks that the page `options` names only options that the macro accepts.

use std::collections::BTreeSet;

use super::Finding;
use super::source::{Source, is_part_of_word};

pub(super) const PAGE: &str = "cache-core/docs/options.md";

/// Returns the options in the first column of tables headed `option` that the macro does not know.
pub(super) fn check(page: &str, macros: &[Source]) -> Vec<Finding> {
    let accepted: BTreeSet<&str> = macros.iter().flat_map(accepted).collect();
    if accepted.is_empty() {
        return vec![Finding::new("cache-macros/src", 1, "no `const OPTIONS` that lists the options")];
    }
    let mut findings = Vec::new();
    let mut in_table = false;
    for (index, line) in page.lines().enumerate() {
        let first_cell = line.strip_prefix('|').and_then(|row| row.split('|').next()).map(str::trim);
        let Some(cell) = first_cell else {
            in_table = false;
            continue;
        };
        in_table |= cell.eq_ignore_ascii_case("option");
        // Every second part is between backticks.
        let spans = cell.split('`').skip(1).step_by(2).filter(|_| in_table);
        let names = spans.map(|span| span.split(|c| !is_part_of_word(c)).next().unwrap_or_default());
        for name in names.filter(|name| !name.is_empty() && !accepted.contains(name)) {
            findings.push(Finding::new(PAGE, index + 1, format!("the macro accepts no option `{name}`")));
        }
    }
    findings
}

/// Returns the names in `const OPTIONS: .. = [("name", ..), ..];`.
fn accepted(source: &Source) -> Vec<&str> {
    let Some((_, list)) = source.text.split_once("const OPTIONS") else { return Vec::new() };
    let list = list.split_once("];").map_or(list, |(list, _)| list);
    list.split("(\"").skip(1).filter_map(|entry| entry.split('"').next()).collect()
}

#[test]
fn an_option_that_the_macro_does_not_accept_is_found() {
    let list = "const OPTIONS: &[(&str, &str)] = &[\n    (\"ttl\", \"ttl = 1\"),\n    (\"skip\", \"skip(db)\"),\n];";
    let macros = [Source::new("cache-macros/src/args.rs", list)];
    let page = "| Option | Meaning |\n|---|---|\n| `ttl = 60`, `tll` | `x` |\n| `skip(..)` / `#[x]` | |\n\n| `other` |";
    assert_eq!(check(page, &macros), [Finding::new(PAGE, 3, "the macro accepts no option `tll`")]);
    assert_eq!(check(page, &[]).len(), 1);
}
