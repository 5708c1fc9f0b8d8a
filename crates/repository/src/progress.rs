//! How long work tells how far it is.

/// What has been done since the last call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Files, or other things of the kind that the work goes over.
    pub files: u64,
    /// Bytes of content, as they are outside of the repository.
    pub bytes: u64,
    /// Bytes that were new to the repository.
    pub new_bytes: u64,
}

/// Receives how far work is; called often and from many threads, so it must be quick.
pub trait Progress: Send + Sync {
    /// Adds to what has been done.
    fn add(&self, done: Counters);

    /// Tells what there is to do in all; may come late, more than once, or never.
    fn total(&self, _total: Counters) {}
}

/// Progress that nobody looks at.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn add(&self, _done: Counters) {}
}
