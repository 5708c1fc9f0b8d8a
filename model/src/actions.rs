//! What can happen next, and what becomes of it.

use crate::state::{Attachment, Broken, Message, Phase, Record, Swap, Volume, World, bit};

/// One step. The first number is the attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// It reads the record.
    Read(u8),
    /// It asks for this swap.
    Ask(u8, Record),
    /// The record store does what it asked for, if the version is right, and the answer comes.
    Answered(u8),
    /// It waits no longer for the answer.
    GiveUp(u8),
    /// A swap that was given up is done, or refused for good.
    Late(Swap),
    Seal(u8, u8),
    /// All whose leases it needs give it one.
    Renew(u8),
    /// All are sealed: it goes on; a new one with what this replica holds.
    GoOn(u8, u8),
    Serve(u8),
    Write(u8),
    /// A write reaches its replica, and perhaps the answer the attachment. (One that comes later is as good as one that comes at once and is used later, or as none, since
    /// those of another epoch do not count.)
    Stored(Message, bool),
    Acknowledge(u8),
    /// It reads the block from this replica.
    ReadBlock(u8, u8),
    Copy(u8, u8),
    LeaveJoiner(u8),
    /// A step of time.
    Tick,
}

impl Volume {
    pub(crate) fn possible(&self, world: &World) -> Vec<Action> {
        let mut all = vec![Action::Tick];
        all.extend(world.late.iter().map(|swap| Action::Late(*swap)));
        for message in &world.writes {
            all.extend([Action::Stored(*message, true), Action::Stored(*message, false)]);
        }
        for (one, id) in world.attachments.iter().zip(0..) {
            self.possible_of(world, one, id, &mut all);
        }
        all
    }

    fn possible_of(&self, world: &World, one: &Attachment, id: u8, all: &mut Vec<Action>) {
        if one.phase == Phase::Ended {
            return;
        }
        if one.asked.is_some() {
            all.extend([Action::Answered(id), Action::GiveUp(id)]);
        } else if one.phase == Phase::Idle || one.must_read || one.known != Some(world.record) {
            // Without a cause too: a watch says that the record has changed.
            all.push(Action::Read(id));
        }
        if one.asked.is_none() && !one.must_read {
            all.extend(self.swaps(one, id).into_iter().map(|record| Action::Ask(id, record)));
        }
        if matches!(one.phase, Phase::Idle | Phase::Claiming) {
            return;
        }
        all.extend(
            self.all().filter(|replica| one.sealed & bit(*replica) == 0).map(|replica| Action::Seal(id, replica)),
        );
        // A replica that somebody else has sealed meanwhile takes nothing, and gives no lease.
        let is_all_sealed = one.binding(self) & !(one.sealed & world.sealed_by(one.epoch(), id)) == 0;
        if !one.is_leased && is_all_sealed {
            all.push(Action::Renew(id));
        }
        if one.phase == Phase::Sealing && is_all_sealed {
            let sources = self.all().filter(|replica| one.in_sync() & bit(*replica) != 0);
            all.extend(sources.map(|source| Action::GoOn(id, source)));
        }
        if one.phase == Phase::Waiting(0) {
            all.push(Action::Serve(id));
        }
        if one.may_serve(self) {
            self.possible_under_lease(world, one, id, all);
        }
    }

    fn possible_under_lease(&self, world: &World, one: &Attachment, id: u8, all: &mut Vec<Action>) {
        match one.write {
            Some((_, answered)) if one.acknowledging(self) & !answered == 0 => all.push(Action::Acknowledge(id)),
            Some(_) => {}
            None => {
                let in_sync = self.all().filter(|replica| one.in_sync() & bit(*replica) != 0);
                all.extend(in_sync.map(|replica| Action::ReadBlock(id, replica)));
                let stale = self.all().filter(|replica| {
                    let is_other = (one.in_sync() | one.doubtful) & bit(*replica) == 0;
                    is_other && one.sealed & bit(*replica) != 0 && one.joiner.is_none()
                });
                all.extend(stale.map(|replica| Action::Copy(id, replica)));
                if world.next_value <= self.most_writes {
                    all.push(Action::Write(id));
                }
            }
        }
        if one.joiner.is_some() {
            all.push(Action::LeaveJoiner(id));
        }
    }

