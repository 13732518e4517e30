//! The content of an empty database: about three hundred posts that look as if people wrote them.
//!
//! The texts are the same on every machine. The dates cover the two years before the first start.

mod kitchen;
mod road;
mod workshop;

use sqlx::{Any, Transaction};

use crate::{authors, dates, posts, users};

const THEMES: [&Theme; 3] = [&workshop::WORKSHOP, &kitchen::KITCHEN, &road::ROAD];
const POSTS: i64 = 300;
const COMMENTS_MAX: usize = 7;

/// The login and the password of the first author of a seeded database.
pub(crate) const DEMO: &str = "demo";

const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;
/// The time between two posts. 300 of them cover two years.
const STEP: i64 = 58 * HOUR;

/// Comments for posts of every theme.
const REMARKS: &[&str] = &[
    "Thank you, this came at the right moment.",
    "I read this twice, once for the content and once for the last paragraph.",
    "Bookmarked. I will come back with questions.",
    "This is the opposite of what I do, and it makes me a little nervous.",
    "More of this, please.",
    "Sent to three people, two of whom have already answered “told you so”.",
    "A question: what would you do differently with half of the time?",
    "I had to laugh at the second paragraph.\n\nThen I went and checked, and it is just the same here.",
    "Lovely. And I say that as someone who came to disagree.",
];

/// The parts from which posts of one kind are composed. `{s}` is the subject, `{S}` the subject at
/// the start of a sentence.
struct Theme {
    /// Name and biography.
    authors: &'static [(&'static str, &'static str)],
    subjects: &'static [&'static str],
    /// A title, and the paragraph that belongs to it.
    openings: &'static [(&'static str, &'static str)],
    headings: &'static [&'static str],
    middles: &'static [&'static str],
    /// Lists, tables, quotations, code.
    blocks: &'static [&'static str],
    closings: &'static [&'static str],
    comments: &'static [&'static str],
}

/// Fills the tables if there is no author yet.
#[expect(clippy::arithmetic_side_effects, reason = "divided by the lengths of constants, none of which is empty")]
pub(crate) async fn fill_if_empty(tx: &mut Transaction<'static, Any>) -> Result<(), sqlx::Error> {
    let present: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM authors").fetch_one(&mut **tx).await?;
    if present > 0 {
        return Ok(());
    }
    let now = dates::now();
    let mut random = Random(0x5EED);
    let mut ids: Vec<Vec<i64>> = Vec::new();
    for theme in THEMES {
        let mut of_theme = Vec::new();
        for (name, bio) in theme.authors {
            let joined = now.saturating_sub(STEP.saturating_mul(POSTS)).saturating_sub(random.between(DAY, 300 * DAY));
            of_theme.push(authors::insert(tx, name, bio, joined).await?);
        }
        ids.push(of_theme);
    }
    if let Some(first) = ids.iter().flatten().next() {
        insert_demo(tx, *first).await?;
    }
    let everyone: Vec<i64> = ids.iter().flatten().copied().collect();

    // Oldest first, so that ids grow with dates.
    for (index, back) in (0..POSTS).rev().enumerate() {
        let turn = index % THEMES.len();
        let (Some(theme), Some(authors)) = (THEMES.get(turn), ids.get(turn)) else { continue };
        let author = random.pick(authors).copied().unwrap_or_default();
        let (title, body) = compose(theme, index / THEMES.len(), &mut random);
        let age = back.saturating_mul(STEP).saturating_add(random.between(3, 40).saturating_mul(HOUR));
        let published = now.saturating_sub(age);
        let post = insert_post(tx, author, &title, &body, published).await?;
        let mut written = published;
        let mut said = Vec::new();
        for _ in 0..random.below(COMMENTS_MAX).saturating_sub(1) {
            let pool = if random.below(5) < 2 { REMARKS } else { theme.comments };
            let text = random.pick(pool).copied().unwrap_or_default();
            written = written.saturating_add(random.between(1_000, DAY));
            if written >= now || said.contains(&text) {
                continue;
            }
            said.push(text);
            let reader = random.pick(&everyone).copied().unwrap_or_default();
            if reader != author {
                insert_comment(tx, post, reader, text, written).await?;
            }
        }
    }
    Ok(())
}

