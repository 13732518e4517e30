#[cached(
    ttl = |user| user.ttl(),
    negative_ttl = "500ms",
    name = "user",
    key = "{tenant.id}:{id}",
    skip(state, fresh),
    tags("users", "tenant:{tenant.id}", "group:{value.group}", "mail:{value.mail}", "role:{value.roles[].name}"),
    version = 3,
    codec = "msgpack",
    cache = &state.cache,
    jitter = 0.25,
    stale_while_revalidate = 60,
    stale_if_error = "1d",
    refresh = "caller",
    deadline = "5s",
    early = 2,
    cache_if = |user| user.is_active,
    bypass = fresh,
    single_flight = "none",
    crate = our::cache,
    companion = UserCache
)]
pub(crate) async fn user(state: &State, tenant: Tenant, id: u64, fresh: bool) -> Result<Option<User>, Error> {
    state.find(tenant, id).await
}
