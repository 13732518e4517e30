//! Web sessions, in the form of Express and in our own.

mod client;
mod express;
mod races;
