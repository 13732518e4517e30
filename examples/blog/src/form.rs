//! Form input: read from the request, checked, and kept to be shown again.

use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::header;
use axum::http::request::Parts;
use cache_core::session::Session;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::problem::Problem;

const TITLE_CHARS: std::ops::RangeInclusive<usize> = 3..=120;
const BODY_CHARS: std::ops::RangeInclusive<usize> = 1..=40_000;
const NAME_CHARS: std::ops::RangeInclusive<usize> = 2..=60;
const LOGIN_CHARS: std::ops::RangeInclusive<usize> = 3..=30;
const PASSWORD_CHARS: std::ops::RangeInclusive<usize> = 8..=200;
const COMMENT_CHARS: std::ops::RangeInclusive<usize> = 1..=2_000;

/// The longest request body: the longest post with every character at its longest encoding (12
/// bytes), plus the other fields.
pub(crate) const REQUEST_BYTES_MAX: usize = 512 * 1024;

const OLD_FORM: &str = "Nothing was saved: since this form was opened you have logged in or out, or your login has ended. \
     Go back to the form and send it again.";
const NO_COOKIE: &str = "Your browser sent no cookie, so you cannot log in. It may block all cookies, or those of \
    this address: without HTTPS, browsers keep the cookie of this blog for http://localhost only.";

/// The `{id}` in the address.
pub(crate) struct Id(pub(crate) i64);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path(text) = Path::<String>::from_request_parts(parts, state).await?;
        match text.parse() {
            Ok(id) if id > 0 => Ok(Self(id)),
            _ => Err(Problem::BadRequest("The id in the address is not a number.".to_owned())),
        }
    }
}

/// The parameters `?page=` and `?q=`.
#[derive(Deserialize)]
struct RawListQuery {
    page: Option<String>,
    q: Option<String>,
}

/// Which part of a list is requested.
pub(crate) struct ListQuery {
    /// Counts from 1.
    pub(crate) page: u32,
    /// As typed; empty if there is none.
    pub(crate) q: String,
}

impl<S: Send + Sync> FromRequestParts<S> for ListQuery {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Query(raw) = Query::<RawListQuery>::from_request_parts(parts, state).await?;
        let page = match raw.page.as_deref() {
            None => 1,
            Some(text) => match text.parse() {
                Ok(page) if page > 0 => page,
                _ => return Err(Problem::BadRequest("Pages are numbered 1, 2, 3 and so on.".to_owned())),
            },
        };
        Ok(Self { page, q: raw.q.unwrap_or_default() })
    }
}

/// The page of this blog to open after a login, from `?next=` or a form's field. Default: the front
/// page.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub(crate) struct Next(Option<String>);

/// Longer addresses are not from this blog.
const NEXT_BYTES_MAX: usize = 200;

impl Next {
    /// Accepts only paths of this blog. Browsers treat `//host` and `/\host` as the address of
    /// another site, and remove control characters before they parse.
    pub(crate) fn to(path: &str) -> Self {
        let is_plain =
            path.len() <= NEXT_BYTES_MAX && path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
        let is_ours = is_plain && path.starts_with('/') && !path.starts_with("//");
        Self((is_ours && path != "/").then(|| path.to_owned()))
    }

    pub(crate) fn path(&self) -> &str {
        self.0.as_deref().unwrap_or("/")
    }

    /// Returns the address of another page that leads to this one afterwards.
    pub(crate) fn after(&self, page: &str) -> String {
        match &self.0 {
            Some(path) => {
                let mut query = url::form_urlencoded::Serializer::new(String::new());
                format!("{page}?{}", query.append_pair("next", path).finish())
            }
            None => page.to_owned(),
        }
    }
}

impl From<String> for Next {
    fn from(path: String) -> Self {
        Self::to(&path)
    }
}

/// The parameter `?next=`.
#[derive(Deserialize)]
struct RawNext {
    #[serde(default)]
    next: Next,
}

impl<S: Send + Sync> FromRequestParts<S> for Next {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        Ok(Query::<RawNext>::from_request_parts(parts, state).await?.0.next)
    }
}

/// A form's fields, sent by a page of this session. Without the session's token the form is
/// rejected, so that another site cannot submit it in the reader's name. Errors of the request
/// itself become a page.
pub(crate) struct Form<T>(pub(crate) T);

/// A form that consists only of a button.
#[derive(Deserialize)]
pub(crate) struct Button {}

#[derive(Deserialize)]
struct Sent<T> {
    #[serde(default)]
    csrf: String,
    #[serde(flatten)]
    fields: T,
}

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequest<S> for Form<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let (mut parts, body) = request.into_parts();
        let has_cookies = parts.headers.contains_key(header::COOKIE);
        let session = Session::from_request_parts(&mut parts, state).await?;
        let sent = axum::Form::<Sent<T>>::from_request(Request::from_parts(parts, body), state).await?.0;
        if !session.verify_csrf(&sent.csrf).await? {
            return Err(Problem::Forbidden(if has_cookies { OLD_FORM } else { NO_COOKIE }));
        }
        Ok(Self(sent.fields))
    }
}

/// A post as typed.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct PostForm {
    pub(crate) title: String,
    pub(crate) body: String,
}

