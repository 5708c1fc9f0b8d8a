//! The care of a repository with trees and volumes in it: copies, differences, repairs.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod copies;
mod differences;
#[path = "../shared/literals.rs"]
mod literals;
mod living;
mod random;
mod support;
