//! The settings of sessions with their defaults, and the checks that are made once.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::config::{Config, SessionMode, Ttl};
use super::id::{Keyring, Secret};
use super::options::{CookieOptions, TooMany, Transport, Unset};
use super::store::SessionStore;
use super::stored::custom_store::CustomStore;
use super::values::SessionValues;
use super::web::layer::SessionLayer;
use crate::cache::Cache;
use crate::cell::CellStore;
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::object::CellHost;

/// Settings of sessions, made with [`SessionLayer::builder`].
#[derive(Clone)]
pub struct SessionBuilder {
    host: CellHost,
    /// A store of the application's own.
    store: Option<Arc<dyn CellStore>>,
    secrets: Vec<Secret>,
    renew_cookie: Option<bool>,
    removal_cookie: Option<bool>,
    config: Config,
}

impl SessionLayer {
    /// Returns a builder for sessions that live in this cache's store.
    #[must_use]
    pub fn builder(cache: &Cache) -> SessionBuilder {
        SessionBuilder::new(cache)
    }
}

impl SessionBuilder {
    pub(super) fn new(cache: &Cache) -> Self {
        let host = CellHost::from(cache);
        let config = Config {
            mode: SessionMode::default(),
            keyring: Keyring::none(),
            name: "connect.sid".into(),
            native_name: "__Host-id".into(),
            prefix: "sess:".into(),
            namespace: host.namespace().into(),
            take_over_until: None,
            resave: false,
            save_uninitialized: false,
            rolling: false,
            renew_cookie: true,
            deadline: None,
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
        Self { host, store: None, secrets: Vec::new(), renew_cookie: None, removal_cookie: None, config }
    }

    /// Stores sessions in `store`, for example a database, instead of the cache's store. Keys,
    /// bytes and times are the same there. The cache still provides its events, its clock, its
    /// namespace and the default of [`deadline`](Self::deadline); its own store may be the embedded
    /// one. Several layers can share a store through an `Arc`. Default: the cache's store.
    ///
    /// Operations on several keys take more steps there: a change of the id takes three, a login
    /// about ten. Lists of users' sessions and [`max_sessions`](Self::max_sessions) work. A scan of
    /// all sessions ([`SessionLayer::all`]) is refused as
    /// [`Unsupported`](super::SessionErrorKind::Unsupported).
    #[must_use]
    pub fn store(mut self, store: impl SessionStore) -> Self {
        self.store = Some(Arc::new(CustomStore::new(store, self.host.clone())));
        self
    }

    /// Sets with which other programs sessions are shared. Default:
    /// [`Native`](SessionMode::Native).
    #[must_use]
    pub fn mode(mut self, mode: SessionMode) -> Self {
        self.config.mode = mode;
        self
    }

    /// Adds a secret. The first one signs; all of them verify. Required. [`Secret::generate`] makes
    /// one.
    ///
    /// The first secret has at least 32 bytes. In the modes of Express, and after the first
    /// position, a shorter one is accepted with a warning.
    ///
    /// To rotate the secret while several servers run: add the new one after the old one on every
    /// server, then put it first on every server, then remove the old one once the sessions it
    /// signed have ended.
    #[must_use]
    pub fn secret(mut self, secret: impl Into<Secret>) -> Self {
        self.secrets.push(secret.into());
        self
    }

    /// Sets the name of the cookie in the form of Express. Default: `connect.sid`.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.config.name = name.into();
        self
    }

    /// Sets the name of the cookie in the native form. Default: `__Host-id`.
    #[must_use]
    pub fn native_name(mut self, name: impl Into<String>) -> Self {
        self.config.native_name = name.into();
        self
    }

    /// Sets until when mode [`Native`](SessionMode::Native) also accepts the Express cookie
    /// [`name`](Self::name) and converts sessions in that form as they are used. Use it for a
    /// migration, for as long as the longest-lived old session lives. At most 400 days from now; a
    /// time in the past has no effect. No effect in the other modes. Default: none.
    ///
    /// # Warning
    /// Until then, a cookie whose name has no prefix gives access. Another host of the same site
    /// can set such a cookie, which the prefix `__Host-` prevents.
    #[must_use]
    pub fn take_over_until(mut self, end: Timestamp) -> Self {
        self.config.take_over_until = Some(end);
        self
    }

