//! What one attachment does with replicas that answer at once; the simulation has those that do not.

use super::{Action, Attachment, Done, Ending, Event, Io, IoError, Options};
use crate::limits::Limits;
use crate::message::{Body, Request};
use crate::record::memory::MemoryRecords;
use crate::record::{Attached, Record};
use crate::replica::{self, Replica};
use crate::rules::Rule;
use crate::simulation::disk::{BLOCK_BYTES, Disk};
use crate::simulation::without;
use crate::units::{AttachmentId, Blocks, Epoch, Incarnation, ReplicaId, Session, SnapshotId, Tag, Time, VolumeId};
use std::collections::{BTreeMap, VecDeque};

const VOLUME: VolumeId = VolumeId(1);

/// Some requests.
type Which = fn(&Body) -> bool;

struct Cluster {
    records: MemoryRecords,
    replicas: BTreeMap<ReplicaId, (Replica, Disk)>,
    now: Time,
    /// Those that get nothing.
    silent: Vec<ReplicaId>,
    /// These get some of it.
    dropped: Vec<(ReplicaId, Which)>,
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
        let (silent, dropped, sent) = (Vec::new(), Vec::new(), Vec::new());
        Self { records, replicas, now: Time(1), silent, dropped, sent, answers: BTreeMap::new() }
    }

    fn record(&self) -> Record {
        self.records.look(VOLUME).unwrap().record
    }

    fn attach(&mut self, id: u128, force: bool) -> Attachment {
        self.attach_expecting(id, force, None)
    }

    fn attach_expecting(&mut self, id: u128, force: bool, expected: Option<Option<AttachmentId>>) -> Attachment {
        self.begin(Options { force, expected, ..options(id) })
    }

    /// For the users of an attachment that has served.
    fn go_on(&mut self, id: u128, served: AttachmentId) -> Attachment {
        self.begin(Options { force: true, ended: Some(served), ..options(id) })
    }

    fn begin(&mut self, options: Options) -> Attachment {
        let mut attachment = Attachment::new(options);
        self.tell(&mut attachment, Event::Tick);
        attachment
    }

    /// One replica is enough.
    fn lower_minimum(&mut self) {
        let found = self.records.look(VOLUME).unwrap();
        self.records.put(VOLUME, Some(&found.version), found.record.with_minimum(1).unwrap()).unwrap();
    }

    fn in_sync(&self) -> Vec<u64> {
        self.record().in_sync().map(|id| id.0).collect()
    }

    /// Time passes until these are in sync.
    fn pass_until(&mut self, attachment: &mut Attachment, in_sync: &[u64]) {
        let mut tenths = 0..100;
        while self.in_sync() != in_sync {
            assert!(tenths.next().is_some(), "{:?} are in sync", self.in_sync());
            self.pass(attachment, 1);
        }
    }

    /// These machines begin anew, without what was not flushed.
    fn cut_power(&mut self, replicas: &[u64], incarnation: u64) {
        for id in replicas {
            let (replica, disk) = self.replicas.get_mut(&ReplicaId(*id)).unwrap();
            disk.lose_all();
            let (session, incarnation) = (Session(incarnation), Incarnation(incarnation.into()));
            *replica = Replica::new(disk.promise, session, incarnation, 16, BLOCK_BYTES);
        }
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
        if self.silent.contains(&to) || self.dropped.iter().any(|(id, of)| *id == to && of(&request.body)) {
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

fn is_write(body: &Body) -> bool {
    matches!(body, Body::Write { .. })
}

fn is_seal(body: &Body) -> bool {
    matches!(body, Body::Seal)
}

fn options(id: u128) -> Options {
    Options {
        me: Attached { node: "node-1".into(), id: AttachmentId(id) },
        local: Some(ReplicaId(1)),
        force: false,
        expected: None,
        ended: None,
        give_up_unflushed: false,
        limits: Limits { most_operations: 4, ..Limits::default() },
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

#[test]
fn who_goes_on_after_all_replicas_have_lost_their_power_is_told() {
    let mut cluster = Cluster::new();
    let mut first = cluster.attach(7, false);
    assert_eq!(cluster.io(&mut first, 1, write(0, &[1])), Some(Ok(Done::Done)));
    // Its process ends, and two of three replicas lose their power: the third has all that was answered.
    cluster.cut_power(&[1, 2], 2);
    let mut second = cluster.go_on(8, AttachmentId(7));
    let read = cluster.io(&mut second, 2, Io::Read { blocks: blocks(0, 1) });
    assert_eq!(read, Some(Ok(Done::Data(1_u64.to_le_bytes().to_vec().into()))));
    // All of them do.
    cluster.cut_power(&[1, 2, 3], 3);
    let third = cluster.go_on(9, AttachmentId(8));
    assert_eq!(third.ending(), Some(&Ending::PowerLost));
    // Nor does the next process go on, though the power is there all the time; who begins anew may.
    assert_eq!(cluster.go_on(10, AttachmentId(8)).ending(), Some(&Ending::PowerLost));
    let mut anew = cluster.attach(11, true);
    cluster.pass(&mut anew, 60);
    assert!(anew.may_serve(cluster.now));
}

/// A write is under way when one replica leaves, and is on one of the others alone when that one is left, too. Gives what the last has when all are back.
fn carried_to_one_that_leaves() -> u64 {
    let mut cluster = Cluster::new();
    cluster.lower_minimum();
    let mut attachment = cluster.attach(7, false);
    cluster.silent = vec![ReplicaId(3)];
    cluster.pass(&mut attachment, 20);
    cluster.dropped = vec![(ReplicaId(2), is_write)];
    assert_eq!(cluster.io(&mut attachment, 1, write(0, &[1])), None);
    cluster.pass_until(&mut attachment, &[1, 2]);
    cluster.pass_until(&mut attachment, &[1]);
    (cluster.silent, cluster.dropped) = (Vec::new(), Vec::new());
    cluster.pass(&mut attachment, 200);
    assert_eq!(cluster.in_sync(), [1, 2, 3]);
    assert_eq!(cluster.answers.get(&Tag(1)), Some(&Ok(Done::Done)));
    cluster.replicas[&ReplicaId(2)].1.value(0)
}

#[test]
fn what_is_under_way_at_a_change_of_epoch_is_written_again_so_that_who_leaves_then_gets_it() {
    assert_eq!(carried_to_one_that_leaves(), 1);
    assert_eq!(without(Rule::ResendAll, carried_to_one_that_leaves), 0, "else it is lost");
}

/// A write is written again in a new epoch, by two of three; then the first that had it leaves, and both lose their power before the other one hears of that. Gives what
/// both have when they are in sync again.
fn written_again_when_power_is_lost() -> [u64; 2] {
    let mut cluster = Cluster::new();
    cluster.lower_minimum();
    let mut first = cluster.attach(7, false);
    cluster.silent = vec![ReplicaId(3)];
    cluster.pass(&mut first, 20);
    cluster.dropped = vec![(ReplicaId(2), is_write)];
    assert_eq!(cluster.io(&mut first, 1, write(0, &[1])), None, "the first has it, with the birth of this epoch");
    cluster.pass_until(&mut first, &[1, 2]);
    cluster.dropped.clear();
    cluster.pass(&mut first, 10);
    assert_eq!(cluster.answers.get(&Tag(1)), Some(&Ok(Done::Done)), "both have it, with that of the next");
    cluster.silent = vec![ReplicaId(1), ReplicaId(3)];
    cluster.dropped = vec![(ReplicaId(2), is_seal)];
    cluster.pass_until(&mut first, &[2]);
    cluster.cut_power(&[1, 2], 2);
    (cluster.silent, cluster.dropped) = (Vec::new(), Vec::new());
    let mut second = cluster.attach(8, true);
    cluster.pass(&mut second, 200);
    assert_eq!(cluster.in_sync(), [1, 2, 3]);
    [1, 2].map(|id| cluster.replicas[&ReplicaId(id)].1.value(0))
}

#[test]
fn what_replicas_are_equal_in_is_durable_so_that_a_loss_of_power_does_not_make_them_differ() {
    assert_eq!(written_again_when_power_is_lost(), [1, 1]);
    assert_eq!(without(Rule::SettleDurably, written_again_when_power_is_lost), [1, 0], "both are in sync");
}

const S: SnapshotId = SnapshotId(5);

impl Cluster {
    fn want(&mut self, attachment: &mut Attachment, change: impl Fn(&Record) -> Record) {
        let found = self.records.look(VOLUME).unwrap();
        self.records.put(VOLUME, Some(&found.version), change(&found.record)).unwrap();
        self.tell(attachment, Event::RecordChanged);
    }
}

#[test]
fn a_snapshot_has_what_was_asked_before_it_and_nothing_that_came_later() {
    let mut cluster = Cluster::new();
    let mut attachment = cluster.attach(7, false);
    cluster.io(&mut attachment, 1, write(0, &[1]));
    cluster.silent = vec![ReplicaId(3)];
    assert_eq!(cluster.io(&mut attachment, 2, write(1, &[2])), None, "it is under way");
    cluster.want(&mut attachment, |record| record.with_snapshot(S).unwrap());
    assert_eq!(cluster.io(&mut attachment, 3, write(0, &[9])), None, "it comes later");
    assert!(matches!(cluster.io(&mut attachment, 4, Io::Read { blocks: blocks(5, 1) }), Some(Ok(Done::Data(_)))));
    let is_snapshot = |(_, request): &(ReplicaId, Request)| matches!(request.body, Body::Snapshot { .. });
    assert!(!cluster.sent.iter().any(is_snapshot), "one replica lacks what was asked before");
    assert!(cluster.replicas.values().all(|(_, disk)| disk.value(0) == 1), "the later one waits");
    // It does not answer, and leaves; then the others take it.
    cluster.pass(&mut attachment, 40);
    let record = cluster.record();
    let taken = record.taken(S).unwrap();
    assert_eq!(taken.holders, [ReplicaId(1), ReplicaId(2)].into());
    assert_eq!(cluster.answers.get(&Tag(3)), Some(&Ok(Done::Done)));
    for holder in &taken.holders {
        let values = &cluster.replicas[holder].1.snapshots[&(S, taken.epoch)];
        assert_eq!(values[..2], [9, 2], "in another epoch it was begun anew, behind what had waited");
    }
    cluster.silent.clear();
    cluster.pass(&mut attachment, 100);
    assert!(cluster.record().is_in_sync(ReplicaId(3)));
    assert_eq!(cluster.record().taken(S).unwrap().holders.len(), 2, "who comes back does not have it");
}

#[test]
fn a_snapshot_for_which_there_is_no_room_holds_nobody_up() {
    let mut cluster = Cluster::new();
    let mut attachment = cluster.attach(7, false);
    cluster.replicas.get_mut(&ReplicaId(2)).unwrap().1.is_full = true;
    cluster.want(&mut attachment, |record| record.with_snapshot(S).unwrap());
    cluster.pass(&mut attachment, 20);
    assert!(cluster.record().taken(S).is_none() && cluster.record().in_sync().count() == 3);
    cluster.replicas.get_mut(&ReplicaId(2)).unwrap().1.is_full = false;
    assert_eq!(cluster.io(&mut attachment, 1, write(0, &[1])), Some(Ok(Done::Done)));
    cluster.pass(&mut attachment, 60);
    let record = cluster.record();
    let taken = record.taken(S).unwrap();
    assert_eq!((taken.holders.len(), taken.epoch), (3, Epoch(2)), "it is tried again, in another epoch");
    let all = cluster.replicas.values().map(|(_, disk)| disk.snapshots[&(S, taken.epoch)][0]);
    assert_eq!(all.collect::<Vec<_>>(), [1, 1, 1], "also on those that had taken it before");
}

#[test]
fn a_volume_grows_when_all_replicas_have() {
    let mut cluster = Cluster::new();
    let mut attachment = cluster.attach(7, false);
    cluster.silent = vec![ReplicaId(3)];
    cluster.want(&mut attachment, |record| record.with_wanted_blocks(20).unwrap());
    assert_eq!(cluster.record().blocks, 16, "one has not");
    cluster.pass(&mut attachment, 40);
    assert_eq!((cluster.record().blocks, cluster.record().in_sync().count()), (20, 2));
    assert_eq!(cluster.io(&mut attachment, 1, write(19, &[7])), Some(Ok(Done::Done)));
    cluster.silent.clear();
    cluster.pass(&mut attachment, 100);
    assert!(cluster.record().is_in_sync(ReplicaId(3)));
    assert_eq!(cluster.replicas[&ReplicaId(3)].1.value(19), 7, "it has grown before it counts");
}

#[test]
fn a_volume_that_cannot_grow_has_its_snapshots_all_the_same() {
    let mut cluster = Cluster::new();
    let mut attachment = cluster.attach(7, false);
    cluster.replicas.get_mut(&ReplicaId(2)).unwrap().1.may_not_grow = true;
    cluster.want(&mut attachment, |record| record.with_wanted_blocks(20).unwrap());
    // Refused again and again, it is left alone for minutes by now.
    cluster.pass(&mut attachment, 3000);
    cluster.want(&mut attachment, |record| record.with_snapshot(S).unwrap());
    assert!(cluster.record().taken(S).is_some() && cluster.record().blocks == 16);
    cluster.replicas.get_mut(&ReplicaId(2)).unwrap().1.may_not_grow = false;
    cluster.pass(&mut attachment, 3300);
    assert_eq!(cluster.record().blocks, 20, "it is asked again");
}

#[test]
fn a_detach_waits_for_a_snapshot_that_is_begun() {
    let mut cluster = Cluster::new();
    let mut attachment = cluster.attach(7, false);
    cluster.silent = vec![ReplicaId(3)];
    cluster.want(&mut attachment, |record| record.with_snapshot(S).unwrap());
    assert_eq!(cluster.io(&mut attachment, 1, write(0, &[1])), None, "it waits for the snapshot");
    cluster.tell(&mut attachment, Event::Detach);
    cluster.pass(&mut attachment, 80);
    assert_eq!(attachment.ending(), Some(&Ending::Detached));
    assert_eq!(cluster.answers.get(&Tag(1)), Some(&Ok(Done::Done)));
}
