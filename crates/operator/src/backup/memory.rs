//! What is remembered of runs between two reconciles. Only to save work: whoever forgets it works it out again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use super::parents::Parents;
use super::store::Draft;

/// Runs that are remembered. More at once work more slowly, not wrongly.
const KEPT: usize = 256;

#[derive(Default)]
struct Run {
    draft: Option<Arc<Draft>>,
    parents: Option<Arc<Parents>>,
    /// When it was last looked how far its movers are.
    looked: Option<Timestamp>,
    /// When it was last looked after what its rules hold.
    beat: Option<Timestamp>,
}

/// What is remembered, by the uid of the run.
#[derive(Default)]
pub(crate) struct Memory(Mutex<HashMap<String, Run>>);

impl Memory {
    fn runs(&self) -> MutexGuard<'_, HashMap<String, Run>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, uid: &str, change: impl FnOnce(&mut Run)) {
        let mut runs = self.runs();
        if runs.len() >= KEPT && !runs.contains_key(uid) {
            runs.clear();
        }
        change(runs.entry(uid.to_owned()).or_default());
    }

    /// The recovery point that is stored and not published yet.
    pub(super) fn draft(&self, uid: &str) -> Option<Arc<Draft>> {
        self.runs().get(uid)?.draft.clone()
    }

    pub(super) fn keep_draft(&self, uid: &str, draft: Draft) {
        self.change(uid, |run| run.draft = Some(Arc::new(draft)));
    }

    /// What the volumes of the run had before.
    pub(super) fn parents(&self, uid: &str) -> Option<Arc<Parents>> {
        self.runs().get(uid)?.parents.clone()
    }

    pub(super) fn keep_parents(&self, uid: &str, parents: Arc<Parents>) {
        self.change(uid, |run| run.parents = Some(parents));
    }

    /// Whether it is time to look how far the movers of the run are; if so, the next time is `interval` later. How far they are is written
    /// down, and what is written wakes the run, so without this one look would follow the other at once.
    pub(super) fn is_time_to_look(&self, uid: &str, now: Timestamp, interval: Duration) -> bool {
        let due = is_due(self.runs().get(uid).and_then(|run| run.looked), now, interval);
        if due {
            self.change(uid, |run| run.looked = Some(now));
        }
        due
    }

    /// Whether it is time to look after what the rules of the run hold; if so, the next time is `interval` later.
    pub(super) fn is_time_to_beat(&self, uid: &str, now: Timestamp, interval: Duration) -> bool {
        let due = is_due(self.runs().get(uid).and_then(|run| run.beat), now, interval);
        if due {
            self.change(uid, |run| run.beat = Some(now));
        }
        due
    }

    /// The run is over.
    pub(super) fn forget(&self, uid: &str) {
        self.runs().remove(uid);
    }
}

fn is_due(last: Option<Timestamp>, now: Timestamp, interval: Duration) -> bool {
    last.is_none_or(|last| now < last || now.duration_since(last).unsigned_abs() >= interval)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn movers_are_asked_how_far_they_are_now_and_then() {
        let memory = Memory::default();
        let look = |uid, milliseconds| {
            let now = Timestamp::from_millisecond(milliseconds).expect("a small number of milliseconds is a timestamp");
            memory.is_time_to_look(uid, now, Duration::from_secs(2))
        };
        assert!(look("a", 1_000));
        assert!(!look("a", 1_100), "what was written wakes the run at once");
        assert!(look("b", 1_100), "each run has its own time");
        assert!(!look("a", 2_999));
        assert!(look("a", 3_000));
        assert!(look("a", 500), "a clock that was set back does not stop it");
    }
}
