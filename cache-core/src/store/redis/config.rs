//! The address of the server and the connection's settings, read from a URL.
//!
//! ```text
//! redis://[user[:password]@]host[:port][/db][?option=value&..]
//! rediss://..                                  the same over TLS (feature `tls`)
//! redis+unix:///path/to/socket[?db=3&user=..&password=..]
//! ```
//!
//! Other clients' names of the schemes are accepted, and so are their options unless they ask for a
//! behaviour that differs from ours: see [`foreign`].
//!
//! Invariant: no error, `Debug` or `Display` text contains the password. A URL that is parsed
//! wrongly may have parts of the password anywhere, so errors quote a part of a URL only if it is
//! nearly the name of a known scheme or option.

mod foreign;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::store::address::Parts;

const DEFAULT_PORT: u16 = 6379;
const STEP: &str = "configure";
/// `memory` is handled elsewhere, but may have been meant.
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
/// How long replicas may take unless the URL sets it.
const REPLICA_TIMEOUT: Duration = Duration::from_millis(500);
/// The longest accepted timeout. A longer one is probably a mistake, and would make a failure look
/// like a hang.
const LONGEST: Duration = Duration::from_secs(600);

/// Everything needed to connect.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct RedisConfig {
    pub(crate) address: Address,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) db: u16,
    /// For one attempt to connect, from the name lookup to the end of the set-up. Default: 1 s.
    pub(crate) connect_timeout: Duration,
    /// For one operation, including the time in the queue. Default: 500 ms.
    pub(crate) response_timeout: Duration,
    /// The time between two checks of an idle connection. Default: 1 s. Costs one `TIME` each.
    pub(crate) heartbeat: Duration,
    /// How old a value of the local tier may be at most, compared with the server. Default: 2 s.
    pub(crate) max_staleness: Duration,
    /// How many replicas an invalidation waits for. Default: none.
    pub(crate) replicas: Option<Replicas>,
    /// Shown by `CLIENT LIST`. Default: `cache-core`.
    pub(crate) client_name: String,
    /// The first part of all keys. The user of this connection needs the right to keys that start
    /// with it.
    pub(crate) namespace: Option<String>,
    /// How the program sets the address and the login, so that errors name the right setting to
    /// change.
    pub(crate) address_by: Given,
    pub(crate) login_by: Given,
    /// Options of other clients in the URL that have no effect.
    pub(crate) ignored: Vec<&'static str>,
}

/// How a program sets an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Given {
    /// In a URL.
    Url,
    /// By a method of the builder.
    Builder,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Tcp,
    Tls,
    Unix,
}

/// How many replicas to wait for, and how long they may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Replicas {
    pub(crate) count: u32,
    pub(crate) timeout: Duration,
}

