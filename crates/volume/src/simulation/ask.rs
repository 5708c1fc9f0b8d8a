//! What a world asks of the engine, and what it makes of the answers.

use super::model::{Got, Snapshot, Value, Volume, fill, recognize};
use super::run::Run;
use crate::disk::Disk;
use crate::engine::{Admin, Answer, Request, World};
use crate::error::Error;
use crate::memory::Buffer;
use crate::units::{BLOCK, Blocks, Epoch, SnapshotId, TreeId, VolumeId};

/// Blocks that a pool grows to: it must get full now and then.
const MOST_POOL: u64 = 3000;

/// Volumes and snapshots at once.
const MOST_STATES: usize = 14;

/// A request that is not answered.
#[derive(Debug, Clone)]
pub(super) enum Asked {
    Change { volume: String, start: usize, count: usize, durable: bool },
    Flush { at: u64 },
    Read { volume: String, start: usize, before: Vec<Vec<Value>> },
    ReadSnapshot { name: String },
    Create { name: String },
    Snapshot { names: Vec<String> },
    Clone { name: String },
    Delete { name: String },
    Resize { name: String, blocks: u64 },
    BeginEpoch,
    Changed { of: String, since: String },
    Extents { name: String },
    Scrub,
    Other,
}

impl<W: World<Tag = u64, Memory = Buffer>> Run<W> {
    pub(super) fn submit(&mut self, request: Request<Buffer>, asked: Asked) -> Result<(), String> {
        self.next_tag += 1;
        self.asked.insert(self.next_tag, asked);
        let out = self.engine.submit(request, self.next_tag);
        self.absorb(out)
    }

    pub(super) fn ask_something(&mut self) -> Result<(), String> {
        if self.model.volumes.is_empty() || self.random.chance(self.habits.administer) {
            return self.administer();
        }
        if self.random.chance(self.habits.flush) {
            let at = self.model.tick();
            return self.submit(Request::Flush, Asked::Flush { at });
        }
        let names: Vec<String> =
            self.model.volumes.iter().filter(|(_, v)| v.id.is_some() && !v.doomed).map(|(n, _)| n.clone()).collect();
        let Some(name) = self.random.pick(&names).cloned() else { return Ok(()) };
        let size = self.model.volumes[&name].blocks.len() as u64;
        let start = self.random.below(size);
        let count = (1 + self.random.below(self.habits.longest)).min(size - start);
        let (start, count) = (usize::try_from(start).unwrap(), usize::try_from(count).unwrap());
        match self.random.below(100) {
            0..25 => self.read(&name, start, count),
            25..28 => self.compare(&name),
            28..30 => self.extents(&name),
            30 if self.random.chance(50) => self.submit(Request::ScrubCatalog, Asked::Scrub),
            30 if self.random.chance(50) => self.submit(Request::ScrubFixed { start: 0, most: 100 }, Asked::Scrub),
            30 => {
                let of = TreeId(self.model.volumes[&name].id.unwrap());
                self.submit(Request::Scrub { of, start: 0, most: 1000 }, Asked::Scrub)
            }
            _ => self.change(&name, start, count),
        }
    }

    /// A write or a discard of blocks for which nothing else is under way.
    fn change(&mut self, name: &str, start: usize, count: usize) -> Result<(), String> {
        let discards = self.random.chance(self.habits.discard);
        let durable = self.random.chance(self.habits.durable);
        let now = self.model.tick();
        self.model.next += 1;
        let value = if discards { 0 } else { self.model.next };
        let volume = self.model.volumes.get_mut(name).unwrap();
        if volume.busy[start..start + count].iter().any(|busy| *busy) {
            return Ok(());
        }
        let id = VolumeId(volume.id.unwrap());
        let mut bytes = Buffer::zeroed(count * BLOCK);
        for (i, block) in bytes.chunks_exact_mut(BLOCK).enumerate() {
            let value = if discards { 0 } else { value << 16 | i as u64 };
            fill(value, block);
            volume.busy[start + i] = true;
            volume.touched[start + i] = now;
            volume.blocks[start + i].0.push(Got { value, answered: None });
            let open = self.model.snapshots.values_mut().filter(|s| s.volume == name && s.id.is_none());
            open.for_each(|snapshot| {
                let size = snapshot.blocks.len().max(start + i + 1);
                snapshot.blocks.resize(size, vec![0]);
                snapshot.blocks[start + i].push(value);
            });
        }
        let asked = Asked::Change { volume: name.to_owned(), start, count, durable };
        let request = if discards {
            let blocks = Blocks { start: start as u64, count: count as u64 };
            Request::Discard { volume: id, blocks, durable }
        } else {
            let sums = crate::checksum::of_blocks(&bytes);
            Request::Write { volume: id, start: start as u64, from: bytes, sums, durable }
        };
        self.submit(request, asked)
    }

