//! Restores.
#![allow(dead_code)]
pub(crate) mod volume;
