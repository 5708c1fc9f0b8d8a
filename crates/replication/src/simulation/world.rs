//! A cluster: what there is in it, and how one thing happens after the other.

use super::disk::Disk;
use super::faults::{Habits, Heal};
use super::random::Random;
use super::records::Records;
use super::snapshots::Wanted;
use crate::attachment::{self, Attachment, CallId};
use crate::limits::{Limits, MOST_CHANGES};
use crate::message::{Answer, Body, Request};
use crate::record::Record;
use crate::record::store::{StoreError, SwapError, Version, Versioned};
use crate::replica::store::{Operation, Outcome};
use crate::replica::{self, OperationId, Replica};
use crate::testing::history::{History, Step};
use crate::units::{
    AttachmentId, Blocks, Epoch, Incarnation, NodeId, ReplicaId, Session, SnapshotId, Span, Tag, Time, VolumeId,
};
use std::collections::{BTreeMap, BTreeSet};

/// True time, in nanoseconds; nobody in the cluster knows it.
pub(super) type Instant = u64;
pub(super) const MILLI: Instant = 1_000_000;
pub(super) const SECOND: Instant = 1000 * MILLI;

pub(super) fn limits() -> Limits {
    Limits {
        lease: Span::from_millis(1000),
        clock_bound: Span::from_millis(200),
        member_deadline: Span::from_millis(600),
        retry: Span::from_millis(100),
        record_retry: Span::from_millis(150),
        record_deadline: Span::from_millis(500),
        join_pause: Span::from_millis(400),
        most_operations: 24,
        most_changes: MOST_CHANGES.min(8),
        copy_blocks: 3,
        copies_at_once: 3,
        most_ranges: 2,
    }
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) has_power: bool,
    pub(super) runs: bool,
    pub(super) session: u64,
    pub(super) incarnation: u128,
    /// When it lost its power last.
    pub(super) lost_power: Option<Instant>,
    /// Parts in a million by which its clock is fast, or slow.
    pub(super) drift: i64,
    pub(super) clock: Instant,
    /// To whom nothing comes from here.
    pub(super) cut_off: BTreeSet<usize>,
    pub(super) is_cut_off_from_store: bool,
}

impl Node {
    /// What its clock says.
    pub(super) fn local(&self, now: Instant) -> Time {
        let fast = i128::from(now) * i128::from(self.drift) / 1_000_000;
        Time(u64::try_from(i128::from(now) + fast).unwrap() + self.clock)
    }
}

#[derive(Debug)]
pub(super) struct Copy {
    pub(super) node: usize,
    pub(super) disk: Disk,
    pub(super) machine: Option<Replica>,
}

/// Something that was asked of a volume.
#[derive(Debug, Clone)]
pub(super) enum Asked {
    Write { blocks: Blocks, first: u64 },
    Read { blocks: Blocks, begun: Step },
    Flush { begun: Step },
}

#[derive(Debug)]
pub(super) struct Client {
    pub(super) node: usize,
    pub(super) id: AttachmentId,
    pub(super) machine: Attachment,
    pub(super) lives: bool,
    /// For whose users it goes on.
    pub(super) goes_on_for: Option<AttachmentId>,
    /// When it began to serve, or when it knew last of all that was lost meanwhile.
    pub(super) aware_since: Option<Step>,
    pub(super) asked: BTreeMap<Tag, Asked>,
    pub(super) next_tag: u64,
    tick_at: Option<Instant>,
    /// What it is told with the next event.
    held: Vec<attachment::Event>,
}

impl Client {
    pub(super) fn goes_on(&self) -> bool {
        self.lives && self.machine.ending().is_none()
    }
}

#[derive(Debug)]
pub(super) struct Volume {
    pub(super) id: VolumeId,
    pub(super) blocks: u64,
    pub(super) copies: BTreeMap<ReplicaId, Copy>,
    pub(super) clients: Vec<Client>,
    pub(super) histories: Vec<History>,
    /// As they were before all power was lost last.
    pub(super) uncut: Vec<History>,
    /// In which incarnation replicas were when the volume was served with them last.
    pub(super) served: BTreeMap<ReplicaId, Incarnation>,
    pub(super) cut_at: Step,
    pub(super) next_value: u64,
    pub(super) minimum: usize,
    /// The one replica whose bits may rot.
    pub(super) rotting: Option<ReplicaId>,
    pub(super) wanted: BTreeMap<SnapshotId, Wanted>,
}

