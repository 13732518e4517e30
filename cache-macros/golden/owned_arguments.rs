#[cached]
async fn total(year: u32, mut country: String) -> u64 {
    country.make_ascii_lowercase();
    sum(year, country).await
}
