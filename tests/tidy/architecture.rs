//! Checks that the architecture page matches the sources: the layers of its table, and the items
//! named in its pictures.

use super::Finding;
use super::source::{Source, is_part_of_word};

pub(super) const PAGE: &str = "cache-core/docs/architecture.md";

/// Compares the rows of the table with `rows`, lowest layer first.
pub(super) fn check_layers(page: &str, rows: &[&[&str]]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let lines: Vec<(usize, Vec<&str>)> = page.lines().enumerate().filter_map(|(at, line)| row(line, at + 1)).collect();
    if lines.len() != rows.len() {
        findings.push(Finding::new(PAGE, 1, format!("{} layers, the test has {}", lines.len(), rows.len())));
    }
    for ((line, named), row) in lines.iter().zip(rows) {
        if named != row {
            findings.push(Finding::new(PAGE, *line, format!("modules {named:?}, the test has {row:?}")));
        }
    }
    findings
}

/// Returns the modules of a row such as ``| 3 | `observe` | .. |``, with its line number.
fn row(line: &str, at: usize) -> Option<(usize, Vec<&str>)> {
    let mut cells = line.strip_prefix("| ")?.split(" | ");
    cells.next()?.parse::<usize>().ok()?;
    Some((at, cells.next()?.split('`').skip(1).step_by(2).collect()))
}

/// Finds names in `Type::item` and `module::item` that occur in text blocks and that no file
/// declares.
pub(super) fn check_pictures(page: &str, sources: &[Source]) -> Vec<Finding> {
    let declares = |name: &str| {
        let kinds = ["fn ", "struct ", "enum ", "trait ", "mod ", "type "];
        sources.iter().any(|source| {
            let file = source.path.strip_suffix(".rs").unwrap_or(&source.path);
            file.ends_with(&format!("/{name}"))
                || kinds.iter().any(|kind| {
                    let declared = format!("{kind}{name}");
                    let ends = |at: usize| !source.code[at + declared.len()..].starts_with(is_part_of_word);
                    source.code.match_indices(&declared).any(|(at, _)| ends(at))
                })
        })
    };
    let mut findings = Vec::new();
    let mut is_picture = false;
    for (at, line) in page.lines().enumerate() {
        if line.starts_with("```") {
            is_picture = line == "```text";
        }
        if !is_picture {
            continue;
        }
        for (middle, _) in line.match_indices("::") {
            let before = line[..middle].char_indices().rev().take_while(|(_, c)| is_part_of_word(*c));
            let start = before.last().map_or(middle, |(at, _)| at);
            let rest = &line[middle + 2..];
            let end = rest.find(|c| !is_part_of_word(c)).unwrap_or(rest.len());
            for name in [&line[start..middle], &rest[..end]] {
                if !name.is_empty() && !declares(name) {
                    findings.push(Finding::new(PAGE, at + 1, format!("nothing is called `{name}`")));
                }
            }
        }
    }
    findings
}

#[test]
fn a_layer_or_a_name_that_is_not_there_is_found() {
    let rows: &[&[&str]] = &[&["clock", "sync"], &["store"]];
    let page = "| row | modules | |\n|---|---|---|\n| 1 | `clock` `sync` | time |\n| 2 | `store` | bytes, `x` |\n";
    assert!(check_layers(page, rows).is_empty());
    assert_eq!(check_layers(&page.replace("`sync`", "`sink`"), rows).len(), 1);
    assert_eq!(check_layers(&page.replace("| 2 |", "| two |"), rows).len(), 1);

    let sources = [Source::new("cache-core/src/call/leader.rs", "struct Batch;\nfn lead() {}")];
    let found = |text: &str| check_pictures(text, &sources).iter().map(ToString::to_string).collect::<Vec<_>>();
    assert!(found("```text\n lead::lead, Batch::lead\n```\nin prose: Other::thing").is_empty());
    assert_eq!(found("```text\n Batch::leads\n```"), ["cache-core/docs/architecture.md:2: nothing is called `leads`"]);
    assert_eq!(found("```text\nInner::lead"), ["cache-core/docs/architecture.md:2: nothing is called `Inner`"]);
}
