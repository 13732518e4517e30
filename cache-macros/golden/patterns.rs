#[cached(bypass = *fresh)]
async fn user(Path(id): Path<u64>, (fresh, mut tenant): (bool, u32), _: Marker) -> User {
    tenant += 1;
    find(tenant, id).await
}
