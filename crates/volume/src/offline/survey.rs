//! Walking all maps of a pool: what is reachable, and whether it can be.
//!
//! Every block that is reachable belongs to exactly one state of one line, the one that put it there; all later ones that have it share it with
//! the one before them. So each map is walked only where it is its own, and where it is not, the state before must have the same.

use super::check::Problem;
use crate::catalog::{Catalog, Floor};
use crate::checksum;
use crate::disk::Disk;
use crate::format::node::{self, Entry, Page, Pointer};
use crate::map::{Missing, NodeAt, Nodes, Tree};
use crate::memory::Buffer;
use crate::units::{BLOCK, Epoch, Place, TreeId};
use std::sync::Arc;

/// Nodes that are kept in memory while maps are walked.
const CACHE: usize = 16_384;

/// What was found.
pub(crate) struct Survey {
    /// One bit for each block of the pool: it is reachable.
    reachable: Vec<u64>,
    pub(crate) problems: Vec<Problem>,
    /// A node cannot be read, so that blocks may be in use that were not reached.
    pub(crate) has_lost_nodes: bool,
    pub(crate) nodes: u64,
    pub(crate) data: u64,
}

struct Walk<'a> {
    disk: &'a dyn Disk,
    catalog: &'a Catalog,
    blocks: u64,
    /// Compare the data with its checksums, too.
    deep: bool,
    nodes: Nodes,
    survey: Survey,
}

/// What of a map is its own, and whose the rest is.
struct Own<'a> {
    tree: &'a Tree,
    floor: Floor,
    before: Option<&'a Tree>,
    /// The one before that, where a deletion has passed.
    beyond: Option<&'a Tree>,
    /// Up to here, the tree itself is taken apart.
    passed: u64,
    /// Up to here, the one before is.
    before_passed: u64,
}

/// Walks everything.
pub(crate) fn survey(disk: &dyn Disk, catalog: &Catalog, blocks: u64, deep: bool) -> Survey {
    let words = usize::try_from(blocks.div_ceil(64)).unwrap_or(0);
    let survey = Survey { reachable: vec![0; words], problems: Vec::new(), has_lost_nodes: false, nodes: 0, data: 0 };
    let mut walk = Walk { disk, catalog, blocks, deep, nodes: Nodes::new(CACHE), survey };
    let mut ids: Vec<TreeId> = catalog.trees.keys().copied().collect();
    ids.sort_unstable();
    for tree in ids.iter().filter_map(|id| catalog.trees.get(id)) {
        walk.tree(tree);
    }
    walk.survey
}

impl Survey {
    pub(crate) fn has(&self, place: Place) -> bool {
        let word = usize::try_from(place.0 / 64).ok().and_then(|word| self.reachable.get(word));
        word.is_some_and(|word| word & (1 << (place.0 % 64)) != 0)
    }

    /// Tells whether it was reached for the first time.
    fn reach(&mut self, place: Place) -> bool {
        let is_new = !self.has(place);
        if let Some(word) = usize::try_from(place.0 / 64).ok().and_then(|word| self.reachable.get_mut(word)) {
            *word |= 1 << (place.0 % 64);
        }
        is_new
    }
}

