//! All waiting times and sizes of the protocol.

use crate::units::Span;

/// What an attachment waits for, and how much it takes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// How long a replica's confirmation of an epoch lets an attachment serve, from when it was asked for. All attachments of a cluster must have the same.
    /// Shorter: a forced attachment is faster, and I/O suspends at shorter silences.
    pub lease: Span,
    /// By how much two clocks can differ over one lease, and what a process needs from looking at its clock to answering. Within it, nobody reads
    /// stale data; beyond it, writes are still safe, since epochs and not clocks fence them.
    pub clock_bound: Span,
    /// After how long without an answer a replica is taken out of the in-sync set, if the others are enough.
    pub member_deadline: Span,
    /// After how long without an answer a request is sent again.
    pub retry: Span,
    /// After how long the record store is asked again when it refused.
    pub record_retry: Span,
    /// After how long without an answer of the record store its answer is given up, and the record read.
    pub record_deadline: Span,
    /// How long a stale replica is left alone after a failed attempt to bring it back.
    pub join_pause: Span,
    /// Operations that an attachment holds at most, those under way too; more are refused at once, so whoever serves the device lets them wait there.
    pub most_operations: usize,
    /// Changes that are under way to one replica at most. It remembers so many of them to know those that come twice.
    pub most_changes: u64,
    /// Blocks that are compared and copied at once; writes to them wait meanwhile.
    pub copy_blocks: u64,
    /// Pieces of so many blocks that are under way at once to a replica that is brought back.
    pub copies_at_once: usize,
    /// Ranges in one answer to what has changed.
    pub most_ranges: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            lease: Span::from_millis(5000),
            clock_bound: Span::from_millis(500),
            member_deadline: Span::from_millis(3000),
            retry: Span::from_millis(500),
            record_retry: Span::from_millis(500),
            record_deadline: Span::from_millis(3000),
            join_pause: Span::from_millis(5000),
            most_operations: 1024,
            most_changes: MOST_CHANGES,
            copy_blocks: 256,
            copies_at_once: 4,
            most_ranges: 1024,
        }
    }
}

/// Changes that a replica takes on at most, from one attachment, before the oldest of them is finished. More is an error of the attachment; a
/// replica's memory for them is bounded by it: 64 KiB for each volume.
pub const MOST_CHANGES: u64 = 4096;