    /// Sets what keys begin with. In the native form the prefix follows the cache's namespace,
    /// which isolates sessions like everything else. Keys in the form of Express have no namespace,
    /// because Express has none: two applications with one prefix share their sessions there. A
    /// warning is emitted if their namespaces differ. Default: `sess:`.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.config.prefix = prefix.into();
        self
    }

    /// Sets whether an unchanged session is written at the end of each request. It does not
    /// overwrite changes that others wrote in the meantime. Costs a read and a write per request.
    /// Default: `false`.
    #[must_use]
    pub fn resave(mut self, resave: bool) -> Self {
        self.config.resave = resave;
        self
    }

    /// Sets whether a session without values is stored and its cookie sent, which makes one session
    /// per visitor. Default: `false`.
    #[must_use]
    pub fn save_uninitialized(mut self, save: bool) -> Self {
        self.config.save_uninitialized = save;
        self
    }

    /// Sets whether every response carries the cookie, so that its lifetime in the browser
    /// restarts, as in Express. Costs a read and an extension in the store per request.
    /// [`renew_cookie`](Self::renew_cookie) does the same less often. Default: `false`.
    #[must_use]
    pub fn rolling(mut self, rolling: bool) -> Self {
        self.config.rolling = rolling;
        self
    }

    /// Sets whether the cookie of a session with a max age is sent again whenever a read extends
    /// the session in the store, which is at most once per [`touch_after`](Self::touch_after) of
    /// its time. Without this setting and without [`rolling`](Self::rolling), a browser forgets a
    /// session that is read but never written once its max age has passed since the last write, as
    /// with Express. Default: `true`; in the modes of Express `false`.
    #[must_use]
    pub fn renew_cookie(mut self, renew: bool) -> Self {
        self.renew_cookie = Some(renew);
        self
    }

    /// Sets what [`Session::unset`](super::Session::unset) does. Default: [`Keep`](Unset::Keep).
    #[must_use]
    pub fn unset(mut self, unset: Unset) -> Self {
        self.config.unset = unset;
        self
    }

    /// Sets a function that makes the ids. They must be unguessable, with at least 128 random bits,
    /// which a UUID does not have. At most 256 bytes, without white space or control characters.
    /// Default: 192 random bits as 32 characters.
    #[must_use]
    pub fn generate_id(mut self, generate: impl Fn() -> String + Send + Sync + 'static) -> Self {
        self.config.generate_id = Some(Arc::new(generate));
        self
    }

    /// Sets whether a proxy in front of this server sets `X-Forwarded-Proto`, which then decides
    /// whether a request came over HTTPS. Default: `false`.
    ///
    /// # Warning
    /// Set this only if every request comes through that proxy: other clients could send the header
    /// themselves.
    #[must_use]
    pub fn proxy(mut self, proxy: bool) -> Self {
        self.config.proxy = proxy;
        self
    }

    /// Sets whether all requests come over HTTPS because this server itself terminates TLS.
    /// Default: `false`.
    #[must_use]
    pub fn https(mut self, https: bool) -> Self {
        self.config.https = https;
        self
    }

    /// Sets the attributes of the cookie.
    #[must_use]
    pub fn cookie(mut self, cookie: CookieOptions) -> Self {
        self.config.cookie = cookie;
        self
    }

    /// Sets the idle timeout: how long a session is kept after its last use if its cookie has no
    /// max age. Default: one day.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.config.ttl = Ttl::Fixed(ttl);
        self
    }

    /// Sets how long a session is kept after its last use depending on its values, for example a
    /// short time for anonymous visitors. Zero ends the session. Overrides the cookie's max age.
    #[must_use]
    pub fn ttl_of(mut self, ttl: impl Fn(&SessionValues<'_>) -> Duration + Send + Sync + 'static) -> Self {
        self.config.ttl = Ttl::Of(Arc::new(ttl));
        self
    }

    /// Sets whether sessions stay in the store forever. Default: `false`.
    #[must_use]
    pub fn disable_ttl(mut self, disable: bool) -> Self {
        self.config.disable_ttl = disable;
        self
    }

    /// Turns off that a read extends the session's life in the store. Default: `false`.
    #[must_use]
    pub fn disable_touch(mut self, disable: bool) -> Self {
        self.config.disable_touch = disable;
        self
    }

    /// Sets which fraction of a session's time has to pass before a read extends it; each extension
    /// costs a write. Express extends at each request, which is `0.0`. Default: `0.1`.
    #[must_use]
    pub fn touch_after(mut self, fraction: f64) -> Self {
        self.config.touch_after = fraction;
        self
    }

    /// Sets how long one request waits for the store in total: for all operations on its session,
    /// including the time spent behind other requests of the same session. An operation that has
    /// not finished by then fails as [`Unavailable`](super::SessionErrorKind::Unavailable). No
    /// effect for the embedded store, which answers at once. Default: the cache's `max_staleness`,
    /// which is at least two response timeouts, but at most 30 s.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.config.deadline = Some(deadline);
        self
    }

    /// Sets whether the changes of a handler are dropped if it responds with a status of 500 or
    /// above. Default: `true`.
    #[must_use]
    pub fn discard_on_server_error(mut self, discard: bool) -> Self {
        self.config.discard_on_server_error = discard;
        self
    }

    /// Sets the largest size of a stored session in bytes, at least 256. A session that an Express
    /// peer has made larger is still usable; only changes that make it grow are refused. Default:
    /// 64 KiB.
    #[must_use]
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.config.max_bytes = bytes;
        self
    }

    /// Sets how long a session may live in total, however often it is used. The time of its
    /// creation is stored with it, in `_m`. Default: no limit.
    #[must_use]
    pub fn absolute_timeout(mut self, timeout: Duration) -> Self {
        self.config.absolute_timeout = Some(timeout);
        self
    }

    /// Sets how many sessions one user may have, and what a further login does. The limit is exact
    /// under concurrent logins; ended sessions do not count. Costs a check of each of the user's
    /// sessions in the store at each login. Default: no limit.
    #[must_use]
    pub fn max_sessions(mut self, most: usize, then: TooMany) -> Self {
        self.config.max_sessions = Some((most, then));
        self
    }

    /// Sets for how long an ended id is remembered as ended if sessions are shared with Express.
    /// Set it to the duration of the longest request there.
    ///
    /// A request of connect-redis that began before the session ended writes back what it has read.
    /// A session found under such an id counts as absent and is deleted as soon as it is seen. Zero
    /// turns this off. In mode [`Native`](SessionMode::Native) no other program writes like that,
    /// and the setting has no effect. Default: 60 s. Costs one small key for each ended session,
    /// and a third command in the round trip that reads a session.
    #[must_use]
    pub fn revoke_for(mut self, longest_request: Duration) -> Self {
        self.config.revoke_for = longest_request;
        self
    }

    /// Sets whether a login stores up to 256 bytes of the client's `User-Agent` header as
    /// [`SessionInfo::device`](super::SessionInfo::device). This is data about a person.
    /// [`Session::set_device`](super::Session::set_device) stores a text of your choice instead.
    /// Default: `false`.
    #[must_use]
    pub fn record_user_agent(mut self, record: bool) -> Self {
        self.config.user_agent = record;
        self
    }

    /// Sets how clients send their ids. New sessions use the first transport. Default: a cookie.
    #[must_use]
    pub fn transports(mut self, transports: impl IntoIterator<Item = Transport>) -> Self {
        self.config.transports = transports.into_iter().collect();
        self
    }

    /// Sets whether a response that depends on a session gets headers that keep caches from serving
    /// it to another client. `Vary` names the headers in which clients send their ids.
    /// `Cache-Control` gets `private`, unless the handler has set `private`, `no-store`, `public`
    /// or `s-maxage`. A response that gives an id to its client is `no-store`, unless the handler
    /// has set `private`. Default: `true`.
    ///
    /// # Warning
    /// Without it, a cache between clients and this server may serve one user's responses, and
    /// sessions, to another.
    #[must_use]
    pub fn cache_headers(mut self, add: bool) -> Self {
        self.config.cache_headers = add;
        self
    }

    /// Sets whether the response to a destroyed session makes the browser delete its cookie.
    /// Default: `true`; in mode `Express` `false`, as in Express itself.
    #[must_use]
    pub fn removal_cookie(mut self, remove: bool) -> Self {
        self.removal_cookie = Some(remove);
        self
    }

    /// Checks the settings and makes the layer.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] for settings that can never work; the text says what to change.
    pub fn build(self) -> Result<SessionLayer> {
        let mut config = self.config;
        let by_default = config.mode != SessionMode::Express;
        config.renew_cookie = self.renew_cookie.unwrap_or(config.mode == SessionMode::Native);
        config.removal_cookie = self.removal_cookie.unwrap_or(by_default);
        config.keyring = Keyring::new(self.secrets, config.shares_with_express())?;
        let now = self.host.now();
        config.check(now).map_err(|detail| Error::new(ErrorKind::Configuration, "sessions").detail(detail))?;
        Ok(SessionLayer::new(self.host, self.store, config))
    }
}

