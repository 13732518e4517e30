//! Posts: the cached reads, then the writes that invalidate them.
//!
//! | a write to a post | changes |
//! |---|---|
//! | create | `post(id)`, `posts_by(author)`, `revision` |
//! | update | `post(id)`, `posts_by(author)`, `revision` |
//! | delete | `post(id)`, `posts_by(author)`, `revision`, and the comments' entries |

use std::sync::Arc;

use cache_core::cached;
use serde::{Deserialize, Serialize};
use sqlx::any::AnyRow;
use sqlx::{FromRow, Row};

use crate::db::{Db, invalidated};
use crate::{dates, markdown, revision};

/// Posts on one page of a list.
pub const PAGE_SIZE: i64 = 10;
/// An author's page shows the newest this many.
const BY_AUTHOR_MAX: i64 = 500;
/// Characters of a post shown in lists.
const EXCERPT_CHARS: usize = 220;

/// A whole post.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Post {
    /// In the database and in URLs.
    pub id: i64,
    /// Who wrote it.
    pub author_id: i64,
    /// Their name.
    pub author: String,
    /// Plain text.
    pub title: String,
    /// As written, Markdown.
    pub body: String,
    /// The body as safe HTML. Rendering is part of what is cached.
    pub html: String,
    /// Seconds since 1970.
    pub published: i64,
    /// The last edit, or the same as `published`.
    pub edited: i64,
}

/// A post as lists show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// In the database and in URLs.
    pub id: i64,
    /// Who wrote it.
    pub author_id: i64,
    /// Plain text.
    pub title: String,
    /// The beginning, plain text.
    pub excerpt: String,
    /// Seconds since 1970.
    pub published: i64,
}

/// One post.
#[cached(ttl = "10m", skip(db))]
pub async fn post(db: &Db, id: i64) -> Result<Option<Arc<Post>>, sqlx::Error> {
    let post: Option<Post> = sqlx::query_as(
        "SELECT p.id, p.author_id, a.name AS author, p.title, p.body, p.published, p.edited
         FROM posts p JOIN authors a ON a.id = p.author_id WHERE p.id = $1",
    )
    .bind(id)
    .fetch_optional(db.read())
    .await?;
    Ok(post.map(Arc::new))
}

/// How many posts there are. Here and below the revision is in the key alone.
#[cached(ttl = "10m", skip(db))]
pub async fn count(db: &Db, _revision: i64) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("SELECT COUNT(*) FROM posts").fetch_one(db.read()).await
}

/// A page of the front list, newest first. Pages count from 1.
#[cached(ttl = "10m", skip(db))]
pub async fn page(db: &Db, _revision: i64, page: u32) -> Result<Arc<Vec<Summary>>, sqlx::Error> {
    let posts = sqlx::query_as(
        "SELECT id, author_id, title, body, published FROM posts ORDER BY published DESC, id DESC LIMIT $1 OFFSET $2",
    )
    .bind(PAGE_SIZE)
    .bind(offset(page))
    .fetch_all(db.read())
    .await?;
    Ok(Arc::new(posts))
}

/// An author's posts, newest first.
#[cached(ttl = "10m", skip(db))]
pub async fn posts_by(db: &Db, author_id: i64) -> Result<Arc<Vec<Summary>>, sqlx::Error> {
    let posts = sqlx::query_as(
        "SELECT id, author_id, title, body, published FROM posts WHERE author_id = $1
         ORDER BY published DESC, id DESC LIMIT $2",
    )
    .bind(author_id)
    .bind(BY_AUTHOR_MAX)
    .fetch_all(db.read())
    .await?;
    Ok(Arc::new(posts))
}

