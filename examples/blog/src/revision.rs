//! One number that every write to a post raises, so that lists need no list of their pages.
//!
//! A write to a post may move every page of every list and search. So those reads take the revision as an argument, which makes it
//! part of their key, and a write invalidates one entry: the revision's own. Pages of older revisions are never
//! asked for again and expire.
//!
//! ```text
//! write:  BEGIN · revision + 1 · the change · COMMIT · invalidate `revision`
//! read:   revision -> 42 (cached) · page(42, 1) (cached)
//! ```
//!
//! Invariant: who reads after a write has returned sees the new revision, hence no page from before the write. A page
//! that was read while the write committed is stored under the old number; it may be newer than its number, never
//! older.

use cache_core::cached;
use sqlx::{Any, Transaction};

use crate::db::Db;

/// The present revision.
#[cached(ttl = "1h", skip(db))]
pub async fn revision(db: &Db) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("SELECT value FROM meta WHERE name = 'revision'").fetch_one(db.read()).await
}

/// Raises it. The row's lock makes writes to posts wait for each other, which also keeps the number in commit order.
pub(crate) async fn raise(tx: &mut Transaction<'static, Any>) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE meta SET value = value + 1 WHERE name = 'revision'").execute(&mut **tx).await?;
    Ok(())
}
