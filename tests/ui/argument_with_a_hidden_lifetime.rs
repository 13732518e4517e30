use cache_core::cached;

struct Context<'a>(&'a str);

#[cached(skip(context))]
async fn f(context: Context, id: u64) -> usize {
    context.0.len() + id as usize
}

fn main() {}
