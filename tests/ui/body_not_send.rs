use cache_core::cached;

use std::rc::Rc;

#[cached]
async fn f(id: u64) -> u64 {
    let shared = Rc::new(id);
    std::future::ready(()).await;
    *shared
}

fn main() {}
