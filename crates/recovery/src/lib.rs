//! Decisions about recovery, as pure functions: time comes in as an argument, and nothing is done here.

pub mod schedule;
