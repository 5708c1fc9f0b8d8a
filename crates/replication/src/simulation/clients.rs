//! Those who use the volumes, and those who attach and detach them.

use super::disk::BLOCK_BYTES;
use super::world::{Asked, Happening, MILLI, World, limits, node_name};
use crate::attachment::{Done, Ending, Event, Io, IoError, Notice, Options};
use crate::record::Attached;
use crate::units::{AttachmentId, Blocks, Tag};

impl World {
    /// The volume's user does something.
    pub(super) fn ask(&mut self, volume: usize) -> Result<(), String> {
        if self.is_calm {
            return Ok(());
        }
        let next = (1 + self.random.below(self.habits.between_operations)) * MILLI;
        self.later(next, Happening::Ask { volume });
        // One that was replaced and does not know it goes on, too.
        for client in 0..self.volumes[volume].clients.len() {
            let state = &self.volumes[volume].clients[client];
            if state.goes_on() && state.machine.room() > 0 && self.random.chance(80) {
                self.ask_of(volume, client)?;
            }
        }
        Ok(())
    }

    fn ask_of(&mut self, volume: usize, client: usize) -> Result<(), String> {
        let state = &self.volumes[volume];
        // What its user knows of.
        let size = state.clients[client].machine.record().map_or(state.blocks, |record| record.blocks);
        let start = self.random.below(size);
        let blocks = Blocks { start, count: 1 + self.random.below((size - start).min(3)) };
        if self.random.chance(self.habits.flushes) {
            let begun = self.moment();
            return self.submit(volume, client, Asked::Flush { begun }, Io::Flush);
        }
        if self.random.chance(45) {
            return self.read(volume, client, blocks);
        }
        let first = self.volumes[volume].next_value;
        self.volumes[volume].next_value += blocks.count;
        let begun = self.moment();
        let mut data = Vec::with_capacity(BLOCK_BYTES * usize::try_from(blocks.count).unwrap());
        for i in 0..blocks.count {
            data.extend((first + i).to_le_bytes());
            let block = usize::try_from(blocks.start + i).unwrap();
            self.volumes[volume].histories[block].begin_write(first + i, begun);
        }
        self.submit(volume, client, Asked::Write { blocks, first }, Io::Write { blocks, data: data.into() })
    }

    pub(super) fn read(&mut self, volume: usize, client: usize, blocks: Blocks) -> Result<(), String> {
        let begun = self.moment();
        self.submit(volume, client, Asked::Read { blocks, begun }, Io::Read { blocks })
    }

    /// A moment that comes before and after all others.
    pub(super) fn moment(&mut self) -> u64 {
        self.step += 1;
        self.step
    }

    fn submit(&mut self, volume: usize, client: usize, asked: Asked, io: Io) -> Result<(), String> {
        let state = &mut self.volumes[volume].clients[client];
        let tag = Tag(state.next_tag);
        state.next_tag += 1;
        state.asked.insert(tag, asked);
        self.tell(volume, client, Event::Submit { tag, io })
    }

