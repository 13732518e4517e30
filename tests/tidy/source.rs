//! The Rust files of the workspace, with comments and literals blanked.

use std::fs;
use std::path::{Path, PathBuf};

pub(super) struct Source {
    /// The path from the workspace's root, with `/`.
    pub(super) path: String,
    pub(super) text: String,
    /// The text with comments as blanks and literals as `_`, in the same lines.
    pub(super) code: String,
}

impl Source {
    pub(super) fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned(), code: code(text) }
    }

    pub(super) fn rows_of_code(&self) -> usize {
        self.code.lines().filter(|line| !line.trim().is_empty()).count()
    }
}

/// Returns every file of the workspace.
pub(super) fn all() -> Vec<Source> {
    below("")
}

/// Returns every file below a folder, sorted by path.
pub(super) fn below(folder: &str) -> Vec<Source> {
    let mut paths = Vec::new();
    collect(&root().join(folder), ".rs", &mut paths);
    assert!(!paths.is_empty(), "no Rust file in {folder:?}");
    paths.sort();
    let source = |path: &PathBuf| {
        let name = path.strip_prefix(root()).expect("below the root").to_str().expect("a name in UTF-8");
        Source::new(&name.replace('\\', "/"), &fs::read_to_string(path).expect("it was just listed"))
    };
    paths.iter().map(source).collect()
}

/// Returns the text of any file of the workspace.
pub(super) fn text(path: &str) -> Option<String> {
    fs::read_to_string(root().join(path)).ok()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace")
}

/// Returns every Markdown page of the workspace with its path, sorted.
pub(super) fn pages() -> Vec<(String, String)> {
    let mut paths = Vec::new();
    collect(root(), ".md", &mut paths);
    collect(&root().join(".github"), ".md", &mut paths);
    paths.sort();
    let page = |path: &PathBuf| {
        let name = path.strip_prefix(root()).expect("below the root").to_str().expect("a name in UTF-8");
        (name.replace('\\', "/"), fs::read_to_string(path).expect("it was just listed"))
    };
    paths.iter().map(page).collect()
}

fn collect(folder: &Path, ending: &str, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() {
            if !name.starts_with('.') && !["target", "node_modules"].contains(&name) {
                collect(&path, ending, paths);
            }
        } else if name.ends_with(ending) {
            paths.push(path);
        }
    }
}

/// Returns the words of a line of code, each with the text after it.
pub(super) fn words(line: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = line;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches(|c| !is_part_of_word(c));
        let end = rest.find(|c| !is_part_of_word(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        rest = after;
        (!word.is_empty()).then_some((word, after))
    })
}

pub(super) fn is_part_of_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

fn code(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let before = at.checked_sub(1).map(|before| chars[before]);
        let (end, blank) = if let Some(length) = comment(&chars[at..]) {
            (at + length, Some(' '))
        } else if let Some(length) = literal(&chars[at..], before) {
            (at + length, Some('_'))
        } else {
            (at + 1, None)
        };
        let end = end.min(chars.len());
        code.extend(chars[at..end].iter().map(|c| if c.is_whitespace() { *c } else { blank.unwrap_or(*c) }));
        at = end;
    }
    code
}

/// Returns the length of the comment that begins here.
fn comment(rest: &[char]) -> Option<usize> {
    match rest {
        ['/', '/', ..] => Some(rest.iter().position(|c| *c == '\n').unwrap_or(rest.len())),
        ['/', '*', ..] => {
            let (mut depth, mut at) = (0_usize, 0);
            while at < rest.len() {
                match rest[at..] {
                    ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
                    ['*', '/', ..] => (depth, at) = (depth - 1, at + 2),
                    _ => at += 1,
                }
                if depth == 0 {
                    break;
                }
            }
            Some(at)
        }
        _ => None,
    }
}

/// Returns the length of the string or character literal that begins here.
fn literal(rest: &[char], before: Option<char>) -> Option<usize> {
    match rest {
        ['"', ..] => Some(until_quote(rest, '"')),
        ['\'', '\\', ..] => Some(until_quote(rest, '\'')),
        // Otherwise it is a lifetime.
        ['\'', _, '\'', ..] => Some(3),
        ['r', after @ ..] if before.is_none_or(|c| !is_part_of_word(c) || "bc".contains(c)) => {
            let hashes = after.iter().take_while(|c| **c == '#').count();
            if after.get(hashes) != Some(&'"') {
                return None;
            }
            let mut end = vec!['"'];
            end.resize(hashes + 1, '#');
            let open = 1 + hashes + 1;
            let length = rest[open..].windows(end.len()).position(|window| window == end);
            Some(length.map_or(rest.len(), |length| open + length + end.len()))
        }
        _ => None,
    }
}

fn until_quote(rest: &[char], quote: char) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

#[test]
fn comments_and_literals_are_blanked_in_place() {
    assert_eq!(code("a // b\nc /* d\n/* e */ */ f"), "a     \nc     \n           f");
    assert_eq!(code(r#"a("b\"c", 'd', '\'', &'e str)"#), "a(______, ___, ____, &'e str)");
    assert_eq!(code("r#\"a \"b\"# br\"\\\" r#type \"\n\""), "____ ____ b____ r#type _\n_");
}
