//! Web sessions, in the format of Express and in our own.

mod all;
mod answers;
mod client;
mod clients;
mod clocks;
mod devices;
mod endings;
mod express;
mod faults;
mod foreign;
mod halfway;
mod leaks;
mod limits;
mod login;
mod moves;
mod namespaces;
mod native;
mod others;
mod own;
mod races;
mod revoked;
mod serial;
mod together;
mod values;
