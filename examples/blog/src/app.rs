//! The application: opened from a [`Config`], served as a router, closed in order.

use std::io::{self, Write as _};
use std::time::Duration;

use axum::Router;
use cache_core::{Cache, CacheBuilder};
use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::config::{Config, StartError};
use crate::db::Db;
use crate::pages;
use crate::seed::DEMO;
use crate::serving::{self, Limits};
use crate::sessions::Sessions;

/// How long running requests may take after the stop signal.
const GRACE: Duration = Duration::from_secs(5);

/// The state that handlers share. Cheap to clone.
#[derive(Clone, Debug)]
pub struct App {
    database: String,
    db: Db,
    cache: Cache,
    sessions: Sessions,
    limits: Limits,
}

impl App {
    /// Connects to the store and the database, and fills an empty database. Call it once per
    /// process: its cache becomes the cache of every cached function.
    ///
    /// # Errors
    /// The text names the variable to change.
    pub async fn open(config: &Config) -> Result<Self, StartError> {
        Self::open_with(config, Cache::builder()).await
    }

    /// Like [`open`](Self::open), with cache settings that no variable sets.
    ///
    /// # Errors
    /// The same as [`open`](Self::open).
    pub async fn open_with(config: &Config, settings: CacheBuilder) -> Result<Self, StartError> {
        let db = Db::open(&config.database).await?;
        let cache = open_cache(config.cache_url.as_deref(), settings, db.identity()).await?;
        let sessions = Sessions::open(&cache, config, db.identity())?;
        Ok(Self { database: config.database.to_string(), db, cache, sessions, limits: config.limits.clone() })
    }

    /// Replaces the limits.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Returns how much of the server one client may use.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Serves every page to clients of the listener until `stop` ends, and then finishes the
    /// requests in progress.
    ///
    /// # Errors
    /// If the listener cannot be used.
    pub async fn serve(&self, listener: TcpListener, stop: impl Future<Output = ()>) -> io::Result<()> {
        serving::serve(listener, self.router(), &self.limits, stop).await
    }

    /// Returns the router of all pages, with the limits of a request. The server has to limit
    /// headers that never end.
    pub fn router(&self) -> Router {
        pages::router(self.clone())
    }

    /// Returns the database.
    #[must_use]
    pub fn db(&self) -> &Db {
        &self.db
    }

    /// Returns the database as text for people, without credentials.
    #[must_use]
    pub fn database(&self) -> &str {
        &self.database
    }

    /// Returns the cache's store as text for people, without credentials.
    #[must_use]
    pub fn store(&self) -> &str {
        match self.cache.address() {
            "memory://" => "this process's memory",
            address => address,
        }
    }

    /// Returns the cache.
    #[must_use]
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Returns the sessions.
    #[must_use]
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// Drains the cache's work and closes the connections.
    pub async fn close(self) {
        self.cache.shutdown().await;
        self.db.close().await;
    }
}

/// Runs the blog until Ctrl-C or SIGTERM, and prints to standard output what it uses.
///
/// # Errors
/// If it cannot start.
pub async fn serve(config: Config) -> Result<(), StartError> {
    let listener = listen(&config.addr).await?;
    let addr = listener.local_addr().map_err(|error| StartError::Unavailable(format!("BLOG_ADDR: {error}")))?;
    let app = App::open(&config).await?;
    say(&format!("listening on http://{addr}/"));
    let store = if app.cache.is_available() {
        ""
    } else {
        " (not reachable; until it is, pages are made without it, and logging in is not possible)"
    };
    say(&format!("store:    {}{store}", app.store()));
    say(&format!("database: {}", app.database()));
    if config.session_secret.is_some() {
        say("sessions: signed with SESSION_SECRET");
    } else {
        say(
            "sessions: signed with a temporary secret: a restart logs everyone out, and other instances do not accept \
            them; set SESSION_SECRET",
        );
    }
    if app.db.has_demo() {
        say(&format!("account:  log in as {DEMO} / {DEMO}"));
    }

    let stopping = Notify::new();
    let server = app.serve(listener, async {
        stop_signal().await;
        stopping.notify_one();
    });
    tokio::select! {
        done = server => done.map_err(|error| StartError::Unavailable(format!("the server failed: {error}")))?,
        () = impatient(&stopping) => tracing::warn!("stopped while requests were running"),
    }
    app.close().await;
    say("stopped");
    Ok(())
}

/// Prints a line to standard output. If nobody reads it, the blog keeps running.
fn say(line: &str) {
    drop(writeln!(io::stdout(), "{line}"));
}

/// Ends when the grace period after the stop signal is over, or at a second signal.
async fn impatient(stopping: &Notify) {
    stopping.notified().await;
    tokio::select! {
        () = tokio::time::sleep(GRACE) => {}
        () = stop_signal() => {}
    }
}

/// Opens the cache of all cached functions. Its namespace is unique to the database, so that a new
/// database never reads the entries of an old one. A namespace in the URL overrides it.
async fn open_cache(url: Option<&str>, settings: CacheBuilder, database: i64) -> Result<Cache, StartError> {
    let url = url.unwrap_or("memory://");
    let mut builder = settings.url(url).client_name("blog");
    if !url.contains("namespace=") {
        builder = builder.namespace(format!("blog-{database:08x}"));
    }
    let cache = builder.connect().await.map_err(|error| wrong_cache(&error))?;
    Cache::install(cache.clone()).map_err(|error| wrong_cache(&error))?;
    Ok(cache)
}

fn wrong_cache(error: &cache_core::Error) -> StartError {
    let mut text = format!("CACHE_URL: {error}");
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    if error.is_transient() { StartError::Unavailable(text) } else { StartError::Setting(text) }
}

async fn listen(addr: &str) -> Result<TcpListener, StartError> {
    TcpListener::bind(addr).await.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => {
            StartError::Unavailable(format!("BLOG_ADDR: {addr} is in use; stop the other program or take another port"))
        }
        io::ErrorKind::AddrNotAvailable => {
            StartError::Unavailable(format!("BLOG_ADDR: {addr} is not an address of this machine"))
        }
        io::ErrorKind::PermissionDenied => {
            StartError::Unavailable(format!("BLOG_ADDR: no permission to use {addr}; take a port above 1023"))
        }
        _ => StartError::Unavailable(format!("BLOG_ADDR: cannot listen on {addr}: {error}")),
    })
}

/// Waits for Ctrl-C, or for SIGTERM if the system has it.
async fn stop_signal() {
    let interrupt = async {
        if tokio::signal::ctrl_c().await.is_err() {
            tracing::warn!("Ctrl-C cannot be caught");
            std::future::pending::<()>().await;
        }
    };
    #[cfg(unix)]
    let terminate = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    #[cfg(not(unix))]
    let terminate = std::future::pending::<()>();
    tokio::select! {
        () = interrupt => {}
        () = terminate => {}
    }
}
