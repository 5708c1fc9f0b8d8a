//! Nodes with pools and block devices, the controller, and a real API server between them.

#![allow(clippy::unwrap_used, reason = "a test's helpers may panic as the test may")]

mod life;
mod monitor;
mod ranges;
mod snapshots;
mod world;
