//! What goes wrong, how often, and for how long; see the fault model in [`super`].

use super::random::Random;
use super::world::{Happening, Instant, MILLI, SECOND, World, node_name};
use crate::units::ReplicaId;
use std::collections::BTreeSet;

/// How a world is; drawn anew for each seed, so that some are calm in one respect and wild in another.
#[derive(Debug, Clone)]
pub(super) struct Habits {
    /// Milliseconds between two faults, at most.
    pub(super) between_faults: u64,
    pub(super) cuts_power: u64,
    pub(super) kills: u64,
    pub(super) partitions: u64,
    pub(super) store_faults: u64,
    pub(super) disk_faults: u64,
    pub(super) clock_jumps: u64,
    pub(super) administers: u64,
    /// Of a hundred messages.
    pub(super) drops: u64,
    pub(super) doubles: u64,
    pub(super) delays: u64,
    pub(super) loses_answers: u64,
    /// Of a hundred looks at a volume that is served, how often it is taken over by force.
    pub(super) takes_over: u64,
    pub(super) detaches: u64,
    /// Milliseconds between two operations, at most.
    pub(super) between_operations: u64,
    pub(super) flushes: u64,
    /// Clocks jump beyond the bound.
    pub(super) is_wild: bool,
    /// Of a hundred copies, how many are written wrongly.
    pub(super) spoils: u64,
    pub(super) rots: bool,
    /// Of a hundred events of an attachment, how many wait for the next one, so that it is told several at once.
    pub(super) batches: u64,
    /// Snapshots and larger volumes are wanted.
    pub(super) wishes: bool,
}

impl Habits {
    pub(super) fn draw(seed: u64, random: &mut Random) -> Self {
        let rots = random.chance(25);
        let is_rough = random.chance(50);
        // Some have one attachment for long, and some hardly ever flush.
        let is_steady = random.chance(50);
        Self {
            between_faults: 200 + random.below(1500),
            cuts_power: if rots { 0 } else { random.below(50) },
            kills: random.below(30),
            partitions: random.below(40),
            store_faults: random.below(25),
            disk_faults: random.below(25),
            clock_jumps: random.below(20),
            administers: random.below(12).saturating_sub(4),
            drops: if is_rough { random.below(8) } else { 0 },
            doubles: if is_rough { random.below(10) } else { 0 },
            delays: if is_rough { random.below(12) } else { 1 },
            loses_answers: random.below(40),
            takes_over: if is_steady { 0 } else { random.below(10) },
            detaches: if is_steady { 0 } else { random.below(6) },
            between_operations: 5 + random.below(70),
            flushes: if random.chance(40) { 0 } else { random.below(20) },
            is_wild: random.chance(8),
            spoils: if random.chance(30) { random.below(30) } else { 0 },
            rots,
            // By itself, so that the other worlds are those that they were before there were batches.
            batches: if seed.is_multiple_of(3) { 10 + Random::new(!seed).below(50) } else { 0 },
            wishes: !seed.is_multiple_of(2),
        }
    }
}

/// The end of a fault.
#[derive(Debug, Clone)]
pub(super) enum Heal {
    Power(usize),
    Process(usize),
    Link(usize, usize),
    Store,
    StoreLink(usize),
    Disk(usize, ReplicaId),
}

impl World {
    pub(super) fn transfer(&mut self, from: usize, to: usize, what: Happening) {
        if self.nodes[from].cut_off.contains(&to) {
            return;
        }
        let is_remote = from != to;
        let copies = if is_remote && !self.is_calm && self.random.chance(self.habits.doubles) { 2 } else { 1 };
        for _ in 0..copies {
            if is_remote && !self.is_calm && self.random.chance(self.habits.drops) {
                continue;
            }
            let mut delay = (20 + self.random.below(600)) * MILLI / 1000;
            if is_remote && self.random.chance(self.habits.delays) {
                let most = if self.random.chance(15) { 1500 } else { 60 };
                delay += self.random.below(most) * MILLI;
            }
            self.later(delay, what.clone());
        }
    }

    pub(super) fn disk_takes(&mut self, volume: usize, of: ReplicaId) -> Instant {
        let is_slow = self.volumes[volume].copies[&of].disk.is_slow;
        let usual = (10 + self.random.below(400)) * MILLI / 1000;
        if is_slow { usual + self.random.below(900) * MILLI } else { usual }
    }

