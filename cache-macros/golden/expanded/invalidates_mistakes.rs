::core::compile_error! {
    "unknown option `limt`; did you mean `limit`?"
}
::core::compile_error! {
    "`user` needs the arguments of its key: `user(id)`; all of its entries are `all(user)`"
}
::core::compile_error! {
    "`always` is given twice; remove one of them"
}
::core::compile_error! {
    "no parameter is called `athor`; did you mean `author`?"
}
async fn rename(id: u64, author: u64) -> Result<(), Error> {
    write(id).await
}
