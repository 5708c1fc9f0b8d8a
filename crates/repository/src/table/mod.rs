//! Tables: immutable sorted maps of byte keys to byte values, stored as pages in blobs.
//!
//! A table is a tree of pages written from the bottom up. Where a page ends depends only on the entries in it, so that equal runs
//! of entries give equal pages, and a table that differs little from its parent shares most pages with it. One structure for
//! four uses: file trees, the extents of a volume, the objects of an application, and its ledger.

mod builder;
mod differences;
mod page;
mod parent;
mod reader;
mod rebuild;

pub use builder::Builder;
pub use differences::{Difference, differences};
pub use reader::Reader;

pub(crate) use page::Page;
use reader::child_of;
pub(crate) use reader::{Bounds, read_page};
pub(crate) use rebuild::Rebuild;

/// The longest key, in bytes.
pub const MAX_KEY_LEN: usize = 64 << 10;
/// The longest value, in bytes.
pub const MAX_VALUE_LEN: usize = 8 << 20;
/// How many levels of inner pages a table has at most. Real ones have up to five; the longest keys need more.
pub const MAX_HEIGHT: u8 = 24;
