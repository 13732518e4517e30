//! The comments of readers.
//!
//! A new comment changes `comments_on(post)` and `comment_count(post)`, but no list: lists load the
//! count of each post separately.

use std::collections::HashMap;
use std::sync::Arc;

use cache_core::{cached, invalidates};
use serde::{Deserialize, Serialize};
use sqlx::any::AnyRow;
use sqlx::{FromRow, Row};

use crate::dates;
use crate::db::{Db, is_missing_parent, places};

/// How many comments a post's page shows: the newest ones.
const COMMENTS_MAX: i64 = 500;

/// A comment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comment {
    /// The id in the database and in URLs.
    pub id: i64,
    /// The id of the author.
    pub author_id: i64,
    /// The author's name.
    pub author: String,
    /// Plain text with line breaks.
    pub body: String,
    /// Seconds since 1970.
    pub written: i64,
}

/// Returns the comments of a post, oldest first. Served stale if the database fails.
#[cached(ttl = "10m", stale_if_error = "1d", skip(db))]
pub async fn comments_on(db: &Db, post_id: i64) -> Result<Arc<Vec<Comment>>, sqlx::Error> {
    let mut comments: Vec<Comment> = sqlx::query_as(
        "SELECT c.id, c.author_id, a.name AS author, c.body, c.written
         FROM comments c JOIN authors a ON a.id = c.author_id WHERE c.post_id = $1 ORDER BY c.id DESC LIMIT $2",
    )
    .bind(post_id)
    .bind(COMMENTS_MAX)
    .fetch_all(db.pool())
    .await?;
    comments.reverse();
    Ok(Arc::new(comments))
}

/// Returns the number of comments of each post in a list. One entry per post; missing ones are
/// loaded with one query. Cached like [`comments_on()`].
#[cached(batch, ttl = "10m", stale_if_error = "1d", skip(db))]
pub async fn comment_count(db: &Db, posts: &[i64]) -> Result<HashMap<i64, i64>, sqlx::Error> {
    let select =
        format!("SELECT post_id, COUNT(*) FROM comments WHERE post_id IN ({}) GROUP BY post_id", places(posts.len()));
    let mut select = sqlx::query_as(&select);
    for post in posts {
        select = select.bind(*post);
    }
    let counts: Vec<(i64, i64)> = select.fetch_all(db.pool()).await?;
    // Zero is a count too, and just as useful while the database is down.
    let none = posts.iter().map(|post| (*post, 0));
    Ok(none.chain(counts).collect())
}

/// Adds a comment and returns its id. `None` if the post or the author is gone.
#[invalidates(comments_on(post_id), comment_count(post_id))]
pub async fn add(db: &Db, post_id: i64, author_id: i64, body: &str) -> Result<Option<i64>, sqlx::Error> {
    let added = sqlx::query_scalar(
        "INSERT INTO comments (post_id, author_id, body, written) VALUES ($1, $2, $3, $4) RETURNING id",
    )
    .bind(post_id)
    .bind(author_id)
    .bind(body)
    .bind(dates::now())
    .fetch_one(db.pool())
    .await;
    match added {
        Ok(id) => Ok(Some(id)),
        Err(error) if is_missing_parent(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

impl<'r> FromRow<'r, AnyRow> for Comment {
    fn from_row(row: &'r AnyRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.try_get("id")?,
            author_id: row.try_get("author_id")?,
            author: row.try_get("author")?,
            body: row.try_get("body")?,
            written: row.try_get("written")?,
        })
    }
}
