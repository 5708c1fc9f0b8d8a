//! A pool that is simulated: a disk, volumes that want things of it, and the machine between them.
//!
//! The disk has channels, each of which works on one request at a time; what is started beyond them waits in a queue of the disk's own, first
//! come, first served. A request takes a time of its own and a time for each byte, a little more or less by chance. A disk can stop answering
//! one volume. Clients keep a number of requests open: when one is answered, the next comes at once. Time goes from event to event.

use super::super::Limits;
use super::super::bucket::Nanos;
use super::super::machine::{Admission, Bounds, Machine, Started, VolumeId};
use super::super::rules::{Rule, Rules};
use super::super::under_way::Ticket;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::{BTreeMap, VecDeque};

pub(super) const SECOND: u64 = 1_000_000_000;

/// A disk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Disk {
    pub(super) channels: usize,
    /// Nanoseconds of each request, and of each KiB.
    pub(super) request: u64,
    pub(super) kib: u64,
}

/// What wants something of a volume.
#[derive(Debug, Clone, Copy)]
pub(super) struct Client {
    /// Requests that it keeps open.
    pub(super) depth: usize,
    /// Bytes of each.
    pub(super) bytes: u64,
    pub(super) limits: Limits,
}

/// A request, wherever it is.
#[derive(Debug, Clone, Copy)]
struct Asked {
    client: usize,
    at: Nanos,
}

#[derive(Debug, Clone, Copy)]
struct Begun {
    asked: Asked,
    ticket: Ticket,
}

/// What became of a client's requests.
#[derive(Debug, Clone, Default)]
pub(super) struct Account {
    /// When each was started, in order.
    pub(super) started: Vec<u64>,
    /// The longest that one waited in the machine, in nanoseconds.
    pub(super) longest: u64,
}

#[derive(Debug)]
struct Volume {
    id: VolumeId,
    client: Client,
    /// Requests that it does not ask, being idle.
    resting: usize,
    idle: bool,
    /// The disk does not answer.
    stuck: bool,
    account: Account,
}

pub(super) struct World {
    disk: Disk,
    machine: Machine<Asked>,
    random: StdRng,
    now: Nanos,
    volumes: Vec<Volume>,
    /// In the channels, by the time at which they are done.
    working: BTreeMap<(Nanos, u64), Begun>,
    /// Not answered any more.
    lost: Vec<Begun>,
    /// In the disk's own queue.
    queued: VecDeque<Begun>,
    sequence: u64,
}

impl World {
    pub(super) fn new(seed: u64, disk: Disk, bounds: Bounds, broken: Option<Rule>) -> Self {
        Self {
            disk,
            machine: Machine::new(bounds, Rules::without(broken)),
            random: StdRng::seed_from_u64(seed),
            now: Nanos(0),
            volumes: Vec::new(),
            working: BTreeMap::new(),
            lost: Vec::new(),
            queued: VecDeque::new(),
            sequence: 0,
        }
    }

    pub(super) fn add(&mut self, client: Client) -> usize {
        let id = self.machine.add(client.limits, self.now);
        let account = Account::default();
        self.volumes.push(Volume { id, client, resting: client.depth, idle: true, stuck: false, account });
        let index = self.volumes.len() - 1;
        self.rest(index, false);
        index
    }

    /// Has a client stop asking, or go on.
    pub(super) fn rest(&mut self, client: usize, idle: bool) {
        self.volumes[client].idle = idle;
        if !idle {
            (0..std::mem::take(&mut self.volumes[client].resting)).for_each(|_| self.ask(client));
        }
    }

    pub(super) fn limit(&mut self, client: usize, limits: Limits) {
        self.machine.change(self.volumes[client].id, limits, self.now);
        self.start();
    }

    /// Has the disk answer this volume no more.
    pub(super) fn stick(&mut self, client: usize) {
        self.volumes[client].stuck = true;
    }

    /// Has it answer again, also what it did not.
    pub(super) fn free(&mut self, client: usize) {
        self.volumes[client].stuck = false;
        let (lost, others) = self.lost.drain(..).partition(|begun| begun.asked.client == client);
        self.lost = others;
        let lost: Vec<Begun> = lost;
        lost.into_iter().for_each(|begun| self.finish(begun));
    }

    pub(super) fn account(&self, client: usize) -> &Account {
        &self.volumes[client].account
    }

    /// Requests of a client that were started in these seconds.
    pub(super) fn started(&self, client: usize, from: u64, to: u64) -> u64 {
        let within = |at: &&u64| (from * SECOND..to * SECOND).contains(*at);
        self.volumes[client].account.started.iter().filter(within).count() as u64
    }

    /// Bytes of them.
    pub(super) fn bytes(&self, client: usize, from: u64, to: u64) -> u64 {
        self.started(client, from, to) * self.volumes[client].client.bytes
    }

    fn ask(&mut self, client: usize) {
        let volume = &mut self.volumes[client];
        if volume.idle {
            volume.resting += 1;
            return;
        }
        let (id, bytes, asked) = (volume.id, volume.client.bytes, Asked { client, at: self.now });
        match self.machine.admit(id, bytes, self.now) {
            Admission::Now(ticket) => self.begin(Begun { asked, ticket }),
            Admission::Later => assert!(self.machine.wait(id, bytes, asked, self.now).is_none()),
            Admission::Gone => unreachable!("no volume is removed"),
        }
    }

    fn start(&mut self) {
        let mut started = Vec::new();
        self.machine.start(self.now, &mut started);
        for Started { request, ticket } in started {
            self.begin(Begun { asked: request, ticket });
        }
    }

    fn begin(&mut self, begun: Begun) {
        let account = &mut self.volumes[begun.asked.client].account;
        account.started.push(self.now.0);
        account.longest = account.longest.max(self.now.since(begun.asked.at));
        self.queued.push_back(begun);
        self.work();
    }

    /// Has free channels take what is queued. What is stuck waits for something else than a channel: a replica, or room.
    fn work(&mut self) {
        while self.working.len() < self.disk.channels {
            let Some(begun) = self.queued.pop_front() else { return };
            let volume = &self.volumes[begun.asked.client];
            if volume.stuck {
                self.lost.push(begun);
                continue;
            }
            let nanos = self.disk.request + self.disk.kib * volume.client.bytes / 1024;
            let nanos = self.random.random_range(nanos * 9 / 10..=nanos * 11 / 10).max(1);
            self.sequence += 1;
            self.working.insert((self.now.plus(nanos), self.sequence), begun);
        }
    }

    /// Lets time pass until so many seconds after the begin.
    pub(super) fn run_to(&mut self, seconds: u64) {
        let end = Nanos(seconds * SECOND);
        loop {
            let done = self.working.first_key_value().map(|((at, _), _)| *at);
            let wake = self.machine.next_wake();
            let Some(next) = done.into_iter().chain(wake).min().filter(|next| *next < end) else { break };
            assert!(next >= self.now || Some(next) == wake, "time goes on");
            self.now = self.now.max(next);
            if done == Some(next) {
                let (_, begun) = self.working.pop_first().expect("it is the first");
                self.finish(begun);
            } else {
                self.start();
                assert!(
                    self.machine.next_wake().is_none_or(|wake| wake > self.now),
                    "who is woken is not woken at once again"
                );
            }
        }
        self.now = end;
    }

    fn finish(&mut self, begun: Begun) {
        self.machine.finish(begun.ticket);
        self.work();
        if self.machine.waits_for_room() {
            self.start();
        }
        self.ask(begun.asked.client);
    }
}
