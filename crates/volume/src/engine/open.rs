//! Making a pool, and reading what is needed to open one.

use super::io::verify;
use super::replay::Replayed;
use super::world::{Rule, World};
use crate::catalog::Catalog;
use crate::disk::Disk;
use crate::error::OpenError;
use crate::format::layout::{self, LEAST_BLOCKS, MOST_BLOCKS};
use crate::format::node::Pointer;
use crate::format::record::{self, Change, Found};
use crate::format::superblock::{NoSuperblock, Superblock, VERSION};
use crate::map::Nodes;
use crate::memory::Buffer;
use crate::space::Space;
use crate::units::{BLOCK, BLOCK_BYTES, Epoch, Place, Run};

/// What a new pool is like.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Tells this pool from every other; it must be random.
    pub id: [u8; 16],
    /// Blocks of the log, 64 to 16384; a usual number for the pool's size if there is none.
    pub log_blocks: Option<u64>,
    /// How many changed nodes of maps, of 4 KiB each, may be in memory before a checkpoint is made; a usual number if there is none.
    pub most_changed_nodes: Option<u32>,
}

/// A pool as its last checkpoint has it, and its log.
pub(crate) struct Loaded {
    pub(crate) superblock: Superblock,
    pub(crate) space: Space,
    pub(crate) catalog: Catalog,
    pub(crate) nodes: Nodes,
    pub(crate) replayed: Replayed,
    /// In which the log is written from now on.
    pub(crate) log_unit: u32,
}

/// No two records lie in one sector: writing one would put the other at risk, which may have been flushed.
fn log_unit<W: World>(disk: &dyn Disk) -> u32 {
    let unit = if W::keeps(Rule::WholeSectors) { disk.sector().max(disk.unit()) } else { disk.unit() };
    if unit > 512 { 4096 } else { 512 }
}

/// Makes an empty pool.
pub(crate) fn create<W: World>(disk: &dyn Disk, shape: Shape) -> Result<(), OpenError> {
    let blocks = layout::blocks_of(disk.bytes().map_err(OpenError::disk("ask for the size of the disk"))?);
    let blocks = blocks.min(MOST_BLOCKS);
    if blocks < LEAST_BLOCKS {
        return Err(OpenError::Unfit(format!(
            "a pool needs at least {LEAST_BLOCKS} blocks of 4 KiB, and here are {blocks}"
        )));
    }
    let log_blocks = shape.log_blocks.unwrap_or_else(|| layout::usual_log(blocks));
    let (least, most) = (layout::LEAST_LOG, layout::most_log(blocks));
    if !(least..=most).contains(&log_blocks) {
        return Err(OpenError::Unfit(format!(
            "a log of {log_blocks} blocks does not fit: from {least} to {most} are possible"
        )));
    }
    let most_nodes = shape.most_changed_nodes.unwrap_or_else(|| layout::usual_nodes(blocks));
    let (least, most) = (*layout::NODES.start(), layout::most_nodes(blocks));
    if !(least..=most).contains(&most_nodes) {
        return Err(OpenError::Unfit(format!(
            "{most_nodes} changed nodes do not fit: from {least} to {most} are possible"
        )));
    }
    if read_superblocks(disk)?.iter().any(|found| *found != Err(NoSuperblock::Absent)) {
        return Err(OpenError::Exists);
    }
    let superblock = Superblock {
        pool: shape.id,
        checkpoint: 0,
        generation: 0,
        blocks,
        log_blocks,
        log_unit: log_unit::<W>(disk),
        replay_sequence: 1,
        replay_offset: 0,
        next_id: 1,
        next_epoch: 2,
        most_nodes,
        clean: true,
        catalog_pages: 0,
        catalog_level: 0,
        catalog: Pointer::hole(Epoch(0)),
        groups: Vec::new(),
    };
    let mut bytes = Buffer::zeroed(2 * BLOCK);
    bytes.chunks_exact_mut(BLOCK).for_each(|copy| copy.copy_from_slice(&superblock.encode()));
    let run = layout::superblocks(0);
    disk.write(run.start.bytes(), &bytes).map_err(OpenError::disk("write the first superblock"))?;
    disk.flush().map_err(OpenError::disk("flush the first superblock"))
}

