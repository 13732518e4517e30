//! The search page.

use axum::http::StatusCode;
use axum::response::Response;
use maud::{Markup, html};

use super::layout::{self, counted};
use super::list::{Byline, Pager, posts_list};
use crate::form::ListQuery;
use crate::problem::Problem;
use crate::search::{self, Query};
use crate::visit::Visit;

pub(super) async fn show(visit: Visit, asked: ListQuery) -> Result<Response, Problem> {
    // The text as it is shown again, without control characters, which HTML does not allow.
    let typed: String = asked.q.trim().chars().filter(|c| !c.is_control()).collect();
    let typed = typed.as_str();
    let (status, content) = match Query::parse(&asked.q) {
        Ok(Some(query)) => (StatusCode::OK, results(&visit, typed, &query, asked.page).await?),
        Ok(None) => (
            StatusCode::OK,
            html! {
                h1 { "Search" }
                p.empty { "Type one or more words in the field above. Posts that contain all of them are found." }
            },
        ),
        Err(message) => (StatusCode::BAD_REQUEST, html! { h1 { "Search" } p.mistake { (message) } }),
    };
    let title = if typed.is_empty() { "Search".to_owned() } else { format!("Search: {}", shortened(typed)) };
    layout::search_page(status, &visit, &title, typed, &content).await
}

async fn results(visit: &Visit, typed: &str, query: &Query, page: u32) -> Result<Markup, Problem> {
    let db = &visit.db;
    let total = search::matches(db, query.as_str()).await?;
    let pager = Pager::new(page, total)?;
    if total == 0 {
        return Ok(html! {
            h1 { "Nothing found" }
            p.empty { "No post contains “" (typed) "”. Fewer or shorter words find more." }
        });
    }
    let posts = search::search(db, query.as_str(), page).await?;
    let list = posts_list(db, &posts, Byline::Shown).await?;
    Ok(html! {
        h1 { (counted(total, "post", "posts")) " with “" (typed) "”" }
        (list)
        (pager.links("/search", &[("q", query.as_str())]))
    })
}

fn shortened(typed: &str) -> String {
    typed.chars().take(search::QUERY_CHARS_MAX).collect()
}
