//! Every page: its appearance, and its use without a mouse.

use serde_json::json;

use super::{Desk, Tab};

/// Pages that need no login.
const PUBLIC: [&str; 9] =
    ["/", "/?page=2", "/posts/1", "/authors", "/authors/1", "/search?q=bread", "/cache", "/login", "/register"];

/// Returns each page with a heading, for visitors and for the first author, whose own post is the
/// last one.
fn every_page(desk: &Desk) -> Vec<String> {
    desk.log_in(&desk.tab);
    let own = desk.publish("A post of one's own", &everything_wide());
    let private = ["/devices".to_owned(), "/posts/new".to_owned(), format!("{own}/edit"), format!("{own}/delete")];
    PUBLIC.map(str::to_owned).into_iter().chain(private).chain([own]).collect()
}

/// Returns content that is too wide for a page.
fn everything_wide() -> String {
    let word = "Donaudampfschifffahrtsgesellschaft".repeat(6);
    let row = "| a cell of a table ".repeat(8);
    let rule = "|---".repeat(8);
    format!(
        "{word}\n\n```\n{word}\n```\n\n{row}|\n{rule}|\n{row}|\n\n> {word}\n\n`{word}`\n\n[{word}](https://example.org/{word})\n"
    )
}

#[test]
fn a_visitor_reads_posts_and_gets_no_cookie() {
    let desk = Desk::new();
    let Desk { tab, .. } = &desk;
    desk.goto("/");
    let title = tab.string("document.querySelector('ol.posts h2').innerText");
    tab.link(&title);
    assert!(tab.path().starts_with("/posts/") && tab.string("document.querySelector('h1').innerText") == title);
    tab.link("Authors");
    tab.fill("Search posts", "bread");
    tab.button("Search");
    assert!(tab.path() == "/search" && tab.shows("posts with “bread”"), "{}", tab.text());
    desk.goto("/cache");
    assert_eq!(tab.cookies().len(), 0);
    // A visitor of the login form has a cookie.
    tab.link("Log in");
    assert_eq!(tab.cookies().len(), 1);
}

#[test]
fn pages_fit_a_phone_without_scrolling_sideways() {
    let desk = Desk::new();
    let pages = every_page(&desk);
    desk.tab.resize(360, 740, true);
    for path in pages.iter().map(String::as_str).chain(["/nothing-here"]) {
        desk.goto(path);
        let widths = "[document.scrollingElement.scrollWidth, innerWidth, screen.width]";
        assert_eq!(desk.tab.evaluate(widths), json!([360, 360, 360]), "{path}");
    }
}

#[test]
fn no_page_makes_the_browser_complain() {
    let desk = Desk::new();
    let pages = every_page(&desk);
    for path in pages {
        assert_eq!(desk.goto(&path), 200, "{path}");
        assert_eq!(desk.tab.complaints(), [""; 0], "{path}");
    }
    // Checks that a complaint would be detected.
    desk.tab.evaluate("console.error('heard')");
    desk.tab.evaluate("document.head.appendChild(document.createElement('style'))");
    let complaints = desk.tab.complaints().join("\n");
    assert!(complaints.contains("heard") && complaints.contains("Content Security Policy"), "{complaints}");
}

#[test]
fn each_field_has_a_label_and_each_page_one_heading() {
    let desk = Desk::new();
    for path in every_page(&desk) {
        desk.goto(&path);
        let unlabelled = "Array.from(document.querySelectorAll('input:not([type=hidden]), textarea, select')) \
             .filter(field => field.labels.length == 0).map(field => field.outerHTML)";
        assert_eq!(desk.tab.evaluate(unlabelled), json!([]), "{path}");
        let nodes = desk.tab.accessible();
        let of = |roles: &[&str]| {
            nodes.iter().filter(|node| roles.contains(&&*node.0)).map(|node| &node.1).collect::<Vec<_>>()
        };
        let used = of(&["textbox", "searchbox", "checkbox", "button", "link"]);
        assert!(used.len() > 3 && used.iter().all(|name| !name.is_empty()), "{path}: {used:?}");
        assert_eq!(desk.tab.evaluate("document.querySelectorAll('h1').length"), 1, "{path}");
        assert!(!desk.tab.string("document.title").is_empty() && of(&["main"]).len() == 1, "{path}");
    }
}

#[test]
fn text_stands_out_from_its_background_in_light_and_in_dark() {
    let desk = Desk::new();
    let pages = every_page(&desk);
    for scheme in ["light", "dark"] {
        desk.tab.media(scheme);
        for path in pages.iter().map(String::as_str).chain(["/nothing-here"]) {
            desk.goto(path);
            assert_eq!(faint(&desk.tab), json!([]), "{path}, {scheme}");
        }
        // Checks that a faint text would be detected.
        desk.tab.evaluate("document.querySelector('h1').style.color = getComputedStyle(document.body).backgroundColor");
        assert_eq!(faint(&desk.tab).as_array().map(Vec::len), Some(1), "{scheme}");
    }
}

/// Returns the texts with less contrast than WCAG 2.2 (AA) requires: 4.5, or 3 for large text.
fn faint(tab: &Tab) -> serde_json::Value {
    tab.evaluate(include_str!("contrast.js"))
}

#[test]
fn keys_alone_are_enough_to_log_in() {
    let desk = Desk::new();
    let Desk { tab, .. } = &desk;
    desk.goto("/login");
    tab.tab_key();
    assert_eq!(tab.string("document.activeElement.innerText"), "Skip to the content");
    let focus = |name: &str| {
        for _ in 0..20 {
            if tab.string("document.activeElement.name || ''") == name {
                return;
            }
            tab.tab_key();
            let outline = tab.string("getComputedStyle(document.activeElement).outlineStyle");
            assert_ne!(outline, "none", "where the focus is can be seen");
        }
        panic!("keys do not lead to {name}");
    };
    focus("login");
    tab.call("Input.insertText", &json!({ "text": "demo" }));
    focus("password");
    tab.call("Input.insertText", &json!({ "text": "demo" }));
    tab.enter();
    assert!(tab.shows("Welcome back."), "{}", tab.text());
}
