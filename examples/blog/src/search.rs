//! Search: posts that contain every word.

use std::sync::Arc;

use cache_core::cached;

use crate::db::Db;
use crate::posts::{self, PAGE_SIZE, Summary};

/// The longest search text, in characters.
pub const QUERY_CHARS_MAX: usize = 100;
/// The number of placeholders in the SQL.
const WORDS_MAX: usize = 6;

/// A normalized search: lower case, single spaces, bounded. Two spellings of one search share one
/// cache entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query(String);

impl Query {
    /// Parses a search text. Returns `Ok(None)` if it is empty.
    ///
    /// # Errors
    /// A message for the person who typed the text.
    pub fn parse(text: &str) -> Result<Option<Self>, String> {
        let text = text.trim();
        if text.chars().count() > QUERY_CHARS_MAX {
            return Err(format!("That is too long to search for; use at most {QUERY_CHARS_MAX} characters."));
        }
        if text.chars().any(|c| c.is_control() && !c.is_whitespace()) {
            return Err("The search contains a character that cannot be typed.".to_owned());
        }
        let folded = text.to_lowercase();
        let words: Vec<&str> = folded.split_whitespace().collect();
        match words.len() {
            0 => Ok(None),
            1..=WORDS_MAX => Ok(Some(Self(words.join(" ")))),
            _ => Err(format!("Search for at most {WORDS_MAX} words at once.")),
        }
    }

    /// Returns the normalized text, for keys.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Returns the number of posts that match a [`Query`]'s text. The number of possible searches is
/// unbounded, so the ttl is short.
#[cached(ttl = "2m", tags("posts"), skip(db))]
pub async fn matches(db: &Db, query: &str) -> Result<i64, sqlx::Error> {
    let mut select = sqlx::query_scalar(
        r"SELECT COUNT(*) FROM posts
          WHERE searchable LIKE $1 ESCAPE '\' AND searchable LIKE $2 ESCAPE '\' AND searchable LIKE $3 ESCAPE '\'
            AND searchable LIKE $4 ESCAPE '\' AND searchable LIKE $5 ESCAPE '\' AND searchable LIKE $6 ESCAPE '\'",
    );
    for pattern in patterns(query) {
        select = select.bind(pattern);
    }
    select.fetch_one(db.pool()).await
}

/// Returns a page of the matching posts, newest first. Cached like [`matches()`].
#[cached(ttl = "2m", tags("posts"), skip(db))]
pub async fn search(db: &Db, query: &str, page: u32) -> Result<Arc<Vec<Summary>>, sqlx::Error> {
    let mut select = sqlx::query_as(
        r"SELECT id, author_id, title, body, published FROM posts
          WHERE searchable LIKE $1 ESCAPE '\' AND searchable LIKE $2 ESCAPE '\' AND searchable LIKE $3 ESCAPE '\'
            AND searchable LIKE $4 ESCAPE '\' AND searchable LIKE $5 ESCAPE '\' AND searchable LIKE $6 ESCAPE '\'
          ORDER BY published DESC, id DESC LIMIT $7 OFFSET $8",
    );
    for pattern in patterns(query) {
        select = select.bind(pattern);
    }
    Ok(Arc::new(select.bind(PAGE_SIZE).bind(posts::offset(page)).fetch_all(db.pool()).await?))
}

/// Returns one `LIKE` pattern per word, and patterns that match everything for the remaining
/// placeholders.
fn patterns(query: &str) -> impl Iterator<Item = String> {
    let words = query.split(' ').map(|word| {
        let escaped = word.replace('\\', r"\\").replace('%', r"\%").replace('_', r"\_");
        format!("%{escaped}%")
    });
    words.chain(std::iter::repeat_with(|| "%".to_owned())).take(WORDS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_search_are_one_key() {
        let one = Query::parse("  Rye   BREAD ").unwrap().unwrap();
        assert_eq!(one, Query::parse("rye bread").unwrap().unwrap());
        assert_eq!(Query::parse(" \t ").unwrap(), None);
    }

    #[test]
    fn searches_are_bounded() {
        assert!(Query::parse(&"x".repeat(QUERY_CHARS_MAX)).is_ok());
        assert!(Query::parse(&"x".repeat(QUERY_CHARS_MAX.saturating_add(1))).is_err());
        assert!(Query::parse("a b c d e f").is_ok());
        assert!(Query::parse("a b c d e f g").is_err());
        assert!(Query::parse("a\0b").is_err());
    }

    #[test]
    fn wildcards_are_letters() {
        let patterns: Vec<String> = patterns(r"100% a_b c\d").collect();
        assert_eq!(patterns, [r"%100\%%", r"%a\_b%", r"%c\\d%", "%", "%", "%"]);
    }
}
