//! Methods and associated functions.

use std::sync::Arc;

use cache_core::value::CacheValue;
use cache_core::{Cache, KeyPart, cached};

use super::{AppError, Runs, User};

struct Repo {
    runs: Runs,
    tenant: u32,
    cache: Cache,
}

fn repo(tenant: u32) -> Repo {
    Repo { runs: Runs::default(), tenant, cache: Cache::in_memory() }
}

impl Repo {
    #[cached(skip(self))]
    async fn shared(&self, id: u64) -> Result<User, AppError> {
        self.runs.next();
        Ok(User::new(id))
    }

    #[cached(key = "{self.tenant}:{id}")]
    async fn by_tenant(&self, id: u64) -> u32 {
        let _seen = id;
        self.runs.next()
    }

    #[cached(skip(self), cache = &self.cache)]
    async fn in_own_cache(&self, id: u64) -> u32 {
        let _seen = id;
        self.runs.next()
    }

    #[cached(key = "{self.tenant}/{id}")]
    async fn of_shared_self(self: Arc<Self>, id: u64) -> u32 {
        let _seen = id;
        self.runs.next()
    }

    #[cached]
    async fn of_borrowed_self(#[cached(skip)] self: &Arc<Self>, id: u64) -> u32 {
        let _seen = id;
        self.runs.next()
    }

    #[cached]
    async fn without_self(id: u64) -> Option<Self> {
        None.filter(|_: &Self| id == 0)
    }

    #[cached(method)]
    async fn constant(id: u64) -> u64 {
        id
    }
}

// A stored type has to be a cacheable value. `Repo` is not one, but is never stored.
impl Clone for Repo {
    fn clone(&self) -> Self {
        repo(self.tenant)
    }
}
impl serde::Serialize for Repo {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.tenant)
    }
}
impl<'de> serde::Deserialize<'de> for Repo {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u32::deserialize(deserializer).map(repo)
    }
}

#[tokio::test]
async fn skipped_self_is_not_in_the_key() {
    let (one, two) = (repo(1), repo(2));
    one.shared(1).await.unwrap();
    two.shared(1).await.unwrap();
    assert_eq!((one.runs.count(), two.runs.count()), (1, 0));
    Repo::shared_entry(1).invalidate().await.unwrap();
    two.shared(1).await.unwrap();
    assert_eq!(two.runs.count(), 1);
    two.shared_refresh(1).await.unwrap();
    two.shared_uncached(1).await.unwrap();
    assert_eq!(two.runs.count(), 3);
}

#[tokio::test]
async fn fields_of_self_in_the_key() {
    let (one, two) = (repo(1), repo(2));
    one.by_tenant(1).await;
    two.by_tenant(1).await;
    one.by_tenant(1).await;
    assert_eq!((one.runs.count(), two.runs.count()), (1, 1));
    one.by_tenant_entry(1).invalidate().await.unwrap();
    assert_eq!(one.by_tenant(1).await, 2);
    assert_eq!(two.by_tenant(1).await, 1);
}

#[tokio::test]
async fn the_cache_of_self() {
    let (one, two) = (repo(1), repo(2));
    one.in_own_cache(1).await;
    two.in_own_cache(1).await;
    one.in_own_cache(1).await;
    assert_eq!((one.runs.count(), two.runs.count()), (1, 1));
    one.in_own_cache_entry(1).invalidate().await.unwrap();
    assert_eq!(one.in_own_cache(1).await, 2);
    assert_eq!(one.in_own_cache_refresh(1).await, 3);
    assert_eq!(one.in_own_cache(1).await, 3);
}

#[tokio::test]
async fn shared_and_borrowed_self() {
    let repo = Arc::new(repo(77));
    assert_eq!(Arc::clone(&repo).of_shared_self(1).await, 1);
    assert_eq!(Arc::clone(&repo).of_shared_self(1).await, 1);
    assert_eq!(Arc::clone(&repo).of_shared_self_refresh(1).await, 2);
    repo.of_shared_self_entry(1).invalidate().await.unwrap();
    assert_eq!(Arc::clone(&repo).of_shared_self(1).await, 3);
    assert_eq!(repo.of_borrowed_self(1).await, 4);
    assert_eq!(repo.of_borrowed_self(1).await, 4);
}

#[tokio::test]
async fn associated_functions() {
    assert!(Repo::without_self(1).await.is_none());
    assert_eq!(Repo::constant(4).await, 4);
    assert_eq!(Repo::constant_entry(4).get().await.unwrap(), Some(4));
}

struct Table<'a, K, V> {
    runs: &'a Runs,
    of: std::marker::PhantomData<fn() -> (K, V)>,
}

impl<'a, K: KeyPart + Send + Sync, V: CacheValue + From<u8>> Table<'a, K, V> {
    fn new(runs: &'a Runs) -> Self {
        Self { runs, of: std::marker::PhantomData }
    }

    #[cached(skip(self))]
    async fn row(&self, key: &K) -> Result<V, AppError> {
        let _seen = key;
        self.runs.next();
        Ok(V::from(1))
    }
}

#[tokio::test]
async fn methods_of_generic_types_have_entries_by_type() {
    // K2: two instances of a method never share a key.
    let runs = Runs::default();
    Table::<u32, u32>::new(&runs).row(&1).await.unwrap();
    Table::<u32, u64>::new(&runs).row(&1).await.unwrap();
    Table::<u64, u64>::new(&runs).row(&1).await.unwrap();
    assert_eq!(runs.count(), 3);
    Table::<u32, u64>::new(&runs).row(&1).await.unwrap();
    assert_eq!(runs.count(), 3);
    Table::<u32, u64>::row_entry(&1).invalidate().await.unwrap();
    Table::<u32, u32>::new(&runs).row(&1).await.unwrap();
    assert_eq!(runs.count(), 3);
}
