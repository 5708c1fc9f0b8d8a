//! What needs no open pool: checking, dumping and repairing one.

mod check;
mod dump;
mod repair;
mod survey;

pub use check::{Checked, Problem, check};
#[cfg(test)]
pub(crate) use check::{find, find_leaf};
pub use dump::dump;
pub use repair::{Repaired, repair};
