//! The settings of sessions.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::cookie::{Attributes, is_attribute_text, is_name};
use super::id::{Keyring, Secret, SessionId};
use super::layer::SessionLayer;
use super::options::{CookieOptions, Priority, SameSite, Secure, TooMany, Transport, Unset};
use super::record::{MaxAge, StoredCookie};
use super::values::SessionValues;
use crate::cache::Cache;
use crate::clock::{Timestamp, millis};
use crate::error::{Error, ErrorKind, Result};

/// With whom sessions are shared, and so where and how they stand in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SessionMode {
    /// With an Express application (express-session, connect-redis): the same key `sess:<id>`, JSON, cookie and times. The id
    /// stands in Redis as it is.
    Express,
    /// As [`Express`](Self::Express), but sessions that stand in the form of [`Native`](Self::Native) are read and written too: the step
    /// between the two, for as long as servers of both modes run.
    Dual,
    /// With nobody: keys are hashes of ids, so that who reads Redis has no session; values carry a checksum; the cookie has the prefix
    /// `__Host-`. A session that stands in the form of Express is taken over at its next use.
    #[default]
    Native,
}

/// A new id, where the application makes its own.
type GenerateId = dyn Fn() -> String + Send + Sync;
/// How long a session is kept, by what is in it.
type TtlOf = dyn Fn(&SessionValues<'_>) -> Duration + Send + Sync;

#[derive(Clone)]
pub(super) enum Ttl {
    Fixed(Duration),
    Of(Arc<TtlOf>),
}

/// What sessions go by. See [`SessionBuilder`].
#[derive(Clone)]
pub(super) struct Config {
    pub(super) mode: SessionMode,
    pub(super) keyring: Keyring,
    pub(super) name: String,
    pub(super) native_name: String,
    pub(super) prefix: String,
    pub(super) resave: bool,
    pub(super) save_uninitialized: bool,
    pub(super) rolling: bool,
    pub(super) unset: Unset,
    pub(super) generate_id: Option<Arc<GenerateId>>,
    pub(super) proxy: bool,
    pub(super) https: bool,
    pub(super) cookie: CookieOptions,
    pub(super) ttl: Ttl,
    pub(super) disable_ttl: bool,
    pub(super) disable_touch: bool,
    pub(super) touch_after: f64,
    pub(super) discard_on_server_error: bool,
    pub(super) max_bytes: usize,
    pub(super) absolute_timeout: Option<Duration>,
    pub(super) max_sessions: Option<(usize, TooMany)>,
    pub(super) transports: Vec<Transport>,
    pub(super) cache_headers: bool,
    pub(super) removal_cookie: bool,
    pub(super) revoke_for: Duration,
    pub(super) user_agent: bool,
}

/// A cookie's longest life, which browsers keep to: RFC 6265bis.
const LONGEST_COOKIE: Duration = Duration::from_secs(400 * 24 * 3600);

const LONGEST_ATTRIBUTE: usize = 1024;

impl Config {
    /// The forms in which a session may stand, in the order in which it is looked for; new ones have the first.
    pub(super) fn forms(&self) -> &'static [Form] {
        match self.mode {
            SessionMode::Express => &[Form::Express],
            SessionMode::Dual => &[Form::Express, Form::Native],
            SessionMode::Native => &[Form::Native, Form::Express],
        }
    }

    pub(super) fn key(&self, form: Form, id: &SessionId) -> String {
        match form {
            Form::Express => format!("{}{}", self.prefix, id.reveal()),
            Form::Native => format!("{}v1:{}", self.prefix, id.hash()),
        }
    }

    pub(super) fn cookie_name(&self, form: Form) -> &str {
        match form {
            Form::Express => &self.name,
            Form::Native => &self.native_name,
        }
    }

    /// Whether values have to pass through an Express peer unchanged.
    pub(super) fn shares_with_express(&self) -> bool {
        self.mode != SessionMode::Native
    }

    pub(super) fn new_id(&self) -> Option<SessionId> {
        match &self.generate_id {
            None => Some(SessionId::random()),
            Some(generate) => SessionId::parse(&generate()),
        }
    }

    fn secure(&self) -> Secure {
        let default = if self.mode == SessionMode::Native { Secure::Always } else { Secure::Never };
        self.cookie.secure.unwrap_or(default)
    }

    /// The `cookie` member of a new session.
    pub(super) fn new_cookie(&self, by_https: bool, now: Timestamp) -> StoredCookie {
        let options = &self.cookie;
        let max_age = options.max_age.or_else(|| options.expires.map(|expires| now.until(expires))).map(millis);
        let secure = match self.secure() {
            Secure::Always => Some(true),
            Secure::Never => None,
            Secure::Auto => Some(by_https),
        };
        let same_site = options.same_site.map(|same_site| match (same_site, by_https) {
            (SameSite::Strict, _) => "strict",
            (SameSite::Lax, _) | (SameSite::Auto, false) => "lax",
            (SameSite::None, _) | (SameSite::Auto, true) => "none",
        });
        let priority = options.priority.map(|priority| match priority {
            Priority::Low => "low",
            Priority::Medium => "medium",
            Priority::High => "high",
        });
        let mut cookie = StoredCookie::new([
            ("originalMaxAge", Some(json!(max_age))),
            ("partitioned", options.partitioned.then_some(json!(true))),
            ("priority", priority.map(|priority| json!(priority))),
            ("expires", Some(json!(null))),
            ("secure", secure.map(|secure| json!(secure))),
            ("httpOnly", Some(json!(options.http_only.unwrap_or(true)))),
            ("domain", options.domain.as_ref().map(|domain| json!(domain))),
            ("path", Some(json!(self.path()))),
            ("sameSite", same_site.map(|same_site| json!(same_site))),
        ]);
        cookie.renew(now);
        cookie
    }

    pub(super) fn path(&self) -> &str {
        self.cookie.path.as_deref().unwrap_or("/")
    }

    /// What the header says. In the form of Express the stored cookie decides, as there; in ours only how long it lives.
    pub(super) fn attributes(&self, form: Form, stored: &StoredCookie, now: Timestamp) -> Attributes {
        let expires = stored.expires(now);
        match form {
            Form::Express => Attributes {
                domain: stored.text("domain").map(Into::into),
                path: Some(stored.text("path").map_or_else(|| "/".to_owned(), Into::into)),
                expires,
                max_age: None,
                http_only: stored.flag("httpOnly").unwrap_or(true),
                secure: stored.flag("secure").unwrap_or(false),
                partitioned: stored.flag("partitioned").unwrap_or(false),
                priority: stored.text("priority").and_then(|text| known(&text, &["Low", "Medium", "High"])),
                same_site: stored.text("sameSite").map_or_else(
                    || (stored.get::<bool>("sameSite") == Some(true)).then_some("Strict"),
                    |text| known(&text, &["Strict", "Lax", "None"]),
                ),
            },
            Form::Native => {
                let lasts = match stored.max_age() {
                    MaxAge::Millis(ms) => {
                        Some(Duration::from_millis(u64::try_from(ms).unwrap_or(0)).min(LONGEST_COOKIE))
                    }
                    MaxAge::Browser => None,
                };
                self.own_attributes(lasts, now)
            }
        }
    }

    /// Those of our own form.
    fn own_attributes(&self, lasts: Option<Duration>, now: Timestamp) -> Attributes {
        let options = &self.cookie;
        Attributes {
            domain: options.domain.clone(),
            path: Some(self.path().to_owned()),
            expires: lasts.map(|lasts| now.plus(lasts)),
            max_age: lasts.map(|lasts| lasts.as_secs()),
            http_only: options.http_only.unwrap_or(true),
            secure: self.native_name.starts_with("__") || self.secure() != Secure::Never,
            partitioned: options.partitioned,
            priority: options.priority.map(|priority| match priority {
                Priority::Low => "Low",
                Priority::Medium => "Medium",
                Priority::High => "High",
            }),
            same_site: Some(match options.same_site {
                Some(SameSite::Strict) => "Strict",
                Some(SameSite::None) => "None",
                Some(SameSite::Lax | SameSite::Auto) | None => "Lax",
            }),
        }
    }

    /// What is wrong with it, once and for all.
    fn check(&self) -> Result<(), String> {
        let cookie = &self.cookie;
        for name in [&self.name, &self.native_name] {
            if !is_name(name) {
                return Err("a cookie's name has only letters, digits and !#$%&'*+-.^_`|~ in it".into());
            }
        }
        let (domain, path) = (cookie.domain.as_deref().unwrap_or_default(), self.path());
        if !is_attribute_text(domain) || !is_attribute_text(path) || !path.starts_with('/') {
            return Err("a cookie's path begins with `/`; path and domain are ASCII without `;`".into());
        }
        // A browser drops what is longer, silently: RFC 6265bis, 5.6 and 5.7, less the longest signed id.
        if [&self.name, &self.native_name].iter().any(|name| name.len() > LONGEST_ATTRIBUTE)
            || domain.len() > LONGEST_ATTRIBUTE
            || path.len() > LONGEST_ATTRIBUTE
        {
            return Err("a cookie's name, path and domain have at most 1024 bytes".into());
        }
        let own = self.mode != SessionMode::Express;
        if own && self.native_name.starts_with("__Host-") && (cookie.domain.is_some() || path != "/") {
            let name = &self.native_name;
            return Err(format!(
                "a cookie called `{name}` has no domain and the path `/`; choose another `native_name`"
            ));
        }
        let insecure = self.secure() == Secure::Never;
        if insecure && (cookie.same_site == Some(SameSite::None) || cookie.partitioned) {
            return Err(
                "browsers refuse SameSite=None and Partitioned without Secure; add `.secure(Secure::Always)`".into()
            );
        }
        if self.mode == SessionMode::Native && insecure && self.native_name.starts_with("__") {
            let name = &self.native_name;
            return Err(format!(
                "browsers refuse `{name}` without Secure; choose another `native_name` for plain HTTP"
            ));
        }
        if self.transports.is_empty() {
            return Err("sessions need a transport".into());
        }
        if !(0.0..=1.0).contains(&self.touch_after) {
            return Err("`touch_after` is a fraction between 0 and 1".into());
        }
        if self.max_sessions.is_some_and(|(most, _)| most == 0) {
            return Err("`max_sessions` is at least 1".into());
        }
        Ok(())
    }
}

