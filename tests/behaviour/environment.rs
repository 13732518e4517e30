//! Process-wide settings. Each case runs in a process of its own: this test binary, started for one
//! test, with the case in a variable.

use std::process::Command;

use cache_core::{Cache, ErrorKind, cached};
use support::RedisServer;

const CASE: &str = "CACHE_CORE_TEST_CASE";

/// Runs `case` in a process of its own. Returns its standard error.
fn in_a_process(case: &str, url: Option<&str>) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "behaviour::environment::the_case_asked_for", "--nocapture", "--test-threads=1"]);
    command.env(CASE, case).env_remove("CACHE_URL");
    if let Some(url) = url {
        command.env("CACHE_URL", url);
    }
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stdout));
    text
}

#[cached(ttl = 60)]
async fn doubled(id: u64) -> u64 {
    id * 2
}

#[tokio::test]
async fn the_case_asked_for() {
    match std::env::var(CASE).as_deref() {
        Ok("redis") => {
            let cache = Cache::from_env().await.unwrap();
            assert!(cache.address().starts_with("redis://127.0.0.1:"), "{cache:?}");
            assert!(cache.is_available());
        }
        Ok("memory") => assert_eq!(Cache::from_env().await.unwrap().address(), "memory://"),
        Ok("wrong") => {
            let error = Cache::from_env().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration);
            assert!(error.to_string().starts_with("CACHE_URL: "), "{error}");
            assert!(!format!("{error:?} {error}").contains("secret"), "{error:?}");
        }
        Ok("nothing installed") => {
            tracing::subscriber::set_global_default(Stderr).unwrap();
            assert_eq!((doubled(1).await, doubled(1).await), (2, 2));
            assert_eq!(Cache::global().stats().computes, 1);
            let error = Cache::install(Cache::in_memory()).unwrap_err();
            assert!(error.to_string().contains("before the first call"), "{error}");
        }
        Ok("installed") => {
            let cache = Cache::in_memory();
            Cache::install(cache.clone()).unwrap();
            assert_eq!((doubled(1).await, doubled(1).await), (2, 2));
            assert_eq!(cache.stats().computes, 1);
        }
        // Started as one of all tests. The cases have tests of their own.
        _ => {}
    }
}

/// Writes every log event to standard error.
struct Stderr;

impl tracing::Subscriber for Stderr {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    #[expect(clippy::print_stderr, reason = "read by the test that started this process")]
    fn event(&self, event: &tracing::Event<'_>) {
        struct Message(String);
        impl tracing::field::Visit for Message {
            fn record_debug(&mut self, _: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                self.0.push_str(&format!("{value:?} "));
            }
        }
        let mut message = Message(String::new());
        event.record(&mut message);
        eprintln!("{} {}", event.metadata().level(), message.0);
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[test]
fn the_environment_says_which_store() {
    let server = RedisServer::start();
    in_a_process("redis", Some(&server.url()));
    in_a_process("memory", None);
    in_a_process("memory", Some(""));
}

#[test]
fn a_wrong_url_in_the_environment_is_an_error_that_names_the_variable() {
    for wrong in ["reids://:secret@host", "redis:/host", "redis://:secret@host:port", "redis://:secret@host/db"] {
        in_a_process("wrong", Some(wrong));
    }
}

#[test]
fn without_an_installed_cache_memory_is_used_and_reported_once() {
    let log = in_a_process("nothing installed", None);
    assert_eq!(log.matches("no cache is installed").count(), 1, "{log}");
}

#[test]
fn functions_without_a_cache_option_use_the_installed_cache() {
    in_a_process("installed", None);
}
