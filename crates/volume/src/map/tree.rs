//! One map.

use super::nodes::{Map, Nodes};
use crate::format::catalog::Record;
use crate::format::node::{self, Entry, INNER_ENTRIES, LEAF_ENTRIES, Page, Pointer, level_for, span};
use crate::units::{BLOCK, Blocks, Epoch, TreeId};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// A node of a map by what it stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NodeAt {
    pub(crate) level: u8,
    /// Counted from the begin of the volume, in nodes of this level.
    pub(crate) index: u64,
}

impl NodeAt {
    pub(crate) fn leaf_of(block: u64) -> Self {
        Self { level: 0, index: block / LEAF_ENTRIES as u64 }
    }

    pub(crate) fn blocks(self) -> Blocks {
        Blocks { start: self.index * span(self.level), count: span(self.level) }
    }

    pub(crate) fn last_block(self) -> u64 {
        self.blocks().end() - 1
    }

    pub(crate) fn parent(self) -> Self {
        Self { level: self.level + 1, index: self.index / INNER_ENTRIES as u64 }
    }

    /// Which entry of its parent it is.
    pub(crate) fn entry(self) -> usize {
        usize::try_from(self.index % INNER_ENTRIES as u64).unwrap_or(0)
    }

    /// The node above it, or it itself, of this level.
    pub(crate) fn above(self, level: u8) -> Self {
        Self { level, index: self.index >> (6 * u32::from(level.saturating_sub(self.level))) }
    }
}

impl Hash for NodeAt {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.index << 3 | u64::from(self.level));
    }
}

/// A node that must be read first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Missing {
    pub(crate) tree: TreeId,
    pub(crate) at: NodeAt,
    pub(crate) node: Entry,
}

/// What a map says of a node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At {
    /// The pointer as the last checkpoint had it.
    pub(crate) pointer: Pointer,
    /// The node has changed since.
    pub(crate) changed: bool,
}

/// A leaf.
pub(crate) enum Leaf<'a> {
    Page(&'a [u8; BLOCK]),
    /// There is none: all its blocks are holes of this birth.
    Hole(Epoch),
}

impl Leaf<'_> {
    /// What is said of a block of the volume.
    pub(crate) fn entry(&self, block: u64) -> Entry {
        match self {
            Self::Page(page) => node::entry(page, index_in_leaf(block)),
            Self::Hole(birth) => Entry::hole(*birth),
        }
    }
}

pub(crate) fn index_in_leaf(block: u64) -> usize {
    usize::try_from(block % LEAF_ENTRIES as u64).unwrap_or(0)
}

/// A volume or snapshot with its map.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) record: Record,
    /// Where its record lies in the catalog.
    pub(crate) slot: u64,
    /// Nodes that have changed since the last checkpoint was begun, and all nodes above them.
    pub(crate) changed: Map<NodeAt, Page>,
}

impl Tree {
    pub(crate) fn new(record: Record, slot: u64) -> Self {
        Self { record, slot, changed: Map::default() }
    }

    fn root(&self) -> NodeAt {
        NodeAt { level: self.record.level, index: 0 }
    }

    fn missing(&self, at: NodeAt, pointer: &Pointer) -> Missing {
        Missing { tree: self.record.id, at, node: pointer.node }
    }

    /// What is said of a node; of one below a hole, that it is a hole.
    pub(crate) fn at(&self, nodes: &mut Nodes, wanted: NodeAt) -> Result<At, Missing> {
        let mut at = self.root();
        let mut pointer = self.record.root;
        loop {
            let changed = self.changed.get(&at);
            if at.level == wanted.level {
                return Ok(At { pointer, changed: changed.is_some() });
            }
            let below = wanted.above(at.level - 1);
            pointer = match changed {
                Some(page) => node::pointer(page, below.entry()),
                None if !pointer.node.place.is_somewhere() => {
                    return Ok(At { pointer: Pointer::hole(pointer.node.birth), changed: false });
                }
                None => {
                    let page = nodes.get(pointer.node.place).ok_or_else(|| self.missing(at, &pointer))?;
                    node::pointer(page, below.entry())
                }
            };
            at = below;
        }
    }

