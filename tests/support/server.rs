//! A separate `redis-server` process on a free port, in a temporary folder, without a configuration
//! file.
//!
//! `REDIS_SERVER` names a binary other than the `redis-server` in the `PATH`, such as that of
//! Valkey.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{BufRead, BufReader, Write as _};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tempfile::TempDir;

/// Only a broken machine takes longer.
const STARTS_WITHIN: Duration = Duration::from_secs(20);

/// No test needs its server for longer, but for soaks.
const LASTS_AT_MOST: Duration = Duration::from_secs(480);

/// URL options for a busy machine. The staleness bound has to be twice the timeout.
pub const PATIENT: &str = "response_timeout=10s&connect_timeout=10s&max_staleness=20s";

/// Returns the binary of the server.
pub(crate) fn binary() -> OsString {
    std::env::var_os("REDIS_SERVER").filter(|named| !named.is_empty()).unwrap_or_else(|| "redis-server".into())
}

/// Options of a server; see [`RedisServer::builder`].
#[derive(Debug, Default)]
pub struct RedisServerBuilder {
    password: Option<String>,
    acl_users: Vec<String>,
    maxmemory: Option<String>,
    extra: Vec<String>,
    tls: bool,
}

/// A running server. Dropping it ends the process.
#[derive(Debug)]
pub struct RedisServer {
    folder: TempDir,
    port: u16,
    tls_port: Option<u16>,
    password: Option<String>,
    arguments: Vec<String>,
    child: Mutex<Option<Child>>,
    _watch: Option<Sender<()>>,
}

impl RedisServerBuilder {
    /// Sets the password of the default user.
    #[must_use]
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self
    }

    /// Adds a user in ACL syntax: `app on >secret ~* &* +@all`.
    #[must_use]
    pub fn user(mut self, rule: &str) -> Self {
        self.acl_users.push(rule.to_owned());
        self
    }

    /// Sets the `maxmemory` limit, such as `2mb`. Nothing is evicted.
    #[must_use]
    pub fn maxmemory(mut self, limit: &str) -> Self {
        self.maxmemory = Some(limit.to_owned());
        self
    }

    /// Sets any option of `redis-server`, without its dashes.
    #[must_use]
    pub fn option(mut self, name: &str, value: &str) -> Self {
        self.extra.extend([format!("--{name}"), value.to_owned()]);
        self
    }

    /// Makes the server a replica of `primary`. Replication takes a moment to start.
    #[must_use]
    pub fn replica_of(mut self, primary: &RedisServer) -> Self {
        self.extra.extend(["--replicaof".into(), "127.0.0.1".into(), primary.port.to_string()]);
        self
    }

    /// Opens a TLS port as well, with a certificate for `localhost` by an authority made for this
    /// server.
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Starts the server and waits until it answers.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    #[must_use]
    pub fn start(self) -> RedisServer {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut arguments: Vec<String> =
            ["--save", "", "--appendonly", "no", "--bind", "127.0.0.1"].map(Into::into).into();
        let path = |name: &str| folder.path().join(name).display().to_string();
        arguments.extend(["--dir".into(), path(""), "--unixsocket".into(), path("redis.sock")]);
        if let Some(password) = &self.password {
            arguments.extend(["--requirepass".into(), password.clone()]);
        }
        for rule in &self.acl_users {
            arguments.push("--user".into());
            arguments.extend(rule.split(' ').map(str::to_owned));
        }
        if let Some(limit) = &self.maxmemory {
            arguments.extend(["--maxmemory".into(), limit.clone()]);
        }
        arguments.extend(self.extra);
        let tls_port = self.tls.then(|| {
            make_certificates(&folder);
            let port = free_port();
            arguments.extend(["--tls-port".into(), port.to_string(), "--tls-auth-clients".into(), "no".into()]);
            arguments.extend([
                "--tls-cert-file".into(),
                path("server.crt"),
                "--tls-key-file".into(),
                path("server.key"),
            ]);
            arguments.extend(["--tls-ca-cert-file".into(), path("ca.crt")]);
            port
        });
        let mut server = RedisServer {
            folder,
            port: 0,
            tls_port,
            password: self.password,
            arguments,
            child: Mutex::default(),
            _watch: watch(),
        };
        // Another process may take the port between finding and using it. In that case, try again.
        for _ in 0..5 {
            server.port = free_port();
            if server.launch() {
                return server;
            }
        }
        panic!("{} does not start; its arguments: {:?}", binary().display(), server.arguments);
    }
}