/// Composes the `index`-th post of a theme. All titles differ: with 20 subjects and 8 openings, the
/// opening advances by one each time a subject repeats.
#[expect(clippy::arithmetic_side_effects, reason = "divided by the lengths of constants, none of which is empty")]
fn compose(theme: &Theme, index: usize, random: &mut Random) -> (String, String) {
    let subject = theme.subjects.get(index % theme.subjects.len()).copied().unwrap_or_default();
    let round = index / theme.subjects.len();
    let (title, opening) =
        theme.openings.get(index.wrapping_add(round) % theme.openings.len()).copied().unwrap_or_default();
    let mut upper = subject.chars();
    let upper: String = upper.next().into_iter().flat_map(char::to_uppercase).chain(upper).collect();
    let fill = |text: &str| text.replace("{s}", subject).replace("{S}", &upper);

    let mut body = fill(opening);
    let mut add = |text: &str| {
        body.push_str("\n\n");
        body.push_str(text);
    };
    let count = random.below(3).saturating_add(4);
    let middles = random.some_of(theme.middles, count);
    let headings = random.some_of(theme.headings, 2);
    let block = random.pick(theme.blocks).copied().unwrap_or_default();
    let mut headings = headings.iter();
    for (place, paragraph) in middles.iter().enumerate() {
        if (place == 1 || place == 3)
            && let Some(heading) = headings.next()
        {
            add(&format!("## {heading}"));
        }
        add(paragraph);
        if place == 2 {
            add(block);
        }
    }
    add(random.pick(theme.closings).copied().unwrap_or_default());
    (fill(title), body)
}

/// Adds an account to try the blog with, and records that it exists, so that the start can say so.
async fn insert_demo(tx: &mut Transaction<'static, Any>, author: i64) -> Result<(), sqlx::Error> {
    let password = users::hash(DEMO).map_err(|error| sqlx::Error::Protocol(error.to_string()))?;
    users::insert(tx, author, DEMO, &password).await?;
    sqlx::query("INSERT INTO meta (name, value) VALUES ('demo', $1)").bind(author).execute(&mut **tx).await?;
    Ok(())
}

pub(crate) async fn has_demo(tx: &mut Transaction<'static, Any>) -> Result<bool, sqlx::Error> {
    let count: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM meta WHERE name = 'demo'").fetch_one(&mut **tx).await?;
    Ok(count > 0)
}

async fn insert_post(
    tx: &mut Transaction<'static, Any>,
    author: i64,
    title: &str,
    body: &str,
    published: i64,
) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "INSERT INTO posts (author_id, title, body, searchable, published, edited)
         VALUES ($1, $2, $3, $4, $5, $5) RETURNING id",
    )
    .bind(author)
    .bind(title)
    .bind(body)
    .bind(posts::searchable(title, body))
    .bind(published)
    .fetch_one(&mut **tx)
    .await
}

async fn insert_comment(
    tx: &mut Transaction<'static, Any>,
    post: i64,
    author: i64,
    body: &str,
    written: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO comments (post_id, author_id, body, written) VALUES ($1, $2, $3, $4)")
        .bind(post)
        .bind(author)
        .bind(body)
        .bind(written)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// SplitMix64: the same numbers everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Returns a number from 0 to below `bound`; 0 if `bound` is 0.
    fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).unwrap_or(u64::MAX);
        usize::try_from(self.next().checked_rem(bound).unwrap_or(0)).unwrap_or(0)
    }

    fn between(&mut self, low: i64, high: i64) -> i64 {
        let span = usize::try_from(high.saturating_sub(low)).unwrap_or(0);
        low.saturating_add(i64::try_from(self.below(span)).unwrap_or(0))
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(self.below(from.len()))
    }

    /// Returns `count` different items in a random order.
    fn some_of<'a, T>(&mut self, from: &'a [T], count: usize) -> Vec<&'a T> {
        let mut left: Vec<&T> = from.iter().collect();
        let mut taken = Vec::with_capacity(count);
        while taken.len() < count && !left.is_empty() {
            taken.push(left.swap_remove(self.below(left.len())));
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn titles_differ_and_texts_are_the_same_each_time() {
        let all = || {
            let mut random = Random(1);
            let posts = THEMES.iter().flat_map(|theme| (0..100).map(move |index| (theme, index)));
            posts.map(|(theme, index)| compose(theme, index, &mut random)).collect::<Vec<_>>()
        };
        let posts = all();
        assert_eq!(posts, all());
        let titles: HashSet<&String> = posts.iter().map(|(title, _)| title).collect();
        assert_eq!(titles.len(), posts.len());
        assert!(posts.iter().all(|(title, body)| !title.contains('{') && !body.contains("{s}") && body.len() > 600));
    }
}
