//! Restores.
#![allow(dead_code)]
mod inventory;
mod validate;
mod volume;
