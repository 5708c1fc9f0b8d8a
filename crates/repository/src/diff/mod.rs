//! What differs between two recovery points.
//!
//! Tables are walked side by side, and pages that both have are not read. Where extents differ, that may be because the same bytes are
//! stored otherwise, such as after a compaction; so what they stand for is read and compared, and only that.

mod bytes;
mod tree;
mod volume;

pub use self::tree::{Changed, Counts, FileChange, tree};
pub use self::volume::{VolumeDifference, volume};
