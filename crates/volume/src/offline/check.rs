//! The checker.

use super::survey::survey;
use crate::catalog::Catalog;
use crate::disk::Disk;
use crate::engine::{Loaded, Shipped, load};
use crate::error::OpenError;
use crate::format::catalog::Kind;
use crate::format::superblock::NoSuperblock;
use crate::memory::Buffer;
use crate::units::{Blocks, Place, TreeId};
use std::collections::BTreeMap;
use std::fmt;

/// Something that should not be. Volumes and snapshots are told by their ids, and 0 is the catalog; places are blocks of the pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// One of the four superblocks is damaged; another one serves.
    Superblock(usize),
    /// A node of a map is not what was written: what it stands for is lost.
    NodeLost {
        /// Whose.
        of: u64,
        /// What it stands for.
        blocks: Blocks,
        /// Where it lies.
        place: u64,
    },
    /// A block of data is not what was written.
    Corrupt {
        /// Whose.
        of: u64,
        /// Which one.
        block: u64,
        /// Where it lies.
        place: u64,
    },
    /// A block is in two places of the maps, each of which may free it.
    Doubled {
        /// Whose it is at the second place.
        of: u64,
        /// Where it lies.
        place: u64,
    },
    /// A state has something from the one before it that that one has not.
    NotShared {
        /// Whose.
        of: u64,
        /// Which block.
        block: u64,
        /// Where it, or its node, lies.
        place: u64,
    },
    /// A map contradicts itself.
    Inconsistent {
        /// Whose.
        of: u64,
        /// What the node stands for.
        blocks: Blocks,
        /// How.
        what: &'static str,
    },
    /// A block is in a map, and counts as free: it will be overwritten.
    UsedAsFree(u64),
    /// Blocks count as used, and are in no map: room that is lost until a repair.
    Leaked(u64),
}

impl Problem {
    /// The id of the volume or snapshot that it is about, if it is about one.
    #[must_use]
    pub fn of(&self) -> Option<u64> {
        match self {
            Self::NodeLost { of, .. }
            | Self::Corrupt { of, .. }
            | Self::Doubled { of, .. }
            | Self::NotShared { of, .. }
            | Self::Inconsistent { of, .. } => Some(*of),
            Self::Superblock(_) | Self::UsedAsFree(_) | Self::Leaked(_) => None,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Superblock(copy) => write!(f, "copy {copy} of the superblock is damaged"),
            Self::NodeLost { of, blocks, place } => {
                let of = TreeId(*of);
                write!(f, "{of}: the map is lost for blocks {} to {}, at {}", blocks.start, blocks.end(), Place(*place))
            }
            Self::Corrupt { of, block, place } => {
                write!(f, "{}: block {block} at {} is not what was written", TreeId(*of), Place(*place))
            }
            Self::Doubled { of, place } => write!(f, "{}: {} is another's too", TreeId(*of), Place(*place)),
            Self::NotShared { of, block, place } => {
                let (of, place) = (TreeId(*of), Place(*place));
                write!(f, "{of}: block {block} at {place} should be the state's before, which has it not")
            }
            Self::Inconsistent { of, blocks, what } => write!(f, "{}: {what}, at block {}", TreeId(*of), blocks.start),
            Self::UsedAsFree(place) => write!(f, "{} is in use, and counts as free", Place(*place)),
            Self::Leaked(count) => write!(f, "{count} blocks count as used, and nothing uses them"),
        }
    }
}

/// How a place is told.
pub(super) fn place_of(place: Place) -> String {
    if place.is_somewhere() { place.to_string() } else { "nowhere".into() }
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
    /// What volumes and snapshots are called, by their ids.
    pub names: BTreeMap<u64, String>,
}

/// What volumes and snapshots are called: a snapshot with its volume, of which perhaps only the id is left.
pub(super) fn names(catalog: &Catalog) -> BTreeMap<u64, String> {
    let records = || catalog.trees.values().map(|tree| &tree.record).filter(|record| record.id != TreeId::CATALOG);
    let of_kind = |kind| records().filter(move |record| record.kind == kind);
    let mut names: BTreeMap<u64, String> =
        of_kind(Kind::Volume).map(|volume| (volume.id.0, volume.name.clone())).collect();
    let snapshots: Vec<_> = of_kind(Kind::Snapshot)
        .map(|snapshot| {
            let line = snapshot.line.0;
            let of = names.get(&line).cloned().unwrap_or_else(|| format!("volume {line}"));
            (snapshot.id.0, format!("{of}@{}", snapshot.name))
        })
        .collect();
    names.extend(snapshots);
    names
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
            (false, true) => survey.problems.push(Problem::UsedAsFree(place.0)),
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
        logged: loaded.replayed.changes.iter().count(),
        names: names(&loaded.catalog),
    })
}

/// Where a block of a volume or snapshot lies, as of the last checkpoint.
#[cfg(test)]
pub(crate) fn find(disk: &dyn Disk, of: TreeId, block: u64) -> Result<Option<u64>, OpenError> {
    let mut loaded = load::<Shipped<Buffer>>(disk)?;
    let entry = look(disk, &mut loaded, of, |tree, nodes| tree.leaf(nodes, block).map(|leaf| leaf.entry(block)));
    Ok(entry.map(|entry| entry.place.0).filter(|place| *place != 0))
}

/// Where its leaf lies.
#[cfg(test)]
pub(crate) fn find_leaf(disk: &dyn Disk, of: TreeId, block: u64) -> Result<Option<u64>, OpenError> {
    let mut loaded = load::<Shipped<Buffer>>(disk)?;
    let entry =
        look(disk, &mut loaded, of, |tree, nodes| Ok(tree.at(nodes, crate::map::NodeAt::leaf_of(block))?.pointer.node));
    Ok(entry.map(|entry| entry.place.0).filter(|place| *place != 0))
}

#[cfg(test)]
fn look<T>(
    disk: &dyn Disk,
    loaded: &mut Loaded,
    of: TreeId,
    look: impl Fn(&crate::map::Tree, &mut crate::map::Nodes) -> Result<T, crate::map::Missing>,
) -> Option<T> {
    let tree = loaded.catalog.trees.get(&of)?;
    loop {
        match look(tree, &mut loaded.nodes) {
            Ok(found) => return Some(found),
            Err(missing) => {
                let mut page = Buffer::zeroed(crate::units::BLOCK);
                disk.read(missing.node.place.bytes(), &mut page).ok()?;
                loaded.nodes.insert(missing.node.place, std::sync::Arc::new(page[..].try_into().ok()?));
            }
        }
    }
}
