//! The way out: recovery points as snapshots of a true restic repository, which stock `restic` checks and restores.
//!
//! [`format`] writes the format and knows nothing of Orlop; [`export()`] brings recovery points into it. docs/guide/way-out.md says what
//! becomes what.

mod export;
pub mod format;

pub use export::{Error, Exported, Options, export};