/// Something that will happen.
#[derive(Debug, Clone)]
pub(super) enum Happening {
    Request { volume: usize, to: ReplicaId, from: usize, request: Request },
    Answer { volume: usize, client: usize, from: ReplicaId, answer: Answer },
    Disk { volume: usize, of: ReplicaId, session: u64, id: OperationId, operation: Operation, mark: u64 },
    StoreGet { volume: usize, client: usize, call: CallId },
    StoreSwap { volume: usize, client: usize, call: CallId, expected: Version, record: Record, asked: Instant },
    Got { volume: usize, client: usize, call: CallId, result: Result<Option<Versioned>, StoreError> },
    Swapped { volume: usize, client: usize, call: CallId, result: Result<Version, SwapError> },
    RecordChanged { volume: usize, client: usize },
    Tick { volume: usize, client: usize, at: Instant },
    Ask { volume: usize },
    Control { volume: usize },
    Wish { volume: usize },
    LookForGarbage { volume: usize },
    JudgeGarbage { volume: usize, of: ReplicaId, held: Vec<(SnapshotId, Epoch)> },
    RemoveGarbage { volume: usize, of: ReplicaId, held: Vec<(SnapshotId, Epoch)> },
    Fault,
    Heal(Heal),
}

/// What happened, to be told.
#[derive(Debug, Default, Clone)]
pub(super) struct Counts {
    pub(super) steps: u64,
    pub(super) acknowledged: u64,
    pub(super) read: u64,
    pub(super) left: u64,
    pub(super) joined: u64,
    pub(super) repaired: u64,
    pub(super) attached: u64,
    pub(super) displaced: u64,
    pub(super) detached: u64,
    pub(super) power_cuts: u64,
    pub(super) all_lost: u64,
    pub(super) suspended: u64,
    pub(super) snapshots: u64,
    pub(super) removed: u64,
    pub(super) grown: u64,
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) random: Random,
    pub(super) now: Instant,
    pub(super) step: Step,
    queue: BTreeMap<(Instant, u64), Happening>,
    next_in_queue: u64,
    pub(super) habits: Habits,
    pub(super) nodes: Vec<Node>,
    pub(super) volumes: Vec<Volume>,
    pub(super) records: Records,
    pub(super) is_calm: bool,
    pub(super) counts: Counts,
    pub(super) next_id: u64,
    pub(super) log: Option<Vec<String>>,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let habits = Habits::draw(seed, &mut random);
        let count = 3 + random.index(5);
        let nodes = (0..count).map(|_| Node {
            has_power: true,
            runs: true,
            session: 1,
            incarnation: 1,
            lost_power: None,
            drift: i64::try_from(random.below(20_000)).unwrap() - 10_000,
            clock: random.below(1000) * SECOND,
            cut_off: BTreeSet::new(),
            is_cut_off_from_store: false,
        });
        let nodes = nodes.collect();
        let mut world = Self {
            random,
            now: 0,
            step: 0,
            queue: BTreeMap::new(),
            next_in_queue: 0,
            habits,
            nodes,
            volumes: Vec::new(),
            records: Records::default(),
            is_calm: false,
            counts: Counts::default(),
            next_id: 100,
            log: None,
        };
        for index in 0..1 + world.random.index(3) {
            world.add_volume(index);
        }
        world.later(300 * MILLI, Happening::Fault);
        world
    }

    fn add_volume(&mut self, index: usize) {
        let count = (2 + self.random.index(3)).min(self.nodes.len()).min(4);
        let first = self.random.index(self.nodes.len());
        let on: Vec<usize> = (0..count).map(|i| (first + i) % self.nodes.len()).collect();
        let blocks = 2 + self.random.below(8);
        let ids: Vec<ReplicaId> = (0..count).map(|i| ReplicaId((index * 10 + i) as u64 + 1)).collect();
        let minimum = if self.habits.rots { 2 } else { 1 + self.random.below(count as u64 - 1) };
        let members = ids.iter().zip(&on).map(|(id, node)| (*id, node_name(*node)));
        let record = Record::new(members, u32::try_from(minimum).unwrap(), blocks).unwrap();
        let id = VolumeId(index as u128 + 1);
        self.records.kept.put(id, None, record).unwrap();
        let rotting = if self.habits.rots { ids.first().copied() } else { None };
        let copies =
            ids.into_iter().zip(on).map(|(id, node)| (id, Copy { node, disk: Disk::new(blocks), machine: None }));
        self.volumes.push(Volume {
            id,
            blocks,
            copies: copies.collect(),
            clients: Vec::new(),
            histories: vec![History::new(); usize::try_from(blocks).unwrap()],
            uncut: Vec::new(),
            served: BTreeMap::new(),
            cut_at: 0,
            next_value: 1,
            minimum: usize::try_from(minimum).unwrap(),
            rotting,
            wanted: BTreeMap::new(),
        });
        let all: Vec<ReplicaId> = self.volumes[index].copies.keys().copied().collect();
        all.into_iter().for_each(|id| self.open_replica(index, id));
        self.later(1, Happening::Control { volume: index });
        self.later(10 * MILLI, Happening::Ask { volume: index });
        if self.habits.wishes {
            self.later(100 * MILLI, Happening::Wish { volume: index });
            self.later(200 * MILLI, Happening::LookForGarbage { volume: index });
        }
    }

    pub(super) fn open_replica(&mut self, volume: usize, id: ReplicaId) {
        let copy = self.volumes[volume].copies.get_mut(&id).unwrap();
        let node = &self.nodes[copy.node];
        let (session, incarnation) = (Session(node.session), Incarnation(node.incarnation));
        let size = copy.disk.size();
        copy.machine = Some(Replica::new(copy.disk.promise, session, incarnation, size, super::disk::BLOCK_BYTES));
    }

    pub(super) fn later(&mut self, after: Instant, what: Happening) {
        self.next_in_queue += 1;
        self.queue.insert((self.now + after, self.next_in_queue), what);
    }

    pub(super) fn record(&self, volume: usize) -> Record {
        self.records.kept.look(self.volumes[volume].id).unwrap().record
    }

    /// The next thing happens; `false` if nothing will ever again.
    pub(super) fn step(&mut self) -> Result<bool, String> {
        let Some(((at, _), what)) = self.queue.pop_first() else { return Ok(false) };
        self.now = at;
        self.step += 1;
        self.counts.steps += 1;
        if let Some(log) = &mut self.log {
            log.push(format!("{:>9.3} {what:?}", at as f64 / MILLI as f64));
        }
        let volume = self.happen(what)?;
        if let Some(volume) = volume {
            self.check(volume).map_err(|what| format!("volume {volume}, at {} ms: {what}", at / MILLI))?;
        }
        Ok(true)
    }

    fn happen(&mut self, what: Happening) -> Result<Option<usize>, String> {
        match what {
            Happening::Request { volume, to, from, request } => self.request(volume, to, from, request),
            Happening::Answer { volume, client, from, answer } => {
                self.tell(volume, client, attachment::Event::Answered { from, answer })?;
                return Ok(Some(volume));
            }
            Happening::Disk { volume, of, session, id, operation, mark } => {
                self.disk(volume, of, session, id, &operation, mark);
                return Ok(Some(volume));
            }
            Happening::StoreGet { volume, client, call } => self.store_get(volume, client, call),
            Happening::StoreSwap { volume, client, call, expected, record, asked } => {
                self.store_swap(volume, client, call, &expected, record);
                self.notice_late_swap(volume, asked)?;
                return Ok(Some(volume));
            }
            Happening::Got { volume, client, call, result } => {
                self.tell(volume, client, attachment::Event::Got(call, result))?;
                return Ok(Some(volume));
            }
            Happening::Swapped { volume, client, call, result } => {
                self.tell(volume, client, attachment::Event::Swapped(call, result))?;
                return Ok(Some(volume));
            }
            Happening::RecordChanged { volume, client } => {
                self.tell(volume, client, attachment::Event::RecordChanged)?;
                return Ok(Some(volume));
            }
            Happening::Tick { volume, client, at } => {
                let client_state = &mut self.volumes[volume].clients[client];
                if client_state.tick_at == Some(at) {
                    client_state.tick_at = None;
                    self.tell(volume, client, attachment::Event::Tick)?;
                    return Ok(Some(volume));
                }
            }
            Happening::Ask { volume } => {
                // What it was told before may come with it.
                self.ask(volume)?;
                return Ok(Some(volume));
            }
            Happening::Control { volume } => {
                self.control(volume)?;
                return Ok(Some(volume));
            }
            Happening::Wish { volume } => self.wish(volume),
            Happening::LookForGarbage { volume } => self.look_for_garbage(volume),
            Happening::JudgeGarbage { volume, of, held } => self.judge_garbage(volume, of, held),
            Happening::RemoveGarbage { volume, of, held } => {
                self.remove_garbage(volume, of, &held);
                return Ok(Some(volume));
            }
            Happening::Fault => self.fault()?,
            Happening::Heal(heal) => self.heal(heal),
        }
        Ok(None)
    }

    fn request(&mut self, volume: usize, to: ReplicaId, from: usize, request: Request) {
        let Some(copy) = self.volumes[volume].copies.get_mut(&to) else { return };
        let node = copy.node;
        if self.nodes[from].cut_off.contains(&node) {
            return;
        }
        if copy.machine.is_none() {
            return;
        }
        let request = self.maybe_spoil(volume, to, request);
        let Some(machine) = self.volumes[volume].copies.get_mut(&to).and_then(|copy| copy.machine.as_mut()) else {
            return;
        };
        let actions = machine.apply(replica::Event::Asked(request));
        self.replica_acts(volume, to, actions);
    }

    /// A copy to a returning replica is not always what was read: so it is compared.
    fn maybe_spoil(&mut self, volume: usize, to: ReplicaId, mut request: Request) -> Request {
        let clients = &self.volumes[volume].clients;
        let from = clients.iter().find(|client| client.id == request.attachment);
        let is_copy = from.is_some_and(|client| client.machine.is_copying(to, request.sequence));
        let is_stale = !self.record(volume).is_in_sync(to);
        if let Body::Write { data, .. } = &mut request.body
            && (is_copy && is_stale)
            && self.random.chance(self.habits.spoils)
        {
            *data = vec![0; data.len()].into();
        }
        request
    }

    fn disk(&mut self, volume: usize, of: ReplicaId, session: u64, id: OperationId, operation: &Operation, mark: u64) {
        let Some(copy) = self.volumes[volume].copies.get_mut(&of) else { return };
        let node = &self.nodes[copy.node];
        if !node.has_power {
            return;
        }
        let is_change = matches!(operation, Operation::Write { .. } | Operation::Discard { .. });
        let lives = session == node.session && copy.machine.is_some();
        if !lives && (node.runs || session + 1 != node.session) {
            // What an earlier process had asked for is done before the next one opens the store, or never.
            return;
        }
        if copy.disk.is_full && is_change {
            let what = Happening::Disk { volume, of, session, id, operation: operation.clone(), mark };
            return self.later(20 * MILLI, what);
        }
        // What a process had asked for when it ended may be done or not; a promise only as a whole.
        if !lives && (self.random.chance(50) || matches!(operation, Operation::Promise(_))) {
            return;
        }
        let copy = self.volumes[volume].copies.get_mut(&of).unwrap();
        let outcome: Outcome = copy.disk.perform(operation, mark);
        if let Some(machine) = copy.machine.as_mut().filter(|_| lives) {
            let actions = machine.apply(replica::Event::Stored(id, outcome));
            self.replica_acts(volume, of, actions);
        }
    }

    fn replica_acts(&mut self, volume: usize, of: ReplicaId, actions: Vec<replica::Action>) {
        for action in actions {
            let copy = &self.volumes[volume].copies[&of];
            let node = copy.node;
            match action {
                replica::Action::Store(id, operation) => {
                    let mark = copy.disk.mark();
                    let session = self.nodes[node].session;
                    let takes = self.disk_takes(volume, of);
                    self.later(takes, Happening::Disk { volume, of, session, id, operation, mark });
                }
                replica::Action::Answer(answer) => {
                    let clients = &self.volumes[volume].clients;
                    let Some(client) = clients.iter().position(|client| client.id == answer.attachment) else {
                        continue;
                    };
                    let to = clients[client].node;
                    self.transfer(node, to, Happening::Answer { volume, client, from: of, answer });
                }
            }
        }
    }

    /// An attachment is told something, and does what it says is to be done.
    pub(super) fn tell(&mut self, volume: usize, client: usize, event: attachment::Event) -> Result<(), String> {
        let state = &mut self.volumes[volume].clients[client];
        if !state.lives {
            return Ok(());
        }
        if let attachment::Event::Answered { from, .. } = &event {
            let other = self.volumes[volume].copies.get(from).map(|copy| copy.node);
            let node = self.volumes[volume].clients[client].node;
            if other.is_some_and(|other| self.nodes[other].cut_off.contains(&node)) {
                return Ok(());
            }
        }
        let may_wait = !matches!(event, attachment::Event::Submit { .. } | attachment::Event::Tick);
        if may_wait && self.habits.batches > 0 && self.random.chance(self.habits.batches) {
            self.hold(volume, client, event);
            return Ok(());
        }
        let state = &mut self.volumes[volume].clients[client];
        let local = self.nodes[state.node].local(self.now);
        let events = std::mem::take(&mut state.held);
        let actions = state.machine.apply_all(local, events.into_iter().chain([event]));
        let node = state.node;
        for action in actions {
            if let (Some(log), false) = (&mut self.log, matches!(action, attachment::Action::Send { .. })) {
                log.push(format!("                    {volume}/{client} {action:?}"));
            }
            match action {
                attachment::Action::Send { to, request } => {
                    let Some(copy) = self.volumes[volume].copies.get(&to) else { continue };
                    let other = copy.node;
                    self.transfer(node, other, Happening::Request { volume, to, from: node, request });
                }
                attachment::Action::Get(call) => self.ask_store(node, Happening::StoreGet { volume, client, call }),
                attachment::Action::Swap { call, expected, record } => {
                    let asked = self.now;
                    self.ask_store(node, Happening::StoreSwap { volume, client, call, expected, record, asked });
                }
                attachment::Action::Answer { tag, result } => self.client_answered(volume, client, tag, result)?,
                attachment::Action::Notice(notice) => self.noticed(volume, client, &notice),
            }
        }
        self.schedule_tick(volume, client);
        Ok(())
    }

    /// An attachment is told this with what comes next, or soon.
    fn hold(&mut self, volume: usize, client: usize, event: attachment::Event) {
        let wait = 1 + self.random.below(2 * MILLI);
        let at = self.now + wait;
        let state = &mut self.volumes[volume].clients[client];
        state.held.push(event);
        if state.tick_at.is_none_or(|tick| at < tick) {
            state.tick_at = Some(at);
            self.later(wait, Happening::Tick { volume, client, at });
        }
    }

    fn schedule_tick(&mut self, volume: usize, client: usize) {
        let state = &self.volumes[volume].clients[client];
        let node = &self.nodes[state.node];
        let Some(deadline) = state.machine.deadline() else { return };
        let wait = u128::from(deadline.0.saturating_sub(node.local(self.now).0)) * 1_000_000;
        let wait = u64::try_from(wait / u128::try_from(1_000_000 + node.drift).unwrap()).unwrap() + 1;
        let at = self.now + wait;
        if state.tick_at.is_none_or(|tick| at < tick) {
            self.volumes[volume].clients[client].tick_at = Some(at);
            self.later(wait, Happening::Tick { volume, client, at });
        }
    }

    pub(super) fn attach(&mut self, volume: usize, options: attachment::Options, node: usize) -> Result<(), String> {
        self.counts.attached += 1;
        let (id, goes_on_for) = (options.me.id, options.ended);
        let machine = Attachment::new(options);
        let client = Client {
            node,
            id,
            machine,
            lives: true,
            goes_on_for,
            aware_since: None,
            asked: BTreeMap::new(),
            next_tag: 0,
            tick_at: None,
            held: Vec::new(),
        };
        self.volumes[volume].clients.push(client);
        let client = self.volumes[volume].clients.len() - 1;
        self.tell(volume, client, attachment::Event::Tick)
    }
}

pub(super) fn node_name(node: usize) -> NodeId {
    NodeId::from(format!("node-{node}").as_str())
}

impl Counts {
    pub(super) fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        self.acknowledged += other.acknowledged;
        self.read += other.read;
        self.left += other.left;
        self.joined += other.joined;
        self.repaired += other.repaired;
        self.attached += other.attached;
        self.displaced += other.displaced;
        self.detached += other.detached;
        self.power_cuts += other.power_cuts;
        self.all_lost += other.all_lost;
        self.suspended += other.suspended;
        self.snapshots += other.snapshots;
        self.removed += other.removed;
        self.grown += other.grown;
    }

    /// Whether enough happened in so many worlds for them to prove something.
    pub(super) fn is_eventful(&self, worlds: u64) -> bool {
        let often = [self.left, self.joined, self.attached, self.suspended, self.power_cuts, self.snapshots];
        let rarely = [self.displaced, self.detached, self.all_lost, self.repaired, self.removed, self.grown];
        let is_busy = self.acknowledged > 100 * worlds && self.read > 100 * worlds;
        is_busy && often.iter().all(|count| *count > worlds) && rarely.iter().all(|count| *count > worlds / 10)
    }
}
