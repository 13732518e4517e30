use cache_core::cached;

struct Repo {
    tenant: u32,
}

impl Repo {
    #[cached(skip(self), tags("tenant:{self.tenant}", "{self}"))]
    async fn f(&self, id: u64) -> u64 {
        id + u64::from(self.tenant)
    }
}

fn main() {}
