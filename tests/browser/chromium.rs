//! A separate Chromium without a window, controlled by the DevTools protocol: JSON texts, each
//! ended by a zero byte.
//!
//! Invariant: it ends with its test, however the test ends. The protocol uses a pipe, and Chromium
//! exits when the pipe is closed, so a killed test program leaves no Chromium behind.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::rc::Rc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::tab::Tab;

/// Only a failing test waits for this long.
const DEADLINE: Duration = Duration::from_secs(30);

/// The programs to try if `$CHROMIUM` is not set: the first one in `PATH`. `tests/run` has the same
/// list.
const PROGRAMS: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

const FLAGS: [&str; 14] = [
    "--headless",
    "--remote-debugging-pipe",
    // Its sandbox does not work for root and in most containers. Only pages of this machine are
    // opened.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
    // A tab in the background keeps running.
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
    // A name other than `localhost`, to test how browsers treat it. No other name resolves.
    "--host-resolver-rules=MAP blog.test 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
];

/// A running Chromium. Dropping it ends the process.
pub(super) struct Chromium {
    pipe: Rc<Pipe>,
    child: Child,
    /// Removed after the process has ended.
    _folder: TempDir,
}

/// Both directions of the protocol, and the messages received so far.
pub(super) struct Pipe {
    to: RefCell<Option<ChildStdin>>,
    from: Receiver<Value>,
    events: RefCell<VecDeque<Event>>,
    last_id: Cell<u64>,
}

/// An event in a tab.
#[derive(Debug)]
pub(super) struct Event {
    /// The tab's session.
    session: String,
    pub(super) method: String,
    pub(super) params: Value,
}

impl Chromium {
    /// Starts Chromium with a profile folder of its own.
    ///
    /// # Panics
    ///
    /// If there is no Chromium: a test without its browser fails, it is not skipped.
    pub(super) fn start() -> Self {
        let program = program();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let log = folder.path().join("log");
        let mut child = Command::new("sh")
            // The protocol uses the descriptors 3 and 4. A child process is given 0, 1 and 2.
            .args(["-c", r#"exec "$0" "$@" 3<&0 4>&1 </dev/null >&2"#, &program])
            .args(FLAGS)
            .arg(format!("--user-data-dir={}", folder.path().join("profile").display()))
            // Otherwise it leaves files in the user's home.
            .envs(["HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "TMPDIR"].map(|name| (name, folder.path())))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).expect("a file"))
            .spawn()
            .expect("a shell");
        let output = child.stdout.take().expect("it is piped");
        let (sender, from) = channel();
        std::thread::spawn(move || read(output, &sender));
        let to = RefCell::new(child.stdin.take());
        let pipe = Rc::new(Pipe { to, from, events: RefCell::default(), last_id: Cell::new(0) });
        let chromium = Self { pipe, child, _folder: folder };
        if chromium.pipe.try_call(None, "Browser.getVersion", &json!({})).is_none() {
            panic!("{program} does not start: {}", fs::read_to_string(log).unwrap_or_default());
        }
        chromium
    }

    /// Returns the only tab of a new profile, which shares no cookie, history or cached page with
    /// others.
    pub(super) fn profile(&self) -> Tab {
        Tab::open(Rc::clone(&self.pipe))
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        drop(self.pipe.to.take());
        // Its own end of the pipe closes when it has ended.
        while self.pipe.from.recv_timeout(DEADLINE).is_ok() {}
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Pipe {
    /// Sends a request. Returns the result.
    ///
    /// # Panics
    ///
    /// If there is no result, or an error.
    pub(super) fn call(&self, session: Option<&str>, method: &str, params: &Value) -> Value {
        match self.try_call(session, method, params) {
            Some(Ok(result)) => result,
            Some(Err(error)) => panic!("{method} {params}: {error}"),
            None => panic!("{method}: Chromium has ended"),
        }
    }

    /// Sends a request. Returns `None` if Chromium has ended.
    fn try_call(&self, session: Option<&str>, method: &str, params: &Value) -> Option<Result<Value, Value>> {
        let id = self.last_id.get() + 1;
        self.last_id.set(id);
        let mut message = json!({ "id": id, "method": method, "params": params });
        if let Some(session) = session {
            message["sessionId"] = session.into();
        }
        let text = message.to_string() + "\0";
        self.to.borrow_mut().as_mut()?.write_all(text.as_bytes()).ok()?;
        loop {
            let mut message = self.receive(method)?;
            if message["id"] == id {
                let error = message["error"].take();
                return Some(if error.is_null() { Ok(message["result"].take()) } else { Err(error) });
            }
            self.events.borrow_mut().extend(Event::new(message));
        }
    }

    /// Takes the first matching event of a tab, waiting for it if necessary. Earlier events are
    /// kept.
    pub(super) fn event(&self, session: &str, what: &str, fits: impl Fn(&Event) -> bool) -> Event {
        let fits = |event: &Event| event.session == session && fits(event);
        if let Some(event) = self.taken(fits) {
            return event;
        }
        loop {
            let message = self.receive(what).unwrap_or_else(|| panic!("{what}: Chromium has ended"));
            match Event::new(message) {
                Some(event) if fits(&event) => return event,
                other => self.events.borrow_mut().extend(other),
            }
        }
    }

    /// Takes all matching events of a tab received so far.
    pub(super) fn events(&self, session: &str, fits: impl Fn(&Event) -> bool) -> Vec<Event> {
        let fits = |event: &Event| event.session == session && fits(event);
        std::iter::from_fn(|| self.taken(fits)).collect()
    }

    fn taken(&self, fits: impl Fn(&Event) -> bool) -> Option<Event> {
        let mut events = self.events.borrow_mut();
        let at = events.iter().position(fits)?;
        events.remove(at)
    }

    fn receive(&self, what: &str) -> Option<Value> {
        match self.from.recv_timeout(DEADLINE) {
            Ok(message) => Some(message),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => {
                let events: Vec<_> = self.events.borrow().iter().map(|event| event.method.clone()).collect();
                panic!("this never happened: {what}; what did: {events:?}");
            }
        }
    }
}

impl Event {
    /// Returns `None` for a reply without a waiter, and for an event of the whole browser.
    fn new(mut message: Value) -> Option<Self> {
        let session = message["sessionId"].as_str()?.to_owned();
        let method = message["method"].as_str()?.to_owned();
        Some(Self { session, method, params: message["params"].take() })
    }
}

/// Reads messages until Chromium has ended.
fn read(output: impl Read, to: &Sender<Value>) {
    for message in BufReader::new(output).split(0) {
        let Ok(Ok(message)) = message.map(|message| serde_json::from_slice(&message)) else { return };
        if to.send(message).is_err() {
            return;
        }
    }
}

fn program() -> String {
    let is_there = |program: &str| {
        let version = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        version.is_ok_and(|status| status.success())
    };
    let named = std::env::var("CHROMIUM").ok().into_iter();
    let mut programs = named.chain(PROGRAMS.map(str::to_owned));
    programs.find(|program| is_there(program)).unwrap_or_else(|| {
        panic!("the browser tests need Chromium or Chrome: tests/run installs it (Debian: apt-get install chromium); CHROMIUM may name the program")
    })
}
