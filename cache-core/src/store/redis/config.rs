//! Where the server is and how to talk to it, read from a URL.
//!
//! ```text
//! redis://[user[:password]@]host[:port][/db][?option=value&..]
//! rediss://..                                  the same over TLS (feature `tls`)
//! redis+unix:///path/to/socket[?db=3&user=..&password=..]
//! ```
//!
//! Invariant: no error, `Debug` or `Display` text contains the password. A URL that is misread may have parts of the password
//! anywhere, so errors quote nothing from a URL but what is nearly the name of a known scheme or option.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::store::address::Parts;

const DEFAULT_PORT: u16 = 6379;
const STEP: &str = "configure";
/// `memory` never comes here, but may have been meant.
const SCHEMES: [&str; 4] = ["redis", "rediss", "redis+unix", "memory"];
const OPTIONS: [&str; 12] = [
    "connect_timeout",
    "response_timeout",
    "heartbeat",
    "max_staleness",
    "wait_for_replicas",
    "replica_timeout",
    "client_name",
    "namespace",
    "tls_ca",
    "db",
    "user",
    "password",
];
/// How long replicas may take where the URL does not say.
const REPLICA_TIMEOUT: Duration = Duration::from_millis(500);
/// Longer waits than this are a slip of the pen, and would make a fault look like a hang.
const LONGEST: Duration = Duration::from_secs(600);

/// Everything needed to connect.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct RedisConfig {
    pub(crate) address: Address,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) db: u16,
    /// For one attempt to connect, from the name look-up to the end of the set-up. Default: 1 s.
    pub(crate) connect_timeout: Duration,
    /// For one operation, waiting in the queue included. Default: 500 ms.
    pub(crate) response_timeout: Duration,
    /// The time between two checks of an idle connection. Default: 1 s. Costs one `TIME` each.
    pub(crate) heartbeat: Duration,
    /// How old a value of the in-process tier may be against the server at most. Default: 2 s.
    pub(crate) max_staleness: Duration,
    /// How many replicas an invalidation waits for. Default: none.
    pub(crate) replicas: Option<Replicas>,
    /// Shown by `CLIENT LIST`. Default: `cache-core`.
    pub(crate) client_name: String,
    /// Passed through for the cache; no concern of the connection.
    pub(crate) namespace: Option<String>,
}

/// How many replicas, and how long they may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Replicas {
    pub(crate) count: u32,
    pub(crate) timeout: Duration,
}

impl Replicas {
    /// `None`: not to be waited for.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Configuration`]: a timeout that is none.
    pub(crate) fn new(count: u32, timeout: Duration) -> Result<Option<Self>> {
        if timeout < Duration::from_millis(1) || timeout > LONGEST {
            return Err(wrong("the time that replicas may take must be between 1ms and 600s"));
        }
        Ok((count > 0).then_some(Self { count, timeout }))
    }
}

/// Where the server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    Tcp {
        host: String,
        port: u16,
    },
    /// `ca`: a PEM file with the authorities to trust instead of the system's.
    Tls {
        host: String,
        port: u16,
        ca: Option<PathBuf>,
    },
    Unix(PathBuf),
}

impl RedisConfig {
    /// Reads a URL.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Configuration`] with what to change.
    pub(crate) fn parse(url: &str) -> Result<Self> {
        let Some((scheme, rest)) = url.trim().split_once("://") else {
            return Err(wrong("the URL has no `://`; write `redis://host:6379/0`"));
        };
        let (rest, query) = match rest.split_once('?') {
            Some((rest, query)) => (rest, Query::parse(query)?),
            None => (rest, Query::default()),
        };
        let mut config = match scheme {
            "redis" | "rediss" => Self::over_tcp(scheme == "rediss", rest, &query)?,
            "redis+unix" => Self::over_unix(rest, &query)?,
            other => return Err(wrong(unknown("scheme", other, &SCHEMES))),
        };
        query.apply(&mut config)?;
        Ok(config)
    }

