//! draft
#![allow(dead_code)]
mod catalog;
mod checksum;
mod disk;
mod engine;
mod error;
mod format;
mod map;
mod memory;
mod offline;
#[cfg(test)]
mod simulation;
mod space;
mod units;
pub use disk::{Disk, FileDisk};
