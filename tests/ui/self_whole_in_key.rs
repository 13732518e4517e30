use cache_core::cached;

struct Repo(u64);

impl Repo {
    #[cached(key = "{self}:{id}")]
    async fn f(&self, id: u64) -> u64 {
        self.0 + id
    }
}

fn main() {}
