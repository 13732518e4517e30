//! Web sessions, in the form of Express and in our own.

mod client;
mod clients;
mod express;
mod faults;
mod login;
mod native;
mod races;
mod serial;
mod values;
