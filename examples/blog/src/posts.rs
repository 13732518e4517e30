//! Posts: the cached reads, then the writes with what they invalidate.
//!
//! | write | invalidates |
//! |---|---|
//! | [`create`] | `post(id)`, whose absence may be cached; tags `posts` and `author:{author_id}` |
//! | [`update`] | `post(id)`, the same tags |
//! | [`delete`] | `post(id)`, the same tags, and the cached comments of the post |
//!
//! A failed write invalidates nothing: while the database is down, cached pages can still be read.

use std::sync::Arc;

use cache_core::{Cache, cached, invalidates};
use serde::{Deserialize, Serialize};
use sqlx::any::AnyRow;
use sqlx::{FromRow, Row};

use crate::comments::{comment_count, comments_on};
use crate::db::{Db, is_missing_parent};
use crate::{dates, markdown};

/// The number of posts on one page of a list.
pub const PAGE_SIZE: i64 = 10;
/// The number of characters of a post that lists show.
const EXCERPT_CHARS: usize = 220;

/// A complete post.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Post {
    /// The id in the database and in URLs.
    pub id: i64,
    /// The id of the author.
    pub author_id: i64,
    /// The author's name.
    pub author: String,
    /// Plain text.
    pub title: String,
    /// The source in Markdown.
    pub body: String,
    /// The body as safe HTML. The rendered form is cached.
    pub html: String,
    /// Seconds since 1970.
    pub published: i64,
    /// The time of the last edit, or the same as `published`.
    pub edited: i64,
}

/// A post as lists show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// The id in the database and in URLs.
    pub id: i64,
    /// The id of the author.
    pub author_id: i64,
    /// Plain text.
    pub title: String,
    /// The beginning in plain text.
    pub excerpt: String,
    /// Seconds since 1970.
    pub published: i64,
}

/// Returns one post. A missing post is cached for a minute, since links to deleted posts are
/// followed again and again.
#[cached(ttl = "10m", negative_ttl = "1m", stale_if_error = "1d", skip(db))]
pub async fn post(db: &Db, id: i64) -> Result<Option<Arc<Post>>, sqlx::Error> {
    let post: Option<Post> = sqlx::query_as(
        "SELECT p.id, p.author_id, a.name AS author, p.title, p.body, p.published, p.edited
         FROM posts p JOIN authors a ON a.id = p.author_id WHERE p.id = $1",
    )
    .bind(id)
    .fetch_optional(db.pool())
    .await?;
    Ok(post.map(Arc::new))
}

/// Returns the number of posts. Cached like [`page()`].
#[cached(ttl = "10m", stale_while_revalidate = "1h", stale_if_error = "1d", tags("posts"), skip(db))]
pub async fn count(db: Db) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("SELECT COUNT(*) FROM posts").fetch_one(db.pool()).await
}

/// Returns a page of the front list, newest first. Pages count from 1.
///
/// This is the most-read page, here and in the feed. After its ttl, readers get the old page while
/// it is refreshed, and it stays available for a day if the database fails. A refresh may outlive
/// the visit that started it, so it owns its arguments.
#[cached(ttl = "10m", stale_while_revalidate = "1h", stale_if_error = "1d", tags("posts"), skip(db))]
pub async fn page(db: Db, page: u32) -> Result<Arc<Vec<Summary>>, sqlx::Error> {
    let posts = sqlx::query_as(
        "SELECT id, author_id, title, body, published FROM posts ORDER BY published DESC, id DESC LIMIT $1 OFFSET $2",
    )
    .bind(PAGE_SIZE)
    .bind(offset(page))
    .fetch_all(db.pool())
    .await?;
    Ok(Arc::new(posts))
}

/// Returns the number of posts of an author. Cached like [`posts_by()`].
#[cached(ttl = "10m", stale_if_error = "1d", tags("author:{author_id}"), skip(db))]
pub async fn count_by(db: &Db, author_id: i64) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("SELECT COUNT(*) FROM posts WHERE author_id = $1").bind(author_id).fetch_one(db.pool()).await
}

/// Returns a page of an author's posts, newest first. Tagged with the author, so that posts of
/// other authors do not invalidate it.
#[cached(ttl = "10m", stale_if_error = "1d", tags("author:{author_id}"), skip(db))]
pub async fn posts_by(db: &Db, author_id: i64, page: u32) -> Result<Arc<Vec<Summary>>, sqlx::Error> {
    let posts = sqlx::query_as(
        "SELECT id, author_id, title, body, published FROM posts WHERE author_id = $1
         ORDER BY published DESC, id DESC LIMIT $2 OFFSET $3",
    )
    .bind(author_id)
    .bind(PAGE_SIZE)
    .bind(offset(page))
    .fetch_all(db.pool())
    .await?;
    Ok(Arc::new(posts))
}

/// Publishes a post and returns its id. `None` if there is no such author.
///
/// Uses an explicit fence, since the id is known only inside the transaction. The fence is raised
/// before the commit, so that no reader stores old data, and lifted after it. Whether or not a
/// commit that failed took effect, nothing from before it is served then.
pub async fn create(db: &Db, author_id: i64, title: &str, body: &str) -> Result<Option<i64>, sqlx::Error> {
    let now = dates::now();
    let mut tx = db.begin().await?;
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

    let fence = Cache::global().fence().entry(&post::entry(id)).tag("posts").tag(format!("author:{author_id}"));
    fence.around(tx.commit()).await?;
    Ok(Some(id))
}

/// Changes a post. Returns `false` if it is gone.
#[invalidates(post(old.id), tags("posts", "author:{old.author_id}"))]
pub async fn update(db: &Db, old: &Post, title: &str, body: &str) -> Result<bool, sqlx::Error> {
    let update = sqlx::query("UPDATE posts SET title = $1, body = $2, searchable = $3, edited = $4 WHERE id = $5")
        .bind(title)
        .bind(body)
        .bind(searchable(title, body))
        .bind(dates::now())
        .bind(old.id);
    Ok(update.execute(db.pool()).await?.rows_affected() > 0)
}

/// Deletes a post and its comments. Returns `false` if it is already gone.
#[invalidates(post(old.id), comments_on(old.id), comment_count(old.id), tags("posts", "author:{old.author_id}"))]
pub async fn delete(db: &Db, old: &Post) -> Result<bool, sqlx::Error> {
    let delete = sqlx::query("DELETE FROM posts WHERE id = $1").bind(old.id);
    Ok(delete.execute(db.pool()).await?.rows_affected() > 0)
}

/// Returns the number of rows before a page.
pub(crate) fn offset(page: u32) -> i64 {
    i64::from(page.saturating_sub(1)).saturating_mul(PAGE_SIZE)
}

/// Returns the text that the search looks through. Lower-cased here, since the databases differ for
/// letters beyond ASCII.
pub(crate) fn searchable(title: &str, body: &str) -> String {
    format!("{title}\n{body}").to_lowercase()
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
