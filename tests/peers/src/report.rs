//! Writes results as Markdown, and replaces the generated parts of a page.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use crate::measure::{Results, Spread};

/// Returns one table with the results of several contests.
pub fn table(results: &[Results]) -> String {
    let mut text = String::from(
        "| what | contender | median | min to max | ratio | CPU, client | CPU, Redis | note |\n|---|---|---|---|---|---|---|---|\n",
    );
    for contest in results {
        for (at, line) in contest.lines.iter().enumerate() {
            if line.time.median.is_nan() {
                let _infallible = writeln!(text, "|  | {} | | | | | | {} |", line.name, line.note);
                continue;
            }
            let title = if at == 0 { contest.title.as_str() } else { "" };
            let Spread { median, min, max } = line.time;
            let server = line.server.filter(|server| *server > 0.0).map_or_else(String::new, time);
            let _infallible = writeln!(
                text,
                "| {title} | {} | {} | {} to {} | x{:.2} | {} | {server} | {} |",
                line.name,
                time(median),
                time(min),
                time(max),
                line.ratio.median,
                time(line.client),
                line.note,
            );
        }
    }
    text
}

/// Returns a time in a unit in which it is short.
pub fn time(nanoseconds: f64) -> String {
    let (value, unit) = match nanoseconds {
        small if small < 1e3 => (small, "ns"),
        middle if middle < 1e6 => (middle / 1e3, "us"),
        large => (large / 1e6, "ms"),
    };
    let digits = if value < 10.0 {
        2
    } else if value < 100.0 {
        1
    } else {
        0
    };
    format!("{value:.digits$} {unit}")
}

/// Wraps prose into lines of at most 100 columns.
pub fn wrap(text: &str) -> String {
    let (mut lines, mut line) = (String::new(), String::new());
    for word in text.split_whitespace() {
        if line.len() + 1 + word.len() > 100 {
            lines.push_str(&line);
            lines.push('\n');
            line.clear();
        } else if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines + &line + "\n"
}

/// Returns the folder of the documents.
pub fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cache-core/docs")
}

/// Replaces what is between the two comments `<!-- name -->` and `<!-- end of name -->` of a page.
pub fn replace(page: &Path, name: &str, text: &str) {
    let old = fs::read_to_string(page).expect("the page exists");
    let (start, end) = (format!("<!-- {name} -->"), format!("<!-- end of {name} -->"));
    let (before, rest) = old.split_once(&start).expect("the page has this part");
    let (_, after) = rest.split_once(&end).expect("the part has an end");
    fs::write(page, format!("{before}{start}\n\n{}\n\n{end}{after}", text.trim())).expect("the page can be written");
}
