//! What is true after every step.

use super::world::{Asked, Instant, MILLI, World, limits};
use crate::record::{Member, Record, Standing};
use crate::units::{Blocks, Incarnation, ReplicaId};

impl World {
    pub(super) fn check(&mut self, volume: usize) -> Result<(), String> {
        self.check_sizes(volume)?;
        let serving = self.serving(volume);
        if serving.len() > 1 && !self.habits.is_wild {
            return Err(format!("two attachments serve it: {serving:?}"));
        }
        for client in serving {
            self.serves(volume, client)?;
        }
        self.check_in_sync(volume)?;
        self.check_snapshots(volume)
    }

    fn serving(&self, volume: usize) -> Vec<usize> {
        let clients = self.volumes[volume].clients.iter().enumerate();
        let serves = clients.filter(|(_, client)| {
            client.goes_on() && client.machine.may_serve(self.nodes[client.node].local(self.now))
        });
        serves.map(|(index, _)| index).collect()
    }

    fn incarnation(&self, volume: usize, replica: ReplicaId) -> Option<Incarnation> {
        let copy = self.volumes[volume].copies.get(&replica)?;
        Some(Incarnation(self.nodes[copy.node].incarnation))
    }

    /// Notes that it is served, with which replicas, in which incarnations: from here on they must hold what is acknowledged.
    fn serves(&mut self, volume: usize, client: usize) -> Result<(), String> {
        let record = self.record(volume);
        let is_aware = self.is_aware(volume, client, &record);
        let state = &mut self.volumes[volume];
        if !record.is_attached_to(state.clients[client].id) {
            return Ok(());
        }
        let in_sync: Vec<ReplicaId> = record.in_sync().collect();
        for id in &in_sync {
            if let Some(incarnation) = state.clients[client].machine.incarnation_of(*id) {
                state.served.insert(*id, incarnation);
            }
        }
        state.served.retain(|id, _| in_sync.contains(id));
        if state.clients[client].aware_since.is_none() {
            self.begins_to_serve(volume, client, &in_sync)?;
        }
        let cut_at = self.volumes[volume].cut_at;
        if is_aware && self.volumes[volume].clients[client].aware_since.is_none_or(|since| since <= cut_at) {
            // It has found one that has everything after all, such as one that joined by a swap that came late, and goes on with that.
            let now = self.moment();
            self.volumes[volume].clients[client].aware_since = Some(now);
        }
        Ok(())
    }

    /// Whether an attachment knows the record as it is, and of all losses of power of its replicas.
    fn is_aware(&self, volume: usize, client: usize, record: &Record) -> bool {
        let machine = &self.volumes[volume].clients[client].machine;
        let is_known = |id: ReplicaId| machine.incarnation_of(id) == self.incarnation(volume, id);
        machine.record().is_some_and(|known| known.epoch == record.epoch) && record.in_sync().all(is_known)
    }

    /// What earlier attachments had under way is there or not, for good; and the replicas are equal.
    fn begins_to_serve(&mut self, volume: usize, client: usize, in_sync: &[ReplicaId]) -> Result<(), String> {
        let now = self.moment();
        self.check_users(volume, client, in_sync)?;
        let state = &mut self.volumes[volume];
        state.clients[client].aware_since = Some(now);
        for earlier in (0..client)
            .filter(|earlier| {
                // One that has never had the volume has sent nothing, and may get it later.
                let other = &state.clients[*earlier];
                !other.goes_on() || other.machine.has_claimed()
            })
            .collect::<Vec<_>>()
        {
            for asked in state.clients[earlier].asked.values() {
                if let Asked::Write { blocks: Blocks { start, count }, first } = asked {
                    for i in 0..*count {
                        state.histories[usize::try_from(start + i).unwrap()].close(first + i, now);
                    }
                }
            }
        }
        for block in 0..state.blocks {
            let values: Vec<u64> = in_sync.iter().map(|id| state.copies[id].disk.value(block)).collect();
            let is_equal = values.windows(2).all(|pair| pair[0] == pair[1]);
            let is_intact = in_sync.iter().all(|id| {
                let copy = &state.copies[id];
                state.served.get(id) == Some(&Incarnation(self.nodes[copy.node].incarnation))
            });
            if !is_equal && is_intact {
                return Err(format!("it begins to be served, and block {block} differs: {values:?} on {in_sync:?}"));
            }
            if let Some(value) = values.first().filter(|_| is_intact) {
                state.histories[usize::try_from(block).unwrap()].settle(*value, now);
            }
        }
        Ok(())
    }

    /// Users who were not told of a loss of power find everything that was answered to them, flushed or not.
    fn check_users(&self, volume: usize, client: usize, in_sync: &[ReplicaId]) -> Result<(), String> {
        let state = &self.volumes[volume];
        let before = state.clients[client].goes_on_for;
        let before = state.clients.iter().find(|other| Some(other.id) == before).and_then(|other| other.aware_since);
        if before.is_none_or(|since| since > state.cut_at) {
            return Ok(());
        }
        for (block, history) in (0..).zip(&state.uncut) {
            let values: Vec<u64> = in_sync.iter().map(|id| state.copies[id].disk.value(block)).collect();
            if !values.iter().any(|value| history.may_hold(*value)) {
                return Err(format!("users go on, and block {block} is not what was answered to them: {values:?}"));
            }
        }
        Ok(())
    }