    /// Reads an address in parts; [`log_in`](Self::log_in) adds who logs in.
    ///
    /// # Errors
    ///
    /// As [`parse`](Self::parse).
    pub(crate) fn of_host(parts: &Parts) -> Result<Self> {
        let host = parts.host.as_deref().unwrap_or_default();
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let is_host = |c: char| !(c.is_whitespace() || c.is_control() || matches!(c, '#' | '%' | '@' | '/' | '?'));
        // More than one colon is an IPv6 address.
        if host.is_empty() || !host.chars().all(is_host) || host.matches(':').count() == 1 {
            return Err(wrong(
                "`host` is a name or an address alone, without scheme, port or path: `.host(\"10.0.0.5\").port(6380)`",
            ));
        }
        if parts.port == Some(0) {
            return Err(wrong("the port must be between 1 and 65535"));
        }
        let (host, port) = (host.to_owned(), parts.port.unwrap_or(DEFAULT_PORT));
        let address = match parts.tls {
            Some(true) if !cfg!(feature = "tls") => return Err(wrong("`tls` needs the feature `tls` of cache-core")),
            Some(true) => Address::Tls { host, port, ca: None },
            _ => Address::Tcp { host, port },
        };
        Ok(Self { db: parts.db.unwrap_or(0), ..Self::at(address) })
    }

    /// Who logs in, where the URL does not say.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Configuration`]: it does.
    pub(crate) fn log_in(&mut self, parts: &Parts) -> Result<()> {
        let said = self.user.is_some() || self.password.is_some();
        for (name, part) in [("username", &parts.username), ("password", &parts.password)] {
            match part {
                Some(_) if said => {
                    return Err(wrong(format!("the URL says who logs in, and `{name}` too; say it in one place")));
                }
                Some(text) if text.is_empty() => {
                    return Err(wrong(format!("`{name}` is empty; leave it out for none")));
                }
                _ => {}
            }
        }
        if let Some(password) = &parts.password {
            self.user.clone_from(&parts.username);
            self.password = Some(password.clone());
        }
        Ok(())
    }

    fn over_tcp(tls: bool, rest: &str, query: &Query) -> Result<Self> {
        if tls && !cfg!(feature = "tls") {
            return Err(wrong("`rediss://` needs the feature `tls` of cache-core"));
        }
        for name in ["db", "user", "password"] {
            if query.get(name).is_some() {
                return Err(wrong(format!(
                    "`{name}` is an option of `redis+unix://` only; write `redis://user:password@host:port/db`"
                )));
            }
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        // The last `@`: a password with an `@` that was not encoded still works.
        let (credentials, host_and_port) = match authority.rsplit_once('@') {
            Some((credentials, host)) => (Some(credentials), host),
            None => (None, authority),
        };
        let (host, port) = host_and_port_of(host_and_port)?;
        let (user, password) = match credentials.map(|text| text.split_once(':').unwrap_or((text, ""))) {
            Some((user, password)) => (decoded_if_any(user)?, decoded_if_any(password)?),
            None => (None, None),
        };
        if user.is_some() && password.is_none() {
            return Err(wrong(
                "the URL has a user but no password; write `redis://user:password@host`, or `redis://:password@host` without a user",
            ));
        }
        let db = if path.is_empty() { 0 } else { db_of(path)? };
        let address = if tls {
            Address::Tls { host, port, ca: query.get("tls_ca").map(PathBuf::from) }
        } else {
            Address::Tcp { host, port }
        };
        Ok(Self { user, password, db, ..Self::at(address) })
    }

    fn over_unix(rest: &str, query: &Query) -> Result<Self> {
        if !rest.starts_with('/') || rest == "/" {
            return Err(wrong("`redis+unix://` needs an absolute path: `redis+unix:///run/redis/redis.sock?db=0`"));
        }
        let path = decoded(rest)?;
        let user = query.get("user").map(str::to_owned);
        let password = query.get("password").map(str::to_owned);
        if user.is_some() && password.is_none() {
            return Err(wrong("the URL has a `user` but no `password`"));
        }
        let db = query.get("db").map_or(Ok(0), db_of)?;
        Ok(Self { user, password, db, ..Self::at(Address::Unix(path.into())) })
    }

    fn at(address: Address) -> Self {
        Self {
            address,
            user: None,
            password: None,
            db: 0,
            connect_timeout: Duration::from_secs(1),
            response_timeout: Duration::from_millis(500),
            heartbeat: Duration::from_secs(1),
            max_staleness: Duration::from_secs(2),
            replicas: None,
            client_name: "cache-core".to_owned(),
            namespace: None,
        }
    }
}

impl RedisConfig {
    /// The time between two checks: often enough that what was read stays trusted in between.
    pub(crate) fn beat(&self) -> Duration {
        self.heartbeat.min(self.max_staleness.mul_f64(0.5))
    }
}

/// The URL without its password and options.
impl fmt::Display for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let credentials = match (&self.user, &self.password) {
            (Some(user), Some(_)) => format!("{user}:***@"),
            (Some(user), None) => format!("{user}@"),
            (None, Some(_)) => ":***@".to_owned(),
            (None, None) => String::new(),
        };
        let bracketed = |host: &str| if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        match &self.address {
            Address::Tcp { host, port } => write!(f, "redis://{credentials}{}:{port}/{}", bracketed(host), self.db),
            Address::Tls { host, port, .. } => {
                write!(f, "rediss://{credentials}{}:{port}/{}", bracketed(host), self.db)
            }
            Address::Unix(path) => write!(f, "redis+unix://{credentials}{}?db={}", path.display(), self.db),
        }
    }
}

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConfig")
            .field("url", &format_args!("{self}"))
            .field("connect_timeout", &self.connect_timeout)
            .field("response_timeout", &self.response_timeout)
            .field("heartbeat", &self.heartbeat)
            .field("client_name", &self.client_name)
            .field("namespace", &self.namespace)
            .finish()
    }
}