    /// The records that an attachment may ask for now.
    fn swaps(&self, one: &Attachment, id: u8) -> Vec<Record> {
        let Some(known) = one.known.filter(|known| known.epoch < self.most_epochs) else { return Vec::new() };
        match one.phase {
            Phase::Claiming => vec![known.next(id, known.in_sync)],
            Phase::Sealing | Phase::Serving => {
                let leaves = self.all().filter(|replica| known.in_sync & bit(*replica) != 0);
                let without = leaves.map(|replica| known.in_sync & !bit(replica)).filter(|rest| *rest != 0);
                let joined =
                    one.joiner.filter(|_| one.phase == Phase::Serving).map(|joiner| known.in_sync | bit(joiner));
                // Of one whose joining is not settled: anything that changes the version settles it.
                let settled = Some(known.in_sync).filter(|_| one.doubtful != 0);
                without.chain(joined).chain(settled).map(|in_sync| known.next(id, in_sync)).collect()
            }
            _ => Vec::new(),
        }
    }

    pub(crate) fn act(&self, world: &mut World, action: Action) {
        match action {
            Action::Tick => self.tick(world),
            Action::Late(swap) => {
                world.late.remove(&swap);
                Self::swap(world, swap);
            }
            Action::Stored(message, is_heard) => self.stored(world, message, is_heard),
            Action::Seal(id, replica) => Self::seal(world, id, replica),
            Action::Renew(id) => world.attachments[usize::from(id)].is_leased = true,
            Action::Answered(id) => self.answered(world, id),
            Action::Read(id) => {
                let found = world.record;
                self.learn(world, id, found);
            }
            Action::Write(id) => {
                let value = world.next_value;
                world.next_value += 1;
                world.attachments[usize::from(id)].write = Some((value, 0));
                self.send(world, id);
            }
            Action::Copy(id, replica) => {
                let source = world.of(world.attachments[usize::from(id)].in_sync()).next().map(|source| source.value);
                world.replicas[usize::from(replica)].value = source.unwrap_or_default();
                world.attachments[usize::from(id)].joiner = Some(replica);
                // No write is under way: whatever is still on its way is finished, and what is sent now says so.
                if self.keeps(Broken::RefuseFinished) {
                    world.writes.retain(|message| (message.of, message.replica) != (id, replica));
                }
            }
            Action::GoOn(id, source) => self.go_on(world, id, source),
            Action::ReadBlock(_, replica) => world.floor = world.floor.max(world.replicas[usize::from(replica)].value),
            Action::Acknowledge(id) => {
                let written = world.attachments[usize::from(id)].write.take();
                world.floor = world.floor.max(written.map_or(0, |(value, _)| value));
            }
            Action::Ask(..) | Action::GiveUp(_) | Action::Serve(_) | Action::LeaveJoiner(_) => {
                self.decide(world, action)
            }
        }
    }

    /// What an attachment does by itself.
    fn decide(&self, world: &mut World, action: Action) {
        match action {
            Action::Ask(id, record) => {
                let one = &mut world.attachments[usize::from(id)];
                let known = one.known.unwrap_or(record);
                let joins = record.in_sync & !known.in_sync;
                if joins != 0 {
                    (one.doubtful, one.doubtful_at) = (one.doubtful | joins, known.version);
                    // It needs the lease of this one, too.
                    one.is_leased &= !self.keeps(Broken::HeedUnresolved);
                }
                one.asked = Some(Swap { expected: known.version, record });
            }
            Action::GiveUp(id) => {
                let one = &mut world.attachments[usize::from(id)];
                world.late.extend(one.asked.take());
                one.must_read = true;
            }
            Action::Serve(id) => {
                let one = &mut world.attachments[usize::from(id)];
                (one.phase, one.has_served) = (Phase::Serving, true);
            }
            Action::LeaveJoiner(id) => world.attachments[usize::from(id)].joiner = None,
            _ => {}
        }
    }

