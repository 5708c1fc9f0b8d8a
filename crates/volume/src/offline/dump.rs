//! Telling what is in a pool.

use super::check::place_of;
use crate::disk::Disk;
use crate::engine::{Shipped, load};
use crate::error::OpenError;
use crate::format::catalog::Kind;
use crate::format::record::Change;
use crate::memory::Buffer;
use std::fmt::Write;

/// Describes a pool that is not open, a line for each thing: the superblock, the volumes and snapshots, the changes in the log that the last
/// checkpoint does not have. Nothing is written.
///
/// # Errors
///
/// If so much is damaged that there is nothing to tell.
pub fn dump(disk: &dyn Disk) -> Result<String, OpenError> {
    let loaded = load::<Shipped<Buffer>>(disk)?;
    let superblock = &loaded.superblock;
    let mut out = String::new();
    let id: String = superblock.pool.iter().fold(String::new(), |mut text, byte| {
        // Writing into a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    });
    let mut line = |text: String| {
        out.push_str(&text);
        out.push('\n');
    };
    line(format!("pool {id}: {} blocks, {} free", superblock.blocks, loaded.space.free()));
    let closed = if superblock.clean { "closed" } else { "not closed" };
    line(format!("checkpoint {}, generation {}, {closed}", superblock.checkpoint, superblock.generation));
    line(format!(
        "log: {} blocks, units of {} bytes; replay from sequence {} at byte {}",
        superblock.log_blocks, superblock.log_unit, superblock.replay_sequence, superblock.replay_offset
    ));
    line(format!("next id {}, next epoch {}", superblock.next_id, superblock.next_epoch));
    let mut records: Vec<_> = loaded.catalog.trees.values().map(|tree| &tree.record).filter(|r| r.id.0 != 0).collect();
    records.sort_unstable_by_key(|record| (record.line, record.epoch));
    for record in records {
        let kind = match record.kind {
            Kind::Volume => "volume",
            Kind::Snapshot => "snapshot",
        };
        let origin = record.origin.map_or(String::new(), |origin| format!(", cloned from snapshot {}", origin.0));
        let deleting = record.deleting.map_or(String::new(), |passed| format!(", being deleted up to block {passed}"));
        line(format!(
            "{kind} {} {:?}: line {}, {} blocks, epoch {}, root {} of level {}{origin}{deleting}",
            record.id.0,
            record.name,
            record.line.0,
            record.blocks,
            record.epoch.0,
            place_of(record.root.node.place),
            record.level,
        ));
    }
    for change in loaded.replayed.changes.iter() {
        line(match change {
            Change::Write { volume, start, run, .. } => {
                format!("logged: {volume}, {} blocks from {start} at {}", run.count, run.start)
            }
            Change::Discard { volume, start, count } => {
                format!("logged: {volume}, {count} blocks from {start} discarded")
            }
        });
    }
    Ok(out)
}
