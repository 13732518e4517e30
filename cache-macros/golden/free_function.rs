/// Finds a user.
#[cached(ttl = 60, skip(db))]
pub async fn user(db: &Pool, id: u64) -> Res<User> {
    db.find(id).await
}
