use std::error::Error;
use std::rc::Rc;

use cache_core::cached;

#[cached]
async fn shared(id: u64) -> Rc<u64> {
    Rc::new(id)
}

#[cached]
async fn in_a_list(id: u64) -> Result<Vec<Rc<u64>>, String> {
    Ok(vec![Rc::new(id)])
}

#[cached]
async fn fails(id: u64) -> Result<u64, Box<dyn Error>> {
    Ok(id)
}

fn main() {}
