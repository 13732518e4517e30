use cache_core::cached;

trait Repo {
    #[cached(skip(self))]
    async fn f(&self, id: u64) -> u64;
}

fn main() {}
