//! Which request may go on, decided without clock, lock or thread: whoever owns the machine tells it what happened and what time it is, and
//! starts what it gives.
//!
//! ```text
//!            no tokens              its time has come
//!   idle ───────────────► held ──────────────────────────┐
//!    ▲ │                    ▲ no tokens                  ▼
//!    │ └────────────────────┴────────────────────── in turn ──► started
//!    └───────────── nothing waits any more ─────────────┘  ▲ turn, and room
//! ```
//! A volume of which a request is under way for too long is *suspect* until that is answered: it tries one request at a time, which takes up no
//! room, and is held meanwhile. So one that is suspended holds up the others for little more than a second; and one of which only writes are
//! suspended, since the pool is full, still reads.
//!
//! The turns are a deficit round robin: in each round a volume is given [`QUANTUM`] bytes, and starts what it can pay. A quantum is as small as
//! the cheapest request, so that a volume that has only one request at a time is served after one request of each other volume. Rounds in which
//! nobody could pay are taken at once.

use super::Limits;
use super::bucket::{Bucket, Nanos};
use super::rules::{Rule, Rules};
use super::under_way::{Ticket, UnderWay};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What a request costs at least, in bytes: a disk does not do a shorter one faster.
const CHEAPEST: u64 = 4096;
/// Bytes that a volume is given in each round.
const QUANTUM: u64 = CHEAPEST;
/// The shortest time for which a volume is held, in nanoseconds: two thousand wakes a second are enough for a volume, however high its limit.
/// Tokens come meanwhile, so it loses nothing.
const GRAIN: u64 = 500_000;
/// After so many nanoseconds a request takes up no room any more. No disk works for so long; a volume whose replicas cannot be reached, or
/// whose pool is full, is suspended for as long as that takes, and must not suspend the others.
const PATIENCE: u64 = 1_000_000_000;
/// How often requests are looked for that are under way for too long, in nanoseconds, while others wait for room.
const LOOK: u64 = 250_000_000;

/// How much may be under way in a pool at once.
///
/// A disk must have enough to do; what is more waits in its own queue, where nobody takes turns, so a request that comes waits for all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Reads and writes. At least one is allowed.
    pub requests: usize,
    /// Their bytes. The last that is started may exceed it, so that a request of any length is started one day.
    pub bytes: u64,
}

impl Default for Bounds {
    /// 64 requests: disks reach their rate with 32, and as many again cover the way to a replica. 8 MiB: what a fast disk does in some
    /// milliseconds, and what eight requests of the longest kind of a file system have.
    fn default() -> Self {
        Self { requests: 64, bytes: 8 << 20 }
    }
}

/// A volume, for as long as the machine lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct VolumeId(u64);

/// What becomes of a request that comes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// It is started now.
    Now(Ticket),
    /// It has to wait: [`Machine::wait`].
    Later,
    /// The volume was removed.
    Gone,
}

/// What waits has become something to start.
#[derive(Debug)]
pub(super) struct Started<R> {
    pub(super) request: R,
    pub(super) ticket: Ticket,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Idle,
    Held(Nanos),
    InTurn,
}

#[derive(Debug)]
struct Volume<R> {
    iops: Option<Bucket>,
    bytes: Option<Bucket>,
    waiting: VecDeque<(u64, R)>,
    place: Place,
    /// Bytes that it was given in its turns and has not spent.
    deficit: u64,
    /// Requests under way that do not take up room any more, or never did.
    given_up: usize,
    /// When it tried a request last, of those that are not answered.
    tried: Option<Nanos>,
}

impl<R> Volume<R> {
    fn refill(&mut self, now: Nanos, rules: Rules) {
        self.iops.iter_mut().chain(&mut self.bytes).for_each(|bucket| bucket.refill(now, rules));
    }

    /// Nanoseconds until there are the tokens for a request of so many bytes.
    fn lacks(&self, bytes: u64) -> u64 {
        let wait = |bucket: &Option<Bucket>, tokens| bucket.as_ref().map_or(0, |bucket| bucket.wait(tokens));
        wait(&self.iops, 1).max(wait(&self.bytes, bytes))
    }

    fn is_suspect(&self, rules: Rules) -> bool {
        self.given_up > 0 && rules.keeps(Rule::OneAtATime)
    }

    /// Nanoseconds until a request of so many bytes may be started, if there is room.
    fn wait(&self, bytes: u64, now: Nanos, rules: Rules) -> u64 {
        let tried = self.tried.filter(|_| self.is_suspect(rules));
        let patience = tried.map_or(0, |tried| PATIENCE.saturating_sub(now.since(tried)));
        self.lacks(bytes).max(patience)
    }

    /// Takes what a request of so many bytes needs, and says how it is under way.
    fn begin(&mut self, id: VolumeId, bytes: u64, now: Nanos, under_way: &mut UnderWay, rules: Rules) -> Ticket {
        self.take(bytes);
        if self.is_suspect(rules) {
            self.tried = Some(now);
            self.given_up += 1;
            return Ticket::beside(id);
        }
        under_way.enter(id, cost(bytes), now)
    }

