use cache_core::cached;

trait Users {
    async fn user(&self, id: u64) -> u64;
}

struct Repo;

impl Users for Repo {
    #[cached(skip(self))]
    async fn user(&self, id: u64) -> u64 {
        id
    }
}

fn main() {}
