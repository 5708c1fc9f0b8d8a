//! The driver over its socket, as orchestrators use it, with real devices and file systems: the tables of errors of the specification, and its rules
//! about repetition.

mod controller;
mod crashes;
mod groups;
mod identity;
mod input;
mod metadata;
mod node;
mod sanity;
mod snapshots;
mod world;
