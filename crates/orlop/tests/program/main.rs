//! The program as it is called. One binary, since each would have all of the product in it.

#![allow(clippy::unwrap_used, reason = "a test's helpers may panic as the test itself may")]

mod architecture;
mod arguments;
mod chart;
mod check;
mod cluster;
mod documents;
mod full_disks;
mod install;
mod keys;
mod kills;
mod manifests;
mod node;
mod operator;
mod prune;
mod repository;
mod retention;
mod scripted;
mod serve;
mod store;
mod support;
mod volumes;
mod way_out;
