//! Programs that are not Rust on the same Redis: Express with connect-redis, the store for Express, the `redis` client of Node.

mod browser;
mod express_store;
mod plain;
mod stored;
mod table;
