//! What the proxy's connections and the test share: the plan in use and the log.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::plan::{Decisions, Fault, Plan};
use super::request::{RequestRecord, Verb};

/// Requests that the log keeps; older ones are dropped. A test that makes more than this does not look at single ones.
const LONGEST_LOG: usize = 100_000;

#[derive(Debug)]
pub(super) struct State {
    inner: Mutex<Inner>,
    /// Counts changes of the plan; whoever delays a request waits for the next.
    plans: watch::Sender<u64>,
    /// Counts changes of the log.
    log: watch::Sender<u64>,
}

#[derive(Debug)]
struct Inner {
    decisions: Decisions,
    records: VecDeque<RequestRecord>,
    /// The number of the last request.
    last: u64,
}

impl State {
    pub(super) fn new(plan: Plan) -> Self {
        let decisions = Decisions::new(plan);
        Self {
            inner: Mutex::new(Inner { decisions, records: VecDeque::new(), last: 0 }),
            plans: watch::Sender::new(0),
            log: watch::Sender::new(0),
        }
    }

    /// Every change is whole before the lock is given back, so a panic elsewhere does not harm it.
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_plan(&self, plan: Plan) {
        self.inner().decisions = Decisions::new(plan);
        self.plans.send_modify(|count| *count += 1);
    }

    pub(super) fn plans(&self) -> watch::Receiver<u64> {
        self.plans.subscribe()
    }

    /// Enters a request into the log and decides its fate.
    pub(super) fn admit(&self, verb: Verb, path: &str) -> (u64, Option<Fault>) {
        let mut inner = self.inner();
        let fault = inner.decisions.decide(verb, path);
        inner.last += 1;
        let number = inner.last;
        if inner.records.len() == LONGEST_LOG {
            inner.records.pop_front();
        }
        let described = fault.as_ref().map(ToString::to_string);
        inner.records.push_back(RequestRecord {
            number,
            verb,
            path: path.to_owned(),
            fault: described,
            upstream_status: None,
        });
        drop(inner);
        self.log.send_modify(|count| *count += 1);
        (number, fault)
    }

    /// Enters what the API server answered.
    pub(super) fn answered(&self, number: u64, status: u16) {
        let mut inner = self.inner();
        if let Ok(at) = inner.records.binary_search_by_key(&number, |record| record.number) {
            inner.records[at].upstream_status = Some(status);
        }
        drop(inner);
        self.log.send_modify(|count| *count += 1);
    }

    pub(super) fn log(&self) -> watch::Receiver<u64> {
        self.log.subscribe()
    }

    pub(super) fn requests(&self) -> Vec<RequestRecord> {
        self.inner().records.iter().cloned().collect()
    }

    pub(super) fn find(&self, mut wanted: impl FnMut(&RequestRecord) -> bool) -> Option<RequestRecord> {
        self.inner().records.iter().find(|record| wanted(record)).cloned()
    }
}
