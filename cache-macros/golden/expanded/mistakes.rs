::core::compile_error! {
    "unknown option `tll`; did you mean `ttl`?"
}
::core::compile_error! {
    "a cached function cannot change its arguments: a hit would not; take `&` and return what changed"
}
::core::compile_error! {
    "on a parameter there is only `#[cached(skip)]`; other options go on the function"
}
::core::compile_error! {
    "no parameter is called `self`; there is `db`, `id`"
}
/// The function survives its mistakes.
#[allow(unused)]
pub async fn user(db: &Pool, id: &mut u64) -> Res<User> {
    db.find(id).await
}
