//! Nodes with pools and block devices, the controller, and a real API server between them.

mod life;
mod world;
