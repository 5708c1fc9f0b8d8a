//! Volumes and streams, from end to end, against a model: an image in memory.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test's helpers may panic as the test may")]

mod access_store;
#[path = "../shared/literals.rs"]
mod literals;
mod support;

mod access;
mod cases;
mod random;
mod streams;
