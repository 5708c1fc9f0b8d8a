//! The checker.

use super::survey::survey;
use crate::disk::Disk;
use crate::engine::{Loaded, Shipped, load};
use crate::error::OpenError;
use crate::format::superblock::NoSuperblock;
use crate::map::NodeAt;
use crate::memory::Buffer;
use crate::units::{Place, TreeId};
use std::fmt;

/// Something that should not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// One of the four superblocks is damaged; another one serves.
    Superblock(usize),
    /// A node of a map is not what was written: what it stands for is lost.
    #[allow(private_interfaces)]
    NodeLost { of: TreeId, at: NodeAt, place: Place },
    /// A block of data is not what was written.
    #[allow(private_interfaces)]
    Corrupt { of: TreeId, block: u64, place: Place },
    /// A block is in two places of the maps, each of which may free it.
    #[allow(private_interfaces)]
    Doubled { of: TreeId, place: Place },
    /// A state has something from the one before it that that one has not.
    #[allow(private_interfaces)]
    NotShared { of: TreeId, block: u64, place: Place },
    /// A map contradicts itself.
    #[allow(private_interfaces)]
    Inconsistent { of: TreeId, at: NodeAt, what: &'static str },
    /// A block is in a map, and counts as free: it will be overwritten.
    #[allow(private_interfaces)]
    UsedAsFree(Place),
    /// Blocks count as used, and are in no map: room that is lost until a repair.
    Leaked(u64),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Superblock(copy) => write!(f, "copy {copy} of the superblock is damaged"),
            Self::NodeLost { of, at, place } => {
                let blocks = at.blocks();
                write!(f, "{of}: the map is lost for blocks {} to {}, at {place}", blocks.start, blocks.end())
            }
            Self::Corrupt { of, block, place } => write!(f, "{of}: block {block} at {place} is not what was written"),
            Self::Doubled { of, place } => write!(f, "{of}: {place} is another's too"),
            Self::NotShared { of, block, place } => {
                write!(f, "{of}: block {block} at {place} should be the state's before, which has it not")
            }
            Self::Inconsistent { of, at, what } => write!(f, "{of}: {what}, at block {}", at.blocks().start),
            Self::UsedAsFree(place) => write!(f, "{place} is in use, and counts as free"),
            Self::Leaked(count) => write!(f, "{count} blocks count as used, and nothing uses them"),
        }
    }
}

/// What a check has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// All that should not be.
    pub problems: Vec<Problem>,
    /// Volumes and snapshots.
    pub states: usize,
    /// Nodes of their maps.
    pub nodes: u64,
    /// Blocks of data.
    pub data: u64,
    /// Changes in the log that the last checkpoint does not have.
    pub logged: usize,
}

/// Checks a pool that is not open: its structures and, if `deep`, all its data. Nothing is written.
///
/// # Errors
///
/// If so much is damaged that it cannot be examined.
pub fn check(disk: &dyn Disk, deep: bool) -> Result<Checked, OpenError> {
    let loaded: Loaded = load::<Shipped<Buffer>>(disk)?;
    let mut survey = survey(disk, &loaded.catalog, loaded.superblock.blocks, deep);
    let mut leaked = 0;
    for place in (0..loaded.superblock.blocks).map(Place).filter(|place| loaded.space.is_place(*place)) {
        match (loaded.space.is_used(place), survey.has(place)) {
            (false, true) => survey.problems.push(Problem::UsedAsFree(place)),
            (true, false) => leaked += 1,
            _ => {}
        }
    }
    if leaked > 0 && !survey.has_lost_nodes {
        survey.problems.push(Problem::Leaked(leaked));
    }
    let superblocks = crate::engine::read_superblocks(disk)?;
    let is_damaged = |found: &(usize, Result<_, NoSuperblock>)| found.1 == Err(NoSuperblock::Damaged);
    let damaged = superblocks.into_iter().enumerate().filter(is_damaged);
    survey.problems.extend(damaged.map(|(copy, _)| Problem::Superblock(copy)));
    Ok(Checked {
        problems: survey.problems,
        states: loaded.catalog.trees.len() - 1,
        nodes: survey.nodes,
        data: survey.data,
        logged: loaded.replayed.changes.len(),
    })
}
