//! The settings from the environment, checked before anything is opened.
//!
//! Invariant: no text made here contains a password.

use std::fmt;

use url::Url;

use crate::serving::Limits;

const DEFAULT_ADDR: &str = "127.0.0.1:3000";
const DEFAULT_DATABASE: &str = "sqlite:blog.db";
/// The minimum of the session layer.
const SECRET_BYTES_MIN: usize = 32;

/// Where to listen, and what to use.
#[derive(Clone)]
pub struct Config {
    /// `BLOG_ADDR`: host and port. Default: `127.0.0.1:3000`. Port 0 picks a free one.
    pub addr: String,
    /// `DATABASE_URL`. Default: the file `blog.db` in the working directory.
    pub database: Database,
    /// `CACHE_URL`. Default: none, the cache lives in this process.
    pub cache_url: Option<String>,
    /// `SESSION_SECRET`: signs session ids, at least 32 bytes. Default: none, a new one is
    /// generated at each start.
    pub session_secret: Option<String>,
    /// `SESSION_COOKIE=insecure`: browsers get a cookie that also works over plain HTTP. Default:
    /// `false`.
    pub insecure_cookie: bool,
    /// How much of the server one client may use. No variable sets them.
    pub limits: Limits,
}

/// The database, given by its URL.
#[derive(Clone, PartialEq, Eq)]
pub enum Database {
    /// A file, created if missing.
    Sqlite {
        /// The URL in the form that the driver takes.
        url: String,
    },
    /// A server.
    Postgres {
        /// The URL in the form that the driver takes, including the password.
        url: String,
    },
}

impl Config {
    /// Returns the defaults with this database.
    #[must_use]
    pub fn new(database: Database) -> Self {
        let addr = DEFAULT_ADDR.to_owned();
        Self {
            addr,
            database,
            cache_url: None,
            session_secret: None,
            insecure_cookie: false,
            limits: Limits::default(),
        }
    }

    /// Reads `BLOG_ADDR`, `DATABASE_URL`, `CACHE_URL`, `SESSION_SECRET` and `SESSION_COOKIE`. An
    /// empty variable counts as not set.
    ///
    /// # Errors
    /// The text names the variable and says what to write instead.
    pub fn from_env() -> Result<Self, StartError> {
        Self::from_lookup(|name| match std::env::var(name) {
            Ok(value) => Ok(Some(value)),
            Err(std::env::VarError::NotPresent) => Ok(None),
            Err(std::env::VarError::NotUnicode(_)) => {
                Err(StartError::Setting(format!("{name}: is not valid UTF-8; write it as plain text")))
            }
        })
    }

    fn from_lookup(lookup: impl Fn(&str) -> Result<Option<String>, StartError>) -> Result<Self, StartError> {
        let setting = |name| Ok(lookup(name)?.map(|value| value.trim().to_owned()).filter(|value| !value.is_empty()));
        Ok(Self {
            addr: checked_addr(setting("BLOG_ADDR")?.as_deref().unwrap_or(DEFAULT_ADDR))?,
            database: Database::parse(setting("DATABASE_URL")?.as_deref().unwrap_or(DEFAULT_DATABASE))?,
            cache_url: setting("CACHE_URL")?,
            session_secret: setting("SESSION_SECRET")?.map(checked_secret).transpose()?,
            insecure_cookie: is_insecure(setting("SESSION_COOKIE")?.as_deref())?,
            limits: Limits::default(),
        })
    }
}

impl Database {
    /// Parses a database URL.
    ///
    /// # Errors
    /// If it is neither a `sqlite:` nor a `postgres:` URL.
    pub fn parse(text: &str) -> Result<Self, StartError> {
        const FIX: &str = "use sqlite:blog.db or postgres://user@host/database";
        let scheme = text.split_once(':').map(|(scheme, _)| scheme);
        match scheme {
            Some("sqlite") => {
                let path = text.split_once('?').map_or(text, |(path, _)| path);
                if sqlite_path(path).is_empty() {
                    return Err(StartError::Setting(format!("DATABASE_URL: there is no file name in it; {FIX}")));
                }
                // `rwc` creates the file. A `mode` in the URL is kept.
                let url = match text.split_once('?') {
                    Some((_, options)) if options.contains("mode=") => text.to_owned(),
                    Some(_) => format!("{text}&mode=rwc"),
                    None => format!("{text}?mode=rwc"),
                };
                Ok(Self::Sqlite { url })
            }
            Some("postgres" | "postgresql") => match Url::parse(text) {
                // A `/`, `?` or `#` in the password ends the host early, and the rest would be
                // printed as an address.
                Ok(url) if url.username().is_empty() && text.contains('@') => Err(StartError::Setting(
                    "DATABASE_URL: the password has a character that must be percent-encoded, such as %2F for /"
                        .to_owned(),
                )),
                Ok(_) => Ok(Self::Postgres { url: text.to_owned() }),
                Err(error) => Err(StartError::Setting(format!("DATABASE_URL: not a URL ({error}); {FIX}"))),
            },
            _ => Err(StartError::Setting(format!("DATABASE_URL: the database is not known; {FIX}"))),
        }
    }

    pub(crate) fn url(&self) -> &str {
        match self {
            Self::Sqlite { url } | Self::Postgres { url } => url,
        }
    }
}