    fn read(&mut self, name: &str, start: usize, count: usize) -> Result<(), String> {
        let now = self.model.time;
        let volume = &self.model.volumes[name];
        let before = volume.blocks[start..start + count].iter().map(|history| history.since(now)).collect();
        let request = Request::Read {
            of: TreeId(volume.id.unwrap()),
            start: start as u64,
            into: Buffer::copy_of(&vec![0xEE; count * BLOCK]),
        };
        self.submit(request, Asked::Read { volume: name.to_owned(), start, before })
    }

    /// What has changed since a snapshot, while nothing changes.
    fn compare(&mut self, name: &str) -> Result<(), String> {
        let volume = &self.model.volumes[name];
        let of = volume.id.unwrap();
        let related = |s: &&(String, Snapshot)| s.1.volume == name || volume.line == s.0;
        let snapshots: Vec<(String, Snapshot)> =
            self.model.snapshots.iter().map(|(n, s)| (n.clone(), s.clone())).collect();
        let usable: Vec<_> =
            snapshots.iter().filter(related).filter(|(_, s)| s.is_read && !s.doomed).cloned().collect();
        let Some((since, snapshot)) = self.random.pick(&usable).cloned() else { return Ok(()) };
        if !volume.is_idle() {
            return Ok(());
        }
        let blocks = Blocks { start: 0, count: volume.blocks.len() as u64 };
        let most = usize::try_from(1 + self.random.below(60)).unwrap();
        self.model.volumes.get_mut(name).unwrap().busy.fill(true);
        let request = Request::Changed { of: TreeId(of), blocks, since: snapshot.epoch, most };
        self.submit(request, Asked::Changed { of: name.to_owned(), since })
    }

    fn extents(&mut self, name: &str) -> Result<(), String> {
        let volume = self.model.volumes.get_mut(name).unwrap();
        if !volume.is_idle() {
            return Ok(());
        }
        volume.busy.fill(true);
        let blocks = Blocks { start: 0, count: volume.blocks.len() as u64 };
        let request = Request::Extents { of: TreeId(volume.id.unwrap()), blocks, most: 1000 };
        self.submit(request, Asked::Extents { name: name.to_owned() })
    }

    fn administer(&mut self) -> Result<(), String> {
        let states = self.model.volumes.len() + self.model.snapshots.len();
        let volumes: Vec<String> =
            self.model.volumes.iter().filter(|(_, v)| v.id.is_some() && !v.doomed).map(|(n, _)| n.clone()).collect();
        let snapshots: Vec<String> =
            self.model.snapshots.iter().filter(|(_, s)| s.is_read && !s.doomed).map(|(n, _)| n.clone()).collect();
        match self.random.below(20) {
            0..2 if states < MOST_STATES => self.create_volume(),
            _ if volumes.is_empty() && states < MOST_STATES => self.create_volume(),
            2..8 if states < MOST_STATES => self.snapshot(&volumes),
            8..11 if states < MOST_STATES => match self.random.pick(&snapshots).cloned() {
                Some(name) => self.clone_snapshot(&name),
                None => Ok(()),
            },
            11..17 => match self.random.pick(&snapshots).cloned() {
                Some(name) => self.delete(&name),
                None => Ok(()),
            },
            17 if volumes.len() > 1 => match self.random.pick(&volumes).cloned() {
                Some(name) => self.delete(&name),
                None => Ok(()),
            },
            18 => match self.random.pick(&volumes).cloned() {
                Some(name) => {
                    let blocks = self.model.volumes[&name].blocks.len() as u64 + 1 + self.random.below(300);
                    let id = VolumeId(self.model.volumes[&name].id.unwrap());
                    self.submit(Request::Admin(Admin::Resize { volume: id, blocks }), Asked::Resize { name, blocks })
                }
                None => Ok(()),
            },
            _ if self.random.chance(12) => self.grow_pool(),
            _ => match volumes.first().map(|name| self.model.volumes[name].id.unwrap()) {
                // No state of the past may be hurt by births that go on without a snapshot.
                Some(id) if self.next_tag.is_multiple_of(2) => {
                    self.submit(Request::Admin(Admin::BeginEpoch { volume: VolumeId(id) }), Asked::BeginEpoch)
                }
                _ => self.submit(Request::Admin(Admin::Checkpoint { clean: false }), Asked::Other),
            },
        }
    }

