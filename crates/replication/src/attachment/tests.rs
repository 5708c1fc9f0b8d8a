//! What one attachment does with replicas that answer at once; the simulation has those that do not.

use super::{Action, Attachment, Done, Ending, Event, Io, IoError, Options};
use crate::limits::Limits;
use crate::message::{Body, Request};
use crate::record::memory::MemoryRecords;
use crate::record::{Attached, Record};
use crate::replica::{self, Replica};
use crate::simulation::disk::{BLOCK_BYTES, Disk};
use crate::units::{AttachmentId, Blocks, Epoch, Incarnation, ReplicaId, Session, Tag, Time, VolumeId};
use std::collections::{BTreeMap, VecDeque};

const VOLUME: VolumeId = VolumeId(1);

struct Cluster {
    records: MemoryRecords,
    replicas: BTreeMap<ReplicaId, (Replica, Disk)>,
    now: Time,
    /// Those that get nothing.
    silent: Vec<ReplicaId>,
    sent: Vec<(ReplicaId, Request)>,
    answers: BTreeMap<Tag, Result<Done, IoError>>,
}

impl Cluster {
    fn new() -> Self {
        let records = MemoryRecords::default();
        let members = (1..=3).map(|i| (ReplicaId(i), format!("node-{i}").as_str().into()));
        records.put(VOLUME, None, Record::new(members, 2, 16).unwrap()).unwrap();
        let replica = || Replica::new(<_>::default(), Session(1), Incarnation(1), 16, BLOCK_BYTES);
        let replicas = (1..=3).map(|i| (ReplicaId(i), (replica(), Disk::new(16)))).collect();
        let (silent, sent) = (Vec::new(), Vec::new());
        Self { records, replicas, now: Time(1), silent, sent, answers: BTreeMap::new() }
    }

    fn record(&self) -> Record {
        self.records.look(VOLUME).unwrap().record
    }

    fn attach(&mut self, id: u128, force: bool) -> Attachment {
        self.attach_expecting(id, force, None)
    }

    fn attach_expecting(&mut self, id: u128, force: bool, expected: Option<Option<AttachmentId>>) -> Attachment {
        let me = Attached { node: "node-1".into(), id: AttachmentId(id) };
        let limits = Limits { most_operations: 4, ..Limits::default() };
        let (local, ended, give_up_unflushed) = (Some(ReplicaId(1)), None, false);
        let mut attachment = Attachment::new(Options { me, local, force, expected, ended, give_up_unflushed, limits });
        self.tell(&mut attachment, Event::Tick);
        attachment
    }

    /// Tells it something, and does all that follows.
    fn tell(&mut self, attachment: &mut Attachment, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for action in attachment.apply(self.now, event) {
                match action {
                    Action::Send { to, request } => {
                        self.sent.push((to, request.clone()));
                        events.extend(self.ask(to, request));
                    }
                    Action::Get(call) => events.push_back(Event::Got(call, Ok(self.records.look(VOLUME)))),
                    Action::Swap { call, expected, record } => {
                        events.push_back(Event::Swapped(call, self.records.put(VOLUME, Some(&expected), record)));
                    }
                    Action::Answer { tag, result } => drop(self.answers.insert(tag, result)),
                    Action::Notice(_) => {}
                }
            }
        }
    }

    fn ask(&mut self, to: ReplicaId, request: Request) -> Vec<Event> {
        let mut events = Vec::new();
        if self.silent.contains(&to) {
            return events;
        }
        let (replica, disk) = self.replicas.get_mut(&to).unwrap();
        let mut actions = VecDeque::from(replica.apply(replica::Event::Asked(request)));
        while let Some(action) = actions.pop_front() {
            match action {
                replica::Action::Store(id, operation) => {
                    let outcome = disk.perform(&operation, disk.mark());
                    actions.extend(replica.apply(replica::Event::Stored(id, outcome)));
                }
                replica::Action::Answer(answer) => events.push(Event::Answered { from: to, answer }),
            }
        }
        events
    }

    fn io(&mut self, attachment: &mut Attachment, tag: u64, io: Io) -> Option<Result<Done, IoError>> {
        self.tell(attachment, Event::Submit { tag: Tag(tag), io });
        self.answers.get(&Tag(tag)).cloned()
    }

    /// Time passes, a tenth of a second at a time.
    fn pass(&mut self, attachment: &mut Attachment, tenths: u64) {
        for _ in 0..tenths {
            self.now = Time(self.now.0 + 100_000_000);
            self.tell(attachment, Event::Tick);
        }
    }
}

