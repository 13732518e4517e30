//! The database: one pool for both drivers, and a counter of the queries of a visit.
//!
//! The SQL in this crate is the subset that SQLite and Postgres share: `$1` placeholders, `BIGINT`
//! and `TEXT`, `RETURNING`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sqlx::any::AnyPoolOptions;
use sqlx::{Any, AnyConnection, AnyPool, Connection, Executor, Transaction};

use crate::config::{Database, StartError};
use crate::{schema, seed};

/// How long a request waits for a free connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECTIONS_MAX: u32 = 8;

/// The database as seen by one visit. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Db {
    pool: AnyPool,
    queries: Arc<AtomicU32>,
    identity: i64,
    has_demo: bool,
}

impl Db {
    /// Connects, creates or migrates the tables, and fills an empty database.
    ///
    /// # Errors
    /// The text names `DATABASE_URL` and says what is wrong with it.
    pub async fn open(database: &Database) -> Result<Self, StartError> {
        sqlx::any::install_default_drivers();
        let fault = |error: sqlx::Error| {
            let text = format!("DATABASE_URL: cannot use {database}: {}", reason(&error, database));
            match error {
                sqlx::Error::Configuration(_) => StartError::Setting(text),
                _ => StartError::Unavailable(text),
            }
        };
        // A single connection first: the pool would retry until its timeout and hide the error.
        let connected = tokio::time::timeout(ACQUIRE_TIMEOUT, first_connection(database)).await;
        connected.unwrap_or(Err(sqlx::Error::PoolTimedOut)).map_err(fault)?;
        let pool = pool_options(database).connect(database.url()).await.map_err(fault)?;
        let db = Self { pool, queries: Arc::default(), identity: 0, has_demo: false };
        // One transaction: if two processes start together, one prepares the database, and the
        // other finds it prepared.
        let mut tx = schema::begin(&db, database).await.map_err(fault)?;
        let identity = schema::migrate(&mut tx, database).await.map_err(fault)?;
        seed::fill_if_empty(&mut tx).await.map_err(fault)?;
        let has_demo = seed::has_demo(&mut tx).await.map_err(fault)?;
        tx.commit().await.map_err(fault)?;
        Ok(Self { identity, has_demo, ..db })
    }

    /// Returns the same database with its own query counter.
    #[must_use]
    pub fn visit(&self) -> Self {
        Self { queries: Arc::default(), ..self.clone() }
    }

    /// Returns the pool for one query, and counts it.
    pub(crate) fn pool(&self) -> &AnyPool {
        self.queries.fetch_add(1, Ordering::Relaxed);
        &self.pool
    }

    /// Begins a transaction for a write. Its first statement must be a write: only then SQLite
    /// waits for another writer. A transaction that begins with a read would fail at once.
    pub(crate) async fn begin(&self) -> Result<Transaction<'static, Any>, sqlx::Error> {
        self.pool().begin().await
    }

    /// Returns a random number that identifies this database, so that two of them can share a store
    /// without reading each other's posts.
    #[must_use]
    pub fn identity(&self) -> i64 {
        self.identity
    }

    /// Returns whether the database was seeded with the account `demo`.
    #[must_use]
    pub fn has_demo(&self) -> bool {
        self.has_demo
    }

    /// Returns how many queries were sent through this handle and its clones.
    #[must_use]
    pub fn queries(&self) -> u32 {
        self.queries.load(Ordering::Relaxed)
    }

    /// Closes every connection.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// Checks that the database can be used. SQLite's journal mode is a property of the file, and is
/// set here once.
async fn first_connection(database: &Database) -> Result<(), sqlx::Error> {
    let mut connection = AnyConnection::connect(database.url()).await?;
    if matches!(database, Database::Sqlite { .. }) {
        // The switch needs the whole file and does not wait: another instance may be starting at
        // the same time.
        let mut is_told = false;
        while let Err(error) = connection.execute("PRAGMA journal_mode = WAL").await {
            if !is_busy(&error) {
                return Err(error);
            }
            if !is_told {
                tracing::info!("another process is starting on this database; waiting for it");
                is_told = true;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    connection.close().await
}

/// Returns whether SQLite was busy with another process.
fn is_busy(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(sqlite_code) == Some(SQLITE_BUSY)
}

const SQLITE_BUSY: u32 = 5;
const SQLITE_READONLY: u32 = 8;
const SQLITE_CANTOPEN: u32 = 14;
const SQLITE_NOTADB: u32 = 26;

/// Returns the code of an SQLite error.
fn sqlite_code(error: &(dyn sqlx::error::DatabaseError + 'static)) -> Option<u32> {
    // The upper bytes only add detail.
    error.code()?.parse::<u32>().ok().map(|code| code & 0xff)
}

/// Returns whether an insert failed because the row it references is gone.
pub(crate) fn is_missing_parent(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_foreign_key_violation)
}

/// Returns whether an insert failed because the row exists already.
pub(crate) fn is_taken(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation)
}

fn pool_options(database: &Database) -> AnyPoolOptions {
    let options = AnyPoolOptions::new().max_connections(CONNECTIONS_MAX).acquire_timeout(ACQUIRE_TIMEOUT);
    match database {
        // A file does not go away between two requests, so no ping is needed. Foreign keys and a
        // busy timeout of 5 s are the driver's defaults.
        Database::Sqlite { .. } => options.test_before_acquire(false).after_connect(|connection, _| {
            Box::pin(async move { connection.execute("PRAGMA synchronous = NORMAL").await.map(drop) })
        }),
        Database::Postgres { .. } => options,
    }
}

/// Returns the driver's message without its prefix. If the file itself has to be fixed, says how.
fn reason(error: &sqlx::Error, database: &Database) -> String {
    match error {
        sqlx::Error::Database(error) => {
            let code = if matches!(database, Database::Sqlite { .. }) { sqlite_code(&**error) } else { None };
            match code {
                Some(SQLITE_CANTOPEN) => "the file cannot be opened; its folder must exist and be writable".to_owned(),
                Some(SQLITE_READONLY) => "it cannot be written; the file and its folder must be writable".to_owned(),
                Some(SQLITE_NOTADB) => "the file is not an SQLite database; use another file".to_owned(),
                _ => error.message().to_owned(),
            }
        }
        sqlx::Error::Io(error) => error.to_string(),
        sqlx::Error::Configuration(error) => error.to_string().replace("error with configuration: ", ""),
        sqlx::Error::PoolTimedOut => "no connection within 5 s".to_owned(),
        error => error.to_string(),
    }
}

/// Returns this many placeholders for ids: `$1,$2,$3`. Both databases accept them.
pub(crate) fn places(count: usize) -> String {
    (1..=count).map(|place| format!("${place}")).collect::<Vec<_>>().join(",")
}
