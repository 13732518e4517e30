use cache_core::cached;

#[cached]
async fn f(id: u64) -> ! {
    panic!("{id}")
}

fn main() {}
