//! A limit for login attempts, counted in the cache's store, so across all instances.
//!
//! Invariant: an attempt is counted before its password is checked, so concurrent attempts cannot
//! bypass the limit.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::request::Parts;
use cache_core::Cache;
use cache_core::object::CacheObject;
use serde::{Deserialize, Serialize};

use crate::app::App;
use crate::problem::Problem;

/// Attempts for one login from one address in a quarter of an hour.
const BY_BOTH: u32 = 10;
/// Attempts from one address in a quarter of an hour, for any login. Many people may share an
/// address.
const BY_ADDRESS: u32 = 100;
/// Attempts for one login in a quarter of an hour, from any address. Attempts that [`BY_BOTH`]
/// refuses are not counted here: guessing from one address does not lock the user out elsewhere.
const BY_LOGIN: u32 = 100;
/// How long attempts are remembered after the first one; the same as the ttl of [`Attempts`].
const QUARTER: Duration = Duration::from_secs(15 * 60);
/// No login is longer.
const NAME_CHARS_MAX: usize = 60;

/// The client's address as this server sees it. Behind a proxy, all clients have the proxy's
/// address.
pub(crate) struct Address(Option<IpAddr>);

/// The attempts since the first one. They are forgotten a quarter of an hour after it.
#[derive(Clone, Debug, Serialize, Deserialize, CacheObject)]
#[cache_object(name = "login-attempts", ttl = "15m", id = of)]
struct Attempts {
    of: String,
    count: u32,
}

/// Counts an attempt to log in.
///
/// # Errors
/// [`Problem::TooManyAttempts`]. If the store is unavailable, login is not possible.
pub(crate) async fn count(cache: &Cache, login: &str, address: &Address) -> Result<(), Problem> {
    // In this order: an attempt that one limit refuses is not counted by the next ones.
    let counts = [
        Some((of_both(login, address), BY_BOTH)),
        address.name().map(|address| (format!("address {address}"), BY_ADDRESS)),
        Some((format!("login {}", as_compared(login)), BY_LOGIN)),
    ];
    for (of, most) in counts.into_iter().flatten() {
        let counted = add(cache, &of).await.map_err(|error| {
            tracing::warn!(%error, "an attempt to log in cannot be counted");
            Problem::NoSessions
        })?;
        if counted > most {
            tracing::info!("too many attempts to log in");
            let left = cache.objects::<Attempts>().ttl(of.as_str()).await;
            return Err(Problem::TooManyAttempts(left.ok().flatten().unwrap_or(QUARTER)));
        }
    }
    Ok(())
}

/// Resets the counter of this login and address after a successful login. Attempts from other
/// addresses stay counted.
pub(crate) async fn forget(cache: &Cache, login: &str, address: &Address) {
    if let Err(error) = cache.objects::<Attempts>().remove(of_both(login, address).as_str()).await {
        tracing::warn!(%error, "attempts to log in cannot be forgotten");
    }
}

fn of_both(login: &str, address: &Address) -> String {
    format!("{} as {}", address.name().as_deref().unwrap_or("anywhere"), as_compared(login))
}

/// Normalizes a login for comparison.
fn as_compared(login: &str) -> String {
    let login: String = login.trim().chars().take(NAME_CHARS_MAX).collect();
    login.to_ascii_lowercase()
}

impl Address {
    /// Returns the address as text. For IPv6 it is the /64, since one subscriber has all of it.
    fn name(&self) -> Option<String> {
        Some(match self.0?.to_canonical() {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                format!("{}/64", Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
        })
    }
}

async fn add(cache: &Cache, of: &str) -> Result<u32, cache_core::Error> {
    let attempts = cache.objects::<Attempts>();
    loop {
        let counted = attempts.update(of, |attempts| attempts.count = attempts.count.saturating_add(1)).await?;
        if let Some(Attempts { count, .. }) = counted {
            return Ok(count);
        }
        if attempts.create(&Attempts { of: of.to_owned(), count: 1 }).await? {
            return Ok(1);
        }
    }
}

impl FromRequestParts<App> for Address {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Self::Rejection> {
        Ok(Self(parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(address)| address.ip())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: impl Into<IpAddr>) -> Address {
        Address(Some(address.into()))
    }

    async fn is_turned_away(cache: &Cache, login: &str, address: &Address) -> bool {
        match count(cache, login, address).await {
            Ok(()) => false,
            Err(Problem::TooManyAttempts(left)) => {
                assert!(left > Duration::ZERO && left <= QUARTER, "{left:?}");
                true
            }
            Err(other) => panic!("{other:?}"),
        }
    }

    async fn attempt(cache: &Cache, login: &str, address: &Address, times: u32) {
        for time in 0..times {
            assert!(!is_turned_away(cache, login, address).await, "{login}, attempt {time}");
        }
    }

    #[tokio::test]
    async fn one_address_may_try_one_login_ten_times_without_locking_out_others() {
        let cache = Cache::in_memory();
        let (here, there) = (at([192, 0, 2, 1]), at([192, 0, 2, 2]));
        attempt(&cache, "Ada", &here, BY_BOTH).await;
        for _ in 0..BY_LOGIN {
            assert!(is_turned_away(&cache, " ada ", &here).await);
        }
        attempt(&cache, "ada", &there, 1).await;
        attempt(&cache, "bob", &here, 1).await;
        forget(&cache, "ADA", &here).await;
        attempt(&cache, "ada", &here, 1).await;
        attempt(&cache, "ada", &Address(None), BY_BOTH).await;
        assert!(is_turned_away(&cache, "ada", &Address(None)).await);
    }

    #[tokio::test]
    async fn one_address_may_try_a_hundred_times_whichever_the_login() {
        let cache = Cache::in_memory();
        let subscriber = |host: u16| at(Ipv6Addr::new(0x2001, 0xdb8, 0, 7, 0, 0, 0, host));
        for user in 0..100 {
            attempt(&cache, &format!("user{user}"), &subscriber(user), 1).await;
        }
        assert!(is_turned_away(&cache, "somebody", &subscriber(1)).await);
        attempt(&cache, "somebody", &at(Ipv6Addr::new(0x2001, 0xdb8, 0, 8, 0, 0, 0, 1)), 1).await;
    }

    #[tokio::test]
    async fn many_addresses_may_try_one_login_a_hundred_times_and_its_owner_does_not_reset_that() {
        let cache = Cache::in_memory();
        for host in 0..10 {
            attempt(&cache, "ada", &at([192, 0, 2, host]), BY_BOTH).await;
        }
        forget(&cache, "ada", &at([192, 0, 2, 1])).await;
        assert!(is_turned_away(&cache, "ada", &at([192, 0, 2, 1])).await);
        attempt(&cache, "bob", &at([192, 0, 2, 1]), 1).await;
    }
}
