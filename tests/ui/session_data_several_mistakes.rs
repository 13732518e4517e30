use cache_core::session::SessionData;

#[derive(SessionData)]
#[session(name = "shop")]
struct Shop {
    #[session(rename = "lastSeen")]
    last_seen: u64,
    cart: u64,
    #[session(name = "cart")]
    basket: u64,
}

#[derive(SessionData)]
struct Pair(u64, u64);

fn main() {}
