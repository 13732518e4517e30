/// The function survives its mistakes.
#[cached(tll = 60, skip(self))]
#[allow(unused)]
pub async fn user(#[cached(skip)] db: &Pool, #[cached(ttl = 1)] id: &mut u64) -> Res<User> {
    db.find(id).await
}
