impl Repo {
    #[cached(ttl = TTL, skip(self))]
    pub async fn user(&self, id: u64) -> Res<User> {
        self.db.find(id).await
    }
}
