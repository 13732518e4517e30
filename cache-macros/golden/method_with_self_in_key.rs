impl<C: Connection> Repo<C> {
    #[cached(key = "{self.tenant}:{id}", cache = &self.cache)]
    async fn user(self: Arc<Self>, id: u64) -> Res<User> {
        self.db.find(id).await
    }
}
