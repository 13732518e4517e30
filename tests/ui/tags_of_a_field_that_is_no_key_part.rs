use cache_core::cached;

#[cached(tags("score:{value.1}"))]
async fn f(id: u64) -> (u64, f64) {
    (id, 0.5)
}

fn main() {}
