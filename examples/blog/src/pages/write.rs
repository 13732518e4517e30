//! Writing, editing and deleting a post. Every write ends in a redirect, so reloading never repeats it.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};

use super::layout::{self, author_field, chosen_author, date, mistake};
use crate::authors::{Author, authors};
use crate::form::{Form, Id, Mistakes, PostForm};
use crate::posts::{self, Post, post};
use crate::problem::Problem;
use crate::visit::Visit;

pub(super) async fn new(visit: Visit) -> Result<Response, Problem> {
    let authors = authors(&visit.db).await?;
    let content = new_form(&authors, &PostForm::default(), &Mistakes::default());
    Ok(layout::page(&visit, "Write a post", &content))
}

pub(super) async fn create(visit: Visit, Form(mut form): Form<PostForm>) -> Result<Response, Problem> {
    let authors = authors(&visit.db).await?;
    let mut mistakes = form.check();
    let author = chosen_author(&authors, &form.author, &mut mistakes);
    if !mistakes.is_empty() {
        let content = new_form(&authors, &form, &mistakes);
        return Ok(layout::page_with(StatusCode::UNPROCESSABLE_ENTITY, &visit, "Write a post", &content));
    }
    let id = posts::create(&visit.db, author, &form.title, &form.body).await?.ok_or(Problem::NotFound("author"))?;
    Ok(Redirect::to(&format!("/posts/{id}")).into_response())
}

pub(super) async fn edit(visit: Visit, Id(id): Id) -> Result<Response, Problem> {
    let post = found(&visit, id).await?;
    let form = PostForm { author: String::new(), title: post.title.clone(), body: post.body.clone() };
    let content = edit_form(&post, &form, &Mistakes::default());
    Ok(layout::page(&visit, &format!("Edit: {}", post.title), &content))
}

pub(super) async fn update(visit: Visit, Id(id): Id, Form(mut form): Form<PostForm>) -> Result<Response, Problem> {
    let post = found(&visit, id).await?;
    let mistakes = form.check();
    if !mistakes.is_empty() {
        let content = edit_form(&post, &form, &mistakes);
        let title = format!("Edit: {}", post.title);
        return Ok(layout::page_with(StatusCode::UNPROCESSABLE_ENTITY, &visit, &title, &content));
    }
    if !posts::update(&visit.db, &post, &form.title, &form.body).await? {
        return Err(Problem::NotFound("post"));
    }
    Ok(Redirect::to(&format!("/posts/{id}")).into_response())
}

pub(super) async fn confirm_delete(visit: Visit, Id(id): Id) -> Result<Response, Problem> {
    let post = found(&visit, id).await?;
    let href = format!("/posts/{id}");
    let content = html! {
        h1 { "Delete this post?" }
        p { "“" a href=(href) { (post.title) } "” by " (post.author) ", " (date(post.published)) "." }
        p { "Its comments go with it. This cannot be undone." }
        form method="post" action=(format!("/posts/{id}/delete")) {
            p.actions {
                button.danger type="submit" { "Delete the post" }
                a.button.quiet href=(href) { "Keep it" }
            }
        }
    };
    Ok(layout::page(&visit, "Delete a post", &content))
}

pub(super) async fn delete(visit: Visit, Id(id): Id) -> Result<Response, Problem> {
    let post = found(&visit, id).await?;
    if !posts::delete(&visit.db, &post).await? {
        return Err(Problem::NotFound("post"));
    }
    Ok(Redirect::to("/").into_response())
}

async fn found(visit: &Visit, id: i64) -> Result<std::sync::Arc<Post>, Problem> {
    post(&visit.db, id).await?.ok_or(Problem::NotFound("post"))
}

fn new_form(authors: &[Author], form: &PostForm, mistakes: &Mistakes) -> Markup {
    html! {
        h1 { "Write a post" }
        form method="post" action="/posts" {
            (author_field("Author", authors, &form.author, mistakes))
            (text_fields(form, mistakes))
            p.actions { button type="submit" { "Publish" } a.button.quiet href="/" { "Cancel" } }
        }
    }
}

fn edit_form(post: &Post, form: &PostForm, mistakes: &Mistakes) -> Markup {
    html! {
        h1 { "Edit a post" }
        p.meta { span { "by " (post.author) } (date(post.published)) }
        form method="post" action=(format!("/posts/{}/edit", post.id)) {
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
                // A line break right after the tag is not part of the text, so the text may begin with one.
                aria-describedby=[mistakes.of("body").map_or(Some("body-hint"), |_| Some("body-mistake"))] { "\n" (form.body) }
            (mistake(mistakes, "body"))
            p.hint #body-hint { "Markdown: **bold**, *italic*, `code`, ## heading, [link](https://example.org). HTML is shown as text." }
        }
    }
}
