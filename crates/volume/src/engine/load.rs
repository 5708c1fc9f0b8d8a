//! Reading the catalog when a pool is opened.
//!
//! Its sums are right, or it is not taken; but sums can be right because somebody wanted them to be. So all that the rest of the engine relies on is
//! looked at here, and what cannot be is damage like any other.

use super::open::read_page;
use crate::catalog::Catalog;
use crate::checksum;
use crate::disk::Disk;
use crate::error::OpenError;
use crate::format::catalog::{Kind, Record, SLOT, SLOTS};
use crate::format::node::{self, Entry, Page, level_for, span};
use crate::format::superblock::Superblock;
use crate::map::{Nodes, Tree};
use crate::units::{Epoch, TreeId, VolumeId};
use std::collections::HashSet;
use std::sync::Arc;

pub(super) fn load_catalog(disk: &dyn Disk, superblock: &Superblock, nodes: &mut Nodes) -> Result<Catalog, OpenError> {
    let pages = find_pages(disk, superblock, nodes)?;
    if pages.len() as u64 != superblock.catalog_pages {
        return Err(OpenError::damaged(format!(
            "the map of the catalog, which lacks pages of its {},",
            superblock.catalog_pages
        )));
    }
    let mut catalog = Catalog::default();
    for (entry, page) in pages {
        let bytes = read_checked(disk, entry, superblock.blocks, "a page of the catalog")?;
        for (i, slot) in bytes.chunks_exact(SLOT).enumerate() {
            let number = page * SLOTS as u64 + i as u64;
            let record = Record::get(slot);
            let record =
                record.map_err(|what| OpenError::damaged(format!("slot {number} of the catalog: {what}; it")))?;
            if let Some(record) = record {
                check_record(&catalog, superblock, &record)?;
                catalog.add(record, Some(number));
            }
        }
    }
    catalog.set_pages(superblock.catalog_pages);
    check_lines(&catalog)?;
    let record = Record {
        id: TreeId::CATALOG,
        kind: Kind::Volume,
        name: String::new(),
        epoch: Epoch(1),
        line: VolumeId(0),
        origin: None,
        blocks: superblock.catalog_pages,
        level: superblock.catalog_level.max(level_for(superblock.catalog_pages)),
        root: superblock.catalog,
        deleting: None,
    };
    catalog.trees.insert(TreeId::CATALOG, Tree::new(record, 0));
    Ok(catalog)
}

/// Where the pages are, in their order. The nodes on the way stay in memory. No block is read twice and nothing beyond the last page is
/// looked at, so however a map is tangled, what it costs is bounded.
fn find_pages(disk: &dyn Disk, superblock: &Superblock, nodes: &mut Nodes) -> Result<Vec<(Entry, u64)>, OpenError> {
    let mut seen = HashSet::new();
    let mut level: Vec<(Entry, u64)> = vec![(superblock.catalog.node, 0)];
    level.retain(|(entry, _)| entry.place.is_somewhere());
    for height in (0..=superblock.catalog_level).rev() {
        let mut below = Vec::new();
        // How many pages what is named on this level stands for.
        let each = if height == 0 { 1 } else { span(height - 1) };
        for (entry, index) in level {
            if !seen.insert(entry.place) {
                return Err(OpenError::damaged(format!("the map of the catalog, which has {} twice,", entry.place)));
            }
            let page = read_checked(disk, entry, superblock.blocks, "a node of the catalog")?;
            for i in 0..node::entries(height) {
                let named = if height == 0 { node::entry(&page, i) } else { node::pointer(&page, i).node };
                let at = index * node::entries(height) as u64 + i as u64;
                if !named.place.is_somewhere() {
                    continue;
                }
                if at * each >= superblock.catalog_pages {
                    let what = format!("the map of the catalog, in which page {} should not be,", at * each);
                    return Err(OpenError::damaged(what));
                }
                below.push((named, at));
            }
            nodes.pin(entry.place, page);
        }
        level = below;
    }
    match level.iter().find(|(entry, _)| !seen.insert(entry.place)) {
        Some((entry, _)) => {
            Err(OpenError::damaged(format!("the map of the catalog, which has {} twice,", entry.place)))
        }
        None => Ok(level),
    }
}

fn read_checked(disk: &dyn Disk, entry: Entry, blocks: u64, what: &str) -> Result<Page, OpenError> {
    let damaged = || OpenError::damaged(format!("{what} at {}", entry.place));
    if entry.place.0 >= blocks {
        return Err(damaged());
    }
    let page = read_page(disk, entry.place)?;
    if checksum::of(&page[..]) != entry.sum { Err(damaged()) } else { Ok(Arc::new(*page)) }
}

/// What can be told of a record with those before it.
fn check_record(catalog: &Catalog, superblock: &Superblock, record: &Record) -> Result<(), OpenError> {
    let is_known = catalog.trees.contains_key(&record.id) || catalog.has_name(record);
    let line = catalog.lines.get(&record.line);
    let is_live_volume = record.kind == Kind::Volume && record.deleting.is_none();
    let is_doubled = line.is_some_and(|line| {
        let has = if is_live_volume { line.volume.is_some() } else { line.states.contains_key(&record.epoch) };
        has || line.origin != record.origin
    });
    let is_late = record.id.0 >= superblock.next_id || record.epoch.0 >= superblock.next_epoch;
    let is_astray = record.line.0 == 0 || (record.kind == Kind::Volume && record.line.0 != record.id.0);
    if is_known || is_doubled || is_late || is_astray {
        return Err(OpenError::damaged(format!("the catalog, in which {} cannot be as it is,", record.id)));
    }
    Ok(())
}

/// What can be told when all are there: that whoever goes back along a line, and on into the one that it was cloned from, comes to an end, since
/// epochs only fall on the way; and that no more than one deletion has begun.
fn check_lines(catalog: &Catalog) -> Result<(), OpenError> {
    let mut begun = 0;
    for Tree { record, .. } in catalog.trees.values() {
        let origin = record.origin.map(|origin| catalog.trees.get(&origin.into()).map(|tree| &tree.record));
        if origin.is_some_and(|origin| origin.is_none_or(|origin| origin.kind != Kind::Snapshot)) {
            return Err(OpenError::damaged(format!("the catalog, in which the origin of {} is missing,", record.id)));
        }
        let is_after = |before: &Record| {
            // A volume only grows.
            before.epoch < record.epoch && before.level <= record.level && before.blocks <= record.blocks
        };
        if catalog.before(record).is_some_and(|before| !is_after(&before.record)) {
            let what = format!("the catalog, in which {} comes before what it came from,", record.id);
            return Err(OpenError::damaged(what));
        }
        begun += u32::from(record.deleting.is_some_and(|passed| passed > 0));
    }
    if begun > 1 {
        return Err(OpenError::damaged("the catalog, in which several deletions are under way at once,"));
    }
    Ok(())
}