    /// The disk first, then the pool.
    fn grow_pool(&mut self) -> Result<(), String> {
        let blocks = self.disk.bytes().map_err(|e| e.to_string())? / BLOCK as u64;
        let blocks = if blocks < MOST_POOL { blocks + 1 + self.random.below(400) } else { blocks };
        self.disk.resize(usize::try_from(blocks).unwrap() * BLOCK);
        self.counts.grown += 1;
        self.submit(Request::Admin(Admin::GrowPool { blocks }), Asked::Other)
    }

    fn create_volume(&mut self) -> Result<(), String> {
        let name = self.model.name("volume");
        let blocks = 1 + self.random.below(700);
        self.model.volumes.insert(name.clone(), Volume::new(blocks));
        self.submit(Request::Admin(Admin::Create { name: name.clone(), blocks }), Asked::Create { name })
    }

    /// Of one volume or of several at once.
    fn snapshot(&mut self, volumes: &[String]) -> Result<(), String> {
        let now = self.model.tick();
        let (mut names, mut wanted) = (Vec::new(), Vec::new());
        let first = self.random.pick(volumes).cloned();
        let second =
            self.random.pick(volumes).cloned().filter(|_| self.random.chance(30)).filter(|s| Some(s) != first.as_ref());
        for volume in first.into_iter().chain(second) {
            let name = self.model.name("snapshot");
            let state = &self.model.volumes[&volume];
            let snapshot = Snapshot {
                id: None,
                epoch: Epoch(0),
                blocks: state.blocks.iter().map(|history| history.since(now)).collect(),
                volume: volume.clone(),
                asked: now,
                doomed: false,
                is_read: false,
            };
            wanted.push((VolumeId(state.id.unwrap()), name.clone()));
            self.model.snapshots.insert(name.clone(), snapshot);
            names.push(name);
        }
        self.submit(Request::Admin(Admin::Snapshot { volumes: wanted }), Asked::Snapshot { names })
    }

    fn clone_snapshot(&mut self, origin: &str) -> Result<(), String> {
        let name = self.model.name("clone");
        let snapshot = self.model.snapshots[origin].clone();
        let mut volume = Volume::new(snapshot.blocks.len() as u64);
        for (history, values) in volume.blocks.iter_mut().zip(&snapshot.blocks) {
            history.settle(values[0], self.model.time);
        }
        volume.line = origin.to_owned();
        self.model.volumes.insert(name.clone(), volume);
        let request = Request::Admin(Admin::Clone { snapshot: SnapshotId(snapshot.id.unwrap()), name: name.clone() });
        self.submit(request, Asked::Clone { name })
    }

    fn delete(&mut self, name: &str) -> Result<(), String> {
        let id = match self.model.snapshots.get_mut(name) {
            Some(snapshot) => {
                snapshot.doomed = true;
                snapshot.id
            }
            None => {
                let volume = self.model.volumes.get_mut(name).unwrap();
                volume.doomed = true;
                volume.id
            }
        };
        self.submit(Request::Admin(Admin::Delete { of: TreeId(id.unwrap()) }), Asked::Delete { name: name.to_owned() })
    }

    pub(super) fn answered(&mut self, tag: u64, result: Result<Answer<Buffer>, Error>) -> Result<(), String> {
        let Some(asked) = self.asked.remove(&tag) else { return Err(format!("{tag} is answered twice")) };
        match result {
            Ok(answer) => self.answered_well(asked, answer),
            Err(error) => self.answered_badly(&asked, &error).map_err(|what| format!("{what}: {error} to {asked:?}")),
        }
    }

