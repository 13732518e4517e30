//! A blog in which every read is cached.
//!
//! One file per noun: [`posts`], [`comments`], [`authors`] and [`search`] contain the cached reads
//! and the writes with what they invalidate. `pages` turns values into HTML, and contains neither
//! caching nor SQL.
//!
//! | topic | where |
//! |---|---|
//! | tags: one write invalidates all pages of lists | [`posts::page()`], [`posts::posts_by()`] |
//! | .. and of the search | [`search::search()`] |
//! | `#[invalidates]` on writes | [`posts::update`], [`posts::delete`], [`comments::add`] |
//! | an explicit fence around a transaction of sqlx | [`posts::create`] |
//! | many ids at once | [`authors::authors_of()`], [`comments::comment_count()`] |
//! | serving a page while it is refreshed or the database is down | [`posts::page()`] |
//! | caching that something does not exist | [`posts::post()`] |
//! | sessions for browsers and for programs | [`sessions::Sessions`] |
//! | sessions in a table of the application's database | [`session_store::SqliteSessions`] |
//! | login, logout, devices | `pages/account.rs`; as JSON: `api.rs` |
//! | login attempts, counted by account and by address across all instances | `throttle.rs` |
//! | limits: concurrent requests, time, size, headers that never end | `serving.rs` |
//! | a token in each form, a message for the next page | `form.rs`, `visit.rs` |

mod api;
pub mod app;
pub mod authors;
pub mod comments;
pub mod config;
mod dates;
pub mod db;
mod devices;
mod form;
mod markdown;
mod pages;
pub mod posts;
mod problem;
mod schema;
pub mod search;
mod seed;
mod serving;
pub mod session_store;
pub mod sessions;
mod throttle;
mod users;
mod visit;

pub use app::{App, serve};
pub use config::{Config, StartError};
pub use serving::Limits;