fn blocks(start: u64, count: u64) -> Blocks {
    Blocks { start, count }
}

fn write(start: u64, values: &[u64]) -> Io {
    let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Io::Write { blocks: blocks(start, values.len() as u64), data: data.into() }
}

#[test]
fn a_volume_is_written_read_discarded_and_detached() {
    let mut cluster = Cluster::new();
    let mut attachment = cluster.attach(7, false);
    assert!(attachment.may_serve(cluster.now));
    assert_eq!(cluster.io(&mut attachment, 1, write(3, &[5, 6])), Some(Ok(Done::Done)));
    assert!(cluster.replicas.values().all(|(_, disk)| disk.value(4) == 6));
    assert_eq!(cluster.io(&mut attachment, 2, Io::Discard { blocks: blocks(3, 1) }), Some(Ok(Done::Done)));
    assert!(cluster.replicas.values().all(|(_, disk)| disk.value(3) == 0));
    let read = cluster.io(&mut attachment, 3, Io::Read { blocks: blocks(4, 1) });
    assert_eq!(read, Some(Ok(Done::Data(6_u64.to_le_bytes().to_vec().into()))));
    assert_eq!(cluster.sent.last().unwrap().0, ReplicaId(1), "the local one is read");
    cluster.tell(&mut attachment, Event::Detach);
    assert_eq!(attachment.ending(), Some(&Ending::Detached));
    assert_eq!((cluster.record().attached, cluster.record().equal), (None, Epoch(2)));
    let refused = cluster.io(&mut attachment, 4, Io::Flush);
    assert_eq!(refused, Some(Err(IoError::Ended(Ending::Detached))));
}

#[test]
fn a_flush_of_nothing_costs_nothing() {
    let mut cluster = Cluster::new();
    let mut attachment = cluster.attach(7, false);
    let flushes = |cluster: &Cluster| cluster.sent.iter().filter(|(_, request)| request.body == Body::Flush).count();
    assert_eq!(cluster.io(&mut attachment, 1, Io::Flush), Some(Ok(Done::Done)));
    assert_eq!(flushes(&cluster), 3, "what was before is not known");
    assert_eq!(cluster.io(&mut attachment, 2, Io::Flush), Some(Ok(Done::Done)));
    assert_eq!(flushes(&cluster), 3);
    cluster.io(&mut attachment, 3, write(0, &[1]));
    assert_eq!(cluster.io(&mut attachment, 4, Io::Flush), Some(Ok(Done::Done)));
    assert_eq!(flushes(&cluster), 6);
}

#[test]
fn what_overlaps_waits_and_the_queue_has_an_end() {
    let mut cluster = Cluster::new();
    let mut attachment = cluster.attach(7, false);
    cluster.silent = vec![ReplicaId(3)];
    assert_eq!(cluster.io(&mut attachment, 1, write(0, &[1, 2])), None);
    assert_eq!(
        cluster.io(&mut attachment, 2, Io::Read { blocks: blocks(1, 1) }),
        None,
        "not every replica has the write"
    );
    let is_read = |(_, request): &(ReplicaId, Request)| matches!(request.body, Body::Read { .. });
    assert!(!cluster.sent.iter().any(is_read));
    assert!(matches!(cluster.io(&mut attachment, 3, Io::Read { blocks: blocks(9, 1) }), Some(Ok(Done::Data(_)))));
    assert_eq!(cluster.io(&mut attachment, 4, write(1, &[3])), None);
    assert_eq!(cluster.io(&mut attachment, 5, write(8, &[3])), None);
    assert_eq!(cluster.io(&mut attachment, 6, Io::Flush), Some(Err(IoError::TooMany { most: 4 })));
    cluster.pass(&mut attachment, 40);
    assert!(!cluster.record().is_in_sync(ReplicaId(3)), "it is out of the record before anything is acknowledged");
    for tag in [1, 2, 4, 5] {
        assert!(matches!(cluster.answers.get(&Tag(tag)), Some(Ok(_))), "{tag}: {:?}", cluster.answers);
    }
    cluster.silent.clear();
    cluster.pass(&mut attachment, 100);
    assert!(cluster.record().is_in_sync(ReplicaId(3)));
    assert_eq!([0, 1, 8].map(|block| cluster.replicas[&ReplicaId(3)].1.value(block)), [1, 3, 3]);
}

