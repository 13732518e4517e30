use cache_core::cached;

struct Repo;

impl Repo {
    #[cached]
    async fn user(id: u64) -> u64 {
        id
    }
}

fn main() {}
