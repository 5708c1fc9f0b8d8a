//! draft
#![allow(dead_code)]
mod checksum;
mod disk;
mod error;
mod format;
mod memory;
mod space;
mod units;
pub use disk::{Disk, FileDisk};
