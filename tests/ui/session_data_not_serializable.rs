use cache_core::session::SessionData;

struct Tea;

#[derive(SessionData)]
struct Shop {
    tea: Tea,
}

fn main() {}
