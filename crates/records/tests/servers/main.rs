//! Records in servers that were not written here: an API server of Kubernetes, and etcd.

#![allow(clippy::unwrap_used, reason = "a test's helpers may panic as the test may")]

mod etcd;
mod etcd_faults;
mod kubernetes;
mod kubernetes_faults;
mod support;
