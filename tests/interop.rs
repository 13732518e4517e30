//! Tests with programs in other languages on the same Redis: Express with connect-redis, the store
//! for Express, and the `redis` client of Node.

mod browser;
mod cookies;
mod express_store;
mod lifetimes;
mod ours;
mod peer;
mod plain;
mod races;
mod schemes;
mod shared_cache;
mod stored;
mod table;
mod tutorials;