    /// If the block is in a hole for which there is not even a leaf: the hole's birth, and the block at which it ends.
    pub(crate) fn hole(&self, nodes: &mut Nodes, block: u64) -> Result<Option<(Epoch, u64)>, Missing> {
        for level in (0..=self.record.level).rev() {
            let at = NodeAt::leaf_of(block).above(level);
            let found = self.at(nodes, at)?;
            if !found.changed && !found.pointer.node.place.is_somewhere() {
                return Ok(Some((found.pointer.node.birth, at.blocks().end())));
            }
        }
        Ok(None)
    }

    pub(crate) fn leaf<'a>(&'a self, nodes: &'a mut Nodes, block: u64) -> Result<Leaf<'a>, Missing> {
        let leaf = NodeAt::leaf_of(block);
        if let Some(page) = self.changed.get(&leaf) {
            return Ok(Leaf::Page(page));
        }
        let found = self.at(nodes, leaf)?;
        if !found.pointer.node.place.is_somewhere() {
            return Ok(Leaf::Hole(found.pointer.node.birth));
        }
        let missing = self.missing(leaf, &found.pointer);
        nodes.get(found.pointer.node.place).map(|page| Leaf::Page(page)).ok_or(missing)
    }

    /// A leaf that can be changed; the nodes above it are changed nodes from now on, too.
    pub(crate) fn change(&mut self, nodes: &mut Nodes, block: u64) -> Result<&mut [u8; BLOCK], Missing> {
        let leaf = NodeAt::leaf_of(block);
        if !self.changed.contains_key(&leaf) {
            // Nothing is changed before all that is needed is there.
            self.leaf(nodes, block)?;
            (0..=self.record.level).rev().try_for_each(|level| self.change_node(nodes, leaf.above(level)))?;
        }
        let page = self.changed.get_mut(&leaf).map(Arc::make_mut);
        Ok(page.expect("it was there or has been put there"))
    }

    fn change_node(&mut self, nodes: &mut Nodes, at: NodeAt) -> Result<(), Missing> {
        if self.changed.contains_key(&at) {
            return Ok(());
        }
        let pointer = self.at(nodes, at)?.pointer;
        let page = if pointer.node.place.is_somewhere() {
            let missing = self.missing(at, &pointer);
            Nodes::copy(nodes.get(pointer.node.place).ok_or(missing)?)
        } else {
            node::hollow(at.level, pointer.node.birth)
        };
        self.changed.insert(at, page);
        nodes.changed += 1;
        Ok(())
    }

    /// Puts holes of the current epoch in the place of a leaf that cannot be read. Whoever asks so has something else for all of them at once, since
    /// what was lost must never read as zeros.
    pub(crate) fn renew(&mut self, nodes: &mut Nodes, block: u64) -> Result<(), Missing> {
        let leaf = NodeAt::leaf_of(block);
        self.at(nodes, leaf)?;
        (1..=self.record.level).rev().try_for_each(|level| self.change_node(nodes, leaf.above(level)))?;
        if self.changed.insert(leaf, node::hollow(0, self.record.epoch)).is_none() {
            nodes.changed += 1;
        }
        Ok(())
    }

    /// Makes the volume larger: a root above the old one, as often as it takes.
    pub(crate) fn grow(&mut self, nodes: &mut Nodes, blocks: u64) {
        while self.record.level < level_for(blocks) {
            let mut page = node::hollow(self.record.level + 1, Epoch(0));
            node::set_pointer(Arc::make_mut(&mut page), 0, self.record.root);
            self.record.level += 1;
            self.record.root = Pointer::hole(Epoch(0));
            self.changed.insert(self.root(), page);
            nodes.changed += 1;
        }
        self.record.blocks = self.record.blocks.max(blocks);
    }
}