    fn take(&mut self, bytes: u64) {
        self.iops.iter_mut().for_each(|bucket| bucket.take(1));
        self.bytes.iter_mut().for_each(|bucket| bucket.take(bytes));
    }
}

/// The state of a scheduler; `R` is whatever starts a request.
#[derive(Debug)]
pub(super) struct Machine<R> {
    bounds: Bounds,
    rules: Rules,
    volumes: BTreeMap<VolumeId, Volume<R>>,
    next: u64,
    /// Volumes that have requests and, as far as is known, the tokens for the first.
    turns: VecDeque<VolumeId>,
    /// Volumes that have requests and no tokens, by the time at which they have.
    held: BTreeSet<(Nanos, VolumeId)>,
    under_way: UnderWay,
    /// When to look for requests that are under way for too long; only while some wait for room.
    look: Option<Nanos>,
}

impl<R> Machine<R> {
    pub(super) fn new(bounds: Bounds, rules: Rules) -> Self {
        Self {
            bounds: Bounds { requests: bounds.requests.max(1), bytes: bounds.bytes.max(1) },
            rules,
            volumes: BTreeMap::new(),
            next: 0,
            turns: VecDeque::new(),
            held: BTreeSet::new(),
            under_way: UnderWay::default(),
            look: None,
        }
    }

    pub(super) fn add(&mut self, limits: Limits, now: Nanos) -> VolumeId {
        let id = VolumeId(self.next);
        self.next += 1;
        let bucket = |rate| Bucket::new(rate, now);
        let volume = Volume {
            iops: limits.iops.map(bucket),
            bytes: limits.bytes_per_second.map(bucket),
            waiting: VecDeque::new(),
            place: Place::Idle,
            deficit: 0,
            given_up: 0,
            tried: None,
        };
        self.volumes.insert(id, volume);
        id
    }

    /// Forgets a volume; gives what waits.
    pub(super) fn remove(&mut self, id: VolumeId) -> Vec<R> {
        let Some(volume) = self.volumes.remove(&id) else { return Vec::new() };
        match volume.place {
            Place::Idle => {}
            Place::Held(until) => drop(self.held.remove(&(until, id))),
            Place::InTurn => self.turns.retain(|other| *other != id),
        }
        volume.waiting.into_iter().map(|(_, request)| request).collect()
    }

    /// Forgets all volumes; gives what waits.
    pub(super) fn clear(&mut self) -> Vec<R> {
        let ids: Vec<_> = self.volumes.keys().copied().collect();
        ids.into_iter().flat_map(|id| self.remove(id)).collect()
    }

    /// Whether the volume is known; a flush counts as one I/O, whether there is a token or not.
    pub(super) fn passes(&mut self, id: VolumeId, counts: bool, now: Nanos) -> bool {
        let Some(volume) = self.volumes.get_mut(&id) else { return false };
        if let Some(bucket) = volume.iops.as_mut().filter(|_| counts) {
            bucket.refill(now, self.rules);
            bucket.take_in_passing(1);
        }
        true
    }

    /// A read or write comes: may it be started now?
    pub(super) fn admit(&mut self, id: VolumeId, bytes: u64, now: Nanos) -> Admission {
        let has_room = self.has_room() && self.turns.is_empty();
        let Some(volume) = self.volumes.get_mut(&id) else { return Admission::Gone };
        if !has_room || !volume.waiting.is_empty() {
            return Admission::Later;
        }
        volume.refill(now, self.rules);
        if volume.wait(bytes, now, self.rules) > 0 {
            return Admission::Later;
        }
        Admission::Now(volume.begin(id, bytes, now, &mut self.under_way, self.rules))
    }

    /// Has a request wait that may not be started now. Of a volume that was removed it is given back.
    pub(super) fn wait(&mut self, id: VolumeId, bytes: u64, request: R, now: Nanos) -> Option<R> {
        let Some(volume) = self.volumes.get_mut(&id) else { return Some(request) };
        volume.waiting.push_back((bytes, request));
        if volume.place == Place::Idle {
            // What its first turn gives. So who has one request at a time is served after one turn of each other volume, not two.
            volume.deficit = QUANTUM;
            volume.refill(now, self.rules);
            match volume.wait(bytes, now, self.rules) {
                0 => self.put_in_turn(id),
                nanos => self.hold(id, now, nanos),
            }
            self.watch(now);
        }
        None
    }

    /// A request is finished.
    pub(super) fn finish(&mut self, ticket: Ticket) {
        if self.under_way.leave(ticket) {
            return;
        }
        if let Some(volume) = self.volumes.get_mut(&ticket.volume) {
            volume.given_up -= 1;
            volume.tried = None;
            self.release(ticket.volume);
        }
    }

    /// Has a volume that is held take its turn, in which it is seen whether it may.
    fn release(&mut self, id: VolumeId) {
        if let Some(Place::Held(until)) = self.volumes.get(&id).map(|volume| volume.place) {
            self.held.remove(&(until, id));
            self.put_in_turn(id);
        }
    }

    /// Whether a request waits that could be started once there is room.
    pub(super) fn waits_for_room(&self) -> bool {
        !self.turns.is_empty()
    }