    fn tick(&self, world: &mut World) {
        for one in &mut world.attachments {
            one.is_leased = false;
            if let Phase::Waiting(left) = &mut one.phase {
                *left = left.saturating_sub(1);
            }
        }
    }

    fn swap(world: &mut World, swap: Swap) -> bool {
        let is_done = world.record.version == swap.expected;
        if is_done {
            world.record = swap.record;
        }
        is_done
    }

    fn answered(&self, world: &mut World, id: u8) {
        let Some(swap) = world.attachments[usize::from(id)].asked.take() else { return };
        if Self::swap(world, swap) {
            self.learn(world, id, swap.record);
        } else {
            world.attachments[usize::from(id)].must_read = true;
        }
    }

    /// What the record says counts.
    fn learn(&self, world: &mut World, id: u8, found: Record) {
        let one = &mut world.attachments[usize::from(id)];
        one.must_read = false;
        if found.version != one.doubtful_at {
            one.doubtful = 0;
        }
        let is_mine = found.attached == Some(id);
        let is_new = found.epoch > one.epoch();
        match one.phase {
            Phase::Idle | Phase::Claiming if !is_mine => {
                (one.phase, one.known) = (Phase::Claiming, Some(found));
                one.is_forced = found.attached.is_some();
            }
            _ if !is_mine => {
                *one = Attachment { phase: Phase::Ended, has_served: one.has_served, ..Attachment::new() };
            }
            _ if is_new => {
                (one.phase, one.known) = (Phase::Sealing, Some(found));
                (one.sealed, one.is_leased) = (0, false);
                one.joiner = one.joiner.filter(|joiner| found.in_sync & bit(*joiner) == 0);
            }
            _ => one.known = Some(found),
        }
    }

    fn seal(world: &mut World, id: u8, replica: u8) {
        let one = &mut world.attachments[usize::from(id)];
        let state = &mut world.replicas[usize::from(replica)];
        let is_same = state.epoch == one.epoch() && state.of == Some(id);
        if state.epoch < one.epoch() || is_same {
            (state.epoch, state.of) = (one.epoch(), Some(id));
            one.sealed |= bit(replica);
        } else {
            one.must_read = true;
        }
    }

    /// All are sealed. One that has served goes on with what is under way; a new one makes them equal and waits for the leases of the one before.
    fn go_on(&self, world: &mut World, id: u8, source: u8) {
        let (in_sync, value) =
            (world.attachments[usize::from(id)].in_sync(), world.replicas[usize::from(source)].value);
        let one = &mut world.attachments[usize::from(id)];
        if one.has_served {
            one.phase = Phase::Serving;
            if let Some((_, answered)) = &mut one.write {
                *answered = 0;
                self.send(world, id);
            }
            return;
        }
        let waits = one.is_forced && self.keeps(Broken::AwaitLease);
        one.phase = Phase::Waiting(u8::from(waits));
        for replica in self.all().filter(|replica| in_sync & bit(*replica) != 0 && self.keeps(Broken::MakeEqual)) {
            world.replicas[usize::from(replica)].value = value;
        }
    }

    fn send(&self, world: &mut World, id: u8) {
        let one = &world.attachments[usize::from(id)];
        let Some((value, _)) = one.write else { return };
        let to = one.acknowledging(self);
        let epoch = one.epoch();
        let all = self.all().filter(|replica| to & bit(*replica) != 0);
        world.writes.extend(all.map(|replica| Message { of: id, replica, epoch, value }));
    }

    fn stored(&self, world: &mut World, message: Message, is_heard: bool) {
        world.writes.remove(&message);
        let replica = &mut world.replicas[usize::from(message.replica)];
        let is_sealed = (replica.epoch, replica.of) == (message.epoch, Some(message.of));
        if !is_sealed && self.keeps(Broken::RefuseLower) {
            return;
        }
        replica.value = message.value;
        let one = &mut world.attachments[usize::from(message.of)];
        if is_heard
            && one.epoch() == message.epoch
            && let Some((value, answered)) = &mut one.write
            && *value == message.value
        {
            *answered |= bit(message.replica);
        }
    }
}
