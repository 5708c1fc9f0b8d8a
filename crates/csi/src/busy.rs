//! What calls are under way on, so that no two work on the same.
//!
//! An orchestrator has one call at a time under way for a volume; one that has lost its memory may send a second. That one is told to come again, as the
//! specification says, and does not wait: who waits here would be given up by the orchestrator and repeated, and then three would wait.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tonic::Status;

#[derive(Default, Clone)]
pub(crate) struct Busy(Arc<Mutex<BTreeSet<String>>>);

/// Nobody else works on these until it is dropped.
pub(crate) struct Held {
    keys: Vec<String>,
    busy: Busy,
}

impl Busy {
    /// Takes all of these or none.
    pub(crate) fn hold(&self, keys: impl IntoIterator<Item = String>) -> Result<Held, Status> {
        let mut under_way = self.lock();
        let keys: BTreeSet<String> = keys.into_iter().collect();
        if let Some(key) = keys.iter().find(|key| under_way.contains(*key)) {
            return Err(Status::aborted(format!("another call works on the {key}; ask again when it has ended")));
        }
        under_way.extend(keys.iter().cloned());
        drop(under_way);
        Ok(Held { keys: keys.into_iter().collect(), busy: self.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut under_way = self.busy.lock();
        for key in &self.keys {
            under_way.remove(key);
        }
    }
}

/// How a volume is held.
pub(crate) fn volume(id: &str) -> String {
    format!("volume {id}")
}

/// How a snapshot, or a group of them, is held.
pub(crate) fn snapshot(id: &str) -> String {
    format!("snapshot {id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_held_or_none() {
        let busy = Busy::default();
        let held = busy.hold([volume("a")]).unwrap();
        let refused = busy.hold([volume("b"), volume("a")]).err().unwrap();
        assert!(refused.code() == tonic::Code::Aborted && refused.message().contains("volume a"), "{refused}");
        let other = busy.hold([volume("b"), snapshot("a")]).unwrap();
        drop(held);
        assert!(busy.hold([volume("a")]).is_ok() && busy.hold([volume("b")]).is_err());
        drop(other);
        assert!(busy.hold([volume("b")]).is_ok());
    }
}
