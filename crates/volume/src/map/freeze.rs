//! Giving the changed nodes of a map places on disk.

use super::nodes::Nodes;
use super::tree::{NodeAt, Tree};
use crate::catalog::Floor;
use crate::format::node::{self, Page, Pointer};
use crate::units::Place;
use std::sync::Arc;

/// A node that is to be written.
#[derive(Debug, Clone)]
pub(crate) struct Placed {
    pub(crate) place: Place,
    pub(crate) page: Page,
}

/// Gives each changed node a place, from the leaves up, so that every pointer can say where its node lies and what it sums up to; the record
/// has the new root then. Gives the places of the nodes that they replace and that no snapshot has: those born after the `floor` of their last block.
pub(crate) fn freeze(
    tree: &mut Tree,
    nodes: &mut Nodes,
    places: &mut dyn Iterator<Item = Place>,
    floor: Floor,
    written: &mut Vec<Placed>,
) -> Vec<Place> {
    let mut order: Vec<NodeAt> = tree.changed.keys().copied().collect();
    order.sort_unstable();
    nodes.changed -= order.len();
    let mut replaced = Vec::new();
    for at in order {
        let Some(page) = tree.changed.remove(&at) else { continue };
        let is_root = at.level == tree.record.level;
        let parent = if is_root { None } else { tree.changed.get_mut(&at.parent()).map(Arc::make_mut) };
        let old = parent.as_ref().map_or(tree.record.root, |page| node::pointer(page, at.entry()));
        let new = match node::hollow_birth(&page, at.level) {
            Some(birth) => Pointer::hole(birth),
            None => {
                let place = places.next().expect("there is a place for each changed node");
                let pointer = Pointer::to(&page, at.level, place, tree.record.epoch);
                nodes.write(place, page.clone());
                written.push(Placed { place, page });
                pointer
            }
        };
        match parent {
            Some(page) => node::set_pointer(page, at.entry(), new),
            None => tree.record.root = new,
        }
        if old.node.place.is_somewhere() && old.node.birth > floor.at(at.last_block()) {
            nodes.forget(old.node.place);
            replaced.push(old.node.place);
        }
    }
    replaced
}
