//! What the client of a request sends and gets: ids, cookies and tokens.

use http::{HeaderName, HeaderValue};

use super::super::cookie::{self, Attributes};
use super::super::response::{Answer, PresentedId};
use super::State;
use crate::clock::Timestamp;
use crate::observe::events::SessionEvent;
use crate::session::config::Form;
use crate::session::options::Transport;

impl State {
    /// Returns the ids that the client presented with a valid signature, in the order in which they
    /// are tried.
    pub(super) fn presented_ids(&self) -> Vec<PresentedId> {
        let config = &self.sessions.config;
        let mut presented: Vec<PresentedId> = Vec::new();
        let mut verify = |signed: Option<&str>, cookie: Option<Form>| match signed
            .and_then(|signed| config.keyring.verify(signed))
        {
            None => self.sessions.emit(SessionEvent::BadSignature),
            Some((id, _)) if presented.iter().any(|presented| presented.id == id) => {}
            Some((id, signed)) => presented.push(PresentedId { id, signed, by_header: cookie.is_none(), cookie }),
        };
        for transport in &config.transports {
            match transport {
                Transport::Cookie => {
                    for form in config.forms(self.sessions.now()) {
                        let cookies = self.request.values(&http::header::COOKIE).map(HeaderValue::as_bytes);
                        if let Some(value) = cookie::find(cookies, config.cookie_name(*form)) {
                            verify(value.strip_prefix("s:"), Some(*form));
                        }
                    }
                }
                Transport::Bearer => {
                    let values =
                        self.request.values(&http::header::AUTHORIZATION).filter_map(|value| value.to_str().ok());
                    if let Some(token) = values.filter_map(bearer).next() {
                        verify(Some(token), None);
                    }
                }
                Transport::Header(name) => {
                    if let Some(value) = self.request.values(name).next() {
                        verify(value.to_str().ok(), None);
                    }
                }
            }
        }
        presented
    }

    /// Returns whether a new session of this request uses a header instead of a cookie.
    pub(super) fn by_header(&self) -> bool {
        match &self.presented {
            Some(presented) => presented.by_header,
            None => self.sessions.config.transports.first().is_some_and(|first| *first != Transport::Cookie),
        }
    }

    pub(super) fn form(&self) -> Form {
        match &self.current {
            Some(current) => current.at.form,
            None => self.sessions.config.new_form(),
        }
    }

    fn attributes(&self, now: Timestamp) -> Attributes {
        self.sessions.config.attributes(self.form(), &self.view.cookie(), now)
    }

    /// Returns whether the client of this request would not get the cookie. In the native form this
    /// is left to the browser.
    pub(super) fn is_cookie_blocked(&self) -> bool {
        !self.by_header()
            && self.form() == Form::Express
            && !self.request.by_https
            && self.attributes(self.sessions.now()).secure
    }

    pub(super) fn show_to_client(&self, answer: &mut Answer) {
        let Some(id) = &self.id else { return };
        let config = &self.sessions.config;
        let signed = config.keyring.sign(id);
        if self.by_header() {
            let transport = config.transports.iter().find_map(|transport| match transport {
                Transport::Cookie => None,
                Transport::Bearer => Some(HeaderName::from_static("session-token")),
                Transport::Header(name) => Some(name.clone()),
            });
            answer.token = transport.map(|name| (name, signed));
            return;
        }
        let attributes = self.attributes(self.sessions.now());
        let header = attributes.header(config.cookie_name(self.form()), &format!("s:{signed}"));
        match header.filter(|_| !self.is_cookie_blocked()) {
            Some(header) => answer.cookies.push(header),
            None => self.sessions.emit(SessionEvent::CookieNotSent),
        }
    }

    pub(super) fn forget_cookie(&mut self, answer: &mut Answer) {
        let config = &self.sessions.config;
        let Some((form, mut attributes)) =
            self.forget.take().filter(|_| (config.removal_cookie || self.logged_out) && !self.by_header())
        else {
            return;
        };
        attributes.expires = Some(Timestamp::from_millis(0));
        attributes.max_age = attributes.max_age.map(|_| 0);
        answer.cookies.extend(attributes.header(config.cookie_name(form), ""));
    }
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