/// Formats for people: never shows the user, the password or the options.
impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite { url } => {
                write!(f, "SQLite, {}", sqlite_path(url.split_once('?').map_or(url.as_str(), |(path, _)| path)))
            }
            Self::Postgres { url } => match Url::parse(url) {
                Ok(url) => {
                    write!(f, "Postgres, {}", url.host_str().filter(|host| !host.is_empty()).unwrap_or("localhost"))?;
                    if let Some(port) = url.port() {
                        write!(f, ":{port}")?;
                    }
                    write!(f, "{}", url.path())
                }
                Err(_) => f.write_str("Postgres"),
            },
        }
    }
}

/// Why the blog did not start, in one line.
#[derive(Debug)]
pub enum StartError {
    /// A variable has to be changed.
    Setting(String),
    /// The settings are valid, but a service that they name is not available.
    Unavailable(String),
}

impl StartError {
    /// Returns 2 for a wrong setting, 1 for everything else.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Setting(_) => 2,
            Self::Unavailable(_) => 1,
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Setting(text) | Self::Unavailable(text)) = self;
        // A driver's message may have several lines; the first one is enough.
        f.write_str(text.lines().next().unwrap_or_default())
    }
}

impl std::error::Error for StartError {}

fn sqlite_path(url: &str) -> &str {
    let rest = url.strip_prefix("sqlite:").unwrap_or(url);
    rest.strip_prefix("//").unwrap_or(rest)
}

fn checked_addr(text: &str) -> Result<String, StartError> {
    let valid = text.rsplit_once(':').is_some_and(|(host, port)| {
        let host_ok = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
            None => !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || c == '.' || c == '-'),
        };
        host_ok && port.parse::<u16>().is_ok()
    });
    if valid {
        Ok(text.to_owned())
    } else {
        Err(StartError::Setting(format!("BLOG_ADDR: {text:?} is not an address; use host:port such as {DEFAULT_ADDR}")))
    }
}

fn checked_secret(secret: String) -> Result<String, StartError> {
    if secret.len() >= SECRET_BYTES_MIN {
        return Ok(secret);
    }
    Err(StartError::Setting(format!(
        "SESSION_SECRET: has {} bytes and needs {SECRET_BYTES_MIN}; take what `cargo run -p cache-core --features sessions \
         --example gen_secret` prints",
        secret.len()
    )))
}

fn is_insecure(cookie: Option<&str>) -> Result<bool, StartError> {
    match cookie {
        None | Some("secure") => Ok(false),
        Some("insecure") => Ok(true),
        Some(other) => Err(StartError::Setting(format!(
            "SESSION_COOKIE: {other:?} is not known; use secure, or insecure for plain HTTP on another host than localhost"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &'static str, value: &'static str) -> Result<Config, StartError> {
        Config::from_lookup(|asked| Ok((asked == name).then(|| value.to_owned())))
    }

    #[test]
    fn defaults_when_nothing_is_set() {
        let config = Config::from_lookup(|_| Ok(None)).unwrap();
        assert_eq!(config.addr, "127.0.0.1:3000");
        assert_eq!(config.database.url(), "sqlite:blog.db?mode=rwc");
        assert_eq!(config.database.to_string(), "SQLite, blog.db");
        assert!(config.cache_url.is_none());
    }

    #[test]
    fn wrong_addresses_are_named() {
        for wrong in ["127.0.0.1:99999", "127.0.0.1", ":3000", "3000", "a b:1", "[::1:3000"] {
            let Err(error) = with("BLOG_ADDR", wrong) else { panic!("{wrong} was accepted") };
            assert!(error.to_string().starts_with("BLOG_ADDR: "), "{error}");
            assert_eq!(error.exit_code(), 2);
        }
        for right in ["localhost:3000", "[::1]:3000", "0.0.0.0:0"] {
            assert_eq!(with("BLOG_ADDR", right).unwrap().addr, right);
        }
    }

    #[test]
    fn wrong_session_settings_are_named_without_the_secret() {
        let Err(error) = with("SESSION_SECRET", "too short") else { panic!("it was accepted") };
        assert!(error.to_string().starts_with("SESSION_SECRET: has 9 bytes"), "{error}");
        assert!(error.to_string().contains("gen_secret") && !error.to_string().contains("too short"), "{error}");
        let Err(error) = with("SESSION_COOKIE", "none") else { panic!("it was accepted") };
        assert!(error.to_string().starts_with("SESSION_COOKIE: "), "{error}");
        assert!(with("SESSION_COOKIE", "insecure").unwrap().insecure_cookie);
    }

    #[test]
    fn wrong_databases_are_named_without_their_password() {
        for wrong in ["mysql://me:secret@host/x", "blog.db", "sqlite:", "postgres://me:secret@host:port/x"] {
            let Err(error) = with("DATABASE_URL", wrong) else { panic!("{wrong} was accepted") };
            assert!(error.to_string().starts_with("DATABASE_URL: "), "{error}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        for unencoded in
            ["postgres://me:12/secret@host/x", "postgres://me:12#secret@host/x", "postgres://me:1?secret@host/x"]
        {
            let Err(error) = with("DATABASE_URL", unencoded) else { panic!("{unencoded} was accepted") };
            assert!(error.to_string().contains("percent-encoded"), "{error}");
        }
        let config = with("DATABASE_URL", "postgres://me:secret@db.example:5433/blog?sslmode=disable").unwrap();
        assert_eq!(config.database.to_string(), "Postgres, db.example:5433/blog");
    }
}
