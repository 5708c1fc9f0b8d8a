//! What there is.

use std::collections::BTreeSet;

/// Replicas, one bit each.
pub(crate) type Set = u8;

/// How large the world is, and which rule is missing in it.
#[derive(Debug, Clone)]
pub(crate) struct Volume {
    pub(crate) replicas: u8,
    pub(crate) most_epochs: u8,
    pub(crate) most_writes: u8,
    pub(crate) broken: Option<Broken>,
}

/// A rule that is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    /// Who takes over by force serves at once.
    AwaitLease,
    /// It is served without leases.
    Lease,
    /// A replica that is to leave is not waited for as soon as its leaving is asked for.
    RecordFirst,
    /// Replicas take writes of lower epochs.
    RefuseLower,
    /// Replicas take writes that are finished, behind what came later.
    RefuseFinished,
    /// A swap that nobody has answered counts as not done.
    HeedUnresolved,
    /// Who takes over serves from replicas as they are.
    MakeEqual,
}

impl Volume {
    pub(crate) fn keeps(&self, rule: Broken) -> bool {
        self.broken != Some(rule)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = u8> + use<> {
        0..self.replicas
    }
}

pub(crate) fn bit(replica: u8) -> Set {
    1 << replica
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Record {
    pub(crate) version: u8,
    pub(crate) epoch: u8,
    pub(crate) attached: Option<u8>,
    pub(crate) in_sync: Set,
}

impl Record {
    pub(crate) fn next(self, attached: u8, in_sync: Set) -> Self {
        Self { version: self.version + 1, epoch: self.epoch + 1, attached: Some(attached), in_sync }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Replica {
    pub(crate) epoch: u8,
    pub(crate) of: Option<u8>,
    /// The number of the write that it holds.
    pub(crate) value: u8,
}

/// A write on its way to a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Message {
    pub(crate) of: u8,
    pub(crate) replica: u8,
    pub(crate) epoch: u8,
    pub(crate) value: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    Idle,
    Claiming,
    Sealing,
    /// All is sealed and equal; one step of time has to pass still, or none.
    Waiting(u8),
    Serving,
    Ended,
}

/// A swap that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Swap {
    pub(crate) expected: u8,
    pub(crate) record: Record,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Attachment {
    pub(crate) phase: Phase,
    pub(crate) known: Option<Record>,
    pub(crate) asked: Option<Swap>,
    pub(crate) must_read: bool,
    pub(crate) is_forced: bool,
    pub(crate) has_served: bool,
    pub(crate) sealed: Set,
    /// All whose leases are needed have given one that lasts until the end of this step of time.
    pub(crate) is_leased: bool,
    /// It is copied to, and has everything from then on.
    pub(crate) joiner: Option<u8>,
    /// In sync by a swap of which nobody knows; and the version that it expects.
    pub(crate) doubtful: Set,
    pub(crate) doubtful_at: u8,
    /// The write that is under way, and who has answered.
    pub(crate) write: Option<(u8, Set)>,
}

impl Attachment {
    pub(crate) fn new() -> Self {
        Self {
            phase: Phase::Idle,
            known: None,
            asked: None,
            must_read: false,
            is_forced: false,
            has_served: false,
            sealed: 0,
            is_leased: false,
            joiner: None,
            doubtful: 0,
            doubtful_at: 0,
            write: None,
        }
    }

    pub(crate) fn epoch(&self) -> u8 {
        self.known.map_or(0, |record| record.epoch)
    }

    pub(crate) fn in_sync(&self) -> Set {
        self.known.map_or(0, |record| record.in_sync)
    }

    /// Whose seals and leases are needed.
    pub(crate) fn binding(&self, volume: &Volume) -> Set {
        let doubtful = if volume.keeps(Broken::HeedUnresolved) { self.doubtful } else { 0 };
        let leaving = match self.asked {
            Some(swap) if !volume.keeps(Broken::RecordFirst) => self.in_sync() & !swap.record.in_sync,
            _ => 0,
        };
        (self.in_sync() | doubtful) & !leaving
    }

    /// Who has to have a write before it is acknowledged.
    pub(crate) fn acknowledging(&self, volume: &Volume) -> Set {
        self.binding(volume) | self.joiner.map_or(0, bit)
    }

    pub(crate) fn may_serve(&self, volume: &Volume) -> bool {
        self.phase == Phase::Serving && (self.is_leased || !volume.keeps(Broken::Lease))
    }
}

/// Everything, at one instant.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub(crate) record: Record,
    pub(crate) replicas: Vec<Replica>,
    pub(crate) attachments: Vec<Attachment>,
    /// Swaps that nobody waits for.
    pub(crate) late: BTreeSet<Swap>,
    pub(crate) writes: BTreeSet<Message>,
    pub(crate) next_value: u8,
    /// The newest write that was acknowledged or read: nothing older may be read any more.
    pub(crate) floor: u8,
}

impl World {
    pub(crate) fn new(volume: &Volume) -> Self {
        let everybody = volume.all().map(bit).sum();
        Self {
            record: Record { version: 0, epoch: 0, attached: None, in_sync: everybody },
            replicas: volume.all().map(|_| Replica { epoch: 0, of: None, value: 0 }).collect(),
            attachments: vec![Attachment::new(), Attachment::new()],
            late: BTreeSet::new(),
            writes: BTreeSet::new(),
            next_value: 1,
            floor: 0,
        }
    }

    /// Forgets what can have no effect any more, so that states which differ in nothing else are one.
    pub(crate) fn forget(&mut self, volume: &Volume) {
        let version = self.record.version;
        self.late.retain(|swap| swap.expected == version);
        if volume.keeps(Broken::RefuseLower) {
            let replicas = &self.replicas;
            self.writes.retain(|message| replicas[usize::from(message.replica)].epoch <= message.epoch);
        }
        for one in &mut self.attachments {
            if one.phase == Phase::Ended {
                *one = Attachment { phase: Phase::Ended, has_served: one.has_served, ..Attachment::new() };
            }
        }
    }

    /// The replicas that are sealed in this epoch of this attachment.
    pub(crate) fn sealed_by(&self, epoch: u8, of: u8) -> Set {
        let all = self.replicas.iter().zip(0..);
        all.filter(|(replica, _)| (replica.epoch, replica.of) == (epoch, Some(of))).map(|(_, id)| bit(id)).sum()
    }

    /// The replicas of a set.
    pub(crate) fn of(&self, set: Set) -> impl Iterator<Item = &Replica> {
        self.replicas.iter().zip(0..).filter(move |(_, id)| set & bit(*id) != 0).map(|(replica, _)| replica)
    }
}
