//! The driver over its socket, as orchestrators use it, with real devices and file systems: the tables of errors of the specification, and its rules
//! about repetition.

#![allow(clippy::unwrap_used, reason = "a test's helpers may panic as the test may")]

mod controller;
mod crashes;
mod groups;
mod identity;
mod input;
mod metadata;
mod node;
mod sanity;
mod snapshots;
mod steps;
mod world;
