//! Whose turn it is. Pure: it is told which movers work, who asks and when.
//!
//! # Rules
//!
//! * No more movers work at once than [`Bounds`] say: in the cluster, on a node, into or out of a location.
//! * A free place is never kept from whoever asks, unless others who wait have a better right to it.
//! * Of two namespaces that wait, the one with fewer movers at work has the better right; of equals, the one that waits longer. So an application with a thousand
//!   volumes, or one whose movers hang, delays nobody but itself.
//! * Who does not ask again is forgotten: a run that was deleted, or that cannot use its turn, takes nobody's place.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;

/// How many movers work at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// In all of the cluster: what its network and the API server bear.
    pub cluster: usize,
    /// Of one location: what its store bears.
    pub location: usize,
    /// On one node: beside movers there is the application.
    pub node: usize,
}

/// A mover, by the namespace and the name of its pod.
pub(crate) type Id = (String, String);

/// What a mover takes room of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Room {
    /// The namespace of its application.
    pub namespace: String,
    /// Its location, by namespace and name.
    pub location: String,
    /// Its node, as soon as that is known.
    pub node: Option<String>,
}

/// Who asks.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub id: Id,
    pub room: Room,
    /// Kind, namespace and name of the run, as movers bear them.
    pub run: String,
}

/// The movers that are seen in the cluster.
#[derive(Debug, Default)]
pub(crate) struct Movers {
    /// Those that work.
    pub working: BTreeMap<Id, Room>,
    /// All, also those that have ended.
    pub known: BTreeSet<Id>,
}

/// Why somebody waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    Cluster,
    Location(String),
    Node(String),
    Unknown,
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cluster => write!(f, "waits for its turn: as many movers as may work at once in the cluster do"),
            Self::Location(location) => {
                write!(f, "waits for its turn: as many movers as may use the location {location} at once do")
            }
            Self::Node(node) => {
                write!(f, "waits for its turn: as many movers as may work at once on the node {node} do")
            }
            Self::Unknown => write!(f, "waits until it is known which movers work already"),
        }
    }
}

/// Who was let in and is not seen to work yet, and who waits.
#[derive(Debug, Default)]
pub(crate) struct Book {
    let_in: BTreeMap<Id, (Room, Timestamp)>,
    waiting: BTreeMap<Id, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    room: Room,
    run: String,
    since: Timestamp,
    asked: Timestamp,
}

/// For how long somebody who was let in may stay unseen: the pod is made at once, and the watch is late at most.
const UNSEEN: Duration = Duration::from_secs(30);

impl Book {
    /// Whether a mover may start. Who waits is forgotten when he has not asked for as long as `patience`.
    pub(crate) fn ask(
        &mut self,
        movers: &Movers,
        ask: Ask,
        (bounds, patience): (&Bounds, Duration),
        now: Timestamp,
    ) -> Result<(), Wait> {
        self.let_in.retain(|id, (_, at)| !movers.known.contains(id) && since(*at, now) < UNSEEN);
        self.waiting.retain(|id, waiting| !movers.known.contains(id) && since(waiting.asked, now) < patience);
        let Ask { id, room, run } = ask;
        if self.let_in.contains_key(&id) || movers.known.contains(&id) {
            return Ok(());
        }
        let begun = self.waiting.get(&id).map_or(now, |waiting| waiting.since);
        self.waiting.insert(id.clone(), Waiting { room: room.clone(), run, since: begun, asked: now });
        self.may(&self.taken(movers), (&room, begun), bounds)?;
        self.waiting.remove(&id);
        self.let_in.insert(id, (room, now));
        Ok(())
    }

    /// The runs that wait and are next, the one with the best right first: as many as could start now, and one more.
    pub(crate) fn next(&self, movers: &Movers, bounds: &Bounds) -> Vec<String> {
        let taken = self.taken(movers);
        let right = |waiting: &&Waiting| (at_work(&taken, &waiting.room.namespace), waiting.since);
        let mut waiting: Vec<&Waiting> = self.waiting.values().collect();
        waiting.sort_by_cached_key(right);
        let free = bounds.cluster.saturating_sub(taken.len());
        let mut runs: Vec<String> = waiting.into_iter().take(free + 1).map(|waiting| waiting.run.clone()).collect();
        runs.dedup();
        runs
    }

    fn taken<'a>(&'a self, movers: &'a Movers) -> Vec<&'a Room> {
        let unseen = self.let_in.iter().filter(|(id, _)| !movers.known.contains(*id));
        movers.working.values().chain(unseen.map(|(_, (room, _))| room)).collect()
    }

    /// Looks from the narrowest place to the widest: who waits for a node says so, and does not stand in the way of those who wait for others.
    fn may(&self, taken: &[&Room], me: (&Room, Timestamp), bounds: &Bounds) -> Result<(), Wait> {
        let (room, _) = me;
        let count = |alike: &dyn Fn(&Room) -> bool| taken.iter().filter(|room| alike(room)).count();
        let on_node = |node: &str| bounds.node.saturating_sub(count(&|room| room.node.as_deref() == Some(node)));
        let at_location = |location: &str| bounds.location.saturating_sub(count(&|room| room.location == location));
        let could_start = |other: &Room| {
            other.node.as_deref().is_none_or(|node| on_node(node) > 0) && at_location(&other.location) > 0
        };
        let better =
            |alike: &dyn Fn(&Room) -> bool| self.better(taken, me, &|other| could_start(other) && alike(other));
        if let Some(node) = &room.node
            && better(&|other| other.node.as_ref() == Some(node)) >= on_node(node)
        {
            return Err(Wait::Node(node.clone()));
        }
        if better(&|other| other.location == room.location) >= at_location(&room.location) {
            return Err(Wait::Location(room.location.clone()));
        }
        if better(&|_| true) >= bounds.cluster.saturating_sub(taken.len()) {
            return Err(Wait::Cluster);
        }
        Ok(())
    }

    /// How many namespaces that wait for such a place have a better right to it.
    fn better(&self, taken: &[&Room], (room, begun): (&Room, Timestamp), wants_such: &dyn Fn(&Room) -> bool) -> usize {
        let mine = (at_work(taken, &room.namespace), begun);
        let others = self.waiting.values().filter(|other| other.room.namespace != room.namespace);
        let better = others
            .filter(|other| wants_such(&other.room) && (at_work(taken, &other.room.namespace), other.since) < mine);
        better.map(|other| other.room.namespace.as_str()).collect::<BTreeSet<_>>().len()
    }
}

fn at_work(taken: &[&Room], namespace: &str) -> usize {
    taken.iter().filter(|room| room.namespace == namespace).count()
}

fn since(then: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or_default()
}

#[cfg(test)]
#[path = "book_tests.rs"]
mod tests;
