//! Which blocks of the pool are used.
//!
//! Two bits for each block: *used* is what the next checkpoint will say, *busy* is what must not be given out. A block is busy and not yet
//! used while its data is being written, and busy and no longer used after it was freed, until a checkpoint that does not need it is durable and
//! nobody reads it any more. Regions of which nothing is used cost no memory.

mod images;
mod long;
mod pages;

pub(crate) use pages::{SpaceAt, SpacePage};

use crate::format::layout::{HEAD, LOG_START, REGION, regions};
use crate::format::superblock::{Slot, Superblock};
use crate::units::{Place, Run};

const WORDS: usize = 512;
type Bits = [u64; WORDS];

/// What a block is wanted for. Data is laid from the begin of the pool on and nodes from its last region back, so that both stay together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    Data,
    Node,
}

#[derive(Debug)]
struct Region {
    busy: Option<Box<Bits>>,
    used: Option<Box<Bits>>,
    /// Blocks that are not busy.
    free: u32,
    /// It is to be written with the next checkpoint.
    dirty: bool,
    slot: Slot,
}

/// The blocks of a pool.
#[derive(Debug)]
pub(crate) struct Space {
    regions: Vec<Region>,
    groups: Vec<Slot>,
    blocks: u64,
    /// How many of them are given out: all but those that were added since the last checkpoint.
    usable: u64,
    log_blocks: u64,
    free: u64,
    /// Where to look next, for data and for nodes.
    cursors: [u64; 2],
    /// The same for long data.
    long_cursor: u64,
    /// Freed since the last checkpoint was begun.
    freed: Vec<Run>,
}

impl Space {
    /// That of an empty pool.
    pub(crate) fn new(blocks: u64, log_blocks: u64) -> Self {
        let mut space = Self {
            regions: Vec::new(),
            groups: Vec::new(),
            blocks: 0,
            usable: 0,
            log_blocks,
            free: 0,
            cursors: [0, 0],
            long_cursor: 0,
            freed: Vec::new(),
        };
        space.grow(blocks);
        space.use_grown();
        space
    }

    /// That of a pool as its superblock tells, with nothing known of its regions yet.
    pub(crate) fn of(superblock: &Superblock) -> Self {
        let mut space = Self::new(superblock.blocks, superblock.log_blocks);
        space.groups.clone_from(&superblock.groups);
        space
    }

    pub(crate) fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Blocks that can be given out now.
    pub(crate) fn free(&self) -> u64 {
        self.free
    }

    /// Whether a checkpoint would let blocks be given out again.
    pub(crate) fn has_freed(&self) -> bool {
        !self.freed.is_empty()
    }

    /// In how many pieces what was freed lies.
    pub(crate) fn freed_pieces(&self) -> usize {
        self.freed.len()
    }

    /// Blocks of the pool that are not set aside.
    pub(crate) fn capacity(&self) -> u64 {
        let heads = self.regions.len() as u64 * HEAD;
        self.blocks.saturating_sub(heads + self.log_blocks)
    }

    /// How many blocks of a region belong to the pool.
    fn size(&self, region: u64) -> u64 {
        (self.blocks - (region * REGION).min(self.blocks)).min(REGION)
    }

    /// How many of the first blocks of a region are set aside.
    fn head(&self, region: u64) -> u64 {
        if region == 0 { LOG_START + self.log_blocks } else { HEAD }
    }

    /// Makes the pool larger. What is new is given out only after [`Space::use_grown`].
    pub(crate) fn grow(&mut self, blocks: u64) {
        if let Some(last) = (self.regions.len() as u64).checked_sub(1) {
            // What is busy in it is told from its old size.
            self.bits(last);
        }
        let room = |space: &Self, last| space.size(last).saturating_sub(space.head(last));
        let old = (self.regions.len() as u64).checked_sub(1).map(|last| (last, room(self, last)));
        self.blocks = blocks;
        if let Some((last, old)) = old {
            // What is told of the region in the directory changes with its room.
            self.regions[index(last)].dirty |= room(self, last) > old;
        }
        for _ in self.regions.len() as u64..regions(blocks) {
            self.regions.push(Region { busy: None, used: None, free: 0, dirty: false, slot: Slot::default() });
        }
        self.groups.resize(self.regions.len().div_ceil(512), Slot::default());
    }

