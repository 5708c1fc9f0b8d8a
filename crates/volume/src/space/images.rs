//! The space map as it is written with a checkpoint, and read when a pool is opened.

use super::{Bits, Space, get, index};
use crate::checksum;
use crate::error::OpenError;
use crate::format::bytes::get64;
use crate::format::layout::{GROUP, REGION, bits, directory};
use crate::format::superblock::Slot;
use crate::memory::Buffer;
use crate::units::{BLOCK, Place};

/// A page that is to be written to a fixed place.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) place: Place,
    pub(crate) bytes: Buffer,
}

impl Space {
    /// The pages of all that has changed, each for the slot that does not hold the current version; and the directory's entries for the
    /// superblock that makes them current.
    pub(crate) fn freeze(&mut self, keep_slot: bool) -> (Vec<Image>, Vec<Slot>) {
        let mut images = Vec::new();
        let mut groups: Vec<u64> = Vec::new();
        for region in 0..self.regions.len() as u64 {
            if !self.regions[index(region)].dirty {
                continue;
            }
            let bytes = self.page(region);
            let free = self.count_free(region);
            let current = &mut self.regions[index(region)];
            let slot = if keep_slot { current.slot.slot.unwrap_or(0) } else { current.slot.other() };
            current.slot = Slot { sum: checksum::of(&bytes[..]), free, slot: Some(slot) };
            current.dirty = false;
            images.push(Image { place: bits(region, slot), bytes });
            if groups.last() != Some(&(region / GROUP)) {
                groups.push(region / GROUP);
            }
        }
        for group in groups {
            let mut bytes = Buffer::zeroed(BLOCK);
            let regions = self.regions.iter().skip(index(group * GROUP)).take(index(GROUP));
            regions.enumerate().for_each(|(i, region)| region.slot.put(&mut bytes[..], i * Slot::BYTES));
            let slot = self.groups[index(group)].other();
            self.groups[index(group)] = Slot { sum: checksum::of(&bytes[..]), free: 0, slot: Some(slot) };
            images.push(Image { place: directory(group, slot), bytes });
        }
        (images, self.groups.clone())
    }

    /// How many blocks of the region are not used; a region without its head has room for no more than a `u16` counts.
    fn count_free(&self, region: u64) -> u16 {
        let used =
            self.regions[index(region)].used.as_ref().map_or(0, |used| used.iter().map(|w| w.count_ones()).sum());
        let room = self.size(region).saturating_sub(self.head(region));
        u16::try_from(room.saturating_sub(u64::from(used))).unwrap_or(0)
    }

    fn page(&self, region: u64) -> Buffer {
        let mut bytes = Buffer::zeroed(BLOCK);
        if let Some(used) = &self.regions[index(region)].used {
            bytes.chunks_exact_mut(8).zip(used.iter()).for_each(|(to, word)| to.copy_from_slice(&word.to_le_bytes()));
        }
        (0..self.head(region).min(self.size(region))).for_each(|bit| bytes[index(bit / 8)] |= 1 << (bit % 8));
        bytes
    }

    /// Reads the space map; `read` gives the page at a place.
    pub(crate) fn load(
        &mut self,
        read: &mut dyn FnMut(Place) -> Result<Box<[u8; BLOCK]>, OpenError>,
    ) -> Result<(), OpenError> {
        for group in 0..self.groups.len() as u64 {
            let current = self.groups[index(group)];
            let Some(slot) = current.slot else { continue };
            let page = read(directory(group, slot))?;
            if checksum::of(&page[..]) != current.sum {
                return Err(OpenError::damaged(format!("page {group} of the directory of free space")));
            }
            let last = ((group + 1) * GROUP).min(self.regions.len() as u64);
            for region in group * GROUP..last {
                let slot = Slot::get(&page[..], index(region % GROUP) * Slot::BYTES);
                self.load_region(region, slot, read)?;
            }
        }
        Ok(())
    }

    fn load_region(
        &mut self,
        region: u64,
        current: Slot,
        read: &mut dyn FnMut(Place) -> Result<Box<[u8; BLOCK]>, OpenError>,
    ) -> Result<(), OpenError> {
        let Some(slot) = current.slot else { return Ok(()) };
        let page = read(bits(region, slot))?;
        let damaged = || OpenError::damaged(format!("the map of used blocks of region {region}"));
        if checksum::of(&page[..]) != current.sum {
            return Err(damaged());
        }
        let (head, size) = (self.head(region), self.size(region));
        let mut used: Box<Bits> = Box::new(std::array::from_fn(|i| get64(&page[..], 8 * i)));
        if !(0..head.min(size)).all(|bit| get(&used, bit)) || (size..REGION).any(|bit| get(&used, bit)) {
            return Err(damaged());
        }
        (0..head).for_each(|bit| super::clear(&mut used, bit));
        let mut busy = self.fixed(region);
        busy.iter_mut().zip(used.iter()).for_each(|(busy, used)| *busy |= used);
        let free: u32 = busy.iter().map(|word| word.count_zeros()).sum();
        if u64::from(free) != u64::from(current.free) {
            return Err(damaged());
        }
        let state = &mut self.regions[index(region)];
        self.free = self.free - u64::from(state.free) + u64::from(free);
        (state.busy, state.used, state.free, state.slot) = (Some(busy), Some(used), free, current);
        Ok(())
    }

