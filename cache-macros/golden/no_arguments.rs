#[cached(ttl = "1h30m")]
async fn front_page() -> String {
    render().await
}
