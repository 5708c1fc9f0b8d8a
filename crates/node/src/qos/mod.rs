//! Limits of volumes, and fair sharing between the volumes of a pool.
//!
//! ```text
//! front end of a volume ─► Shared ──────────── nothing waits ──────────────► device
//!                            │ its limit is reached, or the pool is full       ▲
//!                            ▼                                                 │
//!                          queue ─► tokens there? ─► its turn? ─► room? ───────┘
//! ```
//! A [`Scheduler`] stands for what the volumes of a pool share. It lets a bounded number of requests be under way in the pool, and gives room
//! that becomes free to the volumes in turn, by bytes: so a volume with a queue of 256 does not hold up one with a queue of one, but by what
//! is already under way. Where there is room, and a volume is within its [`Limits`], its request goes straight through.
//!
//! # What counts
//!
//! | request | waits | counts |
//! |---|---|---|
//! | read, write | for tokens, its turn and room | one I/O and its bytes, at least 4096 |
//! | flush | never: what holds up a flush, holds up whole file systems | one I/O, up to a debt of one second |
//! | discard, write zeroes | never: they change maps, and give room back | nothing |
//! | statuses, contexts | never | nothing |
//!
//! What waits here is bounded by the front ends, each of which has at most so many requests and bytes under way.
//!
//! A volume that is suspended, since its replicas cannot be reached or its pool is full, does not suspend the others: what is under way for
//! longer than a second takes up no room any more.
//!
//! # What it does not do
//!
//! Room is never kept free for who might come. So a volume that has fewer requests open than its part of the room gets what it would get alone,
//! less the wait for one request of somebody else, and not half of the pool; a queue of 64 in the device is in its way like in anybody's.

mod bucket;
mod machine;
mod rules;
mod scheduler;
mod shared;
mod under_way;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

pub use machine::Bounds;
pub use scheduler::Scheduler;
pub use shared::Shared;

use serde::{Deserialize, Serialize};
use std::num::NonZeroU64;

/// What a volume may have each second. It may have, at once, what it did not use of the last second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limits {
    /// Requests: reads, writes and flushes, each counting one whatever its length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iops: Option<NonZeroU64>,
    /// Bytes read and written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<NonZeroU64>,
}
