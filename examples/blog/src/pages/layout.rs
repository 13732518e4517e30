//! The frame around every page, and the parts that several pages share.

use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};

use crate::dates;
use crate::form::Mistakes;
use crate::problem::Problem;
use crate::visit::Visit;

pub(super) const SITE: &str = "Field Notes";

/// Renders a page for this visit. `title` is empty on the front page.
pub(super) async fn page(visit: &Visit, title: &str, content: &Markup) -> Result<Response, Problem> {
    page_with(StatusCode::OK, visit, title, content).await
}

/// Renders a page with a status other than 200.
pub(super) async fn page_with(
    status: StatusCode,
    visit: &Visit,
    title: &str,
    content: &Markup,
) -> Result<Response, Problem> {
    search_page(status, visit, title, "", content).await
}

/// Renders a page of the search; its field keeps the typed text.
pub(super) async fn search_page(
    status: StatusCode,
    visit: &Visit,
    title: &str,
    typed: &str,
    content: &Markup,
) -> Result<Response, Problem> {
    // Every page has a logout button, which is a form.
    let csrf = if visit.reader.is_some() { visit.csrf().await? } else { String::new() };
    let messages = visit.take_flashes().await?;
    let content = html! {
        // Shown while the store is unavailable, and only to readers with a session cookie.
        @if visit.session().is_err() {
            p.message role="status" { "Logging in and writing are not possible at the moment. Reading still works." }
        }
        @for message in &messages { p.message role="status" { (message.text) } }
        (content)
    };
    let page = frame(title, typed, &account(visit, &csrf), &content, &made_in(visit));
    Ok((status, Html(page.into_string())).into_response())
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
    let page = frame(title, "", &html! {}, &content, &html! { span { (SITE) } });
    (status, Html(page.into_string())).into_response()
}

fn frame(title: &str, typed: &str, account: &Markup, content: &Markup, made: &Markup) -> Markup {
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
                            (account)
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
                footer.site { div.bar { (made) nav { a href="/feed.xml" { "Feed" } a href="/cache" { "Cache" } } } }
            }
        }
    }
}

/// Renders the logged-in reader, or a link to log in.
fn account(visit: &Visit, csrf: &str) -> Markup {
    html! {
        @if let Some(reader) = &visit.reader {
            a.me href="/devices" title=(format!("{}: your devices", reader.name)) {
                (badge(reader.id, &reader.name)) span.hidden { (reader.name) ": your devices" }
            }
            form method="post" action="/logout" { (csrf_field(csrf)) button.link type="submit" { "Log out" } }
        } @else {
            a href="/login" { "Log in" }
        }
    }
}

fn made_in(visit: &Visit) -> Markup {
    html! {
        span {
            "Made in " (format!("{:.2}", visit.elapsed().as_secs_f64() * 1000.0)) " ms, "
            @match visit.db.queries() {
                0 => "without a database query",
                1 => "with 1 database query",
                count => { "with " (count) " database queries" }
            }
        }
    }
}

/// Renders the token that proves that a form was sent by a page of this session.
pub(super) fn csrf_field(token: &str) -> Markup {
    html! { input type="hidden" name="csrf" value=(token); }
}

/// Renders a date that is also machine-readable.
pub(super) fn date(seconds: i64) -> Markup {
    html! { time datetime=(dates::iso(seconds)) { (dates::long(seconds)) } }
}

/// Renders a round badge with the author's initials, in the author's colour.
pub(super) fn badge(id: i64, name: &str) -> Markup {
    let initials: String = name.split_whitespace().filter_map(|word| word.chars().next()).take(2).collect();
    html! { span class=(format!("badge hue-{}", id.rem_euclid(6))) aria-hidden="true" { (initials) } }
}

/// Renders the message next to a field. The field's `aria-describedby` refers to its id.
pub(super) fn mistake(mistakes: &Mistakes, field: &str) -> Markup {
    html! {
        @if let Some(message) = mistakes.of(field) {
            p.mistake id=(format!("{field}-mistake")) { (message) }
        }
    }
}

/// Returns `1 comment`, `2 comments`.
pub(super) fn counted(count: i64, one: &str, many: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {many}") }
}
