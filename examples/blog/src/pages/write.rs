//! Writing, editing and deleting a post. Every write ends with a redirect, so that reloading does
//! not repeat it.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};

use super::layout::{self, csrf_field, date, mistake};
use crate::authors::Author;
use crate::form::{Button, Form, Id, Mistakes, PostForm};
use crate::posts::{self, Post, post};
use crate::problem::Problem;
use crate::visit::{LoggedIn, Visit};

pub(super) async fn new(visit: Visit, _: LoggedIn) -> Result<Response, Problem> {
    let content = new_form(&visit.csrf().await?, &PostForm::default(), &Mistakes::default());
    layout::page(&visit, "Write a post", &content).await
}

pub(super) async fn create(
    visit: Visit,
    LoggedIn(reader): LoggedIn,
    Form(mut form): Form<PostForm>,
) -> Result<Response, Problem> {
    let mistakes = form.check();
    if !mistakes.is_empty() {
        let content = new_form(&visit.csrf().await?, &form, &mistakes);
        return layout::page_with(StatusCode::UNPROCESSABLE_ENTITY, &visit, "Write a post", &content).await;
    }
    let id = posts::create(&visit.db, reader.id, &form.title, &form.body).await?.ok_or(Problem::NotFound("author"))?;
    visit.flash("Your post is published.").await?;
    Ok(Redirect::to(&format!("/posts/{id}")).into_response())
}

pub(super) async fn edit(visit: Visit, LoggedIn(reader): LoggedIn, Id(id): Id) -> Result<Response, Problem> {
    let post = own(&visit, &reader, id).await?;
    let form = PostForm { title: post.title.clone(), body: post.body.clone() };
    let content = edit_form(&visit.csrf().await?, &post, &form, &Mistakes::default());
    layout::page(&visit, &format!("Edit: {}", post.title), &content).await
}

pub(super) async fn update(
    visit: Visit,
    LoggedIn(reader): LoggedIn,
    Id(id): Id,
    Form(mut form): Form<PostForm>,
) -> Result<Response, Problem> {
    let post = own(&visit, &reader, id).await?;
    let mistakes = form.check();
    if !mistakes.is_empty() {
        let content = edit_form(&visit.csrf().await?, &post, &form, &mistakes);
        let title = format!("Edit: {}", post.title);
        return layout::page_with(StatusCode::UNPROCESSABLE_ENTITY, &visit, &title, &content).await;
    }
    if !posts::update(&visit.db, &post, &form.title, &form.body).await? {
        return Err(Problem::NotFound("post"));
    }
    visit.flash("Your changes are saved.").await?;
    Ok(Redirect::to(&format!("/posts/{id}")).into_response())
}

pub(super) async fn confirm_delete(visit: Visit, LoggedIn(reader): LoggedIn, Id(id): Id) -> Result<Response, Problem> {
    let post = own(&visit, &reader, id).await?;
    let csrf = visit.csrf().await?;
    let href = format!("/posts/{id}");
    let content = html! {
        h1 { "Delete this post?" }
        p { "“" a href=(href) { (post.title) } "” by " (post.author) ", " (date(post.published)) "." }
        p { "Its comments go with it. This cannot be undone." }
        form method="post" action=(format!("/posts/{id}/delete")) {
            (csrf_field(&csrf))
            p.actions {
                button.danger type="submit" { "Delete the post" }
                a.button.quiet href=(href) { "Keep it" }
            }
        }
    };
    layout::page(&visit, "Delete a post", &content).await
}

pub(super) async fn delete(
    visit: Visit,
    LoggedIn(reader): LoggedIn,
    Id(id): Id,
    _: Form<Button>,
) -> Result<Response, Problem> {
    let post = own(&visit, &reader, id).await?;
    if !posts::delete(&visit.db, &post).await? {
        return Err(Problem::NotFound("post"));
    }
    visit.flash("The post is deleted.").await?;
    Ok(Redirect::to("/").into_response())
}

/// Returns a post that this reader may change.
async fn own(visit: &Visit, reader: &Author, id: i64) -> Result<Arc<Post>, Problem> {
    let post = post(&visit.db, id).await?.ok_or(Problem::NotFound("post"))?;
    if post.author_id == reader.id {
        Ok(post)
    } else {
        Err(Problem::Forbidden("Only the author of a post can change it."))
    }
}

fn new_form(csrf: &str, form: &PostForm, mistakes: &Mistakes) -> Markup {
    html! {
        h1 { "Write a post" }
        form method="post" action="/posts" {
            (csrf_field(csrf))
            (text_fields(form, mistakes))
            p.actions { button type="submit" { "Publish" } a.button.quiet href="/" { "Cancel" } }
        }
    }
}

fn edit_form(csrf: &str, post: &Post, form: &PostForm, mistakes: &Mistakes) -> Markup {
    html! {
        h1 { "Edit a post" }
        p.meta { span { "by " (post.author) } (date(post.published)) }
        form method="post" action=(format!("/posts/{}/edit", post.id)) {
            (csrf_field(csrf))
            (text_fields(form, mistakes))
            p.actions {
                button type="submit" { "Save" }
                a.button.quiet href=(format!("/posts/{}", post.id)) { "Cancel" }
            }
        }
    }
}

fn text_fields(form: &PostForm, mistakes: &Mistakes) -> Markup {
    html! {
        div.field {
            label for="title" { "Title" }
            input #title type="text" name="title" value=(form.title) required maxlength="120"
                aria-invalid=[mistakes.of("title").map(|_| "true")]
                aria-describedby=[mistakes.of("title").map(|_| "title-mistake")];
            (mistake(mistakes, "title"))
        }
        div.field {
            label for="body" { "Text" }
            textarea #body name="body" rows="18" required maxlength="40000"
                aria-invalid=[mistakes.of("body").map(|_| "true")]
                // HTML drops a line break right after the tag, so one is added in case the text
                // begins with one.
                aria-describedby=[mistakes.of("body").map_or(Some("body-hint"), |_| Some("body-mistake"))] { "\n" (form.body) }
            (mistake(mistakes, "body"))
            p.hint #body-hint { "Markdown: **bold**, *italic*, `code`, ## heading, [link](https://example.org). HTML is shown as text." }
        }
    }
}
