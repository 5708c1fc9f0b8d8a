//! Scrubbing what lies at fixed places: the superblocks, and the map of used blocks with its directory.
//!
//! All of it is in memory, so what is found damaged is written anew by the next checkpoint, to the other of its two places. It is read while no checkpoint is
//! under way; but one may begin and end meanwhile, and the one after it writes over what is being read. So what is not right counts only if the pool still
//! relies on it when that is known.

use super::io::{Fault, Io};
use super::request::{Answer, Scrubbed};
use super::task::{Flow, Task};
use super::{Engine, Notice, Purpose, World};
use crate::checksum;
use crate::error::Error;
use crate::format::layout::superblocks;
use crate::space::{SpaceAt, SpacePage};
use crate::units::Place;

/// Copies of a superblock.
const COPIES: u64 = 2;

/// A page at a fixed place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fixed {
    Superblock { copy: u64, place: Place, sum: u32 },
    Space(SpacePage),
}

impl Fixed {
    fn place(self) -> Place {
        match self {
            Self::Superblock { place, .. } | Self::Space(SpacePage { place, .. }) => place,
        }
    }

    fn sum(self) -> u32 {
        match self {
            Self::Superblock { sum, .. } | Self::Space(SpacePage { sum, .. }) => sum,
        }
    }

    fn error(self, fault: &Fault) -> Error {
        let (of, block) = match self {
            Self::Superblock { copy, .. } => ("the two superblocks", copy),
            Self::Space(SpacePage { at: SpaceAt::Directory(group), .. }) => ("the directory of free space", group),
            Self::Space(SpacePage { at: SpaceAt::Bits(region), .. }) => ("the map of used blocks", region),
        };
        let (of, place) = (of.to_owned(), self.place().0);
        match fault {
            Fault::Sum => Error::Corrupt { of, block, place },
            Fault::Disk(reason) => Error::Unreadable { of, block, place, reason: reason.clone() },
        }
    }
}

impl<W: World> Engine<W> {
    pub(super) fn scrub_fixed(&mut self, id: usize, tag: W::Tag, start: u64, most: usize) -> Flow<W> {
        if let Some(error) = self.failed.clone() {
            // What was to be written by then is in memory, and perhaps nowhere else.
            self.answer(tag, Err(error));
            return Flow::Done;
        }
        if self.checkpoint.is_some() {
            return Flow::Stall(Task::ScrubFixed { tag, start, most });
        }
        let next = start.saturating_add(most as u64).min(COPIES + self.space.pages());
        let pages: Vec<Fixed> = (start..next).filter_map(|number| self.fixed(number)).collect();
        if pages.is_empty() {
            let next = next.max(start);
            self.answer(tag, Ok(Answer::Scrubbed(Scrubbed { faults: Vec::new(), read: 0, next })));
            return Flow::Done;
        }
        let blocks = pages.iter().map(|page| (page.place(), page.sum())).collect();
        self.ask(Purpose::VerifyFixed(id), Io::Verify { blocks });
        Flow::Keep(Task::ScrubbingFixed { tag, next, pages })
    }

    /// The page of a number, as the last checkpoint that was begun has it: the copies of its superblock, then the space map; nothing if it was never written.
    fn fixed(&self, number: u64) -> Option<Fixed> {
        match number.checked_sub(COPIES) {
            None => {
                let place = Place(superblocks(self.superblock.checkpoint).start.0 + number);
                let sum = checksum::of(&self.superblock.encode()[..]);
                Some(Fixed::Superblock { copy: number, place, sum })
            }
            Some(number) => self.space.page_at(number).map(Fixed::Space),
        }
    }

    pub(super) fn fixed_verified(&mut self, id: usize, faults: &[(Place, Fault)]) {
        let Some(task) = self.tasks.take(id) else { return };
        let Task::ScrubbingFixed { tag, next, pages } = task else { return self.tasks.put_back(id, task) };
        self.tasks.let_go(id);
        let mut scrubbed = Scrubbed { faults: Vec::new(), read: pages.len() as u64, next };
        for (place, fault) in faults {
            let Some(page) = pages.iter().copied().find(|page| page.place() == *place) else { continue };
            if !self.relies_on(page) {
                continue;
            }
            let error = page.error(fault);
            self.out.notices.push(Notice::Damage(error.clone()));
            scrubbed.faults.push(error);
            if let Fixed::Space(page) = page {
                self.space.renew(page.at);
            }
            self.checkpoint_wanted = true;
        }
        self.answer(tag, Ok(Answer::Scrubbed(scrubbed)));
    }

    /// Whether no checkpoint was begun since that has it elsewhere.
    fn relies_on(&self, page: Fixed) -> bool {
        match page {
            Fixed::Superblock { copy, .. } => self.fixed(copy) == Some(page),
            Fixed::Space(page) => self.space.page_of(page.at) == Some(page),
        }
    }
}
