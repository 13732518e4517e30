#[cached(skip(db))]
async fn load<'a, D, T, const N: usize>(db: &'a D, ids: [u64; N]) -> Result<Vec<T>, Error>
where
    D: Database + Sync,
    T: Row<'a> + CacheValue,
{
    db.load(ids).await
}
