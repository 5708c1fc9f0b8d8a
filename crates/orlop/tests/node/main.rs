//! `orlop node` and `orlop volume`: volumes as the programs of others see them.
#![allow(clippy::unwrap_used, reason = "a test may end anywhere")]

#[path = "../support/mod.rs"]
mod support;

mod backup;
mod devices;
mod encrypted;
mod exports;
mod offline;
mod postgres;
mod watched;
mod world;
