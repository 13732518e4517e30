//! Every shape of argument, return type and function that `#[cached]` takes, on the cache in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use cache_core::cached;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    id: u64,
    name: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AppError {
    NotFound,
}

type Res<T> = Result<T, AppError>;

#[derive(Debug, Default)]
pub struct Pool {
    runs: AtomicU32,
}

impl Pool {
    fn runs(&self) -> u32 {
        self.runs.load(Ordering::SeqCst)
    }
    fn run(&self) {
        self.runs.fetch_add(1, Ordering::SeqCst);
    }
}

/// Finds a user.
#[cached(ttl = 60, skip(db))]
pub async fn user(db: &Pool, id: u64) -> Res<User> {
    db.run();
    if id == 0 {
        return Err(AppError::NotFound);
    }
    Ok(User { id, name: "x".to_owned() })
}

#[tokio::test]
async fn a_second_call_is_a_hit() {
    let db = Pool::default();
    let first = user(&db, 7).await;
    let second = user(&db, 7).await;
    assert_eq!(first, second);
    assert_eq!(db.runs(), 1);
    user::entry(7).invalidate().await.unwrap();
    user(&db, 7).await.unwrap();
    assert_eq!(db.runs(), 2);
    user::refresh(&db, 7).await.unwrap();
    user::uncached(&db, 7).await.unwrap();
    assert_eq!(db.runs(), 4);
}

#[cached(ttl = "1h")]
async fn owned(name: String) -> Arc<Vec<String>> {
    Arc::new(vec![name])
}

#[tokio::test]
async fn owned_arguments() {
    assert_eq!(owned("a".to_owned()).await, owned("a".to_owned()).await);
}

struct Repo {
    pool: Pool,
    tenant: u32,
}

impl Repo {
    #[cached(key = "{self.tenant}:{id}")]
    async fn user(&self, id: u64) -> Res<User> {
        self.pool.run();
        Ok(User { id, name: String::new() })
    }
}

#[tokio::test]
async fn methods() {
    let repo = Repo { pool: Pool::default(), tenant: 3 };
    repo.user(1).await.unwrap();
    repo.user(1).await.unwrap();
    assert_eq!(repo.pool.runs(), 1);
    repo.user_entry(1).invalidate().await.unwrap();
    repo.user(1).await.unwrap();
    assert_eq!(repo.pool.runs(), 2);
}
