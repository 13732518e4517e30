use cache_core::cached;

#[cached]
async fn f<'a>(id: &'a str) -> std::borrow::Cow<'a, str> {
    id.into()
}

fn main() {}
