use cache_core::session::SessionData;

#[derive(SessionData)]
struct Shop {
    id: u64,
    #[session(name = "cookie")]
    biscuit: u64,
}

fn main() {}
