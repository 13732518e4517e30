//! Web sessions, in the form of Express and in our own.

mod client;
mod clients;
mod endings;
mod express;
mod faults;
mod leaks;
mod login;
mod native;
mod others;
mod races;
mod serial;
mod values;
