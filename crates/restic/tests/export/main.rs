//! Exports, judged by Debian's restic: what it checks, restores and says must be what was stored.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod application;
mod faults;
mod support;
mod trees;
mod volumes;
