//! The list of authors, and the page of one author with their posts.

use axum::response::Response;
use maud::html;

use super::layout::{self, badge, counted, date};
use super::list::{Byline, Pager, posts_list};
use crate::authors::{author, authors};
use crate::form::{Id, ListQuery};
use crate::posts;
use crate::problem::Problem;
use crate::visit::Visit;

pub(super) async fn all(visit: Visit) -> Result<Response, Problem> {
    let authors = authors(&visit.db).await?;
    let content = html! {
        h1 { "Authors" }
        ul.authors {
            @for author in authors.iter() {
                li {
                    (badge(author.id, &author.name))
                    div {
                        h2 { a href=(format!("/authors/{}", author.id)) { (author.name) } }
                        p { (author.bio) }
                    }
                }
            }
        }
    };
    layout::page(&visit, "Authors", &content).await
}

pub(super) async fn show(visit: Visit, Id(id): Id, query: ListQuery) -> Result<Response, Problem> {
    let db = &visit.db;
    let author = author(db, id).await?.ok_or(Problem::NotFound("author"))?;
    let total = posts::count_by(db, id).await?;
    let pager = Pager::new(query.page, total)?;
    let posts = posts::posts_by(db, id, query.page).await?;
    let list = posts_list(db, &posts, Byline::Implied).await?;
    let content = html! {
        div.about {
            (badge(author.id, &author.name))
            div {
                h1 { (author.name) }
                p { (author.bio) }
                p.meta { span { (counted(total, "post", "posts")) } span { "here since " (date(author.joined)) } }
            }
        }
        (list)
        (pager.links(&format!("/authors/{id}"), &[]))
    };
    layout::page(&visit, &author.name, &content).await
}
