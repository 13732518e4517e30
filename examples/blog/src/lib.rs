//! A blog whose every read is cached.
//!
//! One file a noun: [`posts`], [`comments`], [`authors`] and [`search`] hold the cached reads and, beside them, the
//! writes that invalidate what they changed. [`revision`] is how a write reaches every page of every list without
//! knowing them. `pages` turns values into HTML and knows nothing of the cache or of SQL.

pub mod app;
pub mod authors;
pub mod comments;
pub mod config;
mod dates;
pub mod db;
mod form;
mod markdown;
mod pages;
pub mod posts;
mod problem;
pub mod revision;
mod schema;
pub mod search;
mod seed;
mod visit;

pub use app::{App, serve};
pub use config::{Config, StartError};