/// The options of a URL: known names, each at most once, values decoded.
#[derive(Default)]
struct Query(Vec<(&'static str, String)>);

impl Query {
    fn parse(text: &str) -> Result<Self> {
        let mut options = Self::default();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let Some(known) = OPTIONS.into_iter().find(|known| *known == name) else {
                return Err(wrong(unknown("option", name, &OPTIONS)));
            };
            if options.get(known).is_some() {
                return Err(wrong(format!("the option `{known}` is given twice")));
            }
            if value.is_empty() {
                return Err(wrong(format!("the option `{known}` has no value")));
            }
            options.0.push((known, decoded(value)?));
        }
        Ok(options)
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    fn apply(&self, config: &mut RedisConfig) -> Result<()> {
        for (name, target) in [
            ("connect_timeout", &mut config.connect_timeout),
            ("response_timeout", &mut config.response_timeout),
            ("heartbeat", &mut config.heartbeat),
            ("max_staleness", &mut config.max_staleness),
        ] {
            if let Some(text) = self.get(name) {
                *target = duration_of(name, text)?;
            }
        }
        config.replicas = match (self.get("wait_for_replicas"), self.get("replica_timeout")) {
            (None, None) => None,
            (None, Some(_)) => return Err(wrong("`replica_timeout` goes with `wait_for_replicas` only")),
            (Some(count), timeout) => {
                let count =
                    count.parse().map_err(|_not_a_number| wrong("`wait_for_replicas` is not a whole number"))?;
                let timeout = timeout.map_or(Ok(REPLICA_TIMEOUT), |text| duration_of("replica_timeout", text))?;
                Replicas::new(count, timeout)?
            }
        };
        if let Some(name) = self.get("client_name") {
            if !name.chars().all(|c| c.is_ascii_graphic()) {
                return Err(wrong("`client_name` must be printable ASCII without spaces"));
            }
            name.clone_into(&mut config.client_name);
        }
        if self.get("tls_ca").is_some() && !matches!(config.address, Address::Tls { .. }) {
            return Err(wrong("`tls_ca` goes with `rediss://` only"));
        }
        config.namespace = self.get("namespace").map(str::to_owned);
        Ok(())
    }
}

fn wrong(detail: impl Into<String>) -> Error {
    Error::new(ErrorKind::Configuration, STEP).detail(detail)
}

fn host_and_port_of(text: &str) -> Result<(String, u16)> {
    const ENCODE: &str = "if the password contains `/`, `?` or `#`, percent-encode them (`%2F`, `%3F`, `%23`)";
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let Some((host, rest)) = rest.split_once(']') else {
            return Err(wrong("the IPv6 address has no closing `]`"));
        };
        match (rest.is_empty(), rest.strip_prefix(':')) {
            (true, _) => (host, None),
            (false, Some(port)) => (host, Some(port)),
            (false, None) => return Err(wrong("after the `]` of an IPv6 address comes `:port` or nothing")),
        }
    } else {
        match text.split_once(':') {
            Some((_, rest)) if rest.contains(':') => {
                return Err(wrong("an IPv6 address goes in brackets: `redis://[::1]:6379`"));
            }
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    if host.is_empty() {
        return Err(wrong(format!("the host is missing: `redis://host:6379/0`; {ENCODE}")));
    }
    if host.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '#' | '%' | '@')) {
        return Err(wrong(format!("the host contains characters that no host has; {ENCODE}")));
    }
    let port = match port {
        None => DEFAULT_PORT,
        Some("") => return Err(wrong("there is a `:` after the host but no port; leave it out or write `:6379`")),
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => match digits.parse() {
            Ok(0) | Err(_) => return Err(wrong("the port must be between 1 and 65535")),
            Ok(port) => port,
        },
        Some(_) => return Err(wrong(format!("the port is not a number; {ENCODE}"))),
    };
    Ok((host.to_owned(), port))
}

fn db_of(text: &str) -> Result<u16> {
    text.parse().map_err(|_not_a_number| {
        wrong("the database after the host is not a number from 0 to 65535: `redis://host:6379/0`; if the password contains `/`, write `%2F`")
    })
}

fn duration_of(name: &str, text: &str) -> Result<Duration> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let value = match (digits.parse::<u64>(), unit) {
        (Ok(_), "") => return Err(wrong(format!("`{name}` has no unit; write `500ms` or `2s`"))),
        (Ok(value), "ms") => Duration::from_millis(value),
        (Ok(value), "s") => Duration::from_secs(value),
        _ => return Err(wrong(format!("`{name}` is not a duration; write `500ms` or `2s`"))),
    };
    if value.is_zero() || value > LONGEST {
        return Err(wrong(format!("`{name}` must be between 1ms and 600s")));
    }
    Ok(value)
}