    pub(super) fn fault(&mut self) -> Result<(), String> {
        if self.is_calm {
            return Ok(());
        }
        let next = (1 + self.random.below(self.habits.between_faults)) * MILLI;
        self.later(next, Happening::Fault);
        let h = self.habits.clone();
        let node = self.random.index(self.nodes.len());
        let lasts = (50 + self.random.below(3000)) * MILLI;
        let weights =
            [h.cuts_power, h.kills, h.partitions, h.store_faults, h.disk_faults, h.clock_jumps, h.administers];
        let mut at = self.random.below(weights.iter().sum::<u64>().max(1));
        let kind = weights.iter().position(|weight| {
            let is_here = at < *weight;
            at = at.saturating_sub(*weight);
            is_here
        });
        match kind {
            Some(0) => {
                // Often it is more than one.
                let all = self.random.chance(15);
                let others = if all { self.nodes.len() } else { 1 + self.random.index(5) / 4 };
                for i in 0..others {
                    self.cut_power((node + i) % self.nodes.len(), lasts / 2)?;
                }
            }
            Some(1) => {
                let lasts = if self.random.chance(60) { lasts / 20 } else { lasts };
                self.kill(node, lasts);
            }
            Some(2) => self.partition(node, lasts),
            Some(3) => self.disturb_store(node, lasts),
            Some(4) => self.disturb_disk(lasts),
            Some(5) => {
                let most = if self.habits.is_wild { 5000 } else { 15 };
                self.nodes[node].clock += self.random.below(most) * MILLI;
            }
            Some(6) => self.administer(),
            _ => {}
        }
        Ok(())
    }

    pub(super) fn cut_power(&mut self, node: usize, lasts: Instant) -> Result<(), String> {
        if !self.nodes[node].has_power {
            return Ok(());
        }
        self.counts.power_cuts += 1;
        self.end_processes(node);
        self.nodes[node].has_power = false;
        self.nodes[node].incarnation += 1;
        self.nodes[node].lost_power = Some(self.now);
        for volume in &mut self.volumes {
            for copy in volume.copies.values_mut().filter(|copy| copy.node == node) {
                copy.disk.lose_power(&mut self.random);
            }
        }
        for volume in 0..self.volumes.len() {
            self.notice_loss_of_all(volume)?;
        }
        self.later(lasts, Happening::Heal(Heal::Power(node)));
        Ok(())
    }

    fn kill(&mut self, node: usize, lasts: Instant) {
        if self.nodes[node].runs {
            self.end_processes(node);
            self.later(lasts, Happening::Heal(Heal::Process(node)));
        }
    }

    fn end_processes(&mut self, node: usize) {
        self.nodes[node].runs = false;
        self.nodes[node].session += 1;
        for volume in &mut self.volumes {
            volume.copies.values_mut().filter(|copy| copy.node == node).for_each(|copy| copy.machine = None);
            volume.clients.iter_mut().filter(|client| client.node == node).for_each(|client| client.lives = false);
        }
    }

    fn partition(&mut self, node: usize, lasts: Instant) {
        let is_one_way = self.random.chance(30);
        let all = self.random.chance(50);
        let others: BTreeSet<usize> = if all {
            (0..self.nodes.len()).filter(|other| *other != node).collect()
        } else {
            BTreeSet::from([(node + 1 + self.random.index(self.nodes.len() - 1)) % self.nodes.len()])
        };
        for other in others {
            self.nodes[node].cut_off.insert(other);
            self.later(lasts, Happening::Heal(Heal::Link(node, other)));
            if !is_one_way {
                self.nodes[other].cut_off.insert(node);
                self.later(lasts, Happening::Heal(Heal::Link(other, node)));
            }
        }
        if self.random.chance(20) {
            self.nodes[node].is_cut_off_from_store = true;
            self.later(lasts, Happening::Heal(Heal::StoreLink(node)));
        }
    }

    fn disturb_store(&mut self, node: usize, lasts: Instant) {
        match self.random.below(3) {
            0 => self.records.is_down = true,
            1 => self.records.is_slow = true,
            _ => {
                self.nodes[node].is_cut_off_from_store = true;
                return self.later(lasts, Happening::Heal(Heal::StoreLink(node)));
            }
        }
        self.later(lasts, Happening::Heal(Heal::Store));
    }

