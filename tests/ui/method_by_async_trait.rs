use std::future::Future;
use std::pin::Pin;

use cache_core::cached;

trait Users {
    fn user<'life0, 'async_trait>(&'life0 self, id: u64) -> Pin<Box<dyn Future<Output = u64> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        Self: 'async_trait;
}

struct Repo;

// What `#[async_trait]` on the `impl` makes of `async fn user(&self, id: u64) -> u64`.
impl Users for Repo {
    #[cached(skip(self))]
    fn user<'life0, 'async_trait>(&'life0 self, id: u64) -> Pin<Box<dyn Future<Output = u64> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async move { id })
    }
}

fn main() {}
