//! Three processes of the blog with one Redis and one database.

use std::process::{Child, Command, Stdio};

use support::RedisServer;
use tempfile::TempDir;

use crate::browser::{Browser, Page};
use crate::process::Process;
use crate::reader::Reader;

/// The processes and their servers, separate for each test.
pub(crate) struct Instances {
    running: Vec<Process>,
    pub(crate) redis: RedisServer,
    folder: TempDir,
    /// The first author, with one session for all three instances.
    writer: Reader,
}

impl Instances {
    /// Starts the three at the same time, on a database that does not exist yet.
    pub(crate) fn start() -> Self {
        let redis = RedisServer::start();
        let folder = tempfile::tempdir().unwrap();
        let database = database_url(&folder);
        let children: Vec<Child> = (0..3).map(|_| spawn(&database, &redis)).collect();
        let running: Vec<Process> = children.into_iter().map(Process::new).collect();
        let writer = Reader::logged_in(running[0].browser, "demo", "demo");
        Self { running, redis, folder, writer }
    }

    /// Returns the writer at one of the instances.
    pub(crate) fn writer(&self, through: usize) -> Reader {
        self.writer.at(self.running[through].browser)
    }

    /// Kills one instance, as a crash does, and starts it again.
    pub(crate) fn restart(&mut self, which: usize) {
        let database = self.database_url();
        drop(self.running.remove(which));
        self.running.insert(which, Process::new(spawn(&database, &self.redis)));
    }

    pub(crate) fn database_url(&self) -> String {
        database_url(&self.folder)
    }

    /// Returns the browsers of all three.
    pub(crate) fn browsers(&self) -> Vec<Browser> {
        self.running.iter().map(|instance| instance.browser).collect()
    }

    /// Publishes a post through one instance and returns its address.
    pub(crate) fn publish(&self, through: usize, title: &str) -> String {
        let page = self.post(through, "/posts", &[("title", title), ("body", "The body.")]);
        page.location().unwrap().to_owned()
    }

    /// Sends a form that is accepted.
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
