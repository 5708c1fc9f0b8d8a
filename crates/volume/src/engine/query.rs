//! What is stored where, and what has changed.

use super::request::{Answer, Extent, Page};
use super::task::{Flow, Task};
use super::{Engine, World};
use crate::map::{Missing, NodeAt, Tree};
use crate::units::{Blocks, Epoch, TreeId};

/// Leaves, or what is passed over at once, that a question goes through before it is answered with what was found so far: others wait meanwhile.
const MOST_LEAVES: u32 = 4096;

impl<W: World> Engine<W> {
    pub(super) fn extents(
        &mut self,
        tag: W::Tag,
        of: TreeId,
        mut at: u64,
        end: u64,
        most: usize,
        mut found: Vec<Extent>,
    ) -> Flow<W> {
        let Some(tree) = self.catalog.live(of) else {
            self.answer(tag, Err(self.absent(of)));
            return Flow::Done;
        };
        let mut leaves = 0;
        while at < end && leaves < MOST_LEAVES {
            leaves += 1;
            let hole = match tree.hole(&mut self.nodes, at) {
                Ok(hole) => hole,
                Err(missing) => return Flow::Wait(Task::Extents { tag, of, at, end, most, found }, missing),
            };
            if let Some((_, hole_end)) = hole {
                let blocks = Blocks { start: at, count: hole_end.min(end) - at };
                if !push_extent(&mut found, Extent { blocks, is_data: false }, most) {
                    break;
                }
                at = blocks.end();
                continue;
            }
            let leaf = match tree.leaf(&mut self.nodes, at) {
                Ok(leaf) => leaf,
                Err(missing) => return Flow::Wait(Task::Extents { tag, of, at, end, most, found }, missing),
            };
            let last = NodeAt::leaf_of(at).blocks().end().min(end);
            let mut extents = (at..last).map(|block| Extent {
                blocks: Blocks { start: block, count: 1 },
                is_data: leaf.entry(block).place.is_somewhere(),
            });
            match extents.find(|extent| !push_extent(&mut found, *extent, most)) {
                None => at = last,
                Some(extent) => {
                    at = extent.blocks.start;
                    break;
                }
            }
        }
        self.answer(tag, Ok(Answer::Extents(Page { items: found, next: at })));
        Flow::Done
    }

    pub(super) fn changed(
        &mut self,
        tag: W::Tag,
        of: TreeId,
        (mut at, end): (u64, u64),
        since: Epoch,
        most: usize,
        mut found: Vec<Blocks>,
    ) -> Flow<W> {
        let Some(tree) = self.catalog.live(of) else {
            self.answer(tag, Err(self.absent(of)));
            return Flow::Done;
        };
        let mut leaves = 0;
        while at < end && leaves < MOST_LEAVES {
            leaves += 1;
            match changed_in_node(tree, &mut self.nodes, (at, end), since, most, &mut found) {
                Ok((next, true)) => at = next,
                Ok((next, false)) => {
                    at = next;
                    break;
                }
                Err(missing) => {
                    return Flow::Wait(Task::Changed { tag, of, at, end, since, most, found }, missing);
                }
            }
        }
        self.answer(tag, Ok(Answer::Changed(Page { items: found, next: at })));
        Flow::Done
    }
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
    nodes: &mut crate::map::Nodes,
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
