#[cached(batch, name = "user", ttl = "1h", skip(db), tags("users", "user:{ids}"))]
pub async fn users(db: &Db, tenant: u32, ids: &[u64]) -> Result<HashMap<u64, User>, Error> {
    db.users(tenant, ids).await
}

impl Repo {
    #[cached(batch(ids), key = "{ids}", skip(self, labels))]
    async fn names(&self, ids: Vec<u64>, labels: Vec<String>) -> BTreeMap<u64, String> {
        self.load(ids, labels).await
    }
}
