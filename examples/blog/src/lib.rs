//! A blog whose every read is cached.
//!
//! One file a noun: [`posts`], [`comments`], [`authors`] and [`search`] hold the cached reads and, beside them, the
//! writes with what they invalidate. `pages` turns values into HTML and knows nothing of the cache or of SQL.
//!
//! | to see | look at |
//! |---|---|
//! | tags: one write ends every page of every list | [`posts::page()`], [`posts::posts_by()`], [`search::search()`] |
//! | `#[invalidates]` on a function that writes | [`posts::update`], [`posts::delete`], [`comments::add`] |
//! | a fence by hand around a transaction of sqlx | [`posts::create`] |
//! | many ids at once | [`authors::authors_of()`], [`comments::comment_count()`] |
//! | a page that is served while the next is made, and while the database is down | [`posts::page()`] |
//! | what is not there, remembered | [`posts::post()`] |
//! | sessions for browsers and for programs | [`sessions::Sessions`] |
//! | sessions in a table of one's own database | [`session_store::SqliteSessions`] |
//! | logging in and out, devices | `pages/account.rs`; by JSON: `api.rs` |
//! | attempts to log in, counted by account and by address for all instances | `throttle.rs` |
//! | limits: requests at once, time, size, headers that never end | `serving.rs` |
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
