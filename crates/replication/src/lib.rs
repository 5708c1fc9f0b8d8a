//! Replicated volumes.

pub mod attachment;
pub mod limits;
pub mod message;
pub mod record;
pub mod replica;
mod rules;
#[cfg(test)]
mod simulation;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod units;
