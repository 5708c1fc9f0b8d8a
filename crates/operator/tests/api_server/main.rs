//! The operator on real API servers. One binary, since each would have all of the operator in it.

#![allow(unreachable_pub, reason = "modules of a test binary have nowhere to be reached from")]
#![allow(clippy::unwrap_used, reason = "a test's helpers may panic as the test itself may")]

mod backup;
mod clone;
mod crash;
mod http;
mod leader;
mod location;
mod manifests;
mod many;
mod monitoring;
mod restore;
mod rules;
mod schedule;
mod snapshots;
mod stores;
mod support;
mod trust;