    /// What is used, to be asked while it is changed.
    pub(crate) fn used_places(&self) -> impl Fn(Place) -> bool + use<> {
        let used: Vec<_> = self.regions.iter().map(|region| region.used.clone()).collect();
        move |place| {
            let region = used.get(index(place.0 / REGION)).and_then(|used| used.as_ref());
            region.is_some_and(|used| get(used, place.0 % REGION))
        }
    }

    /// Replaces what is used by what was found to be, for a repair; tells how many blocks that changes. Every page is written anew.
    pub(crate) fn set_used(&mut self, found: &dyn Fn(Place) -> bool) -> u64 {
        let mut changed = 0;
        for place in (0..self.blocks).map(Place) {
            if !self.is_place(place) {
                continue;
            }
            match (self.is_used(place), found(place)) {
                (false, true) => self.put_in_use(crate::units::Run::one(place)),
                (true, false) => self.free_later(place),
                _ => continue,
            }
            changed += 1;
        }
        self.regions.iter_mut().filter(|region| region.used.is_some()).for_each(|region| region.dirty = true);
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::super::Use;
    use super::*;
    use crate::format::superblock::tests::example;
    use crate::units::Run;
    use std::collections::HashMap;

    #[test]
    fn what_is_frozen_is_loaded_and_used_blocks_stay_used() {
        let mut space = Space::new(40_000, 64);
        let all = space.free();
        assert_eq!(all, 40_000 - 64 - 2 * 8);
        let runs = space.allocate(33_000, Use::Data).unwrap();
        let total: u64 = runs.iter().map(|run| u64::from(run.count)).sum();
        assert_eq!((total, space.free()), (33_000, all - 33_000));
        runs.iter().for_each(|run| space.put_in_use(*run));
        let node = space.allocate(1, Use::Node).unwrap()[0];
        let (images, groups) = space.freeze(false);
        let disk: HashMap<_, Box<[u8; BLOCK]>> =
            images.into_iter().map(|image| (image.place, Box::new(image.bytes[..].try_into().unwrap()))).collect();
        let mut superblock = example();
        superblock.groups = groups;
        let mut loaded = Space::of(&superblock);
        loaded.load(&mut |place| Ok(disk[&place].clone())).unwrap();
        assert_eq!(loaded.free(), all - 33_000, "what was busy and not used is free again");
        assert!(loaded.is_used(runs[0].start) && !loaded.is_busy(node.start));
        let mut flipped = disk.clone();
        flipped.values_mut().for_each(|page| page[100] ^= 1);
        let error = Space::of(&superblock).load(&mut |place| Ok(flipped[&place].clone())).unwrap_err();
        assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
    }

    #[test]
    fn what_was_freed_is_given_out_only_when_it_is_released() {
        let mut space = Space::new(1024, 16);
        let count = space.free();
        let runs = space.allocate(count, Use::Data).unwrap();
        runs.iter().for_each(|run| space.put_in_use(*run));
        assert_eq!(space.allocate(1, Use::Node), None);
        space.free_later(Place(500));
        space.free_later(Place(501));
        assert_eq!(space.allocate(1, Use::Data), None);
        let freed = space.take_freed();
        assert_eq!(freed, [Run { start: Place(500), count: 2 }]);
        space.release(freed[0]);
        assert_eq!(space.allocate(2, Use::Data), Some(freed));
    }

    #[test]
    fn a_pool_grows_within_its_last_region_and_beyond() {
        for (from, to) in [(1024, 1500), (1024, 32_768), (32_768, 32_776), (1500, 100_000), (32_780, 32_790)] {
            let mut grown = Space::new(from, 16);
            let _ = grown.allocate(3, Use::Node).unwrap();
            let before = grown.free();
            grown.grow(to);
            assert_eq!(grown.free(), before, "not before a checkpoint says so");
            let none = grown.avoid(Run { start: Place(from), count: 10 }, 0);
            assert!(none.is_empty() && grown.allocate(before + 1, Use::Data).is_none());
            grown.use_grown();
            let fresh = Space::new(to, 16);
            assert_eq!(grown.free() + 3, fresh.free(), "from {from} to {to}");
            let rest = grown.free();
            assert!(grown.allocate(rest, Use::Data).unwrap().iter().all(|run| run.end() <= to));
        }
    }
}