    /// Goes on at other limits, also for what waits.
    pub(super) fn change(&mut self, id: VolumeId, limits: Limits, now: Nanos) {
        let Some(volume) = self.volumes.get_mut(&id) else { return };
        volume.refill(now, self.rules);
        for (bucket, rate) in [(&mut volume.iops, limits.iops), (&mut volume.bytes, limits.bytes_per_second)] {
            match (bucket.as_mut(), rate) {
                (Some(bucket), Some(rate)) => bucket.change(rate),
                _ => *bucket = rate.map(|rate| Bucket::new(rate, now)),
            }
        }
        self.release(id);
    }

    /// When [`Machine::start`] is to be called even if nothing happens.
    pub(super) fn next_wake(&self) -> Option<Nanos> {
        self.held.first().map(|(until, _)| *until).into_iter().chain(self.look).min()
    }

    /// Gives what is to be started now.
    pub(super) fn start(&mut self, now: Nanos, started: &mut Vec<Started<R>>) {
        while let Some((_, id)) = self.held.first().copied().filter(|(until, _)| *until <= now) {
            self.release(id);
        }
        if self.look.is_some_and(|look| look <= now) {
            self.look = None;
            self.give_up(now);
        }
        while self.has_room() {
            let Some(next) = self.take_turn(now) else { break };
            started.push(next);
        }
        self.watch(now);
    }

    fn give_up(&mut self, now: Nanos) {
        if !self.rules.keeps(Rule::GiveUp) {
            return;
        }
        for id in self.under_way.give_up(Nanos(now.0.saturating_sub(PATIENCE))) {
            if let Some(volume) = self.volumes.get_mut(&id) {
                volume.given_up += 1;
            }
        }
    }

    fn has_room(&self) -> bool {
        let is_room = self.under_way.requests() < self.bounds.requests && self.under_way.bytes() < self.bounds.bytes;
        is_room || !self.rules.keeps(Rule::Room)
    }

    fn put_in_turn(&mut self, id: VolumeId) {
        if let Some(volume) = self.volumes.get_mut(&id) {
            volume.place = Place::InTurn;
            self.turns.push_back(id);
        }
    }

    fn hold(&mut self, id: VolumeId, now: Nanos, nanos: u64) {
        if let Some(volume) = self.volumes.get_mut(&id) {
            let until = now.plus(nanos.max(GRAIN));
            volume.place = Place::Held(until);
            self.held.insert((until, id));
        }
    }

    /// Sees to it that somebody looks for what is under way for too long, as long as something waits for room.
    fn watch(&mut self, now: Nanos) {
        self.look = self.waits_for_room().then(|| self.look.unwrap_or(now.plus(LOOK)));
    }

    /// Takes the request whose turn it is out of its queue, and pays for it.
    fn take_turn(&mut self, now: Nanos) -> Option<Started<R>> {
        let mut fruitless = 0;
        loop {
            let id = *self.turns.front()?;
            let volume = self.volumes.get_mut(&id)?;
            let first = volume.waiting.front()?.0;
            volume.refill(now, self.rules);
            let nanos = volume.wait(first, now, self.rules);
            if nanos > 0 {
                self.turns.pop_front();
                self.hold(id, now, nanos);
                fruitless = 0;
            } else if volume.deficit >= cost(first)
                || !self.rules.keeps(Rule::Deficit)
                || !self.rules.keeps(Rule::Turns)
            {
                return self.pay(id, now);
            } else {
                volume.deficit += QUANTUM;
                self.turns.rotate_left(1);
                fruitless += 1;
                if fruitless == self.turns.len() {
                    self.skip_rounds();
                    fruitless = 0;
                }
            }
        }
    }

    /// Takes the first request of the volume whose turn it is.
    fn pay(&mut self, id: VolumeId, now: Nanos) -> Option<Started<R>> {
        let volume = self.volumes.get_mut(&id)?;
        let (bytes, request) = volume.waiting.pop_front()?;
        let ticket = volume.begin(id, bytes, now, &mut self.under_way, self.rules);
        volume.deficit = volume.deficit.saturating_sub(cost(bytes));
        if volume.waiting.is_empty() {
            volume.deficit = 0;
            volume.place = Place::Idle;
            self.turns.pop_front();
        } else if !self.rules.keeps(Rule::Deficit) {
            self.turns.rotate_left(1);
        }
        Some(Started { request, ticket })
    }

    /// Gives each volume what it would be given in the rounds until the first of them can pay.
    fn skip_rounds(&mut self) {
        let lack = |volume: &Volume<R>| {
            let first = volume.waiting.front().map_or(0, |(bytes, _)| cost(*bytes));
            first.saturating_sub(volume.deficit).div_ceil(QUANTUM)
        };
        let rounds = self.turns.iter().filter_map(|id| self.volumes.get(id)).map(lack).min().unwrap_or(0);
        for id in &self.turns {
            if let Some(volume) = self.volumes.get_mut(id) {
                volume.deficit += rounds * QUANTUM;
            }
        }
    }
}

fn cost(bytes: u64) -> u64 {
    bytes.max(CHEAPEST)
}
