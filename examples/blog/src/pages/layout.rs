//! The frame around every page, and the pieces more than one page has.

use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};

use crate::authors::Author;
use crate::dates;
use crate::form::Mistakes;
use crate::visit::Visit;

pub(super) const SITE: &str = "Field Notes";

/// A page for this visit. `title` is empty on the front page.
pub(super) fn page(visit: &Visit, title: &str, content: &Markup) -> Response {
    Html(frame(Some(visit), title, "", content).into_string()).into_response()
}

/// A page with another status than 200.
pub(super) fn page_with(status: StatusCode, visit: &Visit, title: &str, content: &Markup) -> Response {
    (status, page(visit, title, content)).into_response()
}

/// A page of the search, whose field keeps what was typed.
pub(super) fn search_page(status: StatusCode, visit: &Visit, title: &str, typed: &str, content: &Markup) -> Response {
    (status, Html(frame(Some(visit), title, typed, content).into_string())).into_response()
}

pub(super) fn problem(status: StatusCode, title: &str, text: &str) -> Response {
    let content = html! {
        div.problem {
            p.code { (status.as_u16()) }
            h1 { (title) }
            p { (text) }
            p { a.button href="/" { "To the front page" } }
        }
    };
    (status, Html(frame(None, title, "", &content).into_string())).into_response()
}

fn frame(visit: Option<&Visit>, title: &str, typed: &str, content: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { @if title.is_empty() { (SITE) } @else { (title) " · " (SITE) } }
                link rel="stylesheet" href="/style.css";
                link rel="alternate" href="/feed.xml" type="application/atom+xml" title=(SITE);
                link rel="icon" href="/icon.svg" type="image/svg+xml";
            }
            body {
                a.skip href="#content" { "Skip to the content" }
                header.site {
                    div.bar {
                        a.name href="/" { (SITE) }
                        nav aria-label="Site" {
                            a href="/authors" { "Authors" }
                            a href="/posts/new" { "Write" }
                        }
                        form.search action="/search" role="search" {
                            label.hidden for="q" { "Search posts" }
                            input #q type="search" name="q" value=(typed) maxlength=(crate::search::QUERY_CHARS_MAX)
                                placeholder="Search" autocomplete="off";
                            button type="submit" { "Search" }
                        }
                    }
                }
                main #content tabindex="-1" { (content) }
                footer.site { div.bar { (made_in(visit)) nav { a href="/feed.xml" { "Feed" } a href="/cache" { "Cache" } } } }
            }
        }
    }
}

fn made_in(visit: Option<&Visit>) -> Markup {
    html! {
        @if let Some(visit) = visit {
            span {
                "Made in " (format!("{:.2}", visit.elapsed().as_secs_f64() * 1000.0)) " ms, "
                @match visit.db.queries() {
                    0 => "without a database query",
                    1 => "with 1 database query",
                    count => { "with " (count) " database queries" }
                }
            }
        } @else {
            span { (SITE) }
        }
    }
}

/// A date that machines can read too.
pub(super) fn date(seconds: i64) -> Markup {
    html! { time datetime=(dates::iso(seconds)) { (dates::long(seconds)) } }
}

/// A round mark with the author's first letters, in a colour of their own.
pub(super) fn badge(id: i64, name: &str) -> Markup {
    let initials: String = name.split_whitespace().filter_map(|word| word.chars().next()).take(2).collect();
    html! { span class=(format!("badge hue-{}", id.rem_euclid(6))) aria-hidden="true" { (initials) } }
}

/// The message next to a field. Its id is what the field's `aria-describedby` names.
pub(super) fn mistake(mistakes: &Mistakes, field: &str) -> Markup {
    html! {
        @if let Some(message) = mistakes.of(field) {
            p.mistake id=(format!("{field}-mistake")) { (message) }
        }
    }
}

/// Who is writing. A select until people can log in.
pub(super) fn author_field(label: &str, authors: &[Author], chosen: &str, mistakes: &Mistakes) -> Markup {
    html! {
        div.field {
            label for="author" { (label) }
            select #author name="author" required aria-invalid=[mistakes.of("author").map(|_| "true")]
                aria-describedby=[mistakes.of("author").map(|_| "author-mistake")] {
                option value="" selected[chosen.is_empty()] { "Choose a name" }
                @for author in authors {
                    option value=(author.id) selected[chosen == author.id.to_string()] { (author.name) }
                }
            }
            (mistake(mistakes, "author"))
        }
    }
}

/// Checks the chosen author against those there are.
pub(super) fn chosen_author(authors: &[Author], chosen: &str, mistakes: &mut Mistakes) -> i64 {
    let found = authors.iter().find(|author| author.id.to_string() == chosen);
    if found.is_none() {
        mistakes.add("author", "Choose who is writing.");
    }
    found.map_or(0, |author| author.id)
}

/// `1 comment`, `2 comments`
pub(super) fn counted(count: i64, one: &str, many: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {many}") }
}
