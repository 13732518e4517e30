//! Comments and prose have at most 100 columns. Code is formatted by rustfmt, tables and code
//! blocks are as wide as they need to be.

use super::Finding;
use super::source::Source;

const MOST: usize = 100;

/// Finds comment lines of a Rust file that are too wide.
pub(super) fn of_comments(source: &Source) -> Vec<Finding> {
    let mut is_block = false;
    let wide = source.text.lines().enumerate().filter(|(_, line)| {
        let Some(comment) = line.trim_start().strip_prefix("//") else {
            is_block = false;
            return false;
        };
        let comment = comment.trim_start_matches(['/', '!']).trim_start();
        if comment.starts_with("```") {
            is_block = !is_block;
        }
        !is_block && !comment.starts_with('|') && is_wide(line)
    });
    wide.map(|(at, line)| finding(&source.path, at, line)).collect()
}

/// Finds lines of prose of a Markdown page that are too wide.
pub(super) fn of_page(path: &str, page: &str) -> Vec<Finding> {
    let mut is_block = false;
    let wide = page.lines().enumerate().filter(|(_, line)| {
        if line.trim_start().starts_with("```") {
            is_block = !is_block;
        }
        // Four blanks: a block of code.
        !is_block && !line.starts_with('|') && !line.starts_with("    ") && is_wide(line)
    });
    wide.map(|(at, line)| finding(path, at, line)).collect()
}

fn is_wide(line: &str) -> bool {
    line.chars().count() > MOST
}

fn finding(path: &str, at: usize, line: &str) -> Finding {
    Finding::new(path, at + 1, format!("{} columns, {MOST} are allowed", line.chars().count()))
}

#[test]
fn a_wide_comment_or_line_of_prose_is_found_and_code_and_tables_are_not() {
    let (wide, fits) = ("x".repeat(98), "x".repeat(97));
    let found =
        |text: &str| of_comments(&Source::new("a.rs", text)).iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(found(&format!("// {wide}\n// {fits}")), ["a.rs:1: 101 columns, 100 are allowed"]);
    assert_eq!(found(&format!("//! {fits}\n/// {fits}")).len(), 2);
    assert!(found(&format!("/// ```\n/// {wide}\n/// ```\nlet long = {wide}{wide};")).is_empty());
    assert_eq!(found(&format!("/// ```\n/// {wide}\n/// ```\n// {wide}")).len(), 1);

    let found = |text: &str| of_page("a.md", text).iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(found(&format!("{wide}xxx\n{fits}xxx")), ["a.md:1: 101 columns, 100 are allowed"]);
    assert!(found(&format!("| {wide} |\n```text\n{wide}{wide}\n```\n    {wide}")).is_empty());
}
