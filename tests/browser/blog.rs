//! Processes of the blog, as built by `cargo`.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::SystemTime;

use support::{RedisServer, root};
use tempfile::TempDir;

/// A separate database and Redis, and any number of blogs on them. Dropping it ends them all.
pub(super) struct Blogs {
    running: Vec<Blog>,
    pub(super) redis: RedisServer,
    _folder: TempDir,
}

/// One process.
struct Blog {
    child: Child,
    port: u16,
}

impl Blogs {
    /// Starts this many instances.
    pub(super) fn start(count: usize) -> Self {
        let redis = RedisServer::start();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let database = format!("sqlite:{}", folder.path().join("blog.db").display());
        let running = (0..count).map(|_| Blog::start(&database, &redis)).collect();
        Self { running, redis, _folder: folder }
    }

    /// Returns the address of a page on the first instance, under the name for which browsers keep
    /// its cookie.
    pub(super) fn at(&self, path: &str) -> String {
        self.on(0, path)
    }

    /// Returns the address of a page on an instance.
    pub(super) fn on(&self, instance: usize, path: &str) -> String {
        self.under("localhost", instance, path)
    }

    /// Returns the address of a page under another host name.
    pub(super) fn under(&self, host: &str, instance: usize, path: &str) -> String {
        format!("http://{host}:{}{path}", self.running[instance].port)
    }
}

impl Blog {
    fn start(database: &str, redis: &RedisServer) -> Self {
        let mut child = Command::new(program())
            .env("BLOG_ADDR", "127.0.0.1:0")
            .env("DATABASE_URL", database)
            .env("CACHE_URL", redis.url())
            .env("SESSION_SECRET", "the same one for all the instances")
            .env_remove("SESSION_COOKIE")
            .env("RUST_LOG", "off")
            .stdout(Stdio::piped())
            .spawn()
            .expect("it can be started");
        let mut first = String::new();
        let output = child.stdout.take().expect("it is piped");
        BufReader::new(output).read_line(&mut first).expect("it has an output");
        let port = first.trim_end().trim_end_matches('/').rsplit(':').next().and_then(|port| port.parse().ok());
        Self { port: port.unwrap_or_else(|| panic!("the blog does not start: {first:?}")), child }
    }
}

impl Drop for Blog {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Returns the blog's binary next to this test program, because `cargo` gives its path to no other
/// package.
///
/// # Panics
///
/// If it is missing or older than its own sources, which means that another package was built
/// alone. The library's sources are not compared: some of them are for its tests, and changing them
/// would not rebuild the binary.
fn program() -> PathBuf {
    const FIX: &str = "cargo test --workspace --all-features --no-run builds it";
    let tests = std::env::current_exe().expect("this program has a path");
    let program = tests.ancestors().nth(2).expect("target/debug/deps/all").join("blog");
    let built = modified(&program).unwrap_or_else(|| panic!("{} is missing; {FIX}", program.display()));
    let mut folders = vec![root().join("examples/blog/src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            assert!(
                modified(&path) <= Some(built) || path.is_dir(),
                "the blog is older than {}; {FIX}",
                path.display()
            );
            folders.extend(path.is_dir().then_some(path));
        }
    }
    program
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|file| file.modified()).ok()
}