    pub(super) fn client_answered(
        &mut self,
        volume: usize,
        client: usize,
        tag: Tag,
        result: Result<Done, IoError>,
    ) -> Result<(), String> {
        let now = self.moment();
        let state = &mut self.volumes[volume];
        let Some(asked) = state.clients[client].asked.get(&tag).cloned() else {
            return Err(format!("{tag:?} is answered and was not asked, or twice"));
        };
        let done = match result {
            Ok(done) => done,
            Err(IoError::Damaged { blocks }) => return Err(format!("{blocks} cannot be read, and are well on others")),
            // Nobody knows what became of it.
            Err(_) => return Ok(()),
        };
        state.clients[client].asked.remove(&tag);
        let block = |blocks: Blocks, i: usize| usize::try_from(blocks.start).unwrap() + i;
        match (asked, done) {
            (Asked::Write { blocks, first }, Done::Done) => {
                // Rule 3, where neither power nor people interfere: so many replicas have it.
                let is_steady = self.habits.cuts_power == 0 && self.habits.administers == 0 && !self.habits.is_wild;
                let has = |copy: &super::world::Copy| {
                    blocks.end() <= copy.disk.size()
                        && (0..blocks.count).all(|i| copy.disk.value(blocks.start + i) == first + i)
                };
                let copies = state.copies.values().filter(|copy| has(copy)).count();
                let minimum = state.minimum;
                if is_steady && copies < minimum {
                    return Err(format!("a write is acknowledged, and on {copies} replicas instead of {minimum}"));
                }
                self.counts.acknowledged += 1;
                for i in 0..usize::try_from(blocks.count).unwrap() {
                    state.histories[block(blocks, i)].end_write(first + i as u64, now);
                }
            }
            (Asked::Flush { begun }, Done::Done) => {
                if begun > state.cut_at {
                    state.histories.iter_mut().for_each(|history| history.flushed(begun));
                }
            }
            (Asked::Read { blocks, begun }, Done::Data(data)) => {
                self.counts.read += 1;
                if begun <= state.cut_at || self.habits.is_wild && !self.is_calm {
                    return Ok(());
                }
                let is_unaware = state.clients[client].aware_since.is_none_or(|since| since <= state.cut_at);
                for (i, bytes) in data.chunks_exact(BLOCK_BYTES).enumerate() {
                    let value = u64::from_le_bytes(bytes.try_into().unwrap());
                    let history = &mut state.histories[block(blocks, i)];
                    let read = if is_unaware { history.read_unaware(value) } else { history.read(value, begun, now) };
                    read.map_err(|what| format!("block {}: {what}", block(blocks, i)))?;
                }
            }
            (asked, done) => return Err(format!("{asked:?} is answered by {done:?}")),
        }
        Ok(())
    }

    pub(super) fn noticed(&mut self, _volume: usize, _client: usize, notice: &Notice) {
        match notice {
            Notice::Left(_) => self.counts.left += 1,
            Notice::Joined(_) => self.counts.joined += 1,
            Notice::Repaired(..) => self.counts.repaired += 1,
            Notice::Suspended(_) => self.counts.suspended += 1,
            Notice::Ended(Ending::Displaced) => self.counts.displaced += 1,
            Notice::Ended(Ending::Detached) => self.counts.detached += 1,
            _ => {}
        }
    }

    /// Sees to it that the volume is attached somewhere; sometimes elsewhere than it is.
    pub(super) fn control(&mut self, volume: usize) -> Result<(), String> {
        let next = (50 + self.random.below(400)) * MILLI;
        self.later(next, Happening::Control { volume });
        let last = self.volumes[volume].clients.last();
        let goes_on = last.is_some_and(|client| client.goes_on());
        let is_taken_over = !self.is_calm && self.random.chance(self.habits.takes_over);
        if goes_on && !is_taken_over {
            let last = self.volumes[volume].clients.len() - 1;
            if !self.is_calm && self.random.chance(self.habits.detaches) {
                self.tell(volume, last, Event::Detach)?;
            }
            return Ok(());
        }
        let running: Vec<usize> = (0..self.nodes.len()).filter(|node| self.nodes[*node].runs).collect();
        let Some(node) = self.random.pick(&running) else { return Ok(()) };
        self.next_id += 1;
        let id = AttachmentId(u128::from(self.next_id));
        let attached = self.record(volume).attached;
        let is_gone =
            |client: &super::world::Client| !client.lives && client.node == node && client.aware_since.is_some();
        let mut clients = self.volumes[volume].clients.iter();
        // Only on its own node it is known that a process has ended; and that it had waited for those before it, if it has served.
        let ended = attached.and_then(|attached| clients.find(|client| client.id == attached.id && is_gone(client)));
        let ended = ended.map(|client| client.id);
        let copies = self.volumes[volume].copies.iter();
        let local = copies.filter(|(_, copy)| copy.node == node).map(|(id, _)| *id).next();
        // Whose users go on must have had the volume last.
        let expected = ended.map(Some);
        let me = Attached { node: node_name(node), id };
        let options = Options { me, local, force: true, expected, ended, give_up_unflushed: false, limits: limits() };
        self.attach(volume, options, node)
    }
}
