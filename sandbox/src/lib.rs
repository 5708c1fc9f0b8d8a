//! Real Kubernetes on one machine, its faults, and servers for tests.

pub mod assets;
pub mod control_plane;
pub mod skip;