fn known(text: &str, words: &[&'static str]) -> Option<&'static str> {
    words.iter().find(|word| word.eq_ignore_ascii_case(text)).copied()
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("mode", &self.mode)
            .field("name", &self.name)
            .field("prefix", &self.prefix)
            .finish()
    }
}

/// The form in which a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// JSON under the id.
    Express,
    /// The cache's record under the id's hash.
    Native,
}

/// Settings of sessions, from [`SessionLayer::builder`].
#[derive(Clone)]
pub struct SessionBuilder {
    cache: Cache,
    secrets: Vec<Secret>,
    cache_headers: Option<bool>,
    removal_cookie: Option<bool>,
    config: Config,
}

impl SessionBuilder {
    pub(super) fn new(cache: Cache) -> Self {
        let config = Config {
            mode: SessionMode::default(),
            keyring: Keyring::none(),
            name: "connect.sid".into(),
            native_name: "__Host-id".into(),
            prefix: "sess:".into(),
            resave: false,
            save_uninitialized: false,
            rolling: false,
            unset: Unset::default(),
            generate_id: None,
            proxy: false,
            https: false,
            cookie: CookieOptions::default(),
            ttl: Ttl::Fixed(Duration::from_secs(86400)),
            disable_ttl: false,
            disable_touch: false,
            touch_after: 0.1,
            discard_on_server_error: true,
            max_bytes: 64 << 10,
            absolute_timeout: None,
            max_sessions: None,
            transports: vec![Transport::Cookie],
            cache_headers: true,
            removal_cookie: true,
            revoke_for: Duration::from_secs(60),
            user_agent: false,
        };
        Self { cache, secrets: Vec::new(), cache_headers: None, removal_cookie: None, config }
    }

