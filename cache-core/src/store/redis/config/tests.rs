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
    assert!(refused("redis://h?replica_timeout=2s").contains("needs `wait_for_replicas`"));
    assert!(refused("redis://h?wait_for_replicas=all").contains("not a whole number"));
    assert!(Replicas::new(1, Duration::ZERO).is_err(), "Redis would wait forever");
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
        assert_eq!((config.address_by, config.login_by), (Given::Builder, Given::Builder));
        RedisConfig { address_by: Given::Url, login_by: Given::Url, ..config }
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
    // With a URL that has no password.
    let login = Parts { password: Some("secret".into()), ..Parts::default() };
    let mut config = parsed("redis://h/2");
    config.log_in(&login).unwrap();
    assert_eq!(config, RedisConfig { login_by: Given::Builder, ..parsed("redis://:secret@h/2") });
    for url in ["redis://:other@h", "redis://u:other@h"] {
        let error = parsed(url).log_in(&login).unwrap_err().to_string();
        assert!(error.contains("in one place") && !error.contains("secret") && !error.contains("other"), "{error}");
    }
}

#[test]
fn mistakes_are_reported_with_the_fix() {
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
