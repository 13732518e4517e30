use cache_core::invalidates;

#[invalidates(tag = "users")]
fn f(_id: u64) {}

#[invalidates(tag = "users")]
struct User;

fn main() {}
