//! What is remembered of runs between two reconciles. Only to save work: whoever forgets it works it out again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::parents::Parents;
use super::store::Draft;

/// Runs that are remembered. More at once work more slowly, not wrongly.
const KEPT: usize = 256;

#[derive(Default)]
struct Run {
    draft: Option<Arc<Draft>>,
    parents: Option<Arc<Parents>>,
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

    /// The draft turned out to be of no use.
    pub(super) fn drop_draft(&self, uid: &str) {
        self.change(uid, |run| run.draft = None);
    }

    /// The run is over.
    pub(super) fn forget(&self, uid: &str) {
        self.runs().remove(uid);
    }
}
