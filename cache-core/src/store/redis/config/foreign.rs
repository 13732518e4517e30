//! Options of other clients in URLs.
//!
//! A provider's URL, or one that another program also uses, may have options that another client
//! knows. Options without an effect here are accepted and reported with an event. An option that
//! has another name here is an error that names it, since units differ. An option that is not
//! supported is an error that says so.
//!
//! Invariant: errors quote nothing of the URL, only names from this file.

use super::{OPTIONS, Scheme, unknown, wrong};
use crate::error::Result;

/// The effect of an option of another client.
enum Meaning {
    /// It has no effect here.
    Ignored,
    /// The option to use instead.
    Ours(&'static str),
    /// Accepted with one of these values, which match the behaviour here; otherwise an error.
    Only(&'static [&'static str], &'static str),
    /// It is not supported.
    Never(&'static str),
}

const CHECKED: &str =
    "the server's certificate is always checked: trust its authority with `tls_ca=/path/ca.pem` instead of the option";
const IN_THE_URL: &str = "`redis://user:password@host:port/db`, or `db`, `user` and `password` with `redis+unix://`";
const YES: &[&str] = &["true", "1", "yes", "on"];
const NO: &[&str] = &["false", "0", "no", "off"];

/// By names in the form of [`plain`].
const FOREIGN: &[(&str, Meaning)] = &[
    // redis-rs, ioredis, redis-py, go-redis, Lettuce, StackExchange.Redis, Celery.
    ("decoderesponses", Meaning::Ignored),
    ("enableofflinequeue", Meaning::Ignored),
    ("enablereadycheck", Meaning::Ignored),
    ("encoding", Meaning::Ignored),
    ("family", Meaning::Ignored),
    ("keepalive", Meaning::Ignored),
    ("lazyconnect", Meaning::Ignored),
    ("libname", Meaning::Ignored),
    ("libraryname", Meaning::Ignored),
    ("libraryversion", Meaning::Ignored),
    ("libver", Meaning::Ignored),
    ("maxconnections", Meaning::Ignored),
    ("maxidleconns", Meaning::Ignored),
    ("maxretries", Meaning::Ignored),
    ("maxretriesperrequest", Meaning::Ignored),
    ("minidleconns", Meaning::Ignored),
    ("poolfifo", Meaning::Ignored),
    ("poolsize", Meaning::Ignored),
    ("pooltimeout", Meaning::Ignored),
    ("protocol", Meaning::Ignored),
    ("retryontimeout", Meaning::Ignored),
    ("socketkeepalive", Meaning::Ignored),
    ("virtualhost", Meaning::Ignored),
    ("connectiontimeout", Meaning::Ours("`connect_timeout=1s`")),
    ("dialtimeout", Meaning::Ours("`connect_timeout=1s`")),
    ("socketconnecttimeout", Meaning::Ours("`connect_timeout=1s`")),
    ("commandtimeout", Meaning::Ours("`response_timeout=500ms`")),
    ("operationtimeout", Meaning::Ours("`response_timeout=500ms`")),
    ("readtimeout", Meaning::Ours("`response_timeout=500ms`")),
    ("sockettimeout", Meaning::Ours("`response_timeout=500ms`")),
    ("timeout", Meaning::Ours("`response_timeout=500ms`")),
    ("writetimeout", Meaning::Ours("`response_timeout=500ms`")),
    ("healthcheckinterval", Meaning::Ours("`heartbeat=1s`")),
    ("pinginterval", Meaning::Ours("`heartbeat=1s`")),
    ("connectionname", Meaning::Ours("`client_name=shop`")),
    ("keyprefix", Meaning::Ours("`namespace=shop`")),
    ("prefix", Meaning::Ours("`namespace=shop`")),
    ("ca", Meaning::Ours("`tls_ca=/path/ca.pem`")),
    ("cafile", Meaning::Ours("`tls_ca=/path/ca.pem`")),
    ("sslcacerts", Meaning::Ours("`tls_ca=/path/ca.pem`")),
    ("sslcafile", Meaning::Ours("`tls_ca=/path/ca.pem`")),
    ("tlscafile", Meaning::Ours("`tls_ca=/path/ca.pem`")),
    ("database", Meaning::Ours(IN_THE_URL)),
    ("pass", Meaning::Ours(IN_THE_URL)),
    ("username", Meaning::Ours(IN_THE_URL)),
    ("insecure", Meaning::Only(NO, CHECKED)),
    ("skipverify", Meaning::Only(NO, CHECKED)),
    ("sslcertreqs", Meaning::Only(&["required", "cert_required"], CHECKED)),
    ("sslcheckhostname", Meaning::Only(YES, CHECKED)),
    ("verifypeer", Meaning::Only(&["true", "full"], CHECKED)),
    ("cluster", Meaning::Only(NO, "Redis Cluster is not supported yet")),
    ("mastername", Meaning::Never("Redis Sentinel is not supported yet")),
    ("sentinelmasterid", Meaning::Never("Redis Sentinel is not supported yet")),
    ("sslcertfile", Meaning::Never("certificates of clients are not supported yet")),
    ("sslkeyfile", Meaning::Never("certificates of clients are not supported yet")),
];

/// Handles an option that is not one of ours. Returns its name if it should be reported.
///
/// # Errors
///
/// What to write instead.
pub(super) fn option(name: &str, value: &str, scheme: Scheme) -> Result<Option<&'static str>> {
    let (name_as_given, name, value) = (name, plain(name), value.to_ascii_lowercase());
    // One of ours, except for capitals and underscores.
    if let Some(ours) = OPTIONS.into_iter().find(|ours| plain(ours) == name) {
        return Err(wrong(format!("options are written with `_` and small letters: `{ours}`")));
    }
    if name == "tls" || name == "ssl" {
        let is_wanted = YES.contains(&value.as_str());
        return match (is_wanted, scheme) {
            (true, Scheme::Tls) | (false, Scheme::Tcp | Scheme::Unix) => Ok(None),
            (true, _) => Err(wrong("for TLS write `rediss://` instead of an option")),
            (false, Scheme::Tls) => Err(wrong("without TLS write `redis://` instead of an option")),
        };
    }
    if name == "protocol" && matches!(value.as_str(), "3" | "resp3") {
        return Ok(None);
    }
    match FOREIGN.iter().find(|(known, _)| *known == name) {
        Some((known, Meaning::Ignored)) => Ok(Some(known)),
        Some((known, Meaning::Ours(instead))) => {
            Err(wrong(format!("the option `{known}` is unknown; write {instead}")))
        }
        Some((_, Meaning::Only(fine, _))) if fine.contains(&value.as_str()) => Ok(None),
        Some((_, Meaning::Only(_, why) | Meaning::Never(why))) => Err(wrong(*why)),
        None => Err(wrong(unknown("option", name_as_given, &OPTIONS))),
    }
}

/// Normalizes a name: removes what clients write differently.
fn plain(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_lowercase()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::store::redis::RedisConfig;

    #[test]
    fn urls_of_other_clients_work_or_are_refused_with_the_fix() {
        for (url, told) in [
            ("redis://h?protocol=resp3", None),
            ("redis://h?protocol=2", Some("protocol")),
            ("redis://h?decode_responses=True", Some("decoderesponses")),
            ("redis://h?maxRetriesPerRequest=20", Some("maxretriesperrequest")),
            ("redis://h?ssl=false", None),
            ("redis://h?cluster=false", None),
        ] {
            let config = RedisConfig::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"));
            assert_eq!(config.ignored.first().copied(), told, "{url}");
        }
        for (url, says) in [
            ("redis://h?connectTimeout=1s", "`connect_timeout`"),
            ("redis://h?socket_timeout=5", "`response_timeout=500ms`"),
            ("redis://h?dial_timeout=5s", "`connect_timeout=1s`"),
            ("redis://h?keyPrefix=shop", "`namespace=shop`"),
            ("redis://h?database=3", "`redis://user:password@host:port/db`"),
            ("redis://h?username=app", "`redis://user:password@host:port/db`"),
            ("redis://h?ssl=true", "`rediss://`"),
            ("redis://h?ssl_cert_reqs=none", "`tls_ca=/path/ca.pem`"),
            ("redis://h#insecure", "`?tls_ca=/path/ca.pem`"),
            ("redis://h?skip_verify=true", "`tls_ca=/path/ca.pem`"),
            ("redis://h?sentinelMasterId=m", "Sentinel"),
            ("redis+cluster://h", "Cluster is not supported yet"),
            ("redis-sentinel://h", "Sentinel is not supported yet"),
        ] {
            let error = RedisConfig::parse(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration);
            assert!(error.to_string().contains(says), "{url}: {error}");
        }
    }

    #[test]
    fn schemes_have_the_names_that_other_clients_know() {
        let same = |url: &str, ours: &str| {
            let parsed = RedisConfig::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"));
            assert_eq!(parsed, RedisConfig::parse(ours).unwrap(), "{url}");
        };
        same("REDIS://h", "redis://h");
        same("valkey://u:p@h/3", "redis://u:p@h/3");
        same("unix:///run/redis.sock?db=3", "redis+unix:///run/redis.sock?db=3");
        same("redis+socket:///run/redis.sock", "redis+unix:///run/redis.sock");
        same("unix://app:p%40w@/run/redis.sock", "redis+unix:///run/redis.sock?user=app&password=p%40w");
        same("redis+unix:///run/redis.sock?password=", "redis+unix:///run/redis.sock");
        if cfg!(feature = "tls") {
            for scheme in ["RedisS", "valkeys", "redis+ssl", "redis+tls"] {
                same(&format!("{scheme}://h"), "rediss://h");
            }
            same("rediss://h?ssl_cert_reqs=required&tls=true", "rediss://h");
        }
    }

    #[test]
    fn names_are_as_they_are_compared() {
        for (name, _) in FOREIGN {
            assert_eq!(plain(name), *name);
            assert!(OPTIONS.iter().all(|ours| plain(ours) != *name), "{name}");
        }
    }
}
