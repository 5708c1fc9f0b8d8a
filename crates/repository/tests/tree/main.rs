//! File trees with real files: what goes in comes out, and what cannot is said.

#![allow(clippy::unwrap_used, reason = "a test's helpers may panic as the test may")]

mod content;
mod hostile;
mod incremental;
mod kinds;
#[path = "../shared/literals.rs"]
mod literals;
mod random;
mod shapes;
mod support;
mod trouble;
