//! Accounts: authors with a login and a password.

use argon2::Argon2;
use argon2::password_hash::rand_core::OsRng;
use argon2::password_hash::{self, PasswordHash, PasswordHasher as _, PasswordVerifier as _, SaltString};
use cache_core::invalidates;
use sqlx::{Any, Transaction};
use tokio::sync::Semaphore;

use crate::authors;
use crate::dates;
use crate::db::{Db, is_taken};
use crate::problem::Problem;

/// One hash takes 19 MiB and some time of a core, so only this many are computed at once.
static HASHING: Semaphore = Semaphore::const_new(4);

/// A hash that matches no password. It has the parameters of [`Argon2::default`], so that checking
/// it takes as long as any other.
const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Adds an author who can log in and returns their id. `None` if the login is taken.
pub(crate) async fn register(db: &Db, name: &str, login: &str, password: String) -> Result<Option<i64>, Problem> {
    let hashed = on_a_blocking_thread(move || hash(&password)).await?.map_err(|error| {
        tracing::error!(%error, "a password cannot be hashed");
        Problem::Internal
    })?;
    Ok(add(db, name, login, &hashed).await?)
}

/// Returns the author with this login and password. An unknown login takes the same code path as a
/// wrong password, and the same time.
pub(crate) async fn check(db: &Db, login: &str, password: String) -> Result<Option<i64>, Problem> {
    let found: Option<(i64, String)> = sqlx::query_as("SELECT author_id, password FROM users WHERE login = $1")
        .bind(login.trim().to_ascii_lowercase())
        .fetch_optional(db.pool())
        .await?;
    let (author, hashed) = found.map_or((None, NOBODY.to_owned()), |(author, hashed)| (Some(author), hashed));
    let fits = on_a_blocking_thread(move || fits(&password, &hashed)).await?;
    Ok(author.filter(|_| fits))
}

pub(crate) fn hash(password: &str) -> Result<String, password_hash::Error> {
    let salt = SaltString::generate(&mut OsRng);
    Ok(Argon2::default().hash_password(password.as_bytes(), &salt)?.to_string())
}

pub(crate) async fn insert(
    tx: &mut Transaction<'static, Any>,
    author: i64,
    login: &str,
    hashed: &str,
) -> Result<(), sqlx::Error> {
    let insert = sqlx::query("INSERT INTO users (author_id, login, password) VALUES ($1, $2, $3)");
    insert.bind(author).bind(login).bind(hashed).execute(&mut **tx).await.map(drop)
}

#[invalidates(authors::authors())]
async fn add(db: &Db, name: &str, login: &str, hashed: &str) -> Result<Option<i64>, sqlx::Error> {
    let mut tx = db.begin().await?;
    let author = authors::insert(&mut tx, name, "", dates::now()).await?;
    match insert(&mut tx, author, login, hashed).await {
        Ok(()) => tx.commit().await.map(|()| Some(author)),
        Err(error) if is_taken(&error) => tx.rollback().await.map(|()| None),
        Err(error) => Err(error),
    }
}

fn fits(password: &str, hashed: &str) -> bool {
    let hash = PasswordHash::new(hashed);
    hash.is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
}

async fn on_a_blocking_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    let permit = HASHING.acquire().await.map_err(|_closed| Problem::Internal)?;
    let run = move || {
        // Held by the work: it continues if the client goes away.
        let _permit = permit;
        work()
    };
    tokio::task::spawn_blocking(run).await.map_err(|error| {
        tracing::error!(%error, "hashing a password failed");
        Problem::Internal
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_matches_its_hash_and_an_unknown_login_costs_the_same() {
        let hashed = hash("correct horse").unwrap();
        assert!(fits("correct horse", &hashed) && !fits("correct house", &hashed) && !fits("", NOBODY));
        let (real, nobody) = (PasswordHash::new(&hashed).unwrap(), PasswordHash::new(NOBODY).unwrap());
        assert_eq!((real.algorithm, real.version, &real.params), (nobody.algorithm, nobody.version, &nobody.params));
        assert_eq!(real.hash.unwrap().len(), nobody.hash.unwrap().len());
    }
}
