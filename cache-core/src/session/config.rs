//! Session configuration and its checks.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::id::{Keyring, SessionId, hash, random_tag};
use super::options::{
    CookieOptions, Priority, SameSite, Secure, TooMany, Transport, Unset, is_attribute_text, is_cookie_name,
};
use super::stored::record::StoredCookie;
use super::values::SessionValues;
use crate::clock::{Timestamp, millis};

/// With which other programs sessions are shared, and therefore how they are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SessionMode {
    /// Shared with an Express application (express-session, connect-redis): the same key
    /// `sess:<id>`, JSON, cookie and times. The id is stored in Redis in plain form.
    Express,
    /// Like [`Express`](Self::Express), but sessions in the form of [`Native`](Self::Native) are
    /// read and written too. Use it as the step between the two, for as long as servers of both
    /// modes run.
    Dual,
    /// Not shared. Keys contain hashes of ids, so read access to Redis gives no access to sessions,
    /// and begin with the cache's namespace. Values carry a checksum. The cookie has the prefix
    /// `__Host-`, and no other cookie is accepted. With
    /// [`take_over_until`](super::SessionBuilder::take_over_until), a session in the form of
    /// Express is converted at its next use.
    #[default]
    Native,
}

/// Makes a new id, if the application makes its own.
pub(super) type GenerateId = dyn Fn() -> String + Send + Sync;
/// Returns how long a session is kept, depending on its values.
pub(super) type TtlOf = dyn Fn(&SessionValues<'_>) -> Duration + Send + Sync;

#[derive(Clone)]
pub(super) enum Ttl {
    Fixed(Duration),
    Of(Arc<TtlOf>),
}

/// Session configuration. See [`SessionBuilder`].
#[derive(Clone)]
pub(super) struct Config {
    pub(super) mode: SessionMode,
    pub(super) keyring: Keyring,
    pub(super) name: String,
    pub(super) native_name: String,
    pub(super) prefix: String,
    /// The cache's namespace. It isolates sessions too.
    pub(super) namespace: Box<str>,
    pub(super) take_over_until: Option<Timestamp>,
    pub(super) resave: bool,
    pub(super) save_uninitialized: bool,
    pub(super) rolling: bool,
    pub(super) renew_cookie: bool,
    pub(super) deadline: Option<Duration>,
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

/// The longest lifetime of a cookie that browsers accept (RFC 6265bis).
pub(super) const LONGEST_COOKIE: Duration = Duration::from_secs(400 * 24 * 3600);

const LONGEST_ATTRIBUTE: usize = 1024;

/// The size that an empty session needs.
const LEAST_BYTES: usize = 256;

impl Config {
    /// Returns the forms in which a session may be stored and whose cookies are accepted, in lookup
    /// order.
    pub(super) fn forms(&self, now: Timestamp) -> &'static [Form] {
        match self.mode {
            SessionMode::Express => &[Form::Express],
            SessionMode::Dual => &[Form::Express, Form::Native],
            SessionMode::Native if self.takes_over(now) => &[Form::Native, Form::Express],
            SessionMode::Native => &[Form::Native],
        }
    }

    /// Returns whether sessions in the form of Express are still converted.
    fn takes_over(&self, now: Timestamp) -> bool {
        self.take_over_until.is_some_and(|until| now < until)
    }

    /// Returns the form of new sessions.
    pub(super) fn new_form(&self) -> Form {
        if self.mode == SessionMode::Native { Form::Native } else { Form::Express }
    }

    pub(super) fn key(&self, form: Form, id: &SessionId) -> String {
        match form {
            Form::Express => format!("{}{}", self.prefix, id.reveal()),
            Form::Native => format!("{}v1:{{{}}}{}", self.own_prefix(), id.tag(), id.hash()),
        }
    }

    /// Returns the prefix of keys in the native form.
    pub(super) fn own_prefix(&self) -> String {
        format!("{}:{}", self.namespace, self.prefix)
    }

    pub(super) fn form_of(&self, key: &str) -> Form {
        let rest = key.strip_prefix(&*self.namespace).and_then(|rest| rest.strip_prefix(':'));
        let is_own =
            rest.and_then(|rest| rest.strip_prefix(self.prefix.as_str())).is_some_and(|rest| rest.starts_with("v1:{"));
        if is_own { Form::Native } else { Form::Express }
    }

    /// Returns the context of the metadata signature under this key: it binds the signature to this
    /// session, in any form, and to this namespace.
    pub(super) fn context(&self, key: &str) -> String {
        let hash = match self.form_of(key) {
            Form::Native => key.rsplit_once('}').map(|(_, hash)| hash.to_owned()).unwrap_or_default(),
            Form::Express => hash(key.strip_prefix(self.prefix.as_str()).unwrap_or(key).as_bytes()),
        };
        format!("{}\0{}\0{hash}", self.namespace, self.prefix)
    }

    pub(super) fn cookie_name(&self, form: Form) -> &str {
        match form {
            Form::Express => &self.name,
            Form::Native => &self.native_name,
        }
    }

    /// Returns whether values have to pass through an Express peer unchanged.
    pub(super) fn shares_with_express(&self) -> bool {
        self.mode != SessionMode::Native
    }

    /// Makes a new id. In the native form it has a tag: the given one of a user, or a random one.
    pub(super) fn new_id(&self, tag: Option<&str>) -> Option<SessionId> {
        let id = match &self.generate_id {
            None => SessionId::random(),
            Some(generate) => SessionId::parse(&generate())?,
        };
        Some(match self.new_form() {
            Form::Express => id,
            Form::Native => id.tagged(&tag.map_or_else(random_tag, str::to_owned)),
        })
    }

    pub(super) fn secure(&self) -> Secure {
        let default = if self.mode == SessionMode::Native { Secure::Always } else { Secure::Never };
        self.cookie.secure.unwrap_or(default)
    }

    /// Returns the `cookie` member of a new session.
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

    /// Checks all durations and times.
    fn check_times(&self, now: Timestamp) -> Result<(), String> {
        if matches!(self.ttl, Ttl::Fixed(ttl) if ttl.is_zero()) {
            return Err("`ttl` is zero, so no session would be stored; leave it out for a day".into());
        }
        if self.deadline.is_some_and(|deadline| deadline.is_zero()) {
            return Err("`deadline` is zero, so no request would get a session; leave it out for the default".into());
        }
        if self.absolute_timeout.is_some_and(|timeout| timeout.is_zero()) {
            return Err("`absolute_timeout` is zero, so no session would be stored; leave it out for none".into());
        }
        if self.take_over_until.is_some_and(|until| now.until(until) > LONGEST_COOKIE) {
            return Err("`take_over_until` is more than 400 days away, longer than any cookie lives; use the day on \
                which the last session of Express ends"
                .into());
        }
        Ok(())
    }

    /// Checks all settings, and returns what is wrong.
    pub(super) fn check(&self, now: Timestamp) -> Result<(), String> {
        self.check_times(now)?;
        let cookie = &self.cookie;
        for name in [&self.name, &self.native_name] {
            if !is_cookie_name(name) {
                return Err("a cookie name may contain only letters, digits and !#$%&'*+-.^_`|~".into());
            }
        }
        let (domain, path) = (cookie.domain.as_deref().unwrap_or_default(), self.path());
        if !is_attribute_text(domain) || !is_attribute_text(path) || !path.starts_with('/') {
            return Err("a cookie path must begin with `/`; path and domain must be ASCII without `;`".into());
        }
        // Browsers silently drop longer ones: RFC 6265bis, 5.6 and 5.7, less the longest signed id.
        if [&self.name, &self.native_name].iter().any(|name| name.len() > LONGEST_ATTRIBUTE)
            || domain.len() > LONGEST_ATTRIBUTE
            || path.len() > LONGEST_ATTRIBUTE
        {
            return Err("a cookie's name, path and domain may have at most 1024 bytes".into());
        }
        let own = self.mode != SessionMode::Express;
        if own && self.native_name.starts_with("__Host-") && (cookie.domain.is_some() || path != "/") {
            let name = &self.native_name;
            return Err(format!(
                "browsers accept a cookie called `{name}` only without a domain and with the path `/`; choose another \
                `native_name`"
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
            return Err("sessions need at least one transport".into());
        }
        if !(0.0..=1.0).contains(&self.touch_after) {
            return Err("`touch_after` must be a fraction between 0 and 1".into());
        }
        if self.max_bytes < LEAST_BYTES {
            return Err(format!("`max_bytes` must be at least {LEAST_BYTES}, because a session contains its cookie"));
        }
        if self.max_sessions.is_some_and(|(most, _)| most == 0) {
            return Err("`max_sessions` must be at least 1".into());
        }
        Ok(())
    }
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

/// The form in which a session is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// JSON under the id.
    Express,
    /// A record of the cache under the hash of the id.
    Native,
}

/// Where a session is stored.
#[derive(Clone)]
pub(super) struct SessionKey {
    pub(super) form: Form,
    pub(super) id: SessionId,
}
