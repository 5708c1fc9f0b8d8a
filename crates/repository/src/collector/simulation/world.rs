//! A store and the network before it.
//!
//! The fault model. A request takes effect at any time after it was sent. Its answer may be lost: then the request is repeated, as `Store`
//! repeats it, and the first one may still take effect at any time later, even when its process is dead. A listing is not of one
//! moment. A process may be stopped for any time, and go on; it may die. The clock of the store runs in leaps of minutes or hours, and
//! may jump back. Not modelled: a store that forgets what it acknowledged, and one that lets two creations of one name succeed.

use super::random::Random;
use crate::collector::machine::{Answer, Folder, Listed, Object, Operation};
use crate::ids::{PackId, PointId, SessionId, WriterId};
use crate::layout::ObjectName;
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

/// The store.
#[derive(Debug)]
pub(super) struct World {
    pub(super) objects: BTreeMap<ObjectName, (Object, Timestamp)>,
    pub(super) time: Timestamp,
    writers: u32,
}

/// A request on its way.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) operation: Operation,
    /// It was sent before, so what it meets may be its own.
    pub(super) repeated: bool,
    /// What a listing has found so far, and up to where.
    listed: Option<(Vec<Listed>, ObjectName)>,
}

impl Request {
    pub(super) fn new(operation: Operation) -> Self {
        Self { operation, repeated: false, listed: None }
    }

    /// The same request, sent once more.
    pub(super) fn again(&self) -> Self {
        Self { repeated: true, ..Self::new(self.operation.clone()) }
    }
}

impl World {
    pub(super) fn new() -> Self {
        let time = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(24 * 365);
        let epoch = (Object::Epoch(1), time);
        Self { objects: BTreeMap::from([(ObjectName::Epoch(1), epoch)]), time, writers: 0 }
    }

    /// Lets a request take effect; none when it needs more time.
    pub(super) fn perform(&mut self, request: &mut Request, random: &mut Random) -> Option<Answer> {
        Some(match request.operation.clone() {
            Operation::List(folder) => return self.list(folder, request, random),
            Operation::Create(object) => self.create(object, request.repeated),
            Operation::CreateOnce(object) => self.create(object, false),
            Operation::Read(name) | Operation::Glance(name) => match self.objects.get(&name) {
                Some((object, _)) => Answer::Found(object.clone()),
                None => Answer::Absent,
            },
            Operation::Follow(id) => self.follow(&id),
            Operation::Delete(name) => self.delete(&name),
            Operation::DeletePack(pack) => self.delete(&ObjectName::Pack(pack.id)),
            Operation::Now => Answer::Time(Some(self.time)),
            Operation::NewWriter => {
                self.writers += 1;
                let mut writer = [0; 12];
                writer[..4].copy_from_slice(&self.writers.to_be_bytes());
                Answer::Writer(WriterId(writer))
            }
            Operation::Each(_) | Operation::Announce(_) => unreachable!("they are no requests"),
        })
    }

    fn create(&mut self, object: Object, repeated: bool) -> Answer {
        let name = object.name();
        match self.objects.get(&name) {
            Some((there, _)) if repeated && *there == object => Answer::Created,
            Some(_) => Answer::Exists,
            None => {
                self.objects.insert(name, (object, self.time));
                Answer::Created
            }
        }
    }

    fn delete(&mut self, name: &ObjectName) -> Answer {
        self.objects.remove(name);
        Answer::Deleted
    }

    fn follow(&self, id: &PointId) -> Answer {
        match self.objects.get(&ObjectName::Point(id.clone())) {
            Some((Object::Point(point), _)) => {
                let lost = point.packs.iter().find(|pack| !self.objects.contains_key(&ObjectName::Pack(**pack)));
                match lost {
                    Some(pack) => Answer::Damaged(format!("{pack} is missing")),
                    None => Answer::Refers(point.packs.clone()),
                }
            }
            Some(_) => Answer::Damaged("no point".to_owned()),
            None => Answer::Absent,
        }
    }

    /// Lists in two parts, between which anything may happen.
    fn list(&self, folder: Folder, request: &mut Request, random: &mut Random) -> Option<Answer> {
        let fits = |name: &ObjectName| match name {
            ObjectName::Epoch(_) => folder == Folder::Epochs,
            ObjectName::Session(_) => folder == Folder::Sessions,
            ObjectName::Beat(..) => folder == Folder::Beats,
            ObjectName::Point(_) => folder == Folder::Points,
            ObjectName::Pack(_) => folder == Folder::Packs,
            ObjectName::Run(_) => folder == Folder::Runs,
            ObjectName::Repair(_) => folder == Folder::Repairs,
            ObjectName::Collection(_) | ObjectName::Collected(_) => folder == Folder::Collections,
            _ => false,
        };
        let info = |(name, (_, modified)): (&ObjectName, &(Object, Timestamp))| Listed {
            name: name.clone(),
            bytes: 1,
            modified: Some(*modified),
        };
        let all: Vec<_> = self.objects.iter().filter(|(name, _)| fits(name)).map(info).collect();
        match request.listed.take() {
            Some((mut first, up_to)) => {
                first.extend(all.into_iter().filter(|object| object.name > up_to));
                Some(Answer::Listed(first))
            }
            None if all.len() < 2 || random.chance(50) => Some(Answer::Listed(all)),
            None => {
                let first = all[..1 + random.below(all.len() - 1)].to_vec();
                let up_to = first[first.len() - 1].name.clone();
                request.listed = Some((first, up_to));
                None
            }
        }
    }

    pub(super) fn counts(&self, sessions: &[SessionId]) -> bool {
        !sessions.is_empty() && sessions.iter().all(|id| self.objects.contains_key(&ObjectName::Session(*id)))
    }

    /// The points that count, with their packs.
    pub(super) fn counting(&self) -> BTreeMap<PointId, Vec<PackId>> {
        let points = self.objects.values().filter_map(|(object, _)| match object {
            Object::Point(point) if self.counts(&point.sessions) => Some((point.id.clone(), point.packs.clone())),
            _ => None,
        });
        points.collect()
    }

    /// What is left although nobody needs it.
    pub(super) fn garbage(&self) -> Vec<ObjectName> {
        let counting = self.counting();
        let packs: BTreeSet<_> = counting.values().flatten().collect();
        let sessions: BTreeSet<_> = self
            .objects
            .values()
            .filter_map(|(object, _)| if let Object::Point(point) = object { Some(&point.sessions) } else { None })
            .flatten()
            .collect();
        let wanted = |(name, (object, _)): &(&ObjectName, &(Object, Timestamp))| match (name, object) {
            (ObjectName::Pack(id), _) => packs.contains(id),
            (ObjectName::Session(id), _) => sessions.contains(id),
            (ObjectName::Point(id), Object::Point(_)) => counting.contains_key(id),
            (ObjectName::Run(run), _) => packs.iter().any(|pack| (pack.epoch, pack.writer) == (run.epoch, run.writer)),
            (ObjectName::Beat(..) | ObjectName::Collection(_), _) => false,
            _ => true,
        };
        self.objects.iter().filter(|object| !wanted(object)).map(|(name, _)| name.clone()).collect()
    }
}