    /// With whom sessions are shared. Default: [`Native`](SessionMode::Native).
    #[must_use]
    pub fn mode(mut self, mode: SessionMode) -> Self {
        self.config.mode = mode;
        self
    }

    /// Adds a secret: the first one signs, each verifies. At least 32 bytes; in the modes of Express, and behind the first, a shorter one
    /// is taken with a warning. [`Secret::generate`] makes one. Required.
    ///
    /// To change it while several servers run: add the new one behind the old one everywhere, then put it first everywhere, then
    /// take the old one away once the sessions that it signed are gone.
    #[must_use]
    pub fn secret(mut self, secret: impl Into<Secret>) -> Self {
        self.secrets.push(secret.into());
        self
    }

    /// The cookie's name in the form of Express. Default: `connect.sid`.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.config.name = name.into();
        self
    }

    /// The cookie's name in our own form. Default: `__Host-id`.
    #[must_use]
    pub fn native_name(mut self, name: impl Into<String>) -> Self {
        self.config.native_name = name.into();
        self
    }

    /// What keys begin with. The cache's namespace is not part of them. Default: `sess:`.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.config.prefix = prefix.into();
        self
    }

    /// Whether a session that was not changed is written at the end of each request. It overwrites nothing: what somebody else
    /// wrote meanwhile stays. Costs a read and a write a request. Default: false.
    #[must_use]
    pub fn resave(mut self, resave: bool) -> Self {
        self.config.resave = resave;
        self
    }

    /// Whether a session with nothing in it is stored, and its cookie sent: one for each visitor. Default: false.
    #[must_use]
    pub fn save_uninitialized(mut self, save: bool) -> Self {
        self.config.save_uninitialized = save;
        self
    }

    /// Whether each answer carries the cookie, so that the browser begins its time anew. Costs a read a request. Default: false.
    #[must_use]
    pub fn rolling(mut self, rolling: bool) -> Self {
        self.config.rolling = rolling;
        self
    }

    /// What [`Session::unset`](super::Session::unset) does. Default: [`Keep`](Unset::Keep).
    #[must_use]
    pub fn unset(mut self, unset: Unset) -> Self {
        self.config.unset = unset;
        self
    }

    /// Makes the ids. They must not be guessable: 128 random bits at least, which a UUID does not have. Up to 256 bytes without white space.
    /// Default: 192 random bits as 32 characters.
    #[must_use]
    pub fn generate_id(mut self, generate: impl Fn() -> String + Send + Sync + 'static) -> Self {
        self.config.generate_id = Some(Arc::new(generate));
        self
    }

    /// Whether a proxy in front sets `X-Forwarded-Proto`, which then says whether a request came by HTTPS. Default: false.
    ///
    /// # Warning
    /// Only where every request comes through that proxy: others could write the header themselves.
    #[must_use]
    pub fn proxy(mut self, proxy: bool) -> Self {
        self.config.proxy = proxy;
        self
    }

    /// Whether all requests come by HTTPS, since this server itself speaks it. Default: false.
    #[must_use]
    pub fn https(mut self, https: bool) -> Self {
        self.config.https = https;
        self
    }

    /// The cookie's attributes.
    #[must_use]
    pub fn cookie(mut self, cookie: CookieOptions) -> Self {
        self.config.cookie = cookie;
        self
    }

    /// How long a session is kept after its last use, if its cookie has no age: the idle timeout. Default: one day.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.config.ttl = Ttl::Fixed(ttl);
        self
    }

    /// How long a session is kept after its last use, by what is in it, as a short time for anonymous visitors. Zero: it is over. Wins over the cookie's age.
    #[must_use]
    pub fn ttl_of(mut self, ttl: impl Fn(&SessionValues<'_>) -> Duration + Send + Sync + 'static) -> Self {
        self.config.ttl = Ttl::Of(Arc::new(ttl));
        self
    }

    /// Whether sessions stay in the store for ever. Default: false.
    #[must_use]
    pub fn disable_ttl(mut self, disable: bool) -> Self {
        self.config.disable_ttl = disable;
        self
    }

    /// Whether reading a session does not prolong its life in the store. Default: false.
    #[must_use]
    pub fn disable_touch(mut self, disable: bool) -> Self {
        self.config.disable_touch = disable;
        self
    }

    /// How much of its time has to be over before reading a session prolongs it: each time costs a write. Express does so at each
    /// request, which is `0.0`. Default: `0.1`.
    #[must_use]
    pub fn touch_after(mut self, fraction: f64) -> Self {
        self.config.touch_after = fraction;
        self
    }

    /// Whether a handler's changes are dropped if it answers with a status from 500 on. Default: true.
    #[must_use]
    pub fn discard_on_server_error(mut self, discard: bool) -> Self {
        self.config.discard_on_server_error = discard;
        self
    }

    /// How large a stored session may be. Default: 64 KiB.
    #[must_use]
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.config.max_bytes = bytes;
        self
    }

    /// How long a session may live in all, however often it is used. Its beginning is stored with it, as `_m`. Default: no limit.
    #[must_use]
    pub fn absolute_timeout(mut self, timeout: Duration) -> Self {
        self.config.absolute_timeout = Some(timeout);
        self
    }

    /// How many sessions one user may have, and what a further login does. It holds exactly, however many log in at the same time; sessions
    /// that have ended do not count. Costs a look at each of the user's sessions, in the store, at each login. Default: no limit.
    #[must_use]
    pub fn max_sessions(mut self, most: usize, then: TooMany) -> Self {
        self.config.max_sessions = Some((most, then));
        self
    }

    /// For how long an id that this side has ended is remembered as ended, where sessions are shared with Express: as long as the longest
    /// request there. A request of a stock connect-redis that began before that end writes back what it has read; what stands under such an id is
    /// deleted as soon as it is seen, and counts as none. Zero turns it off. In mode [`Native`](SessionMode::Native) nobody writes like that, and it
    /// changes nothing. Default: 60 s. Costs a small key for each end of a session, and a third command in the round trip that reads one.
    #[must_use]
    pub fn revoke_for(mut self, longest_request: Duration) -> Self {
        self.config.revoke_for = longest_request;
        self
    }

    /// Whether a login stores what the client's `User-Agent` header says, up to 256 bytes of it, as [`SessionInfo::device`](super::SessionInfo::device). It
    /// tells something about a person. [`Session::set_device`](super::Session::set_device) stores a text of one's own instead. Default: false.
    #[must_use]
    pub fn record_user_agent(mut self, record: bool) -> Self {
        self.config.user_agent = record;
        self
    }

    /// How clients show their ids: new sessions go by the first. Default: a cookie.
    #[must_use]
    pub fn transports(mut self, transports: impl IntoIterator<Item = Transport>) -> Self {
        self.config.transports = transports.into_iter().collect();
        self
    }

    /// Whether an answer that depends on a session says so to caches: `Vary: Cookie`, and `Cache-Control: no-store` with a cookie, where the
    /// handler did not say otherwise. Default: true; in mode `Express` false, as there.
    #[must_use]
    pub fn cache_headers(mut self, add: bool) -> Self {
        self.cache_headers = Some(add);
        self
    }

    /// Whether the answer tells the browser to forget the cookie of a session that was destroyed. Default: true; in mode
    /// `Express` false, as there.
    #[must_use]
    pub fn removal_cookie(mut self, remove: bool) -> Self {
        self.removal_cookie = Some(remove);
        self
    }

    /// The layer.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] for settings that can never work, with what to change.
    pub fn build(self) -> Result<SessionLayer> {
        let mut config = self.config;
        let by_default = config.mode != SessionMode::Express;
        config.cache_headers = self.cache_headers.unwrap_or(by_default);
        config.removal_cookie = self.removal_cookie.unwrap_or(by_default);
        config.keyring = Keyring::new(self.secrets, config.shares_with_express())?;
        config.check().map_err(|detail| Error::new(ErrorKind::Configuration, "sessions").detail(detail))?;
        Ok(SessionLayer::new(self.cache, config))
    }
}

impl fmt::Debug for SessionBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SessionBuilder").field(&self.config).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stay_as_they_are() {
        let layer = SessionBuilder::new(Cache::in_memory()).secret([7_u8; 32]).build().unwrap();
        let id = SessionId::parse("R1UqolVb-Rd2gJef9Rbx-PLyuQev7t3y").unwrap();
        assert_eq!(layer.0.config.key(Form::Express, &id), "sess:R1UqolVb-Rd2gJef9Rbx-PLyuQev7t3y");
        assert_eq!(layer.0.config.key(Form::Native, &id), "sess:v1:qSyw7bmPZnvtNut4abrMd9kPDv4mbZfH0xN19HP8064");
    }
}
