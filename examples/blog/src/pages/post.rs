//! A post with its comments.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, PreEscaped, html};

use super::account::POSTS_READ;
use super::layout::{self, badge, counted, csrf_field, date, mistake};
use crate::comments::{self, Comment, comments_on};
use crate::form::{CommentForm, Form, Id, Mistakes, Next};
use crate::posts::{Post, Summary, post, posts_by};
use crate::problem::Problem;
use crate::visit::{LoggedIn, Visit};

/// How many other posts by the author are linked at the end.
const MORE: usize = 3;

pub(super) async fn show(visit: Visit, Id(id): Id) -> Result<Response, Problem> {
    let post = post(&visit.db, id).await?.ok_or(Problem::NotFound("post"))?;
    if visit.reader.is_some() {
        visit.session()?.increment(POSTS_READ, 1).await?;
    }
    let content = whole(&visit, &post, &CommentForm::default(), &Mistakes::default()).await?;
    layout::page(&visit, &post.title, &content).await
}

pub(super) async fn comment(
    visit: Visit,
    LoggedIn(reader): LoggedIn,
    Id(id): Id,
    Form(mut form): Form<CommentForm>,
) -> Result<Response, Problem> {
    let db = &visit.db;
    let post = post(db, id).await?.ok_or(Problem::NotFound("post"))?;
    let mistakes = form.check();
    if !mistakes.is_empty() {
        let content = whole(&visit, &post, &form, &mistakes).await?;
        return layout::page_with(StatusCode::UNPROCESSABLE_ENTITY, &visit, &post.title, &content).await;
    }
    let comment = comments::add(db, id, reader.id, &form.body).await?.ok_or(Problem::NotFound("post"))?;
    visit.flash("Your comment is there.").await?;
    Ok(Redirect::to(&format!("/posts/{id}#comment-{comment}")).into_response())
}

async fn whole(visit: &Visit, post: &Post, form: &CommentForm, mistakes: &Mistakes) -> Result<Markup, Problem> {
    let db = &visit.db;
    let (comments, by_author) = (comments_on(db, post.id).await?, posts_by(db, post.author_id, 1).await?);
    let csrf = if visit.reader.is_some() { visit.csrf().await? } else { String::new() };
    let is_own = visit.reader.as_ref().is_some_and(|reader| reader.id == post.author_id);
    let more: Vec<&Summary> = by_author.iter().filter(|other| other.id != post.id).take(MORE).collect();
    let author_href = format!("/authors/{}", post.author_id);
    Ok(html! {
        article.post {
            header {
                h1 { (post.title) }
                p.meta {
                    a.author href=(author_href) { (badge(post.author_id, &post.author)) (post.author) }
                    (date(post.published))
                    @if post.edited > post.published { span { "edited " (date(post.edited)) } }
                }
            }
            div.prose { (PreEscaped(&post.html)) }
            @if is_own {
                p.actions {
                    a.button href=(format!("/posts/{}/edit", post.id)) { "Edit" }
                    a.button.quiet href=(format!("/posts/{}/delete", post.id)) { "Delete" }
                }
            }
        }
        @if !more.is_empty() {
            aside.more {
                h2 { "More by " (post.author) }
                ul { @for other in more {
                    li { a href=(format!("/posts/{}", other.id)) { (other.title) } (date(other.published)) }
                } }
            }
        }
        section.comments #comments {
            h2 {
                @if comments.is_empty() { "No comments yet" }
                @else { (counted(i64::try_from(comments.len()).unwrap_or(i64::MAX), "comment", "comments")) }
            }
            @if !comments.is_empty() { ol { @for comment in comments.iter() { (one(comment)) } } }
            @if visit.reader.is_some() {
                (write(post, form, &csrf, mistakes))
            } @else {
                @let next = Next::to(&format!("/posts/{}#write", post.id));
                p.empty { a href=(next.after("/login")) { "Log in to write a comment" } }
            }
        }
    })
}

fn write(post: &Post, form: &CommentForm, csrf: &str, mistakes: &Mistakes) -> Markup {
    html! {
        h2 #write { "Write a comment" }
        form method="post" action=(format!("/posts/{}/comments#write", post.id)) {
            (csrf_field(csrf))
            div.field {
                label for="body" { "Comment" }
                textarea #body name="body" rows="5" required maxlength="2000"
                    aria-invalid=[mistakes.of("body").map(|_| "true")]
                    aria-describedby=[mistakes.of("body").map(|_| "body-mistake")] { "\n" (form.body) }
                (mistake(mistakes, "body"))
            }
            p.actions { button type="submit" { "Post comment" } }
        }
    }
}

fn one(comment: &Comment) -> Markup {
    html! {
        li id=(format!("comment-{}", comment.id)) {
            p.meta {
                a.author href=(format!("/authors/{}", comment.author_id)) {
                    (badge(comment.author_id, &comment.author)) (comment.author)
                }
                (date(comment.written))
            }
            // The stylesheet preserves line breaks.
            p.said { (comment.body) }
        }
    }
}