impl RedisServer {
    /// Starts a server with default options.
    ///
    /// # Panics
    ///
    /// If it cannot be started: a test without its server fails, it is not skipped.
    #[must_use]
    pub fn start() -> Self {
        Self::builder().start()
    }

    /// Returns a builder for a server with options.
    #[must_use]
    pub fn builder() -> RedisServerBuilder {
        RedisServerBuilder::default()
    }

    /// Returns `redis://127.0.0.1:port/`, with the default user's password if there is one.
    #[must_use]
    pub fn url(&self) -> String {
        match &self.password {
            Some(password) => self.url_as(&format!(":{password}")),
            None => format!("redis://127.0.0.1:{}/", self.port),
        }
    }

    /// Returns the URL with timeouts that no busy machine reaches, for tests of other things.
    #[must_use]
    pub fn patient_url(&self) -> String {
        format!("{}?{PATIENT}", self.url())
    }

    /// Returns the URL with these credentials: `user:password`.
    #[must_use]
    pub fn url_as(&self, credentials: &str) -> String {
        format!("redis://{credentials}@127.0.0.1:{}/", self.port)
    }

    /// Returns the URL of the Unix socket.
    #[must_use]
    pub fn unix_url(&self) -> String {
        format!("redis+unix://{}", self.file("redis.sock").display())
    }

    /// Returns the URL of the TLS port with the authority to trust.
    ///
    /// # Panics
    ///
    /// If the server was not started with [`tls`](RedisServerBuilder::tls).
    #[must_use]
    pub fn tls_url(&self) -> String {
        format!("{}?tls_ca={}", self.untrusted_tls_url(), self.file("ca.crt").display())
    }

    /// Returns the URL of the TLS port without the authority.
    ///
    /// # Panics
    ///
    /// If the server was not started with [`tls`](RedisServerBuilder::tls).
    #[must_use]
    pub fn untrusted_tls_url(&self) -> String {
        format!("rediss://localhost:{}/", self.tls_port.expect("the server was started with a TLS port"))
    }

    /// Returns the TCP port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Sends SIGSTOP and waits for it: connections stay open, but the server no longer answers.
    ///
    /// # Panics
    ///
    /// If it cannot be stopped.
    pub fn pause(&self) {
        let pid = self.signal("-STOP");
        // The signal may arrive late, so the current request may still be answered.
        let state = || {
            let output = Command::new("ps").args(["-o", "state=", "-p", &pid]).output().expect("ps is installed");
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        };
        loop {
            let now = state();
            match now.chars().next() {
                Some('T') => return,
                None | Some('Z') => panic!("the server has ended"),
                Some(_) => {}
            }
        }
    }

    /// Sends SIGCONT.
    pub fn resume(&self) {
        self.signal("-CONT");
    }

