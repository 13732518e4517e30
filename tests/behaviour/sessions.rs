//! Web sessions, in the form of Express and in our own.

mod all;
mod client;
mod clients;
mod clocks;
mod devices;
mod endings;
mod express;
mod faults;
mod halfway;
mod leaks;
mod limits;
mod login;
mod native;
mod others;
mod races;
mod revoked;
mod serial;
mod values;
