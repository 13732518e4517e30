/// Finds a user.
#[tracing::instrument(skip_all)]
#[expect(clippy::too_many_arguments)]
#[cfg(feature = "users")]
#[cached(ttl = 60)]
#[must_use]
async fn user(a: u8, b: u8, #[cached(skip)] c: u8, #[allow(unused)] d: u8, e: u8, f: u8, g: u8, h: u8) -> User {
    find(a).await
}
