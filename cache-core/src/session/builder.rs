//! How sessions are set up: each setting with its default, and what is checked once and for all.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::config::{Config, SessionMode, Ttl};
use super::id::{Keyring, Secret};
use super::layer::SessionLayer;
use super::options::{CookieOptions, TooMany, Transport, Unset};
use super::own::OwnStore;
use super::store::SessionStore;
use super::values::SessionValues;
use crate::cache::Cache;
use crate::cell::CellStore;
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::store::Store;

/// Settings of sessions, from [`SessionLayer::builder`].
#[derive(Clone)]
pub struct SessionBuilder {
    cache: Cache,
    /// One of the user's own.
    store: Option<Arc<dyn CellStore>>,
    secrets: Vec<Secret>,
    renew_cookie: Option<bool>,
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
            namespace: cache.0.namespace.clone(),
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
        Self { cache, store: None, secrets: Vec::new(), renew_cookie: None, removal_cookie: None, config }
    }

    /// Where sessions stand, instead of the cache's store: a database, say. Their keys, bytes and
    /// times are the same there. The cache still gives its events, its clock, its namespace and the
    /// default of [`deadline`](Self::deadline); its store may be the embedded one. Several layers
    /// share a store by an `Arc`. Default: the cache's store.
    ///
    /// What takes several keys costs more steps there: another id three, a login about ten. Lists of
    /// users' sessions work, [`max_sessions`](Self::max_sessions) too; what goes through all
    /// sessions ([`SessionLayer::all`]) is refused as
    /// [`Unsupported`](super::SessionErrorKind::Unsupported).
    #[must_use]
    pub fn store(mut self, store: impl SessionStore) -> Self {
        let clock = Arc::<dyn Store>::clone(&self.cache.0.store);
        self.store = Some(Arc::new(OwnStore::new(store, clock)));
        self
    }

    /// With whom sessions are shared. Default: [`Native`](SessionMode::Native).
    #[must_use]
    pub fn mode(mut self, mode: SessionMode) -> Self {
        self.config.mode = mode;
        self
    }

    /// Adds a secret: the first one signs, each verifies. At least 32 bytes; in the modes of
    /// Express, and behind the first, a shorter one
    /// is taken with a warning. [`Secret::generate`] makes one. Required.
    ///
    /// To change it while several servers run: add the new one behind the old one everywhere, then
    /// put it first everywhere, then
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

    /// Until when the cookie [`name`](Self::name) of Express counts in mode
    /// [`Native`](SessionMode::Native) too, and sessions in that form are taken over as they are
    /// used: for the time of a move, which is as long as the longest-lived session of before lives.
    /// At most 400 days away; one that has passed is as none. Without effect in the other modes.
    /// Default: none.
    ///
    /// # Warning
    /// Until then a cookie whose name has no prefix lets somebody in. Another host of the same site
    /// can set one, which is what `__Host-` keeps out.
    #[must_use]
    pub fn take_over_until(mut self, end: Timestamp) -> Self {
        self.config.take_over_until = Some(end);
        self
    }

    /// What keys begin with; in our own form behind the cache's namespace, which isolates sessions
    /// as it does all else. Keys of the form of Express have no namespace, since Express knows
    /// none: two applications with one prefix share their sessions there, and a warning says so
    /// where their namespaces differ. Default: `sess:`.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.config.prefix = prefix.into();
        self
    }

    /// Whether a session that was not changed is written at the end of each request. It overwrites
    /// nothing: what somebody else
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

    /// Whether each answer carries the cookie, so that the browser begins its time anew, as in
    /// Express. Costs a read and a prolongation in the store a request.
    /// [`renew_cookie`](Self::renew_cookie) does the same now and then. Default: false.
    #[must_use]
    pub fn rolling(mut self, rolling: bool) -> Self {
        self.config.rolling = rolling;
        self
    }

    /// Whether the cookie of a session that has an age is sent again whenever reading prolongs the
    /// session in the store, which is at most once a [`touch_after`](Self::touch_after) of its
    /// time. Without that, and without [`rolling`](Self::rolling), a browser forgets a session that
    /// is read and never written when its age has passed since the last write, as with Express.
    /// Default: true; in the modes of Express false.
    #[must_use]
    pub fn renew_cookie(mut self, renew: bool) -> Self {
        self.renew_cookie = Some(renew);
        self
    }

    /// What [`Session::unset`](super::Session::unset) does. Default: [`Keep`](Unset::Keep).
    #[must_use]
    pub fn unset(mut self, unset: Unset) -> Self {
        self.config.unset = unset;
        self
    }

    /// Makes the ids. They must not be guessable: 128 random bits at least, which a UUID does not
    /// have. Up to 256 bytes without white space.
    /// Default: 192 random bits as 32 characters.
    #[must_use]
    pub fn generate_id(mut self, generate: impl Fn() -> String + Send + Sync + 'static) -> Self {
        self.config.generate_id = Some(Arc::new(generate));
        self
    }

    /// Whether a proxy in front sets `X-Forwarded-Proto`, which then says whether a request came by
    /// HTTPS. Default: false.
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

    /// How long a session is kept after its last use, by what is in it, as a short time for
    /// anonymous visitors. Zero: it is over. Wins over the cookie's age.
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

    /// How much of its time has to be over before reading a session prolongs it: each time costs a
    /// write. Express does so at each
    /// request, which is `0.0`. Default: `0.1`.
    #[must_use]
    pub fn touch_after(mut self, fraction: f64) -> Self {
        self.config.touch_after = fraction;
        self
    }

    /// How long a request waits for the store in all, for everything that it wants of its session,
    /// also behind other requests of the same session. What has not been answered by then counts as
    /// [`Unavailable`](super::SessionErrorKind::Unavailable). Without effect for the embedded
    /// store, which answers at once. Default: the cache's `max_staleness`, which is at least two
    /// response timeouts; at most 30 s.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.config.deadline = Some(deadline);
        self
    }

    /// Whether a handler's changes are dropped if it answers with a status from 500 on. Default: true.
    #[must_use]
    pub fn discard_on_server_error(mut self, discard: bool) -> Self {
        self.config.discard_on_server_error = discard;
        self
    }

    /// How large a stored session may be, at least 256 bytes. One that an Express peer has made
    /// larger is used as it is: only what would let it grow is refused. Default: 64 KiB.
    #[must_use]
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.config.max_bytes = bytes;
        self
    }

    /// How long a session may live in all, however often it is used. Its beginning is stored with
    /// it, as `_m`. Default: no limit.
    #[must_use]
    pub fn absolute_timeout(mut self, timeout: Duration) -> Self {
        self.config.absolute_timeout = Some(timeout);
        self
    }

    /// How many sessions one user may have, and what a further login does. It holds exactly,
    /// however many log in at the same time; sessions
    /// that have ended do not count. Costs a look at each of the user's sessions, in the store, at
    /// each login. Default: no limit.
    #[must_use]
    pub fn max_sessions(mut self, most: usize, then: TooMany) -> Self {
        self.config.max_sessions = Some((most, then));
        self
    }

    /// For how long an id that this side has ended is remembered as ended, where sessions are
    /// shared with Express: as long as the longest
    /// request there. A request of a stock connect-redis that began before that end writes back
    /// what it has read; what stands under such an id is
    /// deleted as soon as it is seen, and counts as none. Zero turns it off. In mode
    /// [`Native`](SessionMode::Native) nobody writes like that, and it
    /// changes nothing. Default: 60 s. Costs a small key for each end of a session, and a third
    /// command in the round trip that reads one.
    #[must_use]
    pub fn revoke_for(mut self, longest_request: Duration) -> Self {
        self.config.revoke_for = longest_request;
        self
    }

    /// Whether a login stores what the client's `User-Agent` header says, up to 256 bytes of it, as
    /// [`SessionInfo::device`](super::SessionInfo::device). It
    /// tells something about a person. [`Session::set_device`](super::Session::set_device) stores a
    /// text of one's own instead. Default: false.
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

    /// Whether an answer that depends on a session says so to caches, so that none gives it to
    /// somebody else: `Vary` names the headers in which clients show their ids, and `Cache-Control`
    /// gets `private`, unless the handler has said `private`, `no-store`, `public` or `s-maxage`.
    /// An answer that gives an id to its client is `no-store`, unless the handler has said
    /// `private`. Default: true.
    ///
    /// # Warning
    /// Without it, a cache between clients and this server may give one user's answers, and
    /// sessions, to another.
    #[must_use]
    pub fn cache_headers(mut self, add: bool) -> Self {
        self.config.cache_headers = add;
        self
    }

    /// Whether the answer tells the browser to forget the cookie of a session that was destroyed.
    /// Default: true; in mode
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
        config.renew_cookie = self.renew_cookie.unwrap_or(config.mode == SessionMode::Native);
        config.removal_cookie = self.removal_cookie.unwrap_or(by_default);
        config.keyring = Keyring::new(self.secrets, config.shares_with_express())?;
        let now = self.cache.0.store.now();
        config.check(now).map_err(|detail| Error::new(ErrorKind::Configuration, "sessions").detail(detail))?;
        Ok(SessionLayer::new(self.cache, self.store, config))
    }
}

impl fmt::Debug for SessionBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SessionBuilder").field(&self.config).finish()
    }
}
