//! Three processes of the blog behind one Redis and one database.

use std::process::{Child, Command, Stdio};

use support::RedisServer;
use tempfile::TempDir;

use crate::browser::{Browser, Page};
use crate::process::Process;
use crate::reader::Reader;

/// All of it, each test's own.
pub(crate) struct Instances {
    running: Vec<Process>,
    pub(crate) redis: RedisServer,
    folder: TempDir,
    /// The first author, with one session for all three.
    writer: Reader,
}

impl Instances {
    /// Starts the three at the same moment, on a database that is not there yet.
    pub(crate) fn start() -> Self {
        let redis = RedisServer::start();
        let folder = tempfile::tempdir().unwrap();
        let database = database_url(&folder);
        let children: Vec<Child> = (0..3).map(|_| spawn(&database, &redis)).collect();
        let running: Vec<Process> = children.into_iter().map(Process::new).collect();
        let writer = Reader::logged_in(running[0].browser, "demo", "demo");
        Self { running, redis, folder, writer }
    }

    /// The writer at one of them.
    pub(crate) fn writer(&self, through: usize) -> Reader {
        self.writer.at(self.running[through].browser)
    }

    /// Ends one of them as a crash does, and starts it anew.
    pub(crate) fn restart(&mut self, which: usize) {
        let database = self.database_url();
        drop(self.running.remove(which));
        self.running.insert(which, Process::new(spawn(&database, &self.redis)));
    }

    pub(crate) fn database_url(&self) -> String {
        database_url(&self.folder)
    }

    /// The browsers of all three.
    pub(crate) fn browsers(&self) -> Vec<Browser> {
        self.running.iter().map(|instance| instance.browser).collect()
    }

    /// Publishes a post through one of them and returns its address.
    pub(crate) fn publish(&self, through: usize, title: &str) -> String {
        let page = self.post(through, "/posts", &[("title", title), ("body", "The body.")]);
        page.location().unwrap().to_owned()
    }

    /// Sends a form that is taken.
    pub(crate) fn post(&self, through: usize, path: &str, fields: &[(&str, &str)]) -> Page {
        let page = self.writer(through).post(path, fields);
        assert_eq!(page.status, 303, "{path}: {}", page.body);
        page
    }
}

fn spawn(database: &str, redis: &RedisServer) -> Child {
    Command::new(env!("CARGO_BIN_EXE_blog"))
        .env("BLOG_ADDR", "127.0.0.1:0")
        .env("DATABASE_URL", database)
        .env("CACHE_URL", redis.url())
        .env("SESSION_SECRET", "the same one for all the instances")
        .env("RUST_LOG", "off")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn database_url(folder: &TempDir) -> String {
    format!("sqlite:{}", folder.path().join("blog.db").display())
}
