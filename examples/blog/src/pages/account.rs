//! Accounts: registration, login, logout, and the list of logged-in devices.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use cache_core::session::SessionInfo;
use maud::{Markup, html};

use super::layout::{self, counted, csrf_field, mistake};
use crate::app::App;
use crate::dates;
use crate::devices;
use crate::form::{Button, DeviceForm, Form, LoginForm, Mistakes, Next, RegisterForm};
use crate::problem::Problem;
use crate::seed::DEMO;
use crate::sessions::REMEMBERED;
use crate::throttle::{self, Address};
use crate::users;
use crate::visit::{LoggedIn, Visit};

/// The number of posts opened since the login.
pub(super) const POSTS_READ: &str = "posts_read";

pub(super) async fn login_form(visit: Visit, next: Next) -> Result<Response, Problem> {
    let form = LoginForm { next, ..LoginForm::default() };
    login_page(&visit, StatusCode::OK, &form, &Mistakes::default()).await
}

pub(super) async fn login(
    State(app): State<App>,
    visit: Visit,
    address: Address,
    Form(form): Form<LoginForm>,
) -> Result<Response, Problem> {
    throttle::count(app.cache(), &form.login, &address).await?;
    let Some(author) = users::check(&visit.db, &form.login, form.password.clone()).await? else {
        let mut mistakes = Mistakes::default();
        mistakes.add("password", "Login or password is wrong.");
        return login_page(&visit, StatusCode::UNPROCESSABLE_ENTITY, &form, &mistakes).await;
    };
    throttle::forget(app.cache(), &form.login, &address).await;
    welcome(&visit, author, form.remember.is_some(), "Welcome back.", &form.next).await
}

pub(super) async fn register_form(visit: Visit, next: Next) -> Result<Response, Problem> {
    let form = RegisterForm { next, ..RegisterForm::default() };
    register_page(&visit, StatusCode::OK, &form, &Mistakes::default()).await
}

pub(super) async fn register(visit: Visit, Form(mut form): Form<RegisterForm>) -> Result<Response, Problem> {
    let mut mistakes = form.check();
    if mistakes.is_empty() {
        match users::register(&visit.db, &form.name, &form.login, form.password.clone()).await? {
            Some(author) => return welcome(&visit, author, false, "Welcome. You can write now.", &form.next).await,
            None => mistakes.add("login", "This login is already taken."),
        }
    }
    register_page(&visit, StatusCode::UNPROCESSABLE_ENTITY, &form, &mistakes).await
}

pub(super) async fn logout(visit: Visit, _: Form<Button>) -> Result<Response, Problem> {
    visit.session()?.logout().await?;
    visit.flash("You are logged out.").await?;
    Ok(Redirect::to("/").into_response())
}

pub(super) async fn logout_everywhere(
    State(app): State<App>,
    visit: Visit,
    LoggedIn(reader): LoggedIn,
    _: Form<Button>,
) -> Result<Response, Problem> {
    app.sessions().of(reader.id).end_all().await?;
    // This device too. The browser deletes its cookie.
    visit.session()?.logout().await?;
    visit.flash("You are logged out on every device.").await?;
    Ok(Redirect::to("/").into_response())
}

pub(super) async fn devices(
    State(app): State<App>,
    visit: Visit,
    LoggedIn(reader): LoggedIn,
) -> Result<Response, Problem> {
    let mut devices = app.sessions().of(reader.id).list().await?;
    let session = visit.session()?;
    let this = session.handle().await?;
    let is_this = |device: &SessionInfo| this.as_ref() == Some(&device.handle);
    devices.sort_by_key(|device| (!is_this(device), std::cmp::Reverse(device.since)));
    let posts_read = session.get(POSTS_READ).await?.unwrap_or(0);
    let csrf = visit.csrf().await?;
    let content = html! {
        h1 { "Your devices" }
        p.empty { "Here you have opened " (counted(posts_read, "post", "posts")) " since you logged in." }
        ul.devices { @for device in &devices { (one(device, is_this(device), &csrf)) } }
        form method="post" action="/logout/everywhere" {
            (csrf_field(&csrf))
            p.actions { button.danger type="submit" { "Log out everywhere" } }
        }
    };
    layout::page(&visit, "Your devices", &content).await
}

