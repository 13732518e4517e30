//! The same blog for programs: JSON, and sessions through `Authorization: Bearer`. Forms need no
//! tokens here: without cookies, another site cannot send a request in a user's name.
//!
//! ```sh
//! curl -i -H 'content-type: application/json' -d '{"login":"demo","password":"demo"}' http://127.0.0.1:3000/api/login   # session-token: ..
//! curl -H 'authorization: Bearer ..' http://127.0.0.1:3000/api/me
//! ```

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, FromRequestParts, Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use cache_core::session::{Session, SessionError};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::app::App;
use crate::authors::Author;
use crate::form::{LoginForm, PostForm};
use crate::posts::{self, Summary};
use crate::problem::{self, Problem};
use crate::throttle::{self, Address};
use crate::users;
use crate::visit::reader;

pub(crate) fn router() -> Router<App> {
    Router::new()
        .route("/login", post(login))
        .route("/logout", post(logout))
        .route("/me", get(me))
        .route("/posts", get(list).post(create))
        .fallback(|| async { Fault::new(StatusCode::NOT_FOUND, "there is no such address; see /api/posts") })
}

/// Why a request failed.
pub(crate) struct Fault {
    status: StatusCode,
    text: String,
    /// When a retry makes sense.
    retry_after: Option<Duration>,
}

/// The request body.
struct Body<T>(T);

/// The author whose token it is.
struct Caller(Arc<Author>);

#[derive(Serialize)]
struct Me {
    id: i64,
    name: String,
}

#[derive(Serialize)]
struct Created {
    id: i64,
}

/// Logs in. The token is in the response header `Session-Token`.
async fn login(
    State(app): State<App>,
    session: Session,
    address: Address,
    Body(form): Body<LoginForm>,
) -> Result<Json<Me>, Fault> {
    throttle::count(app.cache(), &form.login, &address).await?;
    let Some(id) = users::check(app.db(), &form.login, form.password).await? else {
        return Err(Fault::new(StatusCode::UNAUTHORIZED, "login or password is wrong"));
    };
    throttle::forget(app.cache(), &form.login, &address).await;
    session.login(id.to_string()).await?;
    let author = reader(app.db(), &session).await?.ok_or(Problem::NotFound("author"))?;
    Ok(Json(Me { id, name: author.name.clone() }))
}

async fn logout(_: Caller, session: Session) -> Result<StatusCode, Fault> {
    session.logout().await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn me(Caller(author): Caller) -> Json<Me> {
    Json(Me { id: author.id, name: author.name.clone() })
}

/// Lists the newest posts.
async fn list(State(app): State<App>) -> Result<Json<Arc<Vec<Summary>>>, Fault> {
    Ok(Json(posts::page(app.db().clone(), 1).await?))
}

async fn create(
    State(app): State<App>,
    Caller(author): Caller,
    Body(mut form): Body<PostForm>,
) -> Result<(StatusCode, Json<Created>), Fault> {
    if let Some(mistake) = form.check().first() {
        return Err(Fault::new(StatusCode::UNPROCESSABLE_ENTITY, mistake));
    }
    let id = posts::create(app.db(), author.id, &form.title, &form.body).await?.ok_or(Problem::NotFound("author"))?;
    Ok((StatusCode::CREATED, Json(Created { id })))
}

impl<T: DeserializeOwned> FromRequest<App> for Body<T> {
    type Rejection = Fault;

    async fn from_request(request: Request, app: &App) -> Result<Self, Fault> {
        Ok(Self(Json::from_request(request, app).await?.0))
    }
}

impl FromRequestParts<App> for Caller {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Fault> {
        let session = Session::from_request_parts(parts, app).await?;
        let author = reader(app.db(), &session).await?;
        author.map(Self).ok_or_else(|| Fault::new(StatusCode::UNAUTHORIZED, "send a token of POST /api/login"))
    }
}

impl Fault {
    fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, text: text.into(), retry_after: None }
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Error {
            error: String,
        }
        let retry_after = self.retry_after.map(problem::retry_after);
        (self.status, retry_after, Json(Error { error: self.text })).into_response()
    }
}

impl From<JsonRejection> for Fault {
    fn from(rejection: JsonRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

impl From<SessionError> for Fault {
    fn from(error: SessionError) -> Self {
        Problem::from(error).into()
    }
}

impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        Problem::from(error).into()
    }
}

impl From<Problem> for Fault {
    fn from(problem: Problem) -> Self {
        let retry_after = problem.retry_after();
        let fault = match problem {
            Problem::LogIn(_) => Self::new(StatusCode::UNAUTHORIZED, "the session has ended"),
            Problem::NotFound(what) => Self::new(StatusCode::NOT_FOUND, format!("this {what} does not exist")),
            Problem::TooManyAttempts(_) => Self::new(StatusCode::TOO_MANY_REQUESTS, "too many attempts to log in"),
            Problem::Busy | Problem::NoSessions | Problem::Full => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "try again in a moment")
            }
            Problem::TooSlow => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "the request took too long; it may have been executed")
            }
            _ => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal error"),
        };
        Self { retry_after, ..fault }
    }
}
