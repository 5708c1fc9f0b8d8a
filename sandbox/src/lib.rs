//! Real Kubernetes on one machine, its faults, and servers for tests.

pub mod assets;
mod background;
pub mod control_plane;
pub mod fault_proxy;
pub mod populate;
pub mod s3;
pub mod skip;