/// All four superblocks. One that cannot be read is a damaged one: another may be whole.
pub(crate) fn read_superblocks(disk: &dyn Disk) -> Result<[Result<Superblock, NoSuperblock>; 4], OpenError> {
    let mut page = Buffer::zeroed(BLOCK);
    let mut failed = None;
    let found = std::array::from_fn(|i| match disk.read(i as u64 * BLOCK_BYTES, &mut page) {
        Ok(()) => {
            let bytes = <&[u8; BLOCK]>::try_from(&page[..]).map_err(|_| NoSuperblock::Damaged)?;
            // One in the blocks of the other kind would be overwritten by its successor.
            let is_in_place = |superblock: &Superblock| superblock.checkpoint % 2 == i as u64 / 2;
            Superblock::decode(bytes).and_then(|found| Some(found).filter(is_in_place).ok_or(NoSuperblock::Damaged))
        }
        Err(error) => {
            failed = Some(error);
            Err(NoSuperblock::Damaged)
        }
    });
    match failed {
        Some(source) if found.iter().all(Result::is_err) => {
            Err(OpenError::Disk { action: "read the superblocks".into(), source })
        }
        _ => Ok(found),
    }
}

/// The newest superblock.
pub(crate) fn newest(disk: &dyn Disk) -> Result<Superblock, OpenError> {
    let found = read_superblocks(disk)?;
    if let Some(found) = found.iter().find_map(|f| if let Err(NoSuperblock::Newer(v)) = f { Some(*v) } else { None }) {
        return Err(OpenError::Newer { found, supported: VERSION });
    }
    let is_damaged = found.contains(&Err(NoSuperblock::Damaged));
    let newest = found.into_iter().flatten().max_by_key(|superblock| superblock.checkpoint);
    let none = || if is_damaged { OpenError::damaged("every superblock") } else { OpenError::NotAPool };
    let superblock = newest.ok_or_else(none)?;
    let size = layout::blocks_of(disk.bytes().map_err(OpenError::disk("ask for the size of the disk"))?);
    if size < superblock.blocks {
        return Err(OpenError::Truncated { expected: superblock.blocks, found: size });
    }
    Ok(superblock)
}

/// Reads all that must be in memory. Nothing is written.
pub(crate) fn load<W: World>(disk: &dyn Disk) -> Result<Loaded, OpenError> {
    let superblock = newest(disk)?;
    let mut space = Space::of(&superblock);
    space.load(&mut |place| read_page(disk, place))?;
    let mut nodes = Nodes::new(usize::MAX);
    let catalog = super::load::load_catalog(disk, &superblock, &mut nodes)?;
    let (replayed, lost) = load_log::<W>(disk, &superblock)?;
    match lost {
        Some(lost) => Err(OpenError::damaged(lost)),
        None => {
            let log_unit = superblock.log_unit.max(log_unit::<W>(disk));
            Ok(Loaded { superblock, space, catalog, nodes, replayed, log_unit })
        }
    }
}

/// A pool of which something that can be told otherwise may be damaged.
pub(crate) struct Salvage {
    pub(crate) loaded: Loaded,
    /// Why what is used could not be read.
    pub(crate) space: Option<String>,
    /// What of the log is given up.
    pub(crate) log: Option<String>,
}

/// Reads what there is, for a repair.
pub(crate) fn salvage<W: World>(disk: &dyn Disk, give_up_log: bool) -> Result<Salvage, OpenError> {
    let superblock = newest(disk)?;
    let mut space = Space::of(&superblock);
    let failed = space.load(&mut |place| read_page(disk, place)).err().map(|error| error.to_string());
    if failed.is_some() {
        space = Space::of(&superblock);
    }
    let mut nodes = Nodes::new(usize::MAX);
    let catalog = super::load::load_catalog(disk, &superblock, &mut nodes)?;
    let (replayed, lost) = load_log::<W>(disk, &superblock)?;
    match lost {
        Some(lost) if !give_up_log => Err(OpenError::damaged(lost)),
        log => {
            let log_unit = superblock.log_unit.max(log_unit::<W>(disk));
            let loaded = Loaded { superblock, space, catalog, nodes, replayed, log_unit };
            Ok(Salvage { loaded, space: failed, log })
        }
    }
}

