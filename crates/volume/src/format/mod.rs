//! The bytes of a pool, as `docs/formats/volume-store.md` says them. Nothing here reads or writes a disk.

pub(crate) mod bytes;
pub(crate) mod catalog;
pub(crate) mod layout;
pub(crate) mod node;
pub(crate) mod record;
pub(crate) mod superblock;
