//! All pages: their addresses, what they read, and how they look.

mod account;
mod author;
mod feed;
mod layout;
mod list;
mod post;
mod search;
mod status;
mod write;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};

use crate::api;
use crate::app::App;
use crate::problem::Problem;
use crate::serving;

/// Pages load only their own stylesheet, and images that posts link to.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self' https: http:; \
     form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

const STYLE: &str = include_str!("style.css");
const ICON: &str = include_str!("icon.svg");

pub(crate) fn router(app: App) -> Router {
    let sessions = app.sessions().clone();
    let limits = app.limits().clone();
    let router = Router::new()
        .merge(pages().layer(sessions.browsers))
        .nest("/api", api::router().layer(sessions.programs))
        .fallback(|| async { Problem::NotFound("page") })
        .layer(DefaultBodyLimit::max(limits.body))
        .with_state(app);
    serving::limited(router, &limits).layer(middleware::from_fn(with_headers))
}

fn pages() -> Router<App> {
    Router::new()
        .route("/", get(list::front))
        .route("/posts", get(|| async { Redirect::permanent("/") }).post(write::create))
        .route("/posts/new", get(write::new))
        .route("/posts/{id}", get(post::show))
        .route("/posts/{id}/edit", get(write::edit).post(write::update))
        .route("/posts/{id}/delete", get(write::confirm_delete).post(write::delete))
        .route("/posts/{id}/comments", get(post::show).post(post::comment))
        .route("/register", get(account::register_form).post(account::register))
        .route("/login", get(account::login_form).post(account::login))
        .route("/logout", post(account::logout))
        .route("/logout/everywhere", post(account::logout_everywhere))
        .route("/devices", get(account::devices).post(account::end_device))
        .route("/authors", get(author::all))
        .route("/authors/{id}", get(author::show))
        .route("/search", get(search::show))
        .route("/feed.xml", get(feed::show))
        .route("/cache", get(status::show))
        .route("/style.css", get(|| asset("text/css; charset=utf-8", STYLE)))
        .route("/icon.svg", get(|| asset("image/svg+xml", ICON)))
        .method_not_allowed_fallback(|| async { Problem::MethodNotAllowed })
}

/// Returns a page that explains an error.
pub(crate) fn problem(status: StatusCode, title: &str, text: &str) -> Response {
    layout::problem(status, title, text)
}

async fn with_headers(request: Request, next: Next) -> Response {
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let is_personal = request.headers().contains_key(header::COOKIE);
    let mut response = next.run(request).await;
    tracing::debug!(%method, path, status = response.status().as_u16(), "answered");
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // A page is as fresh as the cache, so a browser must revalidate it before showing it again. A
    // personal page is not stored at all: the back button shows stored pages without revalidating,
    // also after a logout.
    let may_be_kept = if is_personal { "no-store" } else { "private, no-cache" };
    // The session layer sets `private` on every page that has accessed its session.
    if headers.get(header::CACHE_CONTROL).is_none_or(|said| said == "private") {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(may_be_kept));
    }
    response
}

async fn asset(content_type: &'static str, text: &'static str) -> impl IntoResponse {
    let headers: [(HeaderName, &str); 2] =
        [(header::CONTENT_TYPE, content_type), (header::CACHE_CONTROL, "public, max-age=3600")];
    (headers, text)
}
