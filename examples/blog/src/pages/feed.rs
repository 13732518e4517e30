//! The newest posts as an Atom feed (RFC 4287). It uses the cache entries of the front page, so
//! both are equally fresh.

use axum::http::header;
use axum::response::{IntoResponse, Response};
use maud::{Markup, PreEscaped, html};

use super::layout::SITE;
use crate::authors::authors_of;
use crate::dates::rfc3339;
use crate::posts;
use crate::problem::Problem;
use crate::visit::Visit;

pub(super) async fn show(visit: Visit) -> Result<Response, Problem> {
    let db = &visit.db;
    let posts = posts::page(db.clone(), 1).await?;
    let authors = authors_of(db, &posts.iter().map(|post| post.author_id).collect::<Vec<_>>()).await?;
    let updated = posts.first().map_or(0, |post| post.published);
    // Elements with braces are closed, as XML requires.
    let feed = html! {
        (PreEscaped("<?xml version=\"1.0\" encoding=\"utf-8\"?>\n"))
        feed xmlns="http://www.w3.org/2005/Atom" {
            title { (SITE) }
            id { (name(db.identity(), "feed")) }
            link href="/" {}
            link rel="self" href="/feed.xml" {}
            updated { (rfc3339(updated)) }
            @for post in posts.iter() {
                entry {
                    title { (post.title) }
                    id { (name(db.identity(), &format!("posts/{}", post.id))) }
                    link href=(format!("/posts/{}", post.id)) {}
                    updated { (rfc3339(post.published)) }
                    @if let Some(author) = authors.get(&post.author_id) { author { name { (author.name) } } }
                    summary { (post.excerpt) }
                }
            }
        }
    };
    Ok(([(header::CONTENT_TYPE, "application/atom+xml; charset=utf-8")], feed.into_string()).into_response())
}

/// Returns a name in the form of RFC 4151. It stays the same if the blog moves to another host.
fn name(database: i64, of: &str) -> Markup {
    html! { "tag:blog.example,2026:" (database) "/" (of) }
}
