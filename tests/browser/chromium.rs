//! A Chromium of one's own, without a window, spoken to in the DevTools protocol: JSON texts, each ended by a zero byte.
//!
//! Invariant: it ends with its test, whatever becomes of that. The protocol goes through a pipe, and Chromium exits when that is
//! closed, so one that a killed test program leaves behind goes too.

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

/// Only a test that fails waits for this long.
const DEADLINE: Duration = Duration::from_secs(30);

/// `$CHROMIUM`, else the first of these in `PATH`. `tests/run` has the same list.
const PROGRAMS: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

const FLAGS: [&str; 14] = [
    "--headless",
    "--remote-debugging-pipe",
    // Its sandbox works for no root user and in few containers. It opens pages of this machine only.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
    // A tab behind another one goes on.
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
    // A name that is not `localhost`, for what browsers do there. No other one leads anywhere.
    "--host-resolver-rules=MAP blog.test 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
];

/// A running one. Dropping it ends the process.
pub(super) struct Chromium {
    pipe: Rc<Pipe>,
    child: Child,
    /// Removed after the process has ended.
    _folder: TempDir,
}

/// Both directions of the protocol, and what has arrived without being asked for.
pub(super) struct Pipe {
    to: RefCell<Option<ChildStdin>>,
    from: Receiver<Value>,
    events: RefCell<VecDeque<Event>>,
    last_id: Cell<u64>,
}

/// Something happened in a tab.
#[derive(Debug)]
pub(super) struct Event {
    /// The tab's.
    session: String,
    pub(super) method: String,
    pub(super) params: Value,
}

impl Chromium {
    /// Starts it with a profile folder of its own.
    ///
    /// # Panics
    ///
    /// If there is none: a test without its browser fails, it is not skipped.
    pub(super) fn start() -> Self {
        let program = program();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let log = folder.path().join("log");
        let mut child = Command::new("sh")
            // The protocol's descriptors are 3 and 4; a process is given 0, 1 and 2.
            .args(["-c", r#"exec "$0" "$@" 3<&0 4>&1 </dev/null >&2"#, &program])
            .args(FLAGS)
            .arg(format!("--user-data-dir={}", folder.path().join("profile").display()))
            // Or it leaves files in whose home it runs.
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

    /// The only tab of a profile of its own: no cookie, no history and no cached page of any other.
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
    /// Asks, and returns the result.
    ///
    /// # Panics
    ///
    /// If there is none, or an error.
    pub(super) fn call(&self, session: Option<&str>, method: &str, params: &Value) -> Value {
        match self.try_call(session, method, params) {
            Some(Ok(result)) => result,
            Some(Err(error)) => panic!("{method} {params}: {error}"),
            None => panic!("{method}: Chromium has ended"),
        }
    }

    /// `None`: it has ended.
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

    /// The first event of a tab that fits, of those that are there or yet to come. It is taken out, and none before it.
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

    /// All events of a tab that are there and fit, taken out.
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
    /// `None`: an answer that nobody waits for, or an event of the whole browser.
    fn new(mut message: Value) -> Option<Self> {
        let session = message["sessionId"].as_str()?.to_owned();
        let method = message["method"].as_str()?.to_owned();
        Some(Self { session, method, params: message["params"].take() })
    }
}

/// Runs until Chromium has ended.
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