    /// Only what is being deleted may refuse, and a full pool.
    fn answered_badly(&mut self, asked: &Asked, error: &Error) -> Result<(), &'static str> {
        let gone = matches!(error, Error::NoVolume(_) | Error::NoSnapshot(_));
        match asked {
            Asked::Change { volume, start, count, .. } if gone => {
                if let Some(volume) = self.model.volumes.get_mut(volume) {
                    if !volume.doomed {
                        return Err("a volume that is there refuses");
                    }
                    volume.busy[*start..start + count].fill(false);
                }
                Ok(())
            }
            Asked::Create { name } | Asked::Clone { name } if *error == Error::Full || gone => {
                self.model.volumes.remove(name);
                Ok(())
            }
            Asked::Snapshot { names } if *error == Error::Full || gone => {
                names.iter().for_each(|name| drop(self.model.snapshots.remove(name)));
                Ok(())
            }
            // Two may be under way, and the larger one be done first.
            Asked::Resize { .. } if *error == Error::Full || gone || matches!(error, Error::BadSize { .. }) => Ok(()),
            Asked::Read { .. }
            | Asked::ReadSnapshot { .. }
            | Asked::Changed { .. }
            | Asked::Extents { .. }
            | Asked::BeginEpoch
            | Asked::Scrub
                if gone =>
            {
                Ok(())
            }
            _ => Err("an unexpected error"),
        }
    }

    fn answered_well(&mut self, asked: Asked, answer: Answer<Buffer>) -> Result<(), String> {
        let now = self.model.tick();
        match (asked, answer) {
            (Asked::Change { volume, start, count, durable }, Answer::Done) => {
                let Some(volume) = self.model.volumes.get_mut(&volume) else { return Ok(()) };
                for block in start..start + count {
                    volume.busy[block] = false;
                    volume.touched[block] = now;
                    if let Some(got) = volume.blocks[block].0.last_mut() {
                        got.answered = Some(now);
                    }
                    if durable {
                        volume.blocks[block].cut_before(now);
                    }
                }
            }
            (Asked::Flush { at }, Answer::Done) => self.model.flushed(at),
            (Asked::Read { volume, start, before }, Answer::Read(bytes)) => {
                self.was_read(&volume, start, before, &bytes)?
            }
            (Asked::ReadSnapshot { name }, Answer::Read(bytes)) => self.snapshot_read(&name, &bytes)?,
            (Asked::Create { name } | Asked::Clone { name }, Answer::Created(id)) => {
                self.counts.clones += u64::from(name.starts_with("clone"));
                self.model.volumes.get_mut(&name).unwrap().id = Some(id.0);
            }
            (Asked::Snapshot { names }, Answer::Snapshots(ids)) => {
                for (name, id) in names.into_iter().zip(ids) {
                    self.counts.snapshots += 1;
                    let snapshot = self.model.snapshots.get_mut(&name).unwrap();
                    let (_, epoch, blocks) =
                        self.engine.find_snapshot(&name).ok_or("a snapshot that was taken is not there")?;
                    (snapshot.id, snapshot.epoch) = (Some(id.0), epoch);
                    snapshot.blocks.resize(usize::try_from(blocks).unwrap(), vec![0]);
                    let into = Buffer::copy_of(&vec![0xEE; snapshot.blocks.len() * BLOCK]);
                    self.submit(Request::Read { of: id.into(), start: 0, into }, Asked::ReadSnapshot { name })?;
                }
            }
            (Asked::Delete { name }, Answer::Done) => {
                self.model.volumes.remove(&name);
                self.model.snapshots.remove(&name);
            }
            (Asked::Resize { name, blocks }, Answer::Done) => {
                if let Some(volume) = self.model.volumes.get_mut(&name) {
                    volume.grow(blocks);
                }
            }
            (Asked::Changed { of, since }, Answer::Changed(page)) => self.was_compared(&of, &since, &page)?,
            (Asked::Extents { name }, Answer::Extents(page)) => self.extents_told(&name, &page)?,
            (Asked::Scrub, Answer::Scrubbed(scrubbed)) if scrubbed.faults.is_empty() => {}
            (Asked::Other, Answer::Done) | (Asked::BeginEpoch, Answer::Began(_)) => {}
            (asked, answer) => return Err(format!("{answer:?} is no answer to {asked:?}")),
        }
        Ok(())
    }

    fn was_read(&mut self, name: &str, start: usize, before: Vec<Vec<Value>>, bytes: &[u8]) -> Result<(), String> {
        let Some(volume) = self.model.volumes.get(name) else { return Ok(()) };
        for (i, (block, mut values)) in bytes.chunks_exact(BLOCK).zip(before).enumerate() {
            values.extend(volume.blocks[start + i].values());
            self.counts.compared += 1;
            if recognize(block, &values).is_none() {
                return Err(format!("block {} of {name} reads as none of {values:?}", start + i));
            }
        }
        Ok(())
    }

    pub(super) fn snapshot_read(&mut self, name: &str, bytes: &[u8]) -> Result<(), String> {
        let Some(snapshot) = self.model.snapshots.get_mut(name) else { return Ok(()) };
        for (i, (block, values)) in bytes.chunks_exact(BLOCK).zip(&mut snapshot.blocks).enumerate() {
            self.counts.compared += 1;
            let value = recognize(block, values).ok_or_else(|| format!("block {i} of {name} is none of {values:?}"))?;
            *values = vec![value];
        }
        snapshot.is_read = true;
        Ok(())
    }
}