impl Replicas {
    /// Makes the setting; `None` if there are no replicas to wait for.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Configuration`]: the timeout is out of range.
    pub(crate) fn new(count: u32, timeout: Duration) -> Result<Option<Self>> {
        if timeout < Duration::from_millis(1) || timeout > LONGEST {
            return Err(wrong("the replica timeout must be between 1ms and 600s"));
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
    /// Parses a URL.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Configuration`] with what to change.
    pub(crate) fn parse(url: &str) -> Result<Self> {
        let Some((scheme, rest)) = url.trim().split_once("://") else {
            return Err(wrong("the URL has no `://`; write `redis://host:6379/0`"));
        };
        let scheme = Scheme::of(scheme)?;
        let (rest, query) = match rest.split_once('?') {
            Some((rest, query)) => (rest, Query::parse(query, scheme)?),
            None => (rest, Query::default()),
        };
        let mut config = match scheme {
            Scheme::Tcp | Scheme::Tls => Self::over_tcp(scheme == Scheme::Tls, rest, &query)?,
            Scheme::Unix => Self::over_unix(rest, &query)?,
        };
        query.apply(&mut config)?;
        Ok(config)
    }

    /// Makes a configuration from the parts of an address; [`log_in`](Self::log_in) adds the login.
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
        Ok(Self {
            db: parts.db.unwrap_or(0),
            address_by: Given::Builder,
            login_by: Given::Builder,
            ..Self::at(address)
        })
    }

    /// Sets the login if the URL does not.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Configuration`]: the URL sets it, too.
    pub(crate) fn log_in(&mut self, parts: &Parts) -> Result<()> {
        let said = self.user.is_some() || self.password.is_some();
        for (name, part) in [("username", &parts.username), ("password", &parts.password)] {
            if part.is_some() && said {
                return Err(wrong(format!(
                    "the URL contains a login, and `{name}` is set too; set the login in one place"
                )));
            }
        }
        if let Some(password) = &parts.password {
            self.user.clone_from(&parts.username);
            self.password = Some(password.clone());
            self.login_by = Given::Builder;
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
        // The form of redis-py: `unix://user:password@/path`.
        let (login, path) = match rest.find("@/") {
            Some(at) if !rest.starts_with('/') => {
                (rest.get(..at), rest.get(at.saturating_add(1)..).unwrap_or_default())
            }
            _ => (None, rest),
        };
        if !path.starts_with('/') || path == "/" {
            return Err(wrong("`redis+unix://` needs an absolute path: `redis+unix:///run/redis/redis.sock?db=0`"));
        }
        let path = decoded(path)?;
        let (user, password) = match login.map(|login| login.split_once(':').unwrap_or((login, ""))) {
            Some((user, password)) => (decoded_if_any(user)?, decoded_if_any(password)?),
            None => (query.get("user").map(str::to_owned), query.get("password").map(str::to_owned)),
        };
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
            address_by: Given::Url,
            login_by: Given::Url,
            ignored: Vec::new(),
        }
    }
}

impl RedisConfig {
    /// Returns the time between two checks: short enough that reads stay trusted in between.
    pub(crate) fn beat(&self) -> Duration {
        self.heartbeat.min(self.max_staleness.mul_f64(0.5))
    }
}

/// Writes the URL without its password and options.
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

impl Scheme {
    /// Parses a scheme, also by the names that other clients use.
    fn of(name: &str) -> Result<Self> {
        match name.to_ascii_lowercase().as_str() {
            "redis" | "valkey" => Ok(Self::Tcp),
            "rediss" | "valkeys" | "redis+ssl" | "redis+tls" | "valkey+ssl" | "valkey+tls" => Ok(Self::Tls),
            "redis+unix" | "unix" | "redis+socket" | "redis-socket" | "valkey+unix" => Ok(Self::Unix),
            name if name.contains("cluster") => Err(wrong(
                "Redis Cluster is not supported yet; write the `redis://` URL of a server that is not in a cluster",
            )),
            name if name.contains("sentinel") => {
                Err(wrong("Redis Sentinel is not supported yet; write the `redis://` URL of the primary itself"))
            }
            name => Err(wrong(unknown("scheme", name, &SCHEMES))),
        }
    }
}

/// The options of a URL: known names, each at most once, values decoded.
#[derive(Default)]
struct Query {
    options: Vec<(&'static str, String)>,
    /// Options of other clients that have no effect.
    ignored: Vec<&'static str>,
}

impl Query {
    fn parse(text: &str, scheme: Scheme) -> Result<Self> {
        let mut query = Self::default();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let Some(known) = OPTIONS.into_iter().find(|known| *known == name) else {
                query.ignored.extend(foreign::option(name, value, scheme)?);
                continue;
            };
            if query.get(known).is_some() {
                return Err(wrong(format!("the option `{known}` is given twice")));
            }
            if value.is_empty() && matches!(known, "user" | "password") {
                // Empty means not set, as in `redis://:@host`.
                continue;
            }
            if value.is_empty() {
                return Err(wrong(format!("the option `{known}` has no value")));
            }
            query.options.push((known, decoded(value)?));
        }
        Ok(query)
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.options.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
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
            (None, Some(_)) => return Err(wrong("`replica_timeout` needs `wait_for_replicas`")),
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
            return Err(wrong("`tls_ca` can be used with `rediss://` only"));
        }
        config.namespace = self.get("namespace").map(str::to_owned);
        config.ignored.clone_from(&self.ignored);
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
            (false, None) => return Err(wrong("after the `]` of an IPv6 address there can only be `:port`")),
        }
    } else {
        match text.split_once(':') {
            Some((_, rest)) if rest.contains(':') => {
                return Err(wrong("an IPv6 address must be in brackets: `redis://[::1]:6379`"));
            }
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    if host.is_empty() {
        return Err(wrong(format!("the host is missing: `redis://host:6379/0`; {ENCODE}")));
    }
    if host.ends_with("#insecure") {
        return Err(wrong(
            "the server's certificate is always checked; trust its authority with `?tls_ca=/path/ca.pem`",
        ));
    }
    if host.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '#' | '%' | '@')) {
        return Err(wrong(format!("the host contains invalid characters; {ENCODE}")));
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

/// Decodes `%XX`. Any other `%` is an error: the result would be a different password from the one
/// that was meant.
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

/// Returns how many insertions, deletions, replacements and swaps of neighbours turn `a` into `b`
/// (optimal string alignment).
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
mod tests;