#[test]
fn below_the_minimum_io_waits_and_goes_on() {
    let mut cluster = Cluster::new();
    let mut attachment = cluster.attach(7, false);
    cluster.silent = vec![ReplicaId(2), ReplicaId(3)];
    assert_eq!(cluster.io(&mut attachment, 1, write(0, &[1])), None);
    cluster.pass(&mut attachment, 300);
    assert_eq!(cluster.answers.get(&Tag(1)), None, "one of them would be left");
    assert!(cluster.record().in_sync().count() >= 2);
    cluster.silent.clear();
    cluster.pass(&mut attachment, 100);
    assert_eq!(cluster.answers.get(&Tag(1)), Some(&Ok(Done::Done)));
    assert_eq!(cluster.record().in_sync().count(), 3);
}

#[test]
fn a_minimum_that_is_raised_meanwhile_is_met_by_a_replica_that_comes_back() {
    let mut cluster = Cluster::new();
    let mut attachment = cluster.attach(7, false);
    cluster.silent = vec![ReplicaId(3)];
    assert_eq!(cluster.io(&mut attachment, 1, write(0, &[1])), None);
    cluster.pass(&mut attachment, 40);
    assert_eq!((cluster.answers.get(&Tag(1)), cluster.record().in_sync().count()), (Some(&Ok(Done::Done)), 2));
    cluster.silent.push(ReplicaId(2));
    assert_eq!(cluster.io(&mut attachment, 2, write(0, &[2])), None);
    // It is under way, and will be on both, which are not enough any more; the third one has to get the same block.
    let found = cluster.records.look(VOLUME).unwrap();
    cluster.records.put(VOLUME, Some(&found.version), found.record.with_minimum(3).unwrap()).unwrap();
    cluster.tell(&mut attachment, Event::RecordChanged);
    cluster.silent.clear();
    cluster.pass(&mut attachment, 100);
    assert_eq!(cluster.record().in_sync().count(), 3);
    assert_eq!(cluster.answers.get(&Tag(2)), Some(&Ok(Done::Done)));
}

#[test]
fn only_who_was_judged_is_displaced() {
    let mut cluster = Cluster::new();
    let none = cluster.attach_expecting(6, true, Some(Some(AttachmentId(5))));
    assert_eq!(none.ending(), Some(&Ending::Displaced));
    let mut first = cluster.attach_expecting(7, false, Some(None));
    for judged in [None, Some(AttachmentId(5))] {
        let other = cluster.attach_expecting(8, true, Some(judged));
        assert_eq!(other.ending(), Some(&Ending::AttachedElsewhere { node: "node-1".into() }));
    }
    assert_eq!(cluster.io(&mut first, 1, write(0, &[1])), Some(Ok(Done::Done)));
    let mut next = cluster.attach_expecting(9, true, Some(Some(AttachmentId(7))));
    cluster.pass(&mut next, 56);
    assert!(next.may_serve(cluster.now));
}

#[test]
fn a_volume_that_is_attached_is_taken_over_by_force_alone_and_after_the_lease() {
    let mut cluster = Cluster::new();
    let mut first = cluster.attach(7, false);
    let second = cluster.attach(8, false);
    assert_eq!(second.ending(), Some(&Ending::AttachedElsewhere { node: "node-1".into() }));
    let mut third = cluster.attach(9, true);
    assert!(first.may_serve(cluster.now) && !third.may_serve(cluster.now));
    // The replicas have sealed the next epoch.
    assert_eq!(cluster.io(&mut first, 1, write(0, &[1])), Some(Err(IoError::Ended(Ending::Displaced))));
    assert!(cluster.replicas.values().all(|(_, disk)| disk.value(0) == 0));
    cluster.pass(&mut third, 54);
    assert!(!third.may_serve(cluster.now));
    cluster.pass(&mut third, 2);
    assert!(third.may_serve(cluster.now));
}
