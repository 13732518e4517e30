use cache_core::session::SessionData;

#[derive(SessionData)]
enum Shop {
    Open,
}

fn main() {}
