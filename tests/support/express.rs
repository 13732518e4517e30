//! Starts Express applications for a test: `tests/interop/express/app.js`.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::{RedisServer, soon};

/// A Node process with some applications. Dropping it ends the process.
#[derive(Debug)]
pub struct Express {
    ports: Vec<u16>,
    _process: Child,
}

impl Express {
    /// Starts one application for each set of options. `app.js` describes the options.
    ///
    /// # Panics
    ///
    /// If Node or the packages are missing and cannot be installed: a test without its peer fails,
    /// it is not skipped.
    pub async fn start(server: &RedisServer, apps: &[Value]) -> Self {
        let options = json!({ "redis": server.url(), "apps": apps }).to_string();
        let mut process = node()
            .arg(root().join("tests/interop/express/app.js"))
            .arg(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("node can be started");
        let mut output = BufReader::new(process.stdout.take().expect("it is piped"));
        let mut line = String::new();
        soon("Express is ready", output.read_line(&mut line)).await.expect("it has an output");
        #[derive(Deserialize)]
        struct Ready {
            ports: Vec<u16>,
        }
        let ready: Ready = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line:?}"));
        Self { ports: ready.ports, _process: process }
    }

    /// Returns the port of each application.
    #[must_use]
    pub fn ports(&self) -> &[u16] {
        &self.ports
    }
}

/// Returns a `node` command that finds the packages of the Express peer.
///
/// # Panics
///
/// If the packages cannot be installed.
#[must_use]
pub fn node() -> Command {
    static PACKAGES: OnceLock<PathBuf> = OnceLock::new();
    let packages = PACKAGES.get_or_init(|| {
        let output = std::process::Command::new(root().join("tests/interop/install")).output();
        let output = output.expect("tests/interop/install can be run");
        assert!(output.status.success(), "tests/interop/install: {}", String::from_utf8_lossy(&output.stderr));
        PathBuf::from(String::from_utf8_lossy(&output.stdout).trim_end())
    });
    let mut command = Command::new("node");
    // The packages are outside of the tree, where Node would not look for them.
    command.env("NODE_PATH", packages).env("NODE_ENV", "test");
    command
}

/// Returns the folder of the workspace.
#[must_use]
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace")
}
