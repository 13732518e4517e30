//! Starts a server with TLS, which not every binary supports.

use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::server::{RedisServer, binary, free_port, not_there};
use crate::skipped;

impl RedisServer {
    /// Starts a server with a TLS port. Returns `None` and counts the calling test as skipped if
    /// the binary was built without TLS.
    ///
    /// # Panics
    ///
    /// If it cannot be started, or `TESTS_TELL` is not set and the test would be skipped.
    #[must_use]
    pub fn with_tls() -> Option<Self> {
        static HAS_TLS: OnceLock<bool> = OnceLock::new();
        // Without a certificate it ends immediately in any case, and reports why.
        let misses_the_certificate = || {
            let port = free_port().to_string();
            let arguments = ["--port", "0", "--bind", "127.0.0.1", "--tls-port", &port];
            let output = Command::new(binary()).args(arguments).stdin(Stdio::null()).output();
            let output = output.unwrap_or_else(|error| panic!("{}", not_there(&error)));
            let says = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            let no_tls = says.contains("Failed finding TLS support") || says.contains("Bad directive");
            assert!(no_tls || says.contains("tls-cert-file"), "{says}");
            !no_tls
        };
        if *HAS_TLS.get_or_init(misses_the_certificate) {
            return Some(Self::builder().tls().start());
        }
        skipped(&format!("{} was built without TLS", binary().display()));
        None
    }
}
