//! Turns of movers: how many work at once in the cluster, on a node and for a location, and who is next.
//!
//! What works is seen in the cluster, by a watch; so an operator that takes over from another finds the movers of the other. Only who waits is remembered, and
//! forgotten with the operator: whoever waits asks again.

mod book;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};

use crate::mover_pod::{self, LOCATION_ANNOTATION};
pub use book::Bounds;
pub(crate) use book::Room;
use book::{Ask, Book, Movers, Wait};

/// So many times somebody who waits may not ask until he is forgotten.
const PATIENCE: u32 = 8;

/// Who is next.
pub(crate) struct Turns {
    bounds: Bounds,
    patience: Duration,
    movers: Mutex<Store<Pod>>,
    book: Mutex<Book>,
}

impl Turns {
    /// Nobody gets a turn until [`Turns::watch`] has seen who works. Who waits asks every `poll`, or when he is next.
    pub(crate) fn new(bounds: Bounds, poll: Duration) -> Self {
        let (movers, _) = reflector::store();
        Self { bounds, patience: poll * PATIENCE, movers: Mutex::new(movers), book: Mutex::default() }
    }

    /// Follows the movers of the cluster, for ever; anew each time that this operator becomes the one that works.
    pub(crate) async fn watch(&self, client: Client) {
        let (store, writer) = reflector::store();
        *self.movers.lock().unwrap_or_else(PoisonError::into_inner) = store;
        let movers = watcher::Config::default().labels(mover_pod::SELECTOR);
        let events = watcher(Api::<Pod>::all(client), movers).default_backoff().reflect(writer);
        events
            .for_each(|event| {
                if let Err(error) = event {
                    tracing::warn!(%error, "the movers of the cluster are not followed at the moment");
                }
                std::future::ready(())
            })
            .await;
    }

    /// Asks for the turn of a mover; else says for what it waits.
    pub(crate) fn ask(&self, mover: (&str, &str), room: Room, run: &str, now: Timestamp) -> Result<(), String> {
        if self.store().wait_until_ready().now_or_never().is_none_or(|ready| ready.is_err()) {
            return Err(Wait::Unknown.to_string());
        }
        let ask = Ask { id: (mover.0.to_owned(), mover.1.to_owned()), room, run: run.to_owned() };
        let bounds = (&self.bounds, self.patience);
        self.book().ask(&self.seen(), ask, bounds, now).map_err(|wait| wait.to_string())
    }

    /// The runs of a kind that wait and are next: to be looked at when a mover has changed.
    pub(crate) fn next<K: Resource<DynamicType = ()>>(&self) -> Vec<ObjectRef<K>> {
        let runs = self.book().next(&self.seen(), &self.bounds);
        runs.iter().filter_map(|run| mover_pod::parse_run(run)).collect()
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn store(&self) -> Store<Pod> {
        self.movers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn seen(&self) -> Movers {
        let mut movers = Movers::default();
        for pod in self.store().state() {
            let id = (pod.namespace().unwrap_or_default(), pod.name_any());
            if !mover_pod::has_ended(&pod) {
                movers.working.insert(id.clone(), room_of(&pod));
            }
            movers.known.insert(id);
        }
        movers
    }
}

/// What a mover takes room of.
fn room_of(pod: &Pod) -> Room {
    Room {
        namespace: pod.namespace().unwrap_or_default(),
        location: pod.annotations().get(LOCATION_ANNOTATION).cloned().unwrap_or_default(),
        node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
    }
}
