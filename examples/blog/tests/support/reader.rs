//! A reader whose browser keeps cookies, and who sends the forms that pages show.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use crate::browser::{Browser, Page};

/// Clones share their cookies.
#[derive(Clone)]
pub(crate) struct Reader {
    browser: Browser,
    headers: Vec<(&'static str, &'static str)>,
    jar: Arc<Mutex<Jar>>,
}

#[derive(Default)]
struct Jar {
    cookies: BTreeMap<String, String>,
    /// The token of the last page with a form.
    csrf: String,
}

impl Reader {
    pub(crate) fn new(browser: Browser) -> Self {
        Self { browser, headers: Vec::new(), jar: Arc::default() }
    }

    /// Adds a header to all requests.
    pub(crate) fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }

    pub(crate) fn logged_in(browser: Browser, login: &str, password: &str) -> Self {
        let reader = Self::new(browser);
        reader.log_in(login, password);
        reader
    }

    /// Returns the same reader at another instance.
    pub(crate) fn at(&self, browser: Browser) -> Self {
        Self { browser, headers: self.headers.clone(), jar: Arc::clone(&self.jar) }
    }

    /// Logs in and returns the page after it.
    pub(crate) fn log_in(&self, login: &str, password: &str) -> Page {
        self.get("/login");
        let page = self.post("/login", &[("login", login), ("password", password)]);
        assert_eq!((page.status, page.location()), (303, Some("/")), "{}", page.body);
        self.get("/")
    }

    pub(crate) fn register(&self, name: &str, login: &str, password: &str) -> Page {
        self.get("/register");
        self.post("/register", &[("name", name), ("login", login), ("password", password)])
    }

    pub(crate) fn is_logged_in(&self) -> bool {
        self.get("/devices").status == 200
    }

    pub(crate) fn get(&self, path: &str) -> Page {
        self.request("GET", path, None, "")
    }

    /// Sends a form with the token of the last page.
    pub(crate) fn post(&self, path: &str, fields: &[(&str, &str)]) -> Page {
        let csrf = self.jar.lock().unwrap().csrf.clone();
        self.post_without_token(path, &[fields, &[("csrf", &csrf)]].concat())
    }

    pub(crate) fn post_without_token(&self, path: &str, fields: &[(&str, &str)]) -> Page {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        self.request("POST", path, Some("application/x-www-form-urlencoded"), &body)
    }

    pub(crate) fn request(&self, method: &str, path: &str, content_type: Option<&str>, body: &str) -> Page {
        let cookies = self.cookies();
        let headers = [&self.headers[..], &[("cookie", &cookies)]].concat();
        let page = self.browser.request_with(method, path, &headers, content_type, body);
        let mut jar = self.jar.lock().unwrap();
        for cookie in page.all("set-cookie") {
            let (pair, attributes) = cookie.split_once(';').unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            if attributes.contains("01 Jan 1970") {
                jar.cookies.remove(name);
            } else {
                jar.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        if let Some((_, rest)) = page.body.split_once("name=\"csrf\" value=\"") {
            jar.csrf = rest.split('"').next().unwrap().to_owned();
        }
        page
    }

    /// Returns the cookies in the form of the header.
    pub(crate) fn cookies(&self) -> String {
        let jar = self.jar.lock().unwrap();
        jar.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
    }
}
