//! Sessions in an SQLite table, as an example of a custom session store. This blog keeps its
//! sessions in the cache's store; with this store it would use
//! `SessionLayer::builder(cache).store(SqliteSessions::open(url).await?)`.
//!
//! Each step is one statement, so SQLite makes it atomic, even across processes. The time is the
//! database's, so that processes agree on what has expired.

use std::str::FromStr as _;
use std::time::Duration;

use cache_core::session::{SessionStore, SessionSwap, StoredSession};
use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};

/// Milliseconds since 1970.
macro_rules! now {
    () => {
        "CAST(unixepoch('subsec') * 1000 AS INTEGER)"
    };
}

/// The condition for a session that has not expired.
macro_rules! stands {
    () => {
        concat!("(ends IS NULL OR ends > ", now!(), ")")
    };
}

/// `ends` is NULL for a session without expiry. Keys are compared byte by byte.
const TABLE: &str = "CREATE TABLE IF NOT EXISTS session (
    key TEXT NOT NULL PRIMARY KEY COLLATE BINARY,
    bytes BLOB NOT NULL,
    ends INTEGER
) WITHOUT ROWID";

/// A table of sessions. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SqliteSessions {
    pool: SqlitePool,
}

impl SqliteSessions {
    /// Opens the database, for example `sqlite:sessions.db`, and creates the table if it is
    /// missing.
    ///
    /// # Errors
    /// Database errors.
    pub async fn open(url: &str) -> Result<Self, sqlx::Error> {
        // Writers wait for each other; readers do not wait.
        let options = SqliteConnectOptions::from_str(url)?
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .busy_timeout(Duration::from_secs(5));
        let pool = SqlitePoolOptions::new().max_connections(8).connect_with(options).await?;
        sqlx::query(TABLE).execute(&pool).await?;
        Ok(Self { pool })
    }

    /// Deletes expired sessions and returns how many there were. Nothing else deletes them: call it
    /// from a task at regular intervals.
    ///
    /// # Errors
    /// Database errors.
    pub async fn sweep(&self) -> Result<u64, sqlx::Error> {
        let swept = sqlx::query(concat!("DELETE FROM session WHERE ends <= ", now!())).execute(&self.pool).await?;
        Ok(swept.rows_affected())
    }
}

impl SessionStore for SqliteSessions {
    type Error = sqlx::Error;

    async fn load(&self, key: &str) -> Result<Option<StoredSession>, sqlx::Error> {
        let load = concat!("SELECT bytes, ends - ", now!(), " FROM session WHERE key = $1 AND ", stands!());
        let row: Option<(Vec<u8>, Option<i64>)> = sqlx::query_as(load).bind(key).fetch_optional(&self.pool).await?;
        Ok(row.map(|(bytes, left)| {
            let ttl = left.map(|left| Duration::from_millis(left.try_into().unwrap_or(0)));
            StoredSession { bytes, ttl }
        }))
    }

    async fn create(&self, key: &str, bytes: &[u8], ttl: Option<Duration>) -> Result<bool, sqlx::Error> {
        // Overwrites an expired session.
        let create = concat!(
            "INSERT INTO session (key, bytes, ends) VALUES ($1, $2, ",
            now!(),
            " + $3) ON CONFLICT (key) DO UPDATE SET bytes = excluded.bytes, ends = excluded.ends WHERE NOT ",
            "(session.ends IS NULL OR session.ends > ",
            now!(),
            ")"
        );
        let query = sqlx::query(create).bind(key).bind(bytes).bind(ttl.map(millis));
        Ok(query.execute(&self.pool).await?.rows_affected() == 1)
    }

    async fn swap(
        &self,
        key: &str,
        expected: &[u8],
        bytes: &[u8],
        ttl: Option<Duration>,
    ) -> Result<SessionSwap, sqlx::Error> {
        let swap = concat!(
            "UPDATE session SET bytes = $1, ends = coalesce(",
            now!(),
            " + $2, ends) WHERE key = $3 AND bytes = $4 AND ",
            stands!()
        );
        let query = sqlx::query(swap).bind(bytes).bind(ttl.map(millis)).bind(key).bind(expected);
        if query.execute(&self.pool).await?.rows_affected() == 1 {
            return Ok(SessionSwap::Done);
        }
        Ok(self.load(key).await?.map_or(SessionSwap::Gone, |found| SessionSwap::Conflict(found.bytes)))
    }

    async fn touch(&self, key: &str, ttl: Duration) -> Result<bool, sqlx::Error> {
        let touch = concat!("UPDATE session SET ends = ", now!(), " + $1 WHERE key = $2 AND ", stands!());
        let touched = sqlx::query(touch).bind(millis(ttl)).bind(key).execute(&self.pool).await?;
        Ok(touched.rows_affected() == 1)
    }

    async fn remove(&self, key: &str) -> Result<bool, sqlx::Error> {
        let remove = concat!("DELETE FROM session WHERE key = $1 AND ", stands!());
        Ok(sqlx::query(remove).bind(key).execute(&self.pool).await?.rows_affected() == 1)
    }
}

/// Returns milliseconds, at least one.
fn millis(ttl: Duration) -> i64 {
    // A hundred years are long enough, and sums with them cannot overflow.
    const LONGEST: i64 = 100 * 365 * 86_400_000;
    i64::try_from(ttl.as_millis()).unwrap_or(LONGEST).clamp(1, LONGEST)
}