    /// Sends SIGKILL. The data are lost.
    pub fn kill(&self) {
        let child = self.child.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut child) = child {
            child.kill().expect("the server can be killed");
            child.wait().expect("the server has ended");
        }
    }

    /// Kills the server if it runs, and starts an empty one on the same port.
    ///
    /// # Panics
    ///
    /// If it does not start again.
    pub fn restart(&self) {
        self.kill();
        for _ in 0..50 {
            if self.launch() {
                return;
            }
        }
        panic!("{} does not start again on port {}", binary().display(), self.port);
    }

    /// Runs `redis-cli` as the default user and returns its output.
    ///
    /// # Panics
    ///
    /// If it fails.
    pub fn cli(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("redis-cli");
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string()]).args(arguments);
        if let Some(password) = &self.password {
            command.env("REDISCLI_AUTH", password);
        }
        let output = command.output().expect("redis-cli is installed");
        assert!(output.status.success(), "redis-cli {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// Returns the number of calls of each command, by lower-case name: `get`, `client|tracking`.
    pub fn commandstats(&self) -> BTreeMap<String, u64> {
        let info = self.cli(&["INFO", "commandstats"]);
        let calls = |line: &str| -> Option<(String, u64)> {
            let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
        };
        info.lines().filter_map(calls).collect()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Returns `false` if the process ended immediately, because the port was taken.
    fn launch(&self) -> bool {
        // A killed server leaves its socket file.
        drop(fs::remove_file(self.file("redis.sock")));
        let child = Command::new(binary())
            .args(["--port", &self.port.to_string()])
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let mut child = child.unwrap_or_else(|error| panic!("{}", not_there(&error)));
        let ready = says_that_it_is_ready(child.stdout.take().expect("it is piped"));
        match ready.recv_timeout(STARTS_WITHIN) {
            Ok(()) => {
                *self.child.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
                true
            }
            Err(RecvTimeoutError::Disconnected) => {
                drop(child.wait());
                false
            }
            Err(RecvTimeoutError::Timeout) => {
                drop(child.kill());
                drop(child.wait());
                panic!("{} on port {} does not become ready", binary().display(), self.port);
            }
        }
    }

    /// Sends a signal. Returns the process id.
    fn signal(&self, signal: &str) -> String {
        let child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let pid = child.as_ref().expect("the server runs").id().to_string();
        let status = Command::new("kill").args([signal, &pid]).status().expect("kill is installed");
        assert!(status.success(), "kill {signal} {pid}");
        pid
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Ends the test program if a server is not dropped in time: one test that hangs would keep all of
/// them from having a result. Only under `tests/run` in its short form: benches and soaks take
/// longer.
fn watch() -> Option<Sender<()>> {
    if std::env::var_os("CACHE_LONG").is_some() {
        return None;
    }
    std::env::var_os("TESTS_TELL")?;
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let (held, dropped) = mpsc::channel::<()>();
    std::thread::spawn(move || {
        if dropped.recv_timeout(LASTS_AT_MOST) == Err(RecvTimeoutError::Timeout) {
            // Not by `eprintln`, whose output the test harness keeps until the test ends.
            let _nobody_reads = writeln!(
                std::io::stderr(),
                "error: {test} hangs: it has held its server for {LASTS_AT_MOST:?}; the test program ends"
            );
            std::process::exit(101);
        }
    });
    Some(held)
}

/// Returns advice for a binary that cannot be started.
pub(crate) fn not_there(error: &std::io::Error) -> String {
    let binary = binary();
    format!(
        "{} cannot be started: {error}\nThese tests need redis-server 7 or later, or valkey-server, in the PATH \
         (apt install redis-server), or its path in REDIS_SERVER.",
        binary.display()
    )
}

/// Returns a channel that receives a message when the log reports readiness, and closes when the
/// log ends. The log is read to its end, so that the server can continue to write.
fn says_that_it_is_ready(log: ChildStdout) -> Receiver<()> {
    let (ready, says) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(log).lines().map_while(Result::ok) {
            if line.contains("Ready to accept connections") {
                // The line is printed once for each kind of connection. After the first, there may
                // be no receiver.
                let _told = ready.send(());
            }
        }
    });
    says
}

/// Returns a free port below the range of ephemeral ports. An outgoing connection could occupy one
/// of those when the server restarts.
pub(crate) fn free_port() -> u16 {
    let mut seed = RandomState::new().build_hasher().finish();
    loop {
        let port = u16::try_from(seed % 20_000).expect("below 20000").saturating_add(10_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
        seed = seed.wrapping_add(1);
    }
}

/// Makes an authority and a certificate for `localhost`, valid for a day.
fn make_certificates(folder: &TempDir) {
    let openssl = |arguments: &[&str]| {
        let output =
            Command::new("openssl").args(arguments).current_dir(folder).output().expect("openssl is installed");
        assert!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    fs::write(folder.path().join("names"), "subjectAltName=DNS:localhost,IP:127.0.0.1").expect("a file");
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let mut authority = vec!["req", "-x509", "-subj", "/CN=tests", "-days", "1", "-keyout", "ca.key", "-out", "ca.crt"];
    authority.extend(key);
    openssl(&authority);
    let mut request = vec!["req", "-subj", "/CN=localhost", "-keyout", "server.key", "-out", "server.csr"];
    request.extend(key);
    openssl(&request);
    let sign = ["x509", "-req", "-in", "server.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial"];
    openssl(&[&sign[..], &["-days", "1", "-extfile", "names", "-out", "server.crt"]].concat());
}
