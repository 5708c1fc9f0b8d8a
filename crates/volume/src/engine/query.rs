//! What is stored where, and what has changed.

use super::request::{Answer, Extent, Page};
use super::task::{Flow, Task};
use super::{Engine, World};
use crate::map::{Missing, NodeAt, Nodes, Tree};
use crate::units::{Blocks, Epoch, TreeId};

/// Leaves, or what is passed over at once, that a question goes through before it is answered with what was found so far: others wait meanwhile.
const MOST_LEAVES: u32 = 4096;
/// Nodes that it reads for that; on a slow disk, whoever asks would take it for dead meanwhile.
const MOST_MISSING: u32 = 64;

/// What is asked for, with what was found so far.
pub(super) enum List {
    Extents(Vec<Extent>),
    /// Since an epoch.
    Changed(Epoch, Vec<Blocks>),
}

impl List {
    /// Adds what is known of the leaf of a block, or of the largest node around it that can be judged as a whole; gives up to where it came, and
    /// whether the list had room.
    fn add(&mut self, tree: &Tree, nodes: &mut Nodes, range: (u64, u64), most: usize) -> Result<(u64, bool), Missing> {
        match self {
            Self::Extents(found) => extents_in_node(tree, nodes, range, most, found),
            Self::Changed(since, found) => changed_in_node(tree, nodes, range, *since, most, found),
        }
    }

    fn answer<M>(self, next: u64) -> Answer<M> {
        match self {
            Self::Extents(items) => Answer::Extents(Page { items, next }),
            Self::Changed(_, items) => Answer::Changed(Page { items, next }),
        }
    }
}

impl<W: World> Engine<W> {
    pub(super) fn list(
        &mut self,
        tag: W::Tag,
        of: TreeId,
        (mut at, end): (u64, u64),
        (most, missed): (usize, u32),
        mut found: List,
    ) -> Flow<W> {
        let Some(tree) = self.catalog.live(of) else {
            self.answer(tag, Err(self.absent(of)));
            return Flow::Done;
        };
        let (mut leaves, mut has_room) = (0, true);
        // It has come further when it stops, so that whoever asks again does, too.
        while at < end && has_room && leaves < MOST_LEAVES && (leaves == 0 || missed < MOST_MISSING) {
            leaves += 1;
            match found.add(tree, &mut self.nodes, (at, end), most) {
                Ok(came) => (at, has_room) = came,
                Err(missing) => {
                    return Flow::Wait(Task::List { tag, of, at, end, most, missed: missed + 1, found }, missing);
                }
            }
        }
        self.answer(tag, Ok(found.answer(at)));
        Flow::Done
    }
}

fn extents_in_node(
    tree: &Tree,
    nodes: &mut Nodes,
    (at, end): (u64, u64),
    most: usize,
    found: &mut Vec<Extent>,
) -> Result<(u64, bool), Missing> {
    if let Some((_, hole_end)) = tree.hole(nodes, at)? {
        let blocks = Blocks { start: at, count: hole_end.min(end) - at };
        let has_room = push_extent(found, Extent { blocks, is_data: false }, most);
        return Ok((if has_room { blocks.end() } else { at }, has_room));
    }
    let leaf = tree.leaf(nodes, at)?;
    let last = NodeAt::leaf_of(at).blocks().end().min(end);
    let mut extents = (at..last).map(|block| Extent {
        blocks: Blocks { start: block, count: 1 },
        is_data: leaf.entry(block).place.is_somewhere(),
    });
    let left_out = extents.find(|extent| !push_extent(found, *extent, most));
    Ok(left_out.map_or((last, true), |extent| (extent.blocks.start, false)))
}

/// Adds to a list in ascending order what joins its last, or is one more; tells whether there was room.
fn push_extent(found: &mut Vec<Extent>, extent: Extent, most: usize) -> bool {
    let has_room = found.len() < most;
    match found.last_mut() {
        Some(last) if last.is_data == extent.is_data && last.blocks.end() == extent.blocks.start => {
            last.blocks.count += extent.blocks.count;
        }
        _ if !has_room => return false,
        _ => found.push(extent),
    }
    true
}

fn push_blocks(found: &mut Vec<Blocks>, blocks: Blocks, most: usize) -> bool {
    let has_room = found.len() < most;
    match found.last_mut() {
        Some(last) if last.end() == blocks.start => last.count += blocks.count,
        _ if !has_room => return false,
        _ => found.push(blocks),
    }
    true
}

/// What has changed from a block on to the end of the largest node around it that can be judged as a whole; gives up to where it
/// came, and whether the list had room.
fn changed_in_node(
    tree: &Tree,
    nodes: &mut Nodes,
    (block, end): (u64, u64),
    since: Epoch,
    most: usize,
    found: &mut Vec<Blocks>,
) -> Result<(u64, bool), Missing> {
    for level in (0..=tree.record.level).rev() {
        let node = NodeAt::leaf_of(block).above(level);
        let last = node.blocks().end().min(end);
        let at = tree.at(nodes, node)?;
        if at.changed {
            continue;
        }
        let pointer = at.pointer;
        if pointer.node.birth <= since {
            return Ok((last, true));
        }
        if !pointer.node.place.is_somewhere() {
            let has_room = push_blocks(found, Blocks { start: block, count: last - block }, most);
            return Ok((if has_room { last } else { block }, has_room));
        }
        if level == 0 && pointer.older <= since {
            // What was born last is all that is young enough, and the pointer tells which blocks that is.
            let is_fresh = |block: u64| {
                let bit = crate::map::index_in_leaf(block);
                pointer.fresh[bit / 64] & (1 << (bit % 64)) != 0
            };
            return Ok(push_where(found, (block, last), is_fresh, most));
        }
    }
    let leaf = tree.leaf(nodes, block)?;
    let last = NodeAt::leaf_of(block).blocks().end().min(end);
    Ok(push_where(found, (block, last), |block| leaf.entry(block).birth > since, most))
}

fn push_where(
    found: &mut Vec<Blocks>,
    (start, end): (u64, u64),
    mut wanted: impl FnMut(u64) -> bool,
    most: usize,
) -> (u64, bool) {
    for block in start..end {
        if wanted(block) && !push_blocks(found, Blocks { start: block, count: 1 }, most) {
            return (block, false);
        }
    }
    (end, true)
}
