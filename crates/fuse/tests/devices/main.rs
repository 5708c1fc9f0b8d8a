//! Block devices of the kernel: attaching and detaching them, file systems on them, and servers that are killed.
//!
//! They need root, FUSE and loop devices. Whatever a test makes, it takes away, also when it fails.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test's helpers may panic as the test may")]

mod support;

mod attach;
mod durability;
mod hold;
mod judges;
mod restart;
