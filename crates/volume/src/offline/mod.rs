//! What needs no open pool: checking, dumping and repairing one.

mod check;
mod survey;

pub use check::{Checked, Problem, check};
pub(crate) use survey::{Survey, survey};
