//! nginx as a shared cache in front of a server on this machine.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::server::free_port;

/// A running nginx. Dropping it ends the process.
#[derive(Debug)]
pub struct Nginx {
    _folder: TempDir,
    port: u16,
    child: Child,
}

impl Nginx {
    /// Starts an nginx that caches every response with status 200 for a minute unless the response
    /// says otherwise, as with `proxy_cache_valid 200 1m`. Its header `x-cache` is `HIT` or `MISS`.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    #[must_use]
    pub fn cache_in_front_of(upstream: u16) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        // Another process may take the port between finding and using it. In that case, try again.
        for _ in 0..5 {
            let port = free_port();
            let path = |name: &str| folder.path().join(name).display().to_string();
            fs::write(path("nginx.conf"), configuration(&path, port, upstream)).expect("a configuration");
            let child = Command::new("nginx")
                .args(["-p", &path(""), "-c", &path("nginx.conf"), "-e", &path("errors")])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn();
            let mut child = child.unwrap_or_else(|error| panic!("nginx cannot be started ({error}): see tests/run"));
            loop {
                if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
                    return Self { _folder: folder, port, child };
                }
                if child.try_wait().expect("a child of this process").is_some() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        let errors = fs::read_to_string(folder.path().join("errors")).unwrap_or_default();
        panic!("nginx does not start: {errors}");
    }

    /// Returns the port it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // It is a single process, so nothing is left behind.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn configuration(path: &dyn Fn(&str) -> String, port: u16, upstream: u16) -> String {
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {};\n", path(name)))
        .concat();
    format!(
        "daemon off; master_process off; pid {}; error_log {} warn;
        events {{}}
        http {{
            access_log off; {temporary}
            proxy_cache_path {} keys_zone=pages:1m;
            server {{
                listen 127.0.0.1:{port};
                location / {{
                    proxy_pass http://127.0.0.1:{upstream};
                    proxy_cache pages;
                    proxy_cache_valid 200 1m;
                    add_header X-Cache $upstream_cache_status;
                }}
            }}
        }}",
        path("pid"),
        path("errors"),
        path("cache"),
    )
}
