//! Making a pool, and reading what is needed to open one.

use super::log_reader::load_log;
use super::replay::Replayed;
use super::world::{Rule, World};
use crate::catalog::Catalog;
use crate::disk::Disk;
use crate::error::OpenError;
use crate::format::layout::{self, LEAST_BLOCKS, MOST_BLOCKS};
use crate::format::node::Pointer;
use crate::format::superblock::{NoSuperblock, Superblock, VERSION};
use crate::map::Nodes;
use crate::memory::Buffer;
use crate::space::Space;
use crate::units::{BLOCK, BLOCK_BYTES, Epoch, Place};

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

/// All four superblocks. One that cannot be read is a damaged one: another may be whole. What is too small for them has none.
pub(crate) fn read_superblocks(disk: &dyn Disk) -> Result<[Result<Superblock, NoSuperblock>; 4], OpenError> {
    let bytes = disk.bytes().map_err(OpenError::disk("ask for the size of the disk"))?;
    if layout::blocks_of(bytes) < 4 {
        return Ok(std::array::from_fn(|_| Err(NoSuperblock::Absent)));
    }
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

/// Looks whether there is a pool that this program can open, and all of it. Nothing is written.
pub(crate) fn look(disk: &dyn Disk) -> Result<(), OpenError> {
    newest(disk).map(|_| ())
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
        Some(what) => Err(OpenError::LogDamaged { what }),
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
        Some(what) if !give_up_log => Err(OpenError::LogDamaged { what }),
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