impl Walk<'_> {
    fn tree(&mut self, tree: &Tree) {
        let before = self.catalog.before(&tree.record);
        let own = Own {
            tree,
            floor: self.catalog.floor(&tree.record),
            before,
            beyond: before.and_then(|before| self.catalog.before(&before.record)),
            passed: tree.record.deleting.unwrap_or(0),
            before_passed: before.and_then(|before| before.record.deleting).unwrap_or(0),
        };
        let at = NodeAt { level: tree.record.level, index: 0 };
        self.node(&own, at, tree.record.root, tree.record.epoch);
    }

    fn node(&mut self, own: &Own<'_>, at: NodeAt, pointer: Pointer, youngest: Epoch) {
        if !pointer.node.place.is_somewhere() || at.blocks().end() <= own.passed {
            return;
        }
        if pointer.node.birth <= own.floor.at(at.last_block()) {
            return self.shared_node(own, at, pointer);
        }
        let of = own.tree.record.id;
        if pointer.node.birth > youngest {
            self.problem(Problem::Inconsistent {
                of: of.0,
                blocks: at.blocks(),
                what: "a node is younger than the one above it",
            });
        }
        if !self.claim(pointer.node.place, of, at) {
            return;
        }
        self.survey.nodes += 1;
        let Some(page) = self.read(own.tree, at, pointer.node) else { return };
        if Pointer::to(&page, at.level, pointer.node.place, pointer.node.birth) != pointer {
            self.problem(Problem::Inconsistent {
                of: of.0,
                blocks: at.blocks(),
                what: "the pointer to a node tells of other entries than it has",
            });
        }
        if at.level == 0 {
            return self.leaf(own, at, &page, pointer.node.birth);
        }
        for index in 0..node::INNER_ENTRIES {
            let below = NodeAt { level: at.level - 1, index: at.index * node::INNER_ENTRIES as u64 + index as u64 };
            self.node(own, below, node::pointer(&page, index), pointer.node.birth);
        }
    }

    fn leaf(&mut self, own: &Own<'_>, at: NodeAt, page: &Page, youngest: Epoch) {
        let of = own.tree.record.id;
        for index in 0..node::LEAF_ENTRIES {
            let block = at.blocks().start + index as u64;
            let entry = node::entry(page, index);
            if entry.birth > youngest {
                self.problem(Problem::Inconsistent {
                    of: of.0,
                    blocks: at.blocks(),
                    what: "a block is younger than its leaf",
                });
            }
            if !entry.place.is_somewhere() || block < own.passed {
                continue;
            }
            if of != TreeId::CATALOG && entry.birth <= own.floor.at(block) {
                let other = own.other(block);
                let found =
                    other.and_then(|other| self.lookup(|nodes| other.leaf(nodes, block).map(|l| l.entry(block))));
                if found.is_none_or(|found| found.place != entry.place) && !self.survey.has_lost_nodes {
                    self.problem(Problem::NotShared { of: of.0, block, place: entry.place.0 });
                }
                continue;
            }
            if !self.claim(entry.place, of, at) {
                continue;
            }
            self.survey.data += 1;
            if self.deep && !self.is_whole(entry) {
                self.problem(Problem::Corrupt { of: of.0, block, place: entry.place.0 });
            }
        }
    }

    fn shared_node(&mut self, own: &Own<'_>, at: NodeAt, pointer: Pointer) {
        let other = own.other(at.last_block());
        let found = other.filter(|other| other.record.level >= at.level);
        let found = found.and_then(|other| self.lookup(|nodes| other.at(nodes, at)));
        if found.is_none_or(|found| found.pointer.node.place != pointer.node.place) && !self.survey.has_lost_nodes {
            let block = at.blocks().start;
            self.problem(Problem::NotShared { of: own.tree.record.id.0, block, place: pointer.node.place.0 });
        }
    }

    fn problem(&mut self, problem: Problem) {
        self.survey.problems.push(problem);
    }

    /// Says that a place is reachable; tells whether it can be, and was not before.
    fn claim(&mut self, place: Place, of: TreeId, at: NodeAt) -> bool {
        if place.0 >= self.blocks {
            let what = "a place is beyond the end of the pool";
            self.problem(Problem::Inconsistent { of: of.0, blocks: at.blocks(), what });
            return false;
        }
        let is_new = self.survey.reach(place);
        if !is_new {
            self.problem(Problem::Doubled { of: of.0, place: place.0 });
        }
        is_new
    }

    fn is_whole(&self, entry: Entry) -> bool {
        crate::engine::is_whole(self.disk, entry.place, entry.sum)
    }

    fn read(&mut self, tree: &Tree, at: NodeAt, node: Entry) -> Option<Page> {
        if let Some(page) = tree.changed.get(&at) {
            return Some(Arc::clone(page));
        }
        if let Some(page) = self.nodes.get(node.place) {
            return Some(Arc::clone(page));
        }
        let mut bytes = Buffer::zeroed(BLOCK);
        let is_read = node.place.0 < self.blocks && self.disk.read(node.place.bytes(), &mut bytes).is_ok();
        if !is_read || checksum::of(&bytes) != node.sum {
            self.survey.has_lost_nodes = true;
            self.problem(Problem::NodeLost { of: tree.record.id.0, blocks: at.blocks(), place: node.place.0 });
            return None;
        }
        let page: Page = <[u8; BLOCK]>::try_from(&bytes[..]).map(Arc::new).ok()?;
        self.nodes.insert(node.place, Arc::clone(&page));
        Some(page)
    }

    /// Looks something up in a map, and reads the nodes for it.
    fn lookup<T>(&mut self, look: impl Fn(&mut Nodes) -> Result<T, Missing>) -> Option<T> {
        loop {
            let missing = match look(&mut self.nodes) {
                Ok(found) => return Some(found),
                Err(missing) => missing,
            };
            let tree = self.catalog.trees.get(&missing.tree)?;
            self.read(tree, missing.at, missing.node)?;
        }
    }
}

impl Own<'_> {
    /// Whose a block is that is not the tree's own.
    fn other(&self, block: u64) -> Option<&Tree> {
        if block < self.before_passed { self.beyond } else { self.before }
    }
}
