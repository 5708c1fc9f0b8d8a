//! The repository as its users see it, on every kind of store, good and bad.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod collecting;
mod crash;
mod damage;
mod faults;
mod fixture;
mod opening;
mod points;
mod s3;
mod space;
mod stores;
mod tables;
mod writing;