impl fmt::Debug for SessionBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SessionBuilder").field(&self.config).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::Form;
    use super::super::id::SessionId;
    use super::*;

    #[test]
    fn keys_stay_as_they_are() {
        let layer = SessionBuilder::new(&Cache::in_memory()).secret([7_u8; 32]).build().unwrap();
        let id = SessionId::parse("R1UqolVb-Rd2gJef9Rbx-PLyuQev7t3y").unwrap();
        assert_eq!(layer.0.config.key(Form::Express, &id), "sess:R1UqolVb-Rd2gJef9Rbx-PLyuQev7t3y");
        let config = &layer.0.config;
        let own = "cache:sess:v1:{qSyw7bmPZnv}qSyw7bmPZnvtNut4abrMd9kPDv4mbZfH0xN19HP8064";
        assert_eq!(config.key(Form::Native, &id), own);
        let tagged = config.key(Form::Native, &id.tagged("0123456789-"));
        assert!(tagged.starts_with("cache:sess:v1:{0123456789-}") && tagged.len() == own.len(), "{tagged}");
        assert_eq!(
            [config.form_of(own), config.form_of("sess:a"), config.form_of("sess:v1:a")],
            [Form::Native, Form::Express, Form::Express]
        );
        // One signature is valid for both forms, and for no other session.
        let context = config.context("sess:R1UqolVb-Rd2gJef9Rbx-PLyuQev7t3y");
        assert_eq!(context, config.context(own));
        assert_ne!(context, config.context("sess:another"));
    }
}