    /// No acknowledged write is lost: an in-sync replica that has not lost its power since it was served has all of them.
    fn check_in_sync(&self, volume: usize) -> Result<(), String> {
        let record = self.record(volume);
        let state = &self.volumes[volume];
        if record.in_sync().next().is_none() {
            return Err("no replica is in sync".into());
        }
        for id in record.in_sync() {
            if state.served.get(&id).copied() != self.incarnation(volume, id) {
                continue;
            }
            let disk = &state.copies[&id].disk;
            for block in (0..state.blocks).filter(|block| !disk.rotten.contains(block)) {
                let history = &state.histories[usize::try_from(block).unwrap()];
                if !history.may_hold(disk.value(block)) {
                    let value = disk.value(block);
                    return Err(format!(
                        "{id} is in sync, and block {block} is {value} there instead of one of {:?}",
                        history.latest()
                    ));
                }
            }
        }
        Ok(())
    }

    /// If no in-sync replica has kept its power since it was served, what was not flushed may be lost.
    pub(super) fn notice_loss_of_all(&mut self, volume: usize) -> Result<(), String> {
        let record = self.record(volume);
        let is_whole = |id: ReplicaId| {
            let served = self.volumes[volume].served.get(&id).copied();
            served.is_some() && served == self.incarnation(volume, id)
        };
        if record.in_sync().any(is_whole) {
            return Ok(());
        }
        self.counts.all_lost += 1;
        let now = self.moment();
        let is_wild = self.habits.is_wild;
        let state = &mut self.volumes[volume];
        state.served.clear();
        state.cut_at = now;
        state.uncut.clone_from(&state.histories);
        for (block, history) in state.histories.iter_mut().enumerate() {
            let cut = history.cut();
            cut.map_err(|what| format!("volume {volume}, block {block}, when all power was lost: {what}"))
                .or_else(|what| if is_wild { Ok(()) } else { Err(what) })?;
        }
        Ok(())
    }

    /// A replica that does not answer is being taken out, and meanwhile those that stay lose their power, before anybody has heard of it: within the time
    /// in which each of them is asked something. What was not flushed may be lost then.
    pub(super) fn notice_late_swap(&mut self, volume: usize, asked: Instant) -> Result<(), String> {
        let record = self.record(volume);
        let node = |id: &ReplicaId| &self.nodes[self.volumes[volume].copies[id].node];
        let unheard = limits().lease.0;
        let was_late = record.in_sync().any(|id| node(&id).lost_power.is_some_and(|at| at + unheard >= asked));
        if was_late { self.notice_loss_of_all(volume) } else { Ok(()) }
    }

    /// What keeps a volume from being at rest, when nothing disturbs it any more.
    pub(super) fn unrest(&self, volume: usize) -> Option<String> {
        let record = self.record(volume);
        let state = &self.volumes[volume];
        let Some(last) = state.clients.last() else { return Some("nobody has attached it".into()) };
        if !record.is_attached_to(last.id) || !last.goes_on() {
            return Some(format!("it is not attached: {:?}", last.machine.ending()));
        }
        let index = state.clients.len() - 1;
        if !self.serving(volume).contains(&index) {
            return Some(format!("it is not served: {:?}", last.machine));
        }
        // One that is to leave stays while it alone has a snapshot, in sync or not.
        let stays = |id: &ReplicaId| !record.only_on(*id).is_empty();
        let is_well = |id: &ReplicaId, member: &Member| {
            if member.is_retiring { stays(id) } else { member.standing == Standing::InSync }
        };
        if !record.members.iter().all(|(id, member)| is_well(id, member)) {
            return Some(format!("not all replicas are in sync: {record:?}, {:?}", last.machine));
        }
        // Without this, what a replica has lost last is found by nobody before the end, and taken for a fault of the protocol.
        if !self.is_aware(volume, index, &record) {
            return Some(format!("a loss of power, or the record, is not known to it: {:?}", last.machine));
        }
        if record.wanted_snapshot().is_some()
            || record.wanted_blocks > record.blocks
            || last.machine.record() != Some(&record)
        {
            return Some(format!("what is wanted of it is not done, or not known: {record:?}, {:?}", last.machine));
        }
        if !last.asked.is_empty() {
            return Some(format!("operations are not answered: {:?}", last.asked));
        }
        None
    }

    /// At the end: all replicas are equal, and all reads fit.
    pub(super) fn check_at_rest(&mut self, volume: usize) -> Result<(), String> {
        let record = self.record(volume);
        let state = &self.volumes[volume];
        let since = state.clients.last().and_then(|client| client.aware_since);
        if since.is_none_or(|since| since <= state.cut_at) {
            return Err(format!("volume {volume}: it is served on, as if the power had not been lost"));
        }
        for block in 0..state.blocks {
            let fresh = record.in_sync().filter(|id| !state.copies[id].disk.rotten.contains(&block));
            let values: Vec<u64> = fresh.map(|id| state.copies[&id].disk.value(block)).collect();
            if values.windows(2).any(|pair| pair[0] != pair[1]) {
                return Err(format!(
                    "volume {volume}: block {block} differs at the end, at {} ms: {values:?}",
                    self.now / MILLI
                ));
            }
        }
        for (block, history) in state.histories.iter().enumerate() {
            history.check().map_err(|what| format!("volume {volume}, block {block}: {what}"))?;
        }
        Ok(())
    }
}
