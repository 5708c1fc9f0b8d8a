//! What objects there are.

use super::Report;
use crate::error::{ErrorKind, Result};
use crate::ids::{PackId, PointId, WriterId};
use crate::layout::{self, ObjectName, RunId};
use crate::store::{ObjectInfo, Store, StoreErrorKind};
use std::collections::{BTreeMap, BTreeSet};

/// How many foreign objects are named.
const FOREIGN_EXAMPLES: usize = 10;

/// All objects at the place, told apart by their names.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    packs: BTreeMap<PackId, u64>,
    runs: BTreeMap<RunId, u64>,
    points: BTreeSet<PointId>,
    epochs: BTreeSet<u64>,
    repairs: BTreeSet<WriterId>,
    small: BTreeSet<String>,
    foreign: Vec<String>,
    objects: u64,
    bytes: u64,
}

/// Lists everything.
///
/// The repository's own folders are listed on their own first. A store may fail to list names that only a stranger can have
/// made; those must not keep the check from the repository. Recovery points come first of all: one that is published while the
/// check goes on may need packs that an earlier listing cannot have, so it is left to the next check.
pub(super) async fn survey(store: &Store) -> Result<Survey> {
    let mut survey = Survey::default();
    let points = store.list(&layout::domain_folder("points")).await?;
    let points: BTreeSet<&str> = points.iter().map(|object| object.name.as_str()).collect();
    let mut own = store.list("domains/").await?;
    own.retain(|object| {
        let is_new = !points.contains(object.name.as_str());
        !(is_new && matches!(layout::parse(&object.name), ObjectName::Point(_)))
    });
    own.extend(store.list(layout::EPOCHS).await?);
    match store.head(layout::CONFIG).await {
        Ok(size) => own.push(ObjectInfo { name: layout::CONFIG.to_owned(), size, modified: None }),
        Err(error) if error.kind == StoreErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    for object in &own {
        survey.add(object);
    }
    let own: BTreeSet<&str> = own.iter().map(|object| object.name.as_str()).collect();
    match store.list("").await.map_err(crate::Error::from) {
        // An object that came after the first listing is checked the next time.
        Ok(all) => survey.foreign.extend(
            all.into_iter()
                .map(|object| object.name)
                .filter(|name| !own.contains(name.as_str()) && layout::parse(name) == ObjectName::Foreign),
        ),
        Err(error) if error.kind() == ErrorKind::Invalid => {
            survey.foreign.push(format!("names that the store cannot list ({error})"));
        }
        Err(error) => return Err(error),
    }
    Ok(survey)
}

impl Survey {
    fn add(&mut self, object: &ObjectInfo) {
        match layout::parse(&object.name) {
            ObjectName::Pack(id) => _ = self.packs.insert(id, object.size),
            ObjectName::Run(id) => _ = self.runs.insert(id, object.size),
            ObjectName::Point(id) => _ = self.points.insert(id),
            ObjectName::Epoch(epoch) => {
                self.epochs.insert(epoch);
                self.small.insert(object.name.clone());
            }
            ObjectName::Repair(writer) => {
                self.repairs.insert(writer);
                self.small.insert(object.name.clone());
            }
            ObjectName::Config
            | ObjectName::Key(_)
            | ObjectName::Removal(..)
            | ObjectName::Pin(_)
            | ObjectName::Session(_)
            | ObjectName::Beat(..)
            | ObjectName::Collection(_)
            | ObjectName::Collected(_) => _ = self.small.insert(object.name.clone()),
            ObjectName::Foreign => {
                self.foreign.push(object.name.clone());
                return;
            }
        }
        self.objects += 1;
        self.bytes += object.size;
    }

    pub(super) fn report(&self) -> Report {
        Report {
            objects: self.objects,
            bytes: self.bytes,
            packs: self.packs.len() as u64,
            pack_bytes: self.packs.values().sum(),
            foreign: self.foreign.len() as u64,
            foreign_examples: self.foreign.iter().take(FOREIGN_EXAMPLES).cloned().collect(),
            ..Report::default()
        }
    }

    pub(super) fn has_config(&self) -> bool {
        self.small.contains(layout::CONFIG)
    }

    pub(super) fn epochs(&self) -> &BTreeSet<u64> {
        &self.epochs
    }

    /// The sessions that have repaired something.
    pub(crate) fn repairs(&self) -> &BTreeSet<WriterId> {
        &self.repairs
    }

    /// All others: configuration, epochs, keys, removals, pins, marks of repairs, and what sessions and collectors leave.
    pub(super) fn small_objects(&self) -> impl Iterator<Item = &str> {
        self.small.iter().map(String::as_str)
    }

    pub(super) fn points(&self) -> &BTreeSet<PointId> {
        &self.points
    }

    pub(super) fn runs(&self) -> impl Iterator<Item = RunId> + '_ {
        self.runs.keys().copied()
    }

    pub(crate) fn packs_with_lens(&self) -> impl Iterator<Item = (PackId, u64)> + '_ {
        self.packs.iter().map(|(id, len)| (*id, *len))
    }

    /// The length of a pack; none if it is not there.
    pub(crate) fn pack_len(&self, id: &PackId) -> Option<u64> {
        self.packs.get(id).copied()
    }
}