    fn disturb_disk(&mut self, lasts: Instant) {
        let volume = self.random.index(self.volumes.len());
        let block = self.random.below(self.volumes[volume].blocks);
        let ids: Vec<ReplicaId> = self.volumes[volume].copies.keys().copied().collect();
        let Some(id) = self.random.pick(&ids) else { return };
        let rotting = self.volumes[volume].rotting;
        let kind = self.random.below(if rotting.is_some() { 9 } else { 3 });
        let id = if kind > 2 { rotting.unwrap() } else { id };
        let disk = &mut self.volumes[volume].copies.get_mut(&id).unwrap().disk;
        match kind {
            0 => disk.is_full = true,
            1 => disk.is_slow = true,
            2 => disk.is_failing = true,
            _ => drop(disk.rotten.insert(block)),
        }
        self.later(lasts, Happening::Heal(Heal::Disk(volume, id)));
    }

    /// Somebody changes what is wanted of a volume.
    fn administer(&mut self) {
        let volume = self.random.index(self.volumes.len());
        let Some(found) = self.records.kept.look(self.volumes[volume].id) else { return };
        let record = found.record;
        let free: Vec<usize> =
            (0..self.nodes.len()).filter(|node| record.members.values().all(|m| m.node != node_name(*node))).collect();
        let members: Vec<ReplicaId> =
            record.members.keys().copied().filter(|id| self.volumes[volume].rotting != Some(*id)).collect();
        let next = match (self.random.pick(&free), self.random.pick(&members)) {
            (Some(node), _) if self.random.chance(50) => {
                self.next_id += 1;
                let id = ReplicaId(self.next_id);
                let disk = super::disk::Disk::new(self.volumes[volume].blocks);
                let copy = super::world::Copy { node, disk, machine: None };
                self.volumes[volume].copies.insert(id, copy);
                if self.nodes[node].runs {
                    self.open_replica(volume, id);
                }
                record.with_replica(id, node_name(node))
            }
            (_, Some(id)) if self.random.chance(70) => record.with_retiring(id),
            _ if self.volumes[volume].rotting.is_none() => {
                record.with_minimum(1 + u32::try_from(self.random.below(3)).unwrap())
            }
            _ => return,
        };
        if let Ok(next) = next
            && self.records.kept.put(self.volumes[volume].id, Some(&found.version), next).is_ok()
        {
            self.record_changed(volume);
        }
    }

    pub(super) fn heal(&mut self, heal: Heal) {
        match heal {
            Heal::Power(node) => {
                self.nodes[node].has_power = true;
                self.start(node);
            }
            Heal::Process(node) => self.start(node),
            Heal::Link(from, to) => drop(self.nodes[from].cut_off.remove(&to)),
            Heal::Store => (self.records.is_down, self.records.is_slow) = (false, false),
            Heal::StoreLink(node) => self.nodes[node].is_cut_off_from_store = false,
            Heal::Disk(volume, id) => {
                let Some(copy) = self.volumes[volume].copies.get_mut(&id) else { return };
                let was_failing = copy.disk.is_failing;
                (copy.disk.is_full, copy.disk.is_slow, copy.disk.is_failing) = (false, false, false);
                let node = copy.node;
                // A store that has failed is opened again, in another run of the process.
                if was_failing && self.nodes[node].runs {
                    self.end_processes(node);
                    self.start(node);
                }
            }
        }
    }

    fn start(&mut self, node: usize) {
        if self.nodes[node].runs || !self.nodes[node].has_power {
            return;
        }
        self.nodes[node].runs = true;
        for volume in 0..self.volumes.len() {
            let here = self.volumes[volume].copies.iter().filter(|(_, copy)| copy.node == node).map(|(id, _)| *id);
            for id in here.collect::<Vec<_>>() {
                self.open_replica(volume, id);
            }
        }
    }

    /// All faults end.
    pub(super) fn heal_all(&mut self) {
        self.is_calm = true;
        self.heal(Heal::Store);
        for node in 0..self.nodes.len() {
            self.nodes[node].cut_off.clear();
            self.heal(Heal::StoreLink(node));
            self.heal(Heal::Power(node));
        }
        for volume in 0..self.volumes.len() {
            for id in self.volumes[volume].copies.keys().copied().collect::<Vec<_>>() {
                self.heal(Heal::Disk(volume, id));
            }
            self.record_changed(volume);
        }
    }
}

/// How long faults go on.
pub(super) const ROUGH: Instant = 12 * SECOND;
/// How long everything may take to come to rest afterwards.
pub(super) const REST: Instant = 60 * SECOND;
