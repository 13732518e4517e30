//! Markdown to HTML that is safe to show.
//!
//! Invariant: the output contains only tags and URL schemes that are made here. HTML in a post is
//! shown as text.

use pulldown_cmark::{CowStr, Event, LinkType, Options, Parser, Tag, TagEnd, html};

/// Renders a post's body as HTML.
pub(crate) fn to_html(markdown: &str) -> String {
    let events = Parser::new_ext(markdown, options()).map(|event| match event {
        Event::Html(text) | Event::InlineHtml(text) => Event::Text(text),
        Event::Start(Tag::Link { link_type, dest_url, title, id }) => {
            Event::Start(Tag::Link { link_type, dest_url: safe_url(link_type, dest_url), title, id })
        }
        Event::Start(Tag::Image { link_type, dest_url, title, id }) => {
            Event::Start(Tag::Image { link_type, dest_url: safe_url(link_type, dest_url), title, id })
        }
        // The page has its own first heading, so the headings of a post begin one level lower.
        Event::Start(Tag::Heading { level, .. }) => {
            Event::Start(Tag::Heading { level: lower(level), id: None, classes: Vec::new(), attrs: Vec::new() })
        }
        Event::End(TagEnd::Heading(level)) => Event::End(TagEnd::Heading(lower(level))),
        event => event,
    });
    let mut out = String::with_capacity(markdown.len().saturating_mul(3) / 2);
    html::push_html(&mut out, events);
    out
}

/// Returns the first `chars` characters of the text, cut at a word.
pub(crate) fn excerpt(markdown: &str, chars: usize) -> String {
    let mut text = String::new();
    let mut in_heading = false;
    for event in Parser::new_ext(markdown, options()) {
        match event {
            Event::Start(Tag::Heading { .. } | Tag::CodeBlock(_)) => in_heading = true,
            Event::End(TagEnd::Heading(_) | TagEnd::CodeBlock) => in_heading = false,
            Event::Text(part) | Event::Code(part) | Event::Html(part) | Event::InlineHtml(part) if !in_heading => {
                text.push_str(&part);
            }
            Event::SoftBreak | Event::HardBreak | Event::End(_) => text.push(' '),
            _ => {}
        }
        // A character has at most four bytes, so this is enough text.
        if text.len() > chars.saturating_mul(4) {
            break;
        }
    }
    cut(&text.split_whitespace().collect::<Vec<_>>().join(" "), chars)
}

fn cut(text: &str, chars: usize) -> String {
    let Some((end, _)) = text.char_indices().nth(chars) else { return text.to_owned() };
    let head = text.get(..end).unwrap_or(text);
    let head = head.rsplit_once(' ').map_or(head, |(head, _)| head);
    format!("{}…", head.trim_end_matches([',', ';', ':', '.', '-', '–', ' ']))
}

fn options() -> Options {
    Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_SMART_PUNCTUATION
}

/// Keeps web and mail addresses and addresses on this site; replaces anything else (`javascript:`,
/// `data:`) with `#`.
fn safe_url(link_type: LinkType, url: CowStr<'_>) -> CowStr<'_> {
    // `<me@example.org>` has no scheme here; the renderer adds it.
    if link_type == LinkType::Email {
        return url;
    }
    // Browsers ignore control characters and spaces before and inside a scheme.
    let compact: String = url.chars().filter(|c| !c.is_control() && !c.is_whitespace()).collect();
    let scheme =
        compact.split(['/', '?', '#']).next().and_then(|start| start.split_once(':')).map(|(scheme, _)| scheme);
    match scheme.map(str::to_ascii_lowercase).as_deref() {
        None | Some("http" | "https" | "mailto") => url,
        Some(_) => CowStr::Borrowed("#"),
    }
}

fn lower(level: pulldown_cmark::HeadingLevel) -> pulldown_cmark::HeadingLevel {
    use pulldown_cmark::HeadingLevel::{H1, H2, H3, H4, H5, H6};
    match level {
        H1 => H2,
        H2 => H3,
        H3 => H4,
        H4 => H5,
        H5 | H6 => H6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn html_in_a_post_is_text() {
        let html = to_html("Hi <script>alert(1)</script>\n\n<img src=x onerror=alert(1)>\n\n<div>\n");
        assert!(!html.contains("<script") && !html.contains("<img") && !html.contains("<div"), "{html}");
        assert!(html.contains("&lt;script&gt;"), "{html}");
    }

    #[test]
    fn only_web_links_stay() {
        for bad in [
            "javascript:alert(1)",
            "JaVaScRiPt:alert(1)",
            "data:text/html,x",
            "&#106;avascript:alert(1)",
            "\u{1}javascript:x",
        ] {
            let html = to_html(&format!("[x]({bad}) ![x]({bad}) <{bad}>"));
            assert!(!html.to_lowercase().contains("=\"javascript") && !html.contains("=\"data"), "{bad}: {html}");
        }
        for good in ["https://example.org/a:b", "/posts/1", "mailto:me@example.org", "page?x=a:b"] {
            assert!(to_html(&format!("[x]({good})")).contains(&format!("href=\"{good}\"")), "{good}");
        }
        assert!(to_html("<me@example.org>").contains("href=\"mailto:me@example.org\""));
    }

    #[test]
    fn excerpts_end_at_a_word() {
        assert_eq!(excerpt("# Title\n\nSome *words*, and more", 12), "Some words…");
        assert_eq!(excerpt("short", 12), "short");
        assert_eq!(excerpt("äöüäöüäöüäöüäöü", 3), "äöü…");
    }
}
