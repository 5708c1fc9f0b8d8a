//! Whether a flush has anything to do.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts changes, and up to which of them all are durable.
///
/// It begins dirty: another process may have written through the same connection before.
#[derive(Debug)]
pub(crate) struct Dirt {
    changes: AtomicU64,
    durable: AtomicU64,
}

impl Default for Dirt {
    fn default() -> Self {
        Self { changes: AtomicU64::new(1), durable: AtomicU64::new(0) }
    }
}

impl Dirt {
    /// Something has changed, of which nobody was told yet.
    pub(crate) fn add(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
    }

    /// What a flush that begins now will make durable; nothing if all is.
    pub(crate) fn look(&self) -> Option<u64> {
        let changes = self.changes.load(Ordering::SeqCst);
        (self.durable.load(Ordering::SeqCst) < changes).then_some(changes)
    }

    /// A flush has ended well that began with this.
    pub(crate) fn clean(&self, changes: u64) {
        self.durable.fetch_max(changes, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flush_is_free_only_when_every_change_before_it_is_durable() {
        let dirt = Dirt::default();
        let first = dirt.look().expect("an earlier process may have written");
        dirt.clean(first);
        assert_eq!(dirt.look(), None);
        dirt.add();
        let second = dirt.look().unwrap();
        // While it is flushed, there is another change, which that flush does not cover.
        dirt.add();
        dirt.clean(second);
        let third = dirt.look().expect("the last change is not durable");
        // Flushes may end in another order than they began in.
        dirt.clean(third);
        dirt.clean(second);
        assert_eq!(dirt.look(), None);
    }
}
