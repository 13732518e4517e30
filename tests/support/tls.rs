//! A server with TLS, which not every binary has.

use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::server::{RedisServer, binary, free_port, not_there};
use crate::skipped;

impl RedisServer {
    /// A server with a TLS port, or `None` if the binary was built without TLS. Then the calling test is counted as skipped.
    ///
    /// # Panics
    ///
    /// If it cannot be started, or nobody counts what is skipped.
    #[must_use]
    pub fn with_tls() -> Option<Self> {
        static HAS_TLS: OnceLock<bool> = OnceLock::new();
        // Without a certificate it ends at once in any case, and says why.
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
