//! A crate that allows nothing: generated code must not be what breaks it.
#![deny(warnings, missing_docs, missing_debug_implementations, missing_copy_implementations, unreachable_pub)]
#![deny(unused, nonstandard_style, future_incompatible, rust_2018_idioms, rust_2024_compatibility)]
#![deny(unused_qualifications, unused_lifetimes, single_use_lifetimes, trivial_casts, unused_results)]
#![forbid(unsafe_code)]

use cache_core::object::CacheObject;
use cache_core::{Cache, KeyPart, cached, invalidates};
use serde::{Deserialize, Serialize};

/// A user.
#[derive(Debug, Clone, Serialize, Deserialize, CacheObject)]
#[cache_object(name = "user", ttl = "1d", id = id)]
pub struct User {
    id: u64,
    name: String,
}

/// A page.
#[derive(Debug, Clone, Copy, KeyPart)]
pub enum Page {
    /// The first.
    First,
    /// Another.
    Number(u32),
}

/// Finds a user.
///
/// # Errors
/// Never.
#[cached(ttl = 60, negative_ttl = "5s", skip(db), bypass = fresh)]
pub async fn user(db: &str, id: u64, fresh: bool, page: Page) -> Result<Option<User>, String> {
    Ok((db.len() > 1 && page_number(page) > 1).then_some(User { id, name: String::new() }))
}

/// Changes a user.
///
/// # Errors
/// Never.
#[invalidates(user(id, true, page), tag = "user:{id}", all(user))]
pub async fn rename(db: &mut String, id: u64, page: Page, mut name: String) -> Result<(), String> {
    name.push('!');
    *db = name;
    if page_number(page) > 1 {
        return Ok(());
    }
    Err("there is no such page".to_owned())
}

/// Forgets all users.
#[invalidates(tags("users"), cache = cache)]
pub async fn forget(cache: &Cache) {
    cache.shutdown().await;
}

/// Finds users.
#[cached(key = "{a}:{b}:{c}", skip(cache, d, e, f, g), cache = cache)]
#[expect(clippy::too_many_arguments)]
#[must_use]
pub async fn users(cache: &Cache, a: u64, b: u64, c: u64, d: u64, e: u64, f: u64, g: u64) -> Vec<u64> {
    vec![a, b, c, d, e, f, g]
}

/// Private ones are as good.
#[cached]
async fn numbers<T: KeyPart + Send>((a, b): (u32, T), _: u8, mut names: Vec<String>) -> Vec<String> {
    drop(b);
    names.push(a.to_string());
    names
}

/// What is allowed of an argument is allowed of all that is made of it.
#[cached(ttl = 60)]
pub async fn by_foreign_name(#[allow(non_snake_case)] userId: u64) -> u64 {
    userId
}

/// With methods.
#[derive(Debug, Clone, Copy)]
pub struct Repo;

impl Repo {
    /// Finds a user.
    #[cached(skip(self))]
    pub async fn user(&self, id: u64) -> User {
        User { id, name: String::new() }
    }
}

fn page_number(page: Page) -> u32 {
    match page {
        Page::First => 1,
        Page::Number(number) => number,
    }
}

/// Uses them.
pub async fn run() {
    let _user = user("db", 1, false, Page::First).await;
    let _user = user::entry(1, false, Page::Number(2)).get().await;
    let _users = users(Cache::global(), 1, 2, 3, 4, 5, 6, 7).await;
    let _numbers = numbers((1, 2), 3, vec![]).await;
    let _user = Repo.user(1).await;
}

fn main() {}