pub(super) async fn end_device(
    State(app): State<App>,
    visit: Visit,
    LoggedIn(reader): LoggedIn,
    Form(form): Form<DeviceForm>,
) -> Result<Response, Problem> {
    let ended = app.sessions().of(reader.id).end(&form.handle).await?;
    visit.flash(if ended { "That device is logged out." } else { "That device was logged out before." }).await?;
    Ok(Redirect::to("/devices").into_response())
}

/// Logs the author in. This is the only way in, and it changes the session's id, so an id known
/// before the login is useless.
async fn welcome(visit: &Visit, author: i64, remember: bool, text: &str, next: &Next) -> Result<Response, Problem> {
    let session = visit.session()?;
    session.login(author.to_string()).await?;
    session.insert(POSTS_READ, &0).await?;
    session.set_max_age(remember.then_some(REMEMBERED)).await?;
    visit.flash(text).await?;
    Ok(Redirect::to(next.path()).into_response())
}

async fn login_page(
    visit: &Visit,
    status: StatusCode,
    form: &LoginForm,
    mistakes: &Mistakes,
) -> Result<Response, Problem> {
    let csrf = visit.csrf().await?;
    let content = html! {
        h1 { "Log in" }
        form.account method="post" action="/login" {
            (csrf_field(&csrf))
            (next_field(&form.next))
            (field("login", "Login", "text", "username", &form.login, mistakes))
            (field("password", "Password", "password", "current-password", "", mistakes))
            label.check {
                input type="checkbox" name="remember" value="yes" checked[form.remember.is_some()];
                "Remember me for 30 days"
            }
            p.actions { button type="submit" { "Log in" } a.button.quiet href=(form.next.after("/register")) { "New here? Register" } }
            @if visit.db.has_demo() { p.hint { "To look around: login " (DEMO) ", password " (DEMO) "." } }
        }
    };
    layout::page_with(status, visit, "Log in", &content).await
}

async fn register_page(
    visit: &Visit,
    status: StatusCode,
    form: &RegisterForm,
    mistakes: &Mistakes,
) -> Result<Response, Problem> {
    let csrf = visit.csrf().await?;
    let content = html! {
        h1 { "Register" }
        form.account method="post" action="/register" {
            (csrf_field(&csrf))
            (next_field(&form.next))
            (field("name", "Your name, as readers see it", "text", "name", &form.name, mistakes))
            (field("login", "Login", "text", "username", &form.login, mistakes))
            (field("password", "Password, at least 8 characters", "password", "new-password", "", mistakes))
            p.actions { button type="submit" { "Register" } a.button.quiet href=(form.next.after("/login")) { "I have an account" } }
        }
    };
    layout::page_with(status, visit, "Register", &content).await
}

fn next_field(next: &Next) -> Markup {
    html! { input type="hidden" name="next" value=(next.path()); }
}

fn field(name: &str, label: &str, kind: &str, autocomplete: &str, value: &str, mistakes: &Mistakes) -> Markup {
    let wrong = mistakes.of(name).is_some();
    html! {
        div.field {
            label for=(name) { (label) }
            input id=(name) type=(kind) name=(name) value=(value) autocomplete=(autocomplete) required
                aria-invalid=[wrong.then_some("true")] aria-describedby=[wrong.then(|| format!("{name}-mistake"))];
            (mistake(mistakes, name))
        }
    }
}

fn one(device: &SessionInfo, is_this: bool, csrf: &str) -> Markup {
    let name = devices::name(device.device.as_deref());
    html! {
        li {
            div {
                strong.device { (name) }
                @if is_this { " " span.this { "this device" } }
                @if let Some(since) = device.since { p.hint { "Logged in " (dates::minute(since)) } }
                @if let (Some(seen), false) = (device.seen, is_this) { p.hint { "Last seen " (dates::minute(seen)) } }
                p.hint { "Ends " (dates::minute(device.ends)) " if it is not used" }
            }
            @if !is_this {
                form method="post" action="/devices" {
                    (csrf_field(csrf))
                    input type="hidden" name="handle" value=(device.handle);
                    button.quiet type="submit" aria-label={ "Log out " (name) } { "Log out" }
                }
            }
        }
    }
}
