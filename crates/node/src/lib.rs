//! The volumes of a node: the pools that they lie in, and the block devices that they are served as.

pub mod crypt;
pub mod qos;
