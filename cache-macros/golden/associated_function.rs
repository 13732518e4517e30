impl Settings {
    #[cached(ttl = "5m")]
    pub async fn load(tenant: u32) -> Result<Self, Error> {
        read(tenant).await
    }
}
