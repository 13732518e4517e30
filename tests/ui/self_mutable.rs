use cache_core::cached;

struct Repo(u64);

impl Repo {
    #[cached(skip(self))]
    async fn f(&mut self, id: u64) -> u64 {
        self.0 + id
    }
}

fn main() {}
