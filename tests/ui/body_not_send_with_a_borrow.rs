use cache_core::cached;

use std::rc::Rc;

#[cached]
async fn f(id: &str) -> usize {
    let shared = Rc::new(id);
    std::future::ready(()).await;
    shared.len()
}

fn main() {}
