//! The repository as its users see it, on every kind of store, good and bad.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod accounting;
mod collecting;
mod conformance;
mod copies;
mod crash;
mod damage;
mod endless;
mod faults;
mod fixture;
mod google;
mod key_races;
mod keys;
mod kms;
#[path = "../shared/literals.rs"]
mod literals;
mod locks;
mod opening;
mod pins;
mod points;
mod repair;
mod s3;
mod servers;
mod space;
mod stores;
mod tables;
mod transport;
mod writing;