pub(super) fn read_page(disk: &dyn Disk, place: Place) -> Result<Box<[u8; BLOCK]>, OpenError> {
    let mut page = Buffer::zeroed(BLOCK);
    disk.read(place.bytes(), &mut page).map_err(OpenError::disk(format!("read {place}")))?;
    <[u8; BLOCK]>::try_from(&page[..]).map(Box::new).map_err(|_| OpenError::damaged(place.to_string()))
}

/// Reads the log: what follows the checkpoint without a gap.
fn load_log<W: World>(disk: &dyn Disk, superblock: &Superblock) -> Result<(Replayed, Option<String>), OpenError> {
    let mut ring = Buffer::zeroed(usize::try_from(superblock.log_bytes()).unwrap_or(0));
    for (i, piece) in ring.chunks_mut(1 << 20).enumerate() {
        let offset = layout::LOG_START * BLOCK_BYTES + ((i as u64) << 20);
        disk.read(offset, piece).map_err(OpenError::disk("read the log"))?;
    }
    let unit = superblock.log_unit as usize;
    let pool = u64::from_le_bytes(std::array::from_fn(|i| superblock.pool[i]));
    let mut sequence = superblock.replay_sequence;
    let mut at = usize::try_from(superblock.replay_offset).unwrap_or(0);
    let mut records: Vec<Found> = Vec::new();
    let is_next = |found: &Found, sequence| {
        let is_current = found.header.generation == superblock.generation || !W::keeps(Rule::NewGeneration);
        found.header.pool == pool && is_current && found.header.sequence == sequence
    };
    loop {
        let here = record::find(&ring[at..], unit).filter(|found| is_next(found, sequence));
        let (begin, found) = match here {
            Some(found) => (at, found),
            None => match record::find(&ring, unit).filter(|found| at != 0 && is_next(found, sequence)) {
                Some(found) => (0, found),
                None => break,
            },
        };
        at = (begin + found.len) % ring.len();
        sequence += 1;
        records.push(found);
    }
    let lost = look_for_lost(&ring, unit, pool, superblock, sequence);
    let durable = records.last().map_or(sequence, |last| last.header.durable);
    let mut changes = std::collections::VecDeque::new();
    for found in records {
        let is_durable = found.header.sequence < durable || !W::keeps(Rule::CheckReplayed);
        for change in found.changes {
            if is_durable { changes.push_back(change) } else { changes.extend(whole(disk, superblock.blocks, change)) }
        }
    }
    Ok((Replayed { changes, offset: at as u64, sequence }, lost))
}

/// Records that follow a gap, and tell that what is in the gap was durable once: then it is damage and no end.
fn look_for_lost(ring: &[u8], unit: usize, pool: u64, superblock: &Superblock, end: u64) -> Option<String> {
    for at in (0..ring.len()).step_by(unit) {
        let Some(found) = record::find(&ring[at..], unit).filter(|found| found.header.pool == pool) else { continue };
        let header = found.header;
        if header.checkpoint > superblock.checkpoint || header.generation > superblock.generation {
            return Some(format!("the superblock of checkpoint {} or a later one", header.checkpoint));
        }
        if header.generation == superblock.generation && header.sequence > end && header.durable > end {
            return Some(format!("record {end} of the log, which was flushed,"));
        }
    }
    None
}

/// What of a write that was perhaps never flushed is there.
fn whole(disk: &dyn Disk, blocks: u64, change: Change) -> Vec<Change> {
    let Change::Write { volume, start, run, sums } = change else { return vec![change] };
    let mut pieces: Vec<Change> = Vec::new();
    let mut joins = false;
    for (i, sum) in sums.into_iter().enumerate() {
        let place = Place(run.start.0 + i as u64);
        if place.0 >= blocks || !verify(disk, &[(place, sum)]).is_empty() {
            joins = false;
            continue;
        }
        match pieces.last_mut() {
            Some(Change::Write { run, sums, .. }) if joins => {
                run.count += 1;
                sums.push(sum);
            }
            _ => pieces.push(Change::Write { volume, start: start + i as u64, run: Run::one(place), sums: vec![sum] }),
        }
        joins = true;
    }
    pieces
}
