#[cached(plain = "user:{id}", ttl = 60, skip(db))]
pub async fn user(db: &Db, id: u64) -> Result<User, Error> {
    db.user(id).await
}

#[cached(plain = "{name}", ttl = |value| value.lasts(), negative_ttl = "30s", cache_if = |nick| nick.is_known(), cache = cache, skip(cache))]
async fn nick(cache: &Cache, name: &str) -> Option<Nick> {
    find(name).await
}

#[cached(plain = "front", ttl = 60, local = false)]
async fn front() -> Page {
    render().await
}

impl Repo {
    #[cached(plain = "{self.tenant}:user:{id}", ttl = 60, cache = &self.cache)]
    async fn user(&self, id: u64) -> User {
        self.db.user(id).await
    }

    #[invalidates(self.user(id), tag = "users", cache = &self.cache)]
    async fn rename(&self, id: u64, name: String) {
        self.db.rename(id, name).await;
    }
}