    /// Gives out what is new from now on: a checkpoint that says how large the pool is is durable. Before, a crash would leave a log that tells of data
    /// beyond the end.
    pub(crate) fn use_grown(&mut self) {
        let from = std::mem::replace(&mut self.usable, self.blocks);
        if from == self.blocks {
            return;
        }
        for region in from / REGION..self.regions.len() as u64 {
            let new = (from.saturating_sub(region * REGION)).max(self.head(region))..self.size(region);
            let more = new.end.saturating_sub(new.start);
            let state = &mut self.regions[index(region)];
            if let Some(busy) = &mut state.busy {
                new.for_each(|bit| clear(busy, bit));
            }
            state.free += u32::try_from(more).unwrap_or(0);
            self.free += more;
        }
        self.cursors[Use::Node as usize] = (self.regions.len() as u64 - 1) * REGION;
    }

    /// What is busy and not because of use: the head, and what lies beyond the end of the pool.
    fn fixed(&self, region: u64) -> Box<Bits> {
        let mut bits = Box::new([0; WORDS]);
        let (head, size) = (self.head(region), self.size(region));
        (0..head).for_each(|bit| set(&mut bits, bit));
        (size..REGION).for_each(|bit| set(&mut bits, bit));
        bits
    }

    fn bits(&mut self, region: u64) -> (&mut Bits, &mut Bits, &mut u32) {
        let at = index(region);
        if self.regions[at].busy.is_none() {
            self.regions[at].busy = Some(self.fixed(region));
        }
        let region = &mut self.regions[at];
        let used = region.used.get_or_insert_with(|| Box::new([0; WORDS]));
        (region.busy.get_or_insert_with(|| Box::new([0; WORDS])), used, &mut region.free)
    }

    /// Whether a place is one that can hold data or a node at all.
    pub(crate) fn is_place(&self, place: Place) -> bool {
        place.0 < self.blocks && place.0 % REGION >= self.head(place.0 / REGION)
    }

    /// Whether a place is not to be given out.
    pub(crate) fn is_busy(&self, place: Place) -> bool {
        let region = &self.regions[index(place.0 / REGION)];
        region.busy.as_ref().is_some_and(|bits| get(bits, place.0 % REGION))
    }

    pub(crate) fn is_used(&self, place: Place) -> bool {
        let region = self.regions.get(index(place.0 / REGION));
        region.and_then(|region| region.used.as_ref()).is_some_and(|bits| get(bits, place.0 % REGION))
    }

    /// Gives out blocks: what is long in one run or few, if there are any near, and the rest in those that lie ahead of the cursor; none if there are not so
    /// many.
    pub(crate) fn allocate(&mut self, count: u64, purpose: Use) -> Option<Vec<Run>> {
        if count > self.free {
            return None;
        }
        let mut runs = Vec::new();
        let mut left = count;
        while purpose == Use::Data
            && let Some(run) = self.take_long(left)
        {
            left -= u64::from(run.count);
            runs.push(run);
        }
        while left > 0 {
            let at = self.next_free(purpose);
            let region = at / REGION;
            let (busy, _, free) = self.bits(region);
            let mut end = at % REGION;
            while left > 0 && end < REGION && !get(busy, end) {
                set(busy, end);
                end += 1;
                left -= 1;
            }
            let taken = u32::try_from(end - at % REGION).unwrap_or(0);
            *free -= taken;
            self.free -= u64::from(taken);
            runs.push(Run { start: Place(at), count: taken });
            self.cursors[purpose as usize] = region * REGION + end;
        }
        Some(runs)
    }