/// Publishes a post and returns its id; `None` if there is no such author.
pub async fn create(db: &Db, author_id: i64, title: &str, body: &str) -> Result<Option<i64>, sqlx::Error> {
    let now = dates::now();
    let mut tx = db.begin().await?;
    revision::raise(&mut tx).await?;
    let created = sqlx::query_scalar(
        "INSERT INTO posts (author_id, title, body, searchable, published, edited)
         VALUES ($1, $2, $3, $4, $5, $6) RETURNING id",
    )
    .bind(author_id)
    .bind(title)
    .bind(body)
    .bind(searchable(title, body))
    .bind(now)
    .bind(now)
    .fetch_one(&mut *tx)
    .await;
    let id: i64 = match created {
        Ok(id) => id,
        Err(error) if is_missing_parent(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    tx.commit().await?;
    forget(id, author_id).await;
    Ok(Some(id))
}

/// Changes a post; `false` if it is gone.
pub async fn update(db: &Db, id: i64, title: &str, body: &str) -> Result<bool, sqlx::Error> {
    let mut tx = db.begin().await?;
    revision::raise(&mut tx).await?;
    let author_id: Option<i64> = sqlx::query_scalar(
        "UPDATE posts SET title = $1, body = $2, searchable = $3, edited = $4 WHERE id = $5 RETURNING author_id",
    )
    .bind(title)
    .bind(body)
    .bind(searchable(title, body))
    .bind(dates::now())
    .bind(id)
    .fetch_optional(&mut *tx)
    .await?;
    let Some(author_id) = author_id else { return Ok(false) };
    tx.commit().await?;
    forget(id, author_id).await;
    Ok(true)
}

/// Deletes a post and its comments; `false` if it is gone already.
pub async fn delete(db: &Db, id: i64) -> Result<bool, sqlx::Error> {
    let mut tx = db.begin().await?;
    revision::raise(&mut tx).await?;
    let author_id: Option<i64> = sqlx::query_scalar("DELETE FROM posts WHERE id = $1 RETURNING author_id")
        .bind(id)
        .fetch_optional(&mut *tx)
        .await?;
    let Some(author_id) = author_id else { return Ok(false) };
    tx.commit().await?;
    forget(id, author_id).await;
    crate::comments::forget(id).await;
    Ok(true)
}

/// Invalidates what a write to this post has changed. After the commit, never before: a read in between would put
/// the old value back.
async fn forget(id: i64, author_id: i64) {
    invalidated(post::entry(id).invalidate().await);
    invalidated(posts_by::entry(author_id).invalidate().await);
    invalidated(revision::revision::entry().invalidate().await);
}

/// How many rows come before a page.
pub(crate) fn offset(page: u32) -> i64 {
    i64::from(page.saturating_sub(1)).saturating_mul(PAGE_SIZE)
}

/// What search looks through. Folded here, since the databases disagree about letters beyond ASCII.
pub(crate) fn searchable(title: &str, body: &str) -> String {
    format!("{title}\n{body}").to_lowercase()
}

/// Whether an insert failed because the row it belongs to is gone.
pub(crate) fn is_missing_parent(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_foreign_key_violation)
}

impl<'r> FromRow<'r, AnyRow> for Post {
    fn from_row(row: &'r AnyRow) -> Result<Self, sqlx::Error> {
        let body: String = row.try_get("body")?;
        Ok(Self {
            id: row.try_get("id")?,
            author_id: row.try_get("author_id")?,
            author: row.try_get("author")?,
            title: row.try_get("title")?,
            html: markdown::to_html(&body),
            body,
            published: row.try_get("published")?,
            edited: row.try_get("edited")?,
        })
    }
}

impl<'r> FromRow<'r, AnyRow> for Summary {
    fn from_row(row: &'r AnyRow) -> Result<Self, sqlx::Error> {
        let body: &str = row.try_get("body")?;
        Ok(Self {
            id: row.try_get("id")?,
            author_id: row.try_get("author_id")?,
            title: row.try_get("title")?,
            excerpt: markdown::excerpt(body, EXCERPT_CHARS),
            published: row.try_get("published")?,
        })
    }
}
