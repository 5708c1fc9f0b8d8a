//! The pages of the space map as the last checkpoint has them, to be compared with what is on the disk.

use super::{Space, index};
use crate::format::layout::{GROUP, bits, directory};
use crate::units::Place;

/// Which page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SpaceAt {
    /// Of the directory, of this group of regions.
    Directory(u64),
    /// The bits of this region.
    Bits(u64),
}

/// Where a page lies, and what it sums up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SpacePage {
    pub(crate) at: SpaceAt,
    pub(crate) place: Place,
    pub(crate) sum: u32,
}

impl Space {
    /// How many there are at most: those of the directory, then the bits of all regions.
    pub(crate) fn pages(&self) -> u64 {
        (self.groups.len() + self.regions.len()) as u64
    }

    /// The page of a number, if it was ever written.
    pub(crate) fn page_at(&self, number: u64) -> Option<SpacePage> {
        match number.checked_sub(self.groups.len() as u64) {
            None => self.page_of(SpaceAt::Directory(number)),
            Some(region) => self.page_of(SpaceAt::Bits(region)),
        }
    }

    pub(crate) fn page_of(&self, at: SpaceAt) -> Option<SpacePage> {
        let (current, place): (_, fn(u64, u8) -> Place) = match at {
            SpaceAt::Directory(group) => (self.groups.get(index(group))?, directory),
            SpaceAt::Bits(region) => (&self.regions.get(index(region))?.slot, bits),
        };
        let number = match at {
            SpaceAt::Directory(number) | SpaceAt::Bits(number) => number,
        };
        current.slot.map(|slot| SpacePage { at, place: place(number, slot), sum: current.sum })
    }

    /// Has a page written anew with the next checkpoint.
    pub(crate) fn renew(&mut self, at: SpaceAt) {
        let region = match at {
            SpaceAt::Directory(group) => group * GROUP,
            SpaceAt::Bits(region) => region,
        };
        if let Some(region) = self.regions.get_mut(index(region)) {
            region.dirty = true;
        }
    }
}
