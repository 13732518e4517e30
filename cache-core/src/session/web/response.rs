//! What the request says about its session, and what the response carries.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::devices::device;
use crate::session::config::{Config, Form};
use crate::session::id::{SessionId, Signed};
use crate::session::options::Transport;

/// The relevant parts of the request. Header values are reference-counted, so copies are cheap.
pub(in crate::session) struct Request {
    pub(in crate::session) headers: Vec<(HeaderName, HeaderValue)>,
    pub(in crate::session) by_https: bool,
    /// The client's description of itself, if it is to be recorded.
    pub(in crate::session) user_agent: Option<String>,
}

/// What the response has to carry.
#[derive(Debug, Default)]
pub(in crate::session) struct Answer {
    pub(in crate::session) cookies: Vec<String>,
    pub(in crate::session) token: Option<(HeaderName, String)>,
    /// The session was accessed, so the response depends on it.
    pub(in crate::session) vary: bool,
}

/// An id that the client presented.
pub(in crate::session) struct PresentedId {
    pub(in crate::session) id: SessionId,
    pub(in crate::session) signed: Signed,
    pub(in crate::session) by_header: bool,
    /// The form of the cookie that carried it, if it was a cookie.
    pub(in crate::session) cookie: Option<Form>,
}

impl Request {
    pub(in crate::session) fn new(headers: &HeaderMap, config: &Config, by_https: bool) -> Self {
        let mut kept = Vec::new();
        for transport in &config.transports {
            let name = match transport {
                Transport::Cookie => &http::header::COOKIE,
                Transport::Bearer => &http::header::AUTHORIZATION,
                Transport::Header(name) => name,
            };
            kept.extend(headers.get_all(name).iter().map(|value| (name.clone(), value.clone())));
        }
        let user_agent = headers.get(http::header::USER_AGENT).filter(|_| config.user_agent);
        let user_agent = user_agent.and_then(|text| device(&String::from_utf8_lossy(text.as_bytes())));
        Self { headers: kept, by_https, user_agent }
    }

    pub(in crate::session) fn values(&self, name: &HeaderName) -> impl Iterator<Item = &HeaderValue> {
        self.headers.iter().filter(move |(found, _)| found == name).map(|(_, value)| value)
    }
}
