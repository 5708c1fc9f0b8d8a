//! The server over sockets: by a client that says anything, and by the clients of others.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test's helpers may panic as the test may")]

mod client;
mod memory;

mod contexts;
mod encrypted;
mod handshake;
mod hostile;
mod judges;
mod remote;
mod requests;
