#[invalidates(user(id), tag = "author:{athor}", tagz("x"), limt = "1m", user, always, always)]
async fn rename(id: u64, author: u64) -> Result<(), Error> {
    write(id).await
}
