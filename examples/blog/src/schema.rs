//! The tables, as migration steps. A released step is never edited; a change is a new step at the
//! end.

use std::hash::{BuildHasher as _, RandomState};

use sqlx::{Any, Executor, Transaction};

use crate::config::Database;
use crate::db::Db;

/// `{id}` is the dialect's auto-incrementing key. Ids are never reused, so an entry cached under
/// the id of a deleted post never belongs to another post.
const STEPS: &[&[&str]] = &[AUTHORS_POSTS_COMMENTS, USERS];

const AUTHORS_POSTS_COMMENTS: &[&str] = &[
    "CREATE TABLE authors (
        id {id},
        name TEXT NOT NULL,
        bio TEXT NOT NULL,
        joined BIGINT NOT NULL
    )",
    "CREATE TABLE posts (
        id {id},
        author_id BIGINT NOT NULL REFERENCES authors (id),
        title TEXT NOT NULL,
        body TEXT NOT NULL,
        searchable TEXT NOT NULL,
        published BIGINT NOT NULL,
        edited BIGINT NOT NULL
    )",
    "CREATE INDEX posts_by_date ON posts (published, id)",
    "CREATE INDEX posts_by_author ON posts (author_id, published, id)",
    "CREATE TABLE comments (
        id {id},
        post_id BIGINT NOT NULL REFERENCES posts (id) ON DELETE CASCADE,
        author_id BIGINT NOT NULL REFERENCES authors (id),
        body TEXT NOT NULL,
        written BIGINT NOT NULL
    )",
    "CREATE INDEX comments_by_post ON comments (post_id, id)",
    "CREATE INDEX comments_by_author ON comments (author_id)",
];

/// Authors who can log in.
const USERS: &[&str] = &["CREATE TABLE users (
        author_id BIGINT PRIMARY KEY REFERENCES authors (id),
        login TEXT NOT NULL UNIQUE,
        password TEXT NOT NULL
    )"];

/// Begins the transaction in which a starting process prepares the database exclusively.
pub(crate) async fn begin(db: &Db, database: &Database) -> Result<Transaction<'static, Any>, sqlx::Error> {
    match database {
        Database::Sqlite { .. } => db.pool().begin_with("BEGIN IMMEDIATE").await,
        Database::Postgres { .. } => {
            let mut tx = db.begin().await?;
            // "blog" as a number. Held until the transaction ends.
            tx.execute("SELECT 1 FROM (SELECT pg_advisory_xact_lock(1651273575)) AS locked").await?;
            Ok(tx)
        }
    }
}

/// Migrates the tables to the newest step and returns the database's identity.
pub(crate) async fn migrate(tx: &mut Transaction<'static, Any>, database: &Database) -> Result<i64, sqlx::Error> {
    tx.execute("CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value BIGINT NOT NULL)").await?;
    let done: Option<i64> =
        sqlx::query_scalar("SELECT value FROM meta WHERE name = 'schema'").fetch_optional(&mut **tx).await?;
    let done = usize::try_from(done.unwrap_or(0)).unwrap_or(0);

    if done > STEPS.len() {
        return Err(sqlx::Error::Configuration("it was made by a newer version of the blog".into()));
    }
    let id = match database {
        Database::Sqlite { .. } => "INTEGER PRIMARY KEY AUTOINCREMENT",
        Database::Postgres { .. } => "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
    };
    for statement in STEPS.iter().skip(done).copied().flatten() {
        sqlx::query(&statement.replace("{id}", id)).execute(&mut **tx).await?;
    }
    if done < STEPS.len() {
        let version = i64::try_from(STEPS.len()).unwrap_or(i64::MAX);
        sqlx::query(
            "INSERT INTO meta (name, value) VALUES ('schema', $1) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        )
        .bind(version)
        .execute(&mut **tx)
        .await?;
    }
    // The standard library seeds its hashers from the operating system.
    let random = i64::try_from(RandomState::new().hash_one("identity") >> 32).unwrap_or(0);
    sqlx::query("INSERT INTO meta (name, value) VALUES ('identity', $1) ON CONFLICT (name) DO NOTHING")
        .bind(random)
        .execute(&mut **tx)
        .await?;
    sqlx::query_scalar("SELECT value FROM meta WHERE name = 'identity'").fetch_one(&mut **tx).await
}
