//! The front page, and lists of posts on all pages.

use axum::response::Response;
use maud::{Markup, html};

use super::layout::{self, badge, counted, date};
use crate::authors::authors_of;
use crate::comments::comment_count;
use crate::db::Db;
use crate::form::ListQuery;
use crate::posts::{self, PAGE_SIZE, Summary};
use crate::problem::Problem;
use crate::visit::Visit;

pub(super) async fn front(visit: Visit, query: ListQuery) -> Result<Response, Problem> {
    let db = &visit.db;
    let pager = Pager::new(query.page, posts::count(db.clone()).await?)?;
    let posts = posts::page(db.clone(), query.page).await?;
    let list = posts_list(db, &posts, Byline::Shown).await?;
    let title = if query.page == 1 { String::new() } else { format!("Page {}", query.page) };
    let content = html! {
        @if query.page == 1 {
            div.welcome {
                h1 { "Notes from the workshop, the kitchen and the road" }
                p { "What people learned this week, written down by them." }
            }
        } @else {
            h1 { "Page " (query.page) }
        }
        (list)
        (pager.links("/", &[]))
    };
    layout::page(&visit, &title, &content).await
}

/// Whether a list shows the author of each post.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Byline {
    Shown,
    /// The page is about one author.
    Implied,
}

pub(super) async fn posts_list(db: &Db, posts: &[Summary], byline: Byline) -> Result<Markup, Problem> {
    let ids: Vec<i64> = posts.iter().map(|post| post.id).collect();
    let comments = comment_count(db, &ids).await?;
    let by: Vec<i64> = match byline {
        Byline::Shown => posts.iter().map(|post| post.author_id).collect(),
        Byline::Implied => Vec::new(),
    };
    let authors = authors_of(db, &by).await?;
    Ok(html! {
        @if posts.is_empty() {
            p.empty { "Nothing here yet." }
        } @else {
            ol.posts {
                @for post in posts {
                    @let comments = comments.get(&post.id).copied().unwrap_or(0);
                    li {
                        article {
                            p.date { (date(post.published)) }
                            div.text {
                                h2 { a href=(format!("/posts/{}", post.id)) { (post.title) } }
                                p.excerpt { (post.excerpt) }
                                p.meta {
                                    @if let Some(author) = authors.get(&post.author_id) {
                                        a.author href=(format!("/authors/{}", author.id)) {
                                            (badge(author.id, &author.name)) (author.name)
                                        }
                                    }
                                    @if comments > 0 {
                                        a href=(format!("/posts/{}#comments", post.id)) {
                                            (counted(comments, "comment", "comments"))
                                        }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    })
}

/// The position of a page in its list.
pub(super) struct Pager {
    page: u32,
    last: u32,
}

impl Pager {
    /// Checks that the page exists.
    ///
    /// # Errors
    /// If the list has no such page. An empty list has one page.
    pub(super) fn new(page: u32, total: i64) -> Result<Self, Problem> {
        let pages = total.max(1).saturating_add(PAGE_SIZE - 1).checked_div(PAGE_SIZE).unwrap_or(1);
        let last = u32::try_from(pages).unwrap_or(u32::MAX);
        if page > last { Err(Problem::NotFound("page")) } else { Ok(Self { page, last }) }
    }

    /// Renders links to the pages around this one; nothing if there is only one page.
    pub(super) fn links(&self, path: &str, parameters: &[(&str, &str)]) -> Markup {
        let href = |page: u32| {
            let mut query = url::form_urlencoded::Serializer::new(String::new());
            query.extend_pairs(parameters);
            if page > 1 {
                query.append_pair("page", &page.to_string());
            }
            let query = query.finish();
            if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
        };
        html! {
            @if self.last > 1 {
                nav.pager aria-label="Pages" {
                    @if self.page > 1 {
                        a.step rel="prev" href=(href(self.page.saturating_sub(1))) { "← Newer" }
                    } @else {
                        span.step {}
                    }
                    span.numbers {
                        @let pages = self.shown();
                        @for (&page, &before) in pages.iter().zip([0].iter().chain(&pages)) {
                            @if page > before.saturating_add(1) { span.gap aria-hidden="true" { "…" } }
                            @if page == self.page {
                                span.here aria-current="page" { (page) }
                            } @else {
                                a href=(href(page)) { (page) }
                            }
                        }
                    }
                    @if self.page < self.last {
                        a.step rel="next" href=(href(self.page.saturating_add(1))) { "Older →" }
                    } @else {
                        span.step {}
                    }
                }
            }
        }
    }

    /// Returns the pages to link: the first, the last, this one and its neighbours.
    fn shown(&self) -> Vec<u32> {
        let near = self.page.saturating_sub(1)..=self.page.saturating_add(1);
        let mut pages: Vec<u32> =
            [1, self.last].into_iter().chain(near).filter(|page| (1..=self.last).contains(page)).collect();
        pages.sort_unstable();
        pages.dedup();
        pages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_outside_the_list_are_not_found() {
        assert!(Pager::new(1, 0).is_ok());
        assert!(Pager::new(2, 10).is_err());
        assert!(Pager::new(2, 11).is_ok());
        assert!(Pager::new(u32::MAX, 300).is_err());
    }

    #[test]
    fn a_pager_shows_the_ends_and_the_neighbours() {
        let pager = Pager::new(15, 300).unwrap_or_else(|_| panic!("page 15 of 30"));
        assert_eq!(pager.shown(), [1, 14, 15, 16, 30]);
        let links = pager.links("/search", &[("q", "a&b")]).into_string();
        assert!(links.contains("/search?q=a%26b&amp;page=14"), "{links}");
        assert!(links.contains("href=\"/search?q=a%26b\""), "{links}");
    }
}
