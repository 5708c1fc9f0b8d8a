//! Repairing what can be told from the rest.
//!
//! The maps and the catalog are the truth; which blocks are used follows from them. Data and nodes that are damaged cannot be made again here: what they
//! stand for stays an error when it is read, never zeros. Data can be written anew, and a lost leaf when all of its
//! blocks are at once.

use super::check::{Problem, names};
use super::survey::survey;
use crate::disk::Disk;
use crate::engine::{self, Admin, Engine, Request, Salvage, Shipped};
use crate::error::OpenError;
use crate::memory::Buffer;
use std::collections::BTreeMap;

/// What a repair has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repaired {
    /// Blocks of which was told wrongly whether they are used.
    pub blocks: u64,
    /// Why the map of used blocks could not be read, if so; it was made anew from the maps of the volumes.
    pub space: Option<String>,
    /// What the log holds after this is given up, since a record that was flushed is damaged.
    pub log: Option<String>,
    /// What stays as it is: lost nodes, and maps that contradict themselves.
    pub left: Vec<Problem>,
    /// What volumes and snapshots are called, by their ids.
    pub names: BTreeMap<u64, String>,
}

/// Repairs a pool that is not open: damaged superblocks, and what is told of used blocks. With `give_up_log`, a log that is damaged in the middle is taken
/// up to there, and what was flushed after it is lost; and where both copies of the newest superblock are lost, the one before is taken, with what
/// is left of its state: a deep [`super::check`] tells what is not. Without it, such pools are left alone.
///
/// # Errors
///
/// If a part that nothing else tells is damaged, such as the catalog; or nodes are lost together with the map of used blocks, since nobody knows
/// then what is free.
pub fn repair(disk: &dyn Disk, give_up_log: bool) -> Result<Repaired, OpenError> {
    disk.flush().map_err(OpenError::disk("flush the pool before it is repaired"))?;
    let Salvage { mut loaded, space, log } = engine::salvage::<Shipped<Buffer>>(disk, give_up_log)?;
    let found = survey(disk, &loaded.catalog, loaded.superblock.blocks, false);
    if space.is_some() && found.has_lost_nodes {
        return Err(OpenError::damaged(
            "the map of used blocks, and nodes from which it could be made anew, each of which",
        ));
    }
    let keeps_used = found.has_lost_nodes;
    let used = loaded.space.used_places();
    let blocks = loaded.space.set_used(&|place| found.has(place) || (keeps_used && used(place)));
    let names = names(&loaded.catalog);
    let replayed = std::mem::take(&mut loaded.replayed);
    let mut engine = Engine::<Shipped<Buffer>>::new(loaded, 1024);
    let first = engine.replay(replayed, Vec::new());
    engine::drive_ios(&mut engine, disk, first);
    // A second checkpoint, so that all four superblocks are new.
    let out = engine.submit(Request::Admin(Admin::Checkpoint { clean: true }), 0);
    let last = engine::drive_ios(&mut engine, disk, out).answers.pop().map(|(_, result)| result);
    let failed = |why: &dyn std::fmt::Display| OpenError::Unfit(format!("what was repaired cannot be written: {why}"));
    match engine.opened() {
        Some(Err(error)) => return Err(failed(&error)),
        None => return Err(failed(&"the log is not replayed")),
        Some(Ok(())) => {}
    }
    match last {
        Some(Ok(_)) => Ok(Repaired { blocks, space, log, left: found.problems, names }),
        Some(Err(error)) => Err(failed(&error)),
        None => Err(failed(&"the last checkpoint is not done")),
    }
}