fn decoded_if_any(text: &str) -> Result<Option<String>> {
    if text.is_empty() { Ok(None) } else { decoded(text).map(Some) }
}

/// Resolves `%XX`. A `%` that begins none is an error: it would be a different password from the one that was meant.
fn decoded(text: &str) -> Result<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        if *first != b'%' {
            bytes.push(*first);
            rest = tail;
            continue;
        }
        let byte = tail
            .get(..2)
            .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        let Some(byte) = byte else {
            return Err(wrong("a `%` in the URL is not followed by two hex digits; write a plain `%` as `%25`"));
        };
        bytes.push(byte);
        rest = tail.get(2..).unwrap_or_default();
    }
    String::from_utf8(bytes).map_err(|_not_text| wrong("a percent-encoded part of the URL is not UTF-8"))
}

/// Quotes `given` only if it is nearly a known name: anything else could be a piece of a password.
fn unknown(what: &str, given: &str, known: &[&str]) -> String {
    let near = known.iter().map(|name| (distance(given, name), name)).min();
    let near = near.filter(|(steps, name)| *steps <= 2 && steps.saturating_mul(3) <= name.len());
    match near {
        Some((_, name)) => format!("unknown {what} `{given}`; did you mean `{name}`?"),
        None => format!("unknown {what}; known are {}", known.join(", ")),
    }
}