/// A comment as typed.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct CommentForm {
    pub(crate) body: String,
}

/// The fields of the login form.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct LoginForm {
    pub(crate) login: String,
    pub(crate) password: String,
    /// A checkbox: present if it is ticked.
    pub(crate) remember: Option<String>,
    pub(crate) next: Next,
}

/// The fields of a new account.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct RegisterForm {
    pub(crate) name: String,
    pub(crate) login: String,
    pub(crate) password: String,
    pub(crate) next: Next,
}

/// One of the reader's sessions.
#[derive(Deserialize)]
pub(crate) struct DeviceForm {
    pub(crate) handle: String,
}

/// Error messages by field. Empty if all fields are valid.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mistakes(Vec<(&'static str, String)>);

impl Mistakes {
    pub(crate) fn add(&mut self, field: &'static str, message: impl Into<String>) {
        self.0.push((field, message.into()));
    }

    pub(crate) fn of(&self, field: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| *name == field).map(|(_, message)| message.as_str())
    }

    pub(crate) fn first(&self) -> Option<&str> {
        self.0.first().map(|(_, message)| message.as_str())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl PostForm {
    /// Normalizes the texts in place and returns what is wrong with them.
    pub(crate) fn check(&mut self) -> Mistakes {
        let mut mistakes = Mistakes::default();
        self.title = self.title.split_whitespace().collect::<Vec<_>>().join(" ");
        self.body = tidy(&self.body);
        check_text(&mut mistakes, "title", "A title", &self.title, &TITLE_CHARS);
        check_text(&mut mistakes, "body", "A post", &self.body, &BODY_CHARS);
        mistakes
    }
}

impl CommentForm {
    /// Like [`PostForm::check`].
    pub(crate) fn check(&mut self) -> Mistakes {
        let mut mistakes = Mistakes::default();
        self.body = tidy(&self.body);
        check_text(&mut mistakes, "body", "A comment", &self.body, &COMMENT_CHARS);
        mistakes
    }
}

impl RegisterForm {
    /// Like [`PostForm::check`].
    pub(crate) fn check(&mut self) -> Mistakes {
        let mut mistakes = Mistakes::default();
        self.name = self.name.split_whitespace().collect::<Vec<_>>().join(" ");
        self.login = self.login.trim().to_ascii_lowercase();
        check_text(&mut mistakes, "name", "A name", &self.name, &NAME_CHARS);
        check_text(&mut mistakes, "login", "A login", &self.login, &LOGIN_CHARS);
        check_text(&mut mistakes, "password", "A password", &self.password, &PASSWORD_CHARS);
        if !self.login.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
            mistakes.add("login", "A login has only letters, digits and hyphens.");
        }
        mistakes
    }
}

/// Normalizes line breaks: browsers send CRLF.
fn tidy(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\r', "\n").trim_end().trim_start_matches('\n').to_owned()
}

fn check_text(
    mistakes: &mut Mistakes,
    field: &'static str,
    what: &str,
    text: &str,
    chars: &std::ops::RangeInclusive<usize>,
) {
    let count = text.chars().count();
    if text.trim().is_empty() {
        mistakes.add(field, format!("{what} needs some text."));
    } else if count < *chars.start() {
        mistakes.add(field, format!("{what} has at least {} characters.", chars.start()));
    } else if count > *chars.end() {
        mistakes.add(field, format!("{what} has at most {} characters; this has {count}.", chars.end()));
    } else if text.chars().any(|c| c.is_control() && c != '\n' && c != '\t') {
        // Postgres does not store NUL, and other control characters cannot be typed.
        mistakes.add(field, format!("{what} cannot contain control characters."));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistakes_of(title: &str, body: &str) -> Mistakes {
        PostForm { title: title.to_owned(), body: body.to_owned() }.check()
    }

    #[test]
    fn every_wrong_field_gets_its_message() {
        let mistakes = mistakes_of(" \t ", "\r\n");
        assert!(mistakes.of("title").is_some() && mistakes.of("body").is_some());
        assert!(mistakes_of("ab", "x").of("title").is_some());
        assert!(mistakes_of(&"x".repeat(121), "x").of("title").is_some());
        assert!(mistakes_of("title", "a\0b").of("body").is_some());
        assert!(mistakes_of(&"é".repeat(120), "line\r\nline\ttab").is_empty());
    }

    #[test]
    fn a_login_leads_to_pages_of_this_blog_only() {
        for own in ["/posts/new", "/posts/7/edit", "/search?q=a%20b"] {
            assert_eq!(Next::to(own).path(), own);
        }
        for other in
            ["", "/", "//evil.test", "/\\evil.test", "/\t/evil.test", "https://evil.test/", "posts/new", "/a b", "/é"]
        {
            assert_eq!(Next::to(other), Next::default(), "{other}");
        }
        assert_eq!(Next::to(&format!("/{}", "x".repeat(NEXT_BYTES_MAX))).path(), "/");
        assert_eq!(Next::to("/posts/new").after("/login"), "/login?next=%2Fposts%2Fnew");
    }

    #[test]
    fn indentation_at_the_start_is_kept() {
        assert_eq!(tidy("\r\n    code\r\n"), "    code");
    }
}
