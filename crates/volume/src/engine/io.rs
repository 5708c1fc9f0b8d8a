//! What the engine asks of a disk.

use crate::checksum;
use crate::disk::Disk;
use crate::format::node::Page;
use crate::memory::{Buffer, Memory};
use crate::units::{BLOCK, Place, Run};
use std::sync::Arc;

/// Bytes from which on a write of the engine's own is one that others should not wait for.
const LARGE: usize = 64 << 10;

/// Which of the engine's requests is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct IoId(pub(crate) usize);

/// Blocks that are moved between the disk and a part of some memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part {
    /// Where in the memory, in bytes.
    pub(crate) at: usize,
    pub(crate) run: Run,
}

/// A request to the disk.
#[derive(Debug)]
pub(crate) enum Io<M> {
    /// Fill these parts, and compare each block with its sum.
    Read { parts: Vec<Part>, sums: Vec<u32>, into: M, check: bool },
    /// Read each block, and compare it with its sum.
    Verify { blocks: Vec<(Place, u32)> },
    /// Read a node of the map.
    Node { run: Run, sum: u32, check: bool },
    /// Write these parts.
    Write { parts: Vec<Part>, from: Arc<M> },
    /// Write bytes that the engine has made, at an offset each.
    Pages { pages: Vec<(u64, Buffer)> },
    /// Write nodes to places that follow each other.
    Nodes { start: Place, pages: Vec<Page> },
    /// Make durable what was written.
    Flush,
}

/// What is wrong with a block that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Its bytes are others than were written.
    Sum,
    /// It cannot be read.
    Disk(String),
}

/// What came of a request.
#[derive(Debug)]
pub(crate) enum Done<M> {
    /// The memory, and the first block of the disk that is not right.
    Read {
        into: M,
        fault: Option<(u64, Fault)>,
    },
    /// The blocks that are not right.
    Verified(Vec<(Place, Fault)>),
    Node(Result<Page, Fault>),
    /// Nothing, or what the system says and at which block.
    Written(Result<(), (u64, String)>),
    Flushed(Result<(), String>),
}

impl<M: Memory> Io<M> {
    /// Whether it is of a kind that nobody waits for.
    pub(crate) fn is_large(&self) -> bool {
        match self {
            Self::Pages { pages } => pages.iter().map(|(_, page)| page.len()).sum::<usize>() > LARGE,
            Self::Nodes { pages, .. } => pages.len() * BLOCK > LARGE,
            _ => false,
        }
    }

    /// Does it, and waits until it is done.
    pub(crate) fn perform(self, disk: &dyn Disk) -> Done<M> {
        match self {
            Self::Read { parts, sums, mut into, check } => {
                let fault = read(disk, &parts, &sums, into.as_mut(), check);
                Done::Read { into, fault }
            }
            Self::Verify { blocks } => Done::Verified(verify(disk, &blocks)),
            Self::Node { run, sum, check } => {
                let mut page = Buffer::zeroed(BLOCK);
                Done::Node(match disk.read(run.start.bytes(), &mut page) {
                    Err(error) => Err(Fault::Disk(error.to_string())),
                    Ok(()) if check && checksum::of(&page) != sum => Err(Fault::Sum),
                    Ok(()) => <[u8; BLOCK]>::try_from(&page[..]).map(Arc::new).map_err(|e| Fault::Disk(e.to_string())),
                })
            }
            Self::Write { parts, from } => {
                let bytes = (*from).as_ref();
                let write = |part: &Part| {
                    let bytes = &bytes[part.at..part.at + part.run.count as usize * BLOCK];
                    disk.write(part.run.start.bytes(), bytes).map_err(|e| (part.run.start.0, e.to_string()))
                };
                Done::Written(parts.iter().try_for_each(write))
            }
            Self::Pages { pages } => {
                let write = |(offset, bytes): &(u64, Buffer)| {
                    disk.write(*offset, bytes).map_err(|e| (offset / BLOCK as u64, e.to_string()))
                };
                Done::Written(pages.iter().try_for_each(write))
            }
            Self::Nodes { start, pages } => {
                let mut bytes = Buffer::zeroed(pages.len() * BLOCK);
                bytes.chunks_exact_mut(BLOCK).zip(&pages).for_each(|(to, page)| to.copy_from_slice(&page[..]));
                Done::Written(disk.write(start.bytes(), &bytes).map_err(|e| (start.0, e.to_string())))
            }
            Self::Flush => Done::Flushed(disk.flush().map_err(|e| e.to_string())),
        }
    }
}

/// Fills the parts; gives the first block that is not right.
fn read(disk: &dyn Disk, parts: &[Part], sums: &[u32], into: &mut [u8], check: bool) -> Option<(u64, Fault)> {
    let mut sums = sums.iter();
    for part in parts {
        let bytes = &mut into[part.at..part.at + part.run.count as usize * BLOCK];
        if let Err(error) = disk.read(part.run.start.bytes(), bytes) {
            // One by one, to tell which it is; the others are not given either, since the request is one.
            let mut places = (part.run.start.0..part.run.end()).zip(bytes.chunks_exact_mut(BLOCK));
            let failed =
                places.find_map(|(place, block)| disk.read(Place(place).bytes(), block).err().map(|e| (place, e)));
            let (place, error) = failed.unwrap_or((part.run.start.0, error));
            return Some((place, Fault::Disk(error.to_string())));
        }
        for (i, (block, sum)) in bytes.chunks_exact(BLOCK).zip(&mut sums).enumerate() {
            if check && checksum::of(block) != *sum {
                return Some((part.run.start.0 + i as u64, Fault::Sum));
            }
        }
    }
    None
}

/// The blocks that are not what their sums say.
pub(crate) fn verify(disk: &dyn Disk, blocks: &[(Place, u32)]) -> Vec<(Place, Fault)> {
    let mut page = Buffer::zeroed(BLOCK);
    let mut check = |(place, sum): &(Place, u32)| match disk.read(place.bytes(), &mut page) {
        Err(error) => Some((*place, Fault::Disk(error.to_string()))),
        Ok(()) if checksum::of(&page) != *sum => Some((*place, Fault::Sum)),
        Ok(()) => None,
    };
    blocks.iter().filter_map(&mut check).collect()
}