    /// The next free block after the cursor; there is one somewhere.
    fn next_free(&mut self, purpose: Use) -> u64 {
        let regions = self.regions.len() as u64;
        let mut at = self.cursors[purpose as usize];
        let mut region = (at / REGION).min(regions - 1);
        let mut from = if at / REGION == region { at % REGION } else { 0 };
        loop {
            if self.regions[index(region)].free > 0 {
                let (busy, _, _) = self.bits(region);
                if let Some(bit) = first_clear(busy, from) {
                    at = region * REGION + bit;
                    return at;
                }
                if from > 0
                    && let Some(bit) = first_clear(busy, 0)
                    && purpose == Use::Node
                {
                    return region * REGION + bit;
                }
            }
            from = 0;
            region = match purpose {
                Use::Data => (region + 1) % regions,
                Use::Node => region.checked_sub(1).unwrap_or(regions - 1),
            };
        }
    }

    /// Says that the blocks are in the map from now on.
    pub(crate) fn put_in_use(&mut self, run: Run) {
        for place in run.start.0..run.end() {
            let region = place / REGION;
            let (busy, used, free) = self.bits(region);
            set(used, place % REGION);
            if !get(busy, place % REGION) {
                set(busy, place % REGION);
                *free -= 1;
                self.free -= 1;
            }
            self.regions[index(region)].dirty = true;
        }
    }

    /// Says that the block is in no map any more. It is given out again only after [`Space::release`].
    pub(crate) fn free_later(&mut self, place: Place) {
        let region = place.0 / REGION;
        let (_, used, _) = self.bits(region);
        clear(used, place.0 % REGION);
        self.regions[index(region)].dirty = true;
        match self.freed.last_mut() {
            Some(last) if last.end() == place.0 && last.count < u32::MAX => last.count += 1,
            _ => self.freed.push(Run::one(place)),
        }
    }

    /// What was freed since this was last asked.
    pub(crate) fn take_freed(&mut self) -> Vec<Run> {
        std::mem::take(&mut self.freed)
    }

    /// Lets blocks be given out again that are not used any more, or were never put in use. A used one stays what it is.
    pub(crate) fn release(&mut self, run: Run) {
        for place in run.start.0..run.end() {
            let (busy, used, free) = self.bits(place / REGION);
            if get(busy, place % REGION) && !get(used, place % REGION) {
                clear(busy, place % REGION);
                *free += 1;
                self.free += 1;
            }
        }
    }

    /// Keeps blocks from being given out until they are released, or as long as the pool is open; ends when no more than so many are
    /// left. Gives those that were free.
    pub(crate) fn avoid(&mut self, run: Run, keep_free: u64) -> Vec<Run> {
        let mut taken: Vec<Run> = Vec::new();
        for place in run.start.0..run.end().min(self.usable) {
            if self.free <= keep_free {
                break;
            }
            let (busy, _, free) = self.bits(place / REGION);
            if get(busy, place % REGION) {
                continue;
            }
            set(busy, place % REGION);
            *free -= 1;
            self.free -= 1;
            match taken.last_mut() {
                Some(last) if last.end() == place => last.count += 1,
                _ => taken.push(Run::one(Place(place))),
            }
        }
        taken
    }
}

fn index(region: u64) -> usize {
    usize::try_from(region).unwrap_or(usize::MAX)
}

fn get(bits: &Bits, bit: u64) -> bool {
    bits[index(bit / 64)] & (1 << (bit % 64)) != 0
}

fn set(bits: &mut Bits, bit: u64) {
    bits[index(bit / 64)] |= 1 << (bit % 64);
}

fn clear(bits: &mut Bits, bit: u64) {
    bits[index(bit / 64)] &= !(1 << (bit % 64));
}

/// The first clear bit from here on.
fn first_clear(bits: &Bits, from: u64) -> Option<u64> {
    if from >= REGION {
        return None;
    }
    let first = index(from / 64);
    let masked = bits[first] | ((1 << (from % 64)) - 1);
    if masked != u64::MAX {
        return Some(from / 64 * 64 + u64::from(masked.trailing_ones()));
    }
    let word = bits[first + 1..].iter().position(|word| *word != u64::MAX)?;
    Some(((first + 1 + word) * 64) as u64 + u64::from(bits[first + 1 + word].trailing_ones()))
}
