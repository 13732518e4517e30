#[invalidates(user(id), crate::posts::by_author::<Draft>(form.author), tag = "author:{form.author}", all(names))]
pub async fn rename(db: &Db, id: u64, form: Form<'_>) -> Result<(), Error> {
    sqlx::query("update users ..").execute(db).await?;
    Ok(())
}

impl Editor for Repo {
    #[invalidates(self.user(id), Repo::name(&name), tags("users", "tenant:{self.tenant}"), all(Self::user), cache = &self.cache, limit = "2m", always)]
    #[instrument]
    async fn rename(&self, id: u64, name: String) {
        self.db.rename(id, name).await;
    }
}
