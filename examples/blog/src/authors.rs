//! Authors.

use std::collections::HashMap;
use std::sync::Arc;

use cache_core::cached;
use serde::{Deserialize, Serialize};
use sqlx::any::AnyRow;
use sqlx::{Any, FromRow, Row, Transaction};

use crate::db::{Db, places};

/// A person who writes posts and comments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Author {
    /// The id in the database and in URLs.
    pub id: i64,
    /// The displayed name.
    pub name: String,
    /// One or two sentences in plain text.
    pub bio: String,
    /// Seconds since 1970.
    pub joined: i64,
}

/// Returns one author. Authors rarely change.
#[cached(name = "author", ttl = "1h", stale_if_error = "1d", skip(db))]
pub async fn author(db: &Db, id: i64) -> Result<Option<Arc<Author>>, sqlx::Error> {
    let author: Option<Author> = sqlx::query_as("SELECT id, name, bio, joined FROM authors WHERE id = $1")
        .bind(id)
        .fetch_optional(db.pool())
        .await?;
    Ok(author.map(Arc::new))
}

/// Returns the authors of a list of posts. Shares the entries of [`author()`]; missing ones are
/// loaded with one query.
#[cached(batch, name = "author", ttl = "1h", stale_if_error = "1d", skip(db))]
pub async fn authors_of(db: &Db, ids: &[i64]) -> Result<HashMap<i64, Arc<Author>>, sqlx::Error> {
    let select = format!("SELECT id, name, bio, joined FROM authors WHERE id IN ({})", places(ids.len()));
    let mut select = sqlx::query_as(&select);
    for id in ids {
        select = select.bind(*id);
    }
    let authors: Vec<Author> = select.fetch_all(db.pool()).await?;
    Ok(authors.into_iter().map(|author| (author.id, Arc::new(author))).collect())
}

/// Returns all authors by name. Cached like [`author()`].
#[cached(ttl = "1h", stale_if_error = "1d", skip(db))]
pub async fn authors(db: &Db) -> Result<Arc<Vec<Author>>, sqlx::Error> {
    let authors =
        sqlx::query_as("SELECT id, name, bio, joined FROM authors ORDER BY name, id").fetch_all(db.pool()).await?;
    Ok(Arc::new(authors))
}

/// Adds an author. The caller invalidates [`authors()`].
pub(crate) async fn insert(
    tx: &mut Transaction<'static, Any>,
    name: &str,
    bio: &str,
    joined: i64,
) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("INSERT INTO authors (name, bio, joined) VALUES ($1, $2, $3) RETURNING id")
        .bind(name)
        .bind(bio)
        .bind(joined)
        .fetch_one(&mut **tx)
        .await
}

impl<'r> FromRow<'r, AnyRow> for Author {
    fn from_row(row: &'r AnyRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.try_get("id")?,
            name: row.try_get("name")?,
            bio: row.try_get("bio")?,
            joined: row.try_get("joined")?,
        })
    }
}