/// How many insertions, deletions, replacements and swaps of neighbours make `a` into `b` (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(32).collect(), b.chars().take(32).collect());
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i.saturating_add(1)];
        for (j, y) in b.iter().enumerate() {
            let at = |row: &[usize], column: usize| row.get(column).copied().unwrap_or(usize::MAX);
            let mut best = at(&above, j).saturating_add(usize::from(x != y));
            best = best.min(at(&above, j.saturating_add(1)).saturating_add(1));
            best = best.min(at(&row, j).saturating_add(1));
            let swapped = i > 0 && j > 0 && a.get(i.wrapping_sub(1)) == Some(y) && b.get(j.wrapping_sub(1)) == Some(x);
            if swapped {
                best = best.min(at(&before, j.wrapping_sub(1)).saturating_add(1));
            }
            row.push(best);
        }
        before = std::mem::replace(&mut above, row);
    }
    above.last().copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> RedisConfig {
        RedisConfig::parse(url).unwrap()
    }

    fn refused(url: &str) -> String {
        let error = RedisConfig::parse(url).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        error.to_string()
    }

    #[test]
    // R24
    fn replicas_are_read_with_their_time() {
        let replicas = |url: &str| parsed(url).replicas.map(|Replicas { count, timeout }| (count, timeout.as_millis()));
        assert_eq!(replicas("redis://h"), None);
        assert_eq!(replicas("redis://h?wait_for_replicas=0"), None);
        assert_eq!(replicas("redis://h?wait_for_replicas=1"), Some((1, 500)));
        assert_eq!(replicas("redis://h?replica_timeout=2s&wait_for_replicas=2"), Some((2, 2000)));
        assert!(refused("redis://h?replica_timeout=2s").contains("goes with `wait_for_replicas`"));
        assert!(refused("redis://h?wait_for_replicas=all").contains("not a whole number"));
        assert!(Replicas::new(1, Duration::ZERO).is_err(), "for ever, to Redis");
    }

    #[test]
    fn urls_are_read() {
        let config = parsed("redis://localhost");
        assert_eq!(config.address, Address::Tcp { host: "localhost".into(), port: 6379 });
        assert_eq!((config.db, config.user, config.password), (0, None, None));
        let config = parsed("redis://app:p%40ss%2Fword@10.0.0.1:7000/3?connect_timeout=2s&response_timeout=250ms");
        assert_eq!(config.address, Address::Tcp { host: "10.0.0.1".into(), port: 7000 });
        assert_eq!((config.user.as_deref(), config.password.as_deref()), (Some("app"), Some("p@ss/word")));
        assert_eq!((config.db, config.connect_timeout), (3, Duration::from_secs(2)));
        assert_eq!(config.response_timeout, Duration::from_millis(250));
        assert_eq!(parsed("redis://[::1]/").address, Address::Tcp { host: "::1".into(), port: 6379 });
        assert_eq!(parsed("redis://:secret@h").password.as_deref(), Some("secret"));
        assert_eq!(parsed("redis://h?namespace=blog&client_name=web").namespace.as_deref(), Some("blog"));
        let config = parsed("redis+unix:///run/my%20redis.sock?db=3&user=app&password=p%26w");
        assert_eq!(config.address, Address::Unix("/run/my redis.sock".into()));
        assert_eq!((config.db, config.password.as_deref()), (3, Some("p&w")));
    }

    #[test]
    fn addresses_in_parts_are_read() {
        let parts = |host: &str| Parts { host: Some(host.to_owned()), ..Parts::default() };
        let read = |parts: &Parts| {
            let mut config = RedisConfig::of_host(parts).unwrap();
            config.log_in(parts).unwrap();
            config
        };
        assert_eq!(read(&parts("h")), parsed("redis://h"));
        // Nothing in a password is escaped.
        let all = Parts {
            port: Some(7000),
            username: Some("app".into()),
            password: Some("p%40/@:?#".into()),
            db: Some(3),
            tls: Some(cfg!(feature = "tls")),
            ..parts("10.0.0.1")
        };
        let scheme = if cfg!(feature = "tls") { "rediss" } else { "redis" };
        assert_eq!(read(&all), parsed(&format!("{scheme}://app:p%2540%2F%40:%3F%23@10.0.0.1:7000/3")));
        assert!(!format!("{:?} {}", read(&all), read(&all)).contains("p%40"));
        for host in ["::1", "[::1]"] {
            assert_eq!(read(&parts(host)), parsed("redis://[::1]"));
        }
        for host in ["", "h:6379", "redis://h", "h/3", "h ", "a@h"] {
            let error = RedisConfig::of_host(&parts(host)).unwrap_err().to_string();
            assert!(error.contains("a name or an address alone"), "{host}: {error}");
        }
        assert!(RedisConfig::of_host(&Parts { port: Some(0), ..parts("h") }).is_err());
        // Beside a URL that has none.
        let login = Parts { password: Some("secret".into()), ..Parts::default() };
        let mut config = parsed("redis://h/2");
        config.log_in(&login).unwrap();
        assert_eq!(config, parsed("redis://:secret@h/2"));
        for url in ["redis://:other@h", "redis://u:other@h"] {
            let error = parsed(url).log_in(&login).unwrap_err().to_string();
            assert!(error.contains("in one place") && !error.contains("secret") && !error.contains("other"), "{error}");
        }
        let empty = Parts { password: Some(String::new()), ..Parts::default() };
        assert!(parsed("redis://h").log_in(&empty).unwrap_err().to_string().contains("empty"));
    }

    #[test]
    fn mistakes_are_told_with_the_fix() {
        for (url, says) in [
            ("reids://h", "unknown scheme `reids`; did you mean `redis`?"),
            ("redis:/h", "no `://`"),
            ("localhost:6379", "no `://`"),
            ("http://h", "known are redis, rediss, redis+unix, memory"),
            ("redis://", "host is missing"),
            ("redis://:6379", "host is missing"),
            ("redis://h:", "no port"),
            ("redis://h:66000", "between 1 and 65535"),
            ("redis://h:0", "between 1 and 65535"),
            ("redis://h:64x", "not a number"),
            ("redis://h/main", "not a number"),
            ("redis://::1", "brackets"),
            ("redis://h?conect_timeout=1s", "did you mean `connect_timeout`?"),
            ("redis://h?connect_timeout=500", "no unit"),
            ("redis://h?connect_timeout=1h", "not a duration"),
            ("redis://h?connect_timeout=0ms", "between 1ms"),
            ("redis://h?response_timeout=1s&response_timeout=1s", "twice"),
            ("redis://h?db=3", "redis+unix"),
            ("redis://user@h", "no password"),
            ("redis://:50%@h", "%25"),
            ("redis+unix://run/redis.sock", "absolute path"),
            ("redis://h?tls_ca=/ca.pem", "rediss"),
        ] {
            let text = refused(url);
            assert!(text.contains(says), "{url}: {text}");
        }
    }

    #[cfg(not(feature = "tls"))]
    #[test]
    fn tls_without_the_feature_names_the_feature() {
        assert!(refused("rediss://h").contains("feature `tls`"));
    }

    #[test]
    fn no_text_contains_the_password() {
        const SECRET: &str = "hunter2";
        for url in [
            "redis://app:hunter2@h/3",
            "redis://:hunter2@h",
            "redis+unix:///s?password=hunter2",
            "redis+unix:///s?user=app&password=hunter2",
        ] {
            let config = parsed(url);
            assert_eq!(config.password.as_deref(), Some(SECRET));
            assert!(!format!("{config} {config:?} {config:#?}").contains(SECRET));
        }
        assert_eq!(parsed("redis://app:hunter2@h/3").to_string(), "redis://app:***@h:6379/3");
        for url in [
            "redis://app:hunter2",
            "redis://app:hunter2/x@h",
            "redis://app:x/hunter2@h",
            "redis://app:hunter2#x@h",
            "redis://app:x#hunter2@h",
            "redis://app:x?hunter2@h",
            "redis://app:x?hunter2=1@h",
            "redis://app:hunter2%zz@h",
            "redis://hunter2@h",
            "redis://app:hunter2@h:port",
            "redis://app:hunter2@[::1",
            "hunter2://h",
            "app:hunter2@h:6379",
            "redis+unix://hunter2/s?user=app",
            "redis://h?password=hunter2",
        ] {
            if let Err(error) = RedisConfig::parse(url) {
                assert!(!format!("{error} {error:?} {error:#?}").contains(SECRET), "{error}");
            }
        }
    }
}
