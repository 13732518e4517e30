//! Checks that the topics a user needs before production are on a page that the README links to.

use super::Finding;

/// A heading, its page, and the required content below it.
struct Topic {
    page: &'static str,
    heading: &'static str,
    /// An example or a table, and the words that a reader searches for.
    has: &'static [&'static str],
}

const TOPICS: &[Topic] = &[
    Topic {
        page: "single-flight",
        heading: "## What a run sees",
        has: &["task_local!", "`tracing` span", "transaction", "```rust"],
    },
    Topic { page: "single-flight", heading: "## Recursion", has: &["Box::pin(", "```rust"] },
    Topic {
        page: "failure",
        heading: "## Eviction policies of Redis",
        has: &["allkeys-lru", "allkeys-lfu", "allkeys-random", "volatile-lru", "volatile-ttl", "noeviction"],
    },
    Topic {
        page: "fence",
        heading: "## `#[invalidates]`",
        has: &[
            "**Inside a transaction that another function commits.**",
            "stores the old row for a whole ttl",
            "raise an explicit fence around the transaction",
        ],
    },
    Topic { page: "acl", heading: "## A line to copy", has: &["```text\nuser ", "+evalsha", "+client|tracking"] },
    Topic { page: "sessions", heading: "## Shared proxies", has: &["`Vary`", "`Cache-Control`", "`private`", "nginx"] },
    Topic { page: "values-and-ttl", heading: "### Secrets in values", has: &["NotCacheable", "```rust"] },
    Topic { page: "testing", heading: "# Testing your code", has: &["#[tokio::test]", "Clock::manual()"] },
    Topic { page: "production", heading: "## What Redis may see", has: &["NotCacheable", "skip(token)"] },
    Topic { page: "production", heading: "## Logging in", has: &["`Retry-After`", "X-Forwarded-For"] },
    Topic { page: "production", heading: "## Limits of a server", has: &["header_read_timeout", "TimeoutLayer"] },
];

/// The page that links to all others.
const OVERVIEW: &str = "production";

/// Finds topics that are missing or that no link leads to.
pub(super) fn check(page: impl Fn(&str) -> Option<String>, readme: &str) -> Vec<Finding> {
    let overview = page(OVERVIEW).unwrap_or_default();
    TOPICS.iter().filter_map(|topic| missing(topic, page(topic.page), readme, &overview)).collect()
}

fn missing(topic: &Topic, text: Option<String>, readme: &str, overview: &str) -> Option<Finding> {
    let Topic { page, heading, has } = topic;
    let path = format!("cache-core/docs/{page}.md");
    let Some(text) = text else { return Some(Finding::new(&path, 1, "there is no such page")) };
    let Some((line, section)) = section(&text, heading) else {
        return Some(Finding::new(&path, 1, format!("no heading `{heading}`")));
    };
    if let Some(word) = has.iter().find(|word| !section.contains(**word)) {
        return Some(Finding::new(&path, line, format!("nothing of `{word}` below `{heading}`")));
    }
    // Both the README's table and the overview must link to the page.
    if !readme.contains(&format!("({path})")) {
        return Some(Finding::new("README.md", 1, format!("no link to `{page}`")));
    }
    if *page == OVERVIEW || overview.contains(&format!("]({page}.md)")) {
        return None;
    }
    Some(Finding::new(&format!("cache-core/docs/{OVERVIEW}.md"), 1, format!("no link to `{page}`")))
}

/// Returns the text below a heading, up to the next heading of its level or above, and the
/// heading's line.
fn section<'a>(text: &'a str, heading: &str) -> Option<(usize, &'a str)> {
    let level = heading.bytes().take_while(|byte| *byte == b'#').count();
    let mut lines = Lines::of(text);
    let (line, start) = lines
        .by_ref()
        .find(|(_, _, line)| {
            line.strip_prefix(heading).is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric()))
        })
        .map(|(number, at, line)| (number, at + line.len()))?;
    let is_end = |line: &str| {
        let hashes = line.bytes().take_while(|byte| *byte == b'#').count();
        (1..=level).contains(&hashes) && line[hashes..].starts_with(' ')
    };
    let end = lines.find(|(_, _, line)| is_end(line)).map_or(text.len(), |(_, at, _)| at);
    Some((line, &text[start..end]))
}

/// The lines outside of code blocks, with their numbers and offsets.
struct Lines<'a> {
    text: &'a str,
    at: usize,
    number: usize,
    in_code: bool,
}

impl<'a> Lines<'a> {
    fn of(text: &'a str) -> Self {
        Self { text, at: 0, number: 0, in_code: false }
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = (usize, usize, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let rest = self.text.get(self.at..).filter(|rest| !rest.is_empty())?;
            let line = rest.lines().next()?;
            let at = self.at;
            self.at += rest.split_inclusive('\n').next()?.len();
            self.number += 1;
            if line.starts_with("```") {
                self.in_code = !self.in_code;
            } else if !self.in_code {
                return Some((self.number, at, line));
            }
        }
    }
}

#[test]
fn a_topic_without_its_heading_its_words_or_a_way_to_it_is_found() {
    let topic = Topic { page: "acl", heading: "## A line", has: &["```text\nuser "] };
    let good = "# Rights\n\n## A line to copy\n\n```text\nuser shop on\n# no heading\n```\n\n## Limits\n";
    let (readme, overview) = ("| rights | [acl](cache-core/docs/acl.md) |", "see [acl](acl.md)");
    let found = |text: Option<&str>, readme: &str, overview: &str| {
        missing(&topic, text.map(str::to_owned), readme, overview).map(|finding| finding.to_string())
    };
    assert_eq!(found(Some(good), readme, overview), None);
    for (text, finding) in [
        (None, "cache-core/docs/acl.md:1: there is no such page"),
        (Some("# Rights\n"), "cache-core/docs/acl.md:1: no heading `## A line`"),
        (Some("```text\n## A line\n```\n"), "cache-core/docs/acl.md:1: no heading `## A line`"),
        (
            Some("# Rights\n\n## A line\n\n# Else\n```text\nuser \n```"),
            "cache-core/docs/acl.md:3: nothing of ````text\nuser ` below `## A line`",
        ),
    ] {
        assert_eq!(found(text, readme, overview).as_deref(), Some(finding), "{text:?}");
    }
    assert_eq!(found(Some(good), "", overview).as_deref(), Some("README.md:1: no link to `acl`"));
    assert_eq!(found(Some(good), readme, "").as_deref(), Some("cache-core/docs/production.md:1: no link to `acl`"));
}
