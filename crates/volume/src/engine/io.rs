//! What the engine asks of a disk.

use crate::checksum;
use crate::disk::Disk;
use crate::format::node::Page;
use crate::memory::{Buffer, Memory};
use crate::units::{BLOCK, Place, Run};
use std::ops::Range;
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

impl Part {
    /// Which bytes of the memory it is.
    fn bytes(&self) -> Range<usize> {
        self.at..self.at + self.run.count as usize * BLOCK
    }
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
    pub(crate) fn perform(mut self, disk: &dyn Disk) -> Done<M> {
        match &mut self {
            Self::Read { parts, into, .. } => {
                let unreadable = read(disk, parts, into.as_mut());
                match (self, unreadable) {
                    (Self::Read { into, .. }, fault @ Some(_)) => Done::Read { into, fault },
                    (whole, _) => whole.moved(None),
                }
            }
            Self::Verify { blocks } => Done::Verified(verify(disk, blocks)),
            Self::Node { run, .. } => {
                let mut page = Buffer::zeroed(BLOCK);
                match disk.read(run.start.bytes(), &mut page) {
                    Ok(()) => self.moved(Some(page)),
                    Err(error) => Done::Node(Err(Fault::Disk(error.to_string()))),
                }
            }
            Self::Write { parts, from } => {
                let bytes = (**from).as_ref();
                let write = |part: &Part| {
                    let bytes = &bytes[part.bytes()];
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
                Done::Written(disk.write(start.bytes(), &together(pages)).map_err(|e| (start.0, e.to_string())))
            }
            Self::Flush => Done::Flushed(disk.flush().map_err(|e| e.to_string())),
        }
    }

    /// What a kernel is asked so that all of it is done; nothing for what needs looking at in between. The memory is that of the request, or `own`,
    /// which is made where the request brings none; both must stay where they are until all has been done.
    pub(crate) fn moves(&mut self, own: &mut Option<Buffer>) -> Option<Vec<Move>> {
        let write = |offset: u64, bytes: &[u8]| Move::Write { offset, memory: bytes.as_ptr(), len: len32(bytes.len()) };
        Some(match self {
            Self::Read { parts, into, .. } => {
                let bytes = into.as_mut();
                // One pointer for all of them: taking the memory again would end what was taken before.
                let (memory, whole) = (bytes.as_mut_ptr(), bytes.len());
                let fits = parts.iter().all(|part| part.bytes().end <= whole);
                let read = |part: &Part| {
                    let (at, len) = (part.at, len32(part.bytes().len()));
                    Move::Read { offset: part.run.start.bytes(), memory: memory.wrapping_add(at), len }
                };
                return fits.then(|| parts.iter().map(read).collect());
            }
            Self::Node { run, .. } => {
                let memory = own.insert(Buffer::zeroed(BLOCK)).as_mut_ptr();
                vec![Move::Read { offset: run.start.bytes(), memory, len: len32(BLOCK) }]
            }
            Self::Write { parts, from } => {
                let bytes = (**from).as_ref();
                parts.iter().map(|part| write(part.run.start.bytes(), &bytes[part.bytes()])).collect()
            }
            Self::Pages { pages } => pages.iter().map(|(offset, bytes)| write(*offset, bytes)).collect(),
            Self::Nodes { start, pages } => vec![write(start.bytes(), own.insert(together(pages)))],
            Self::Flush => vec![Move::Flush],
            Self::Verify { .. } => return None,
        })
    }

    /// What has come of it when all its bytes were moved.
    pub(crate) fn moved(self, own: Option<Buffer>) -> Done<M> {
        match self {
            Self::Read { parts, sums, into, check } => {
                let fault = if check { compare(&parts, &sums, into.as_ref()) } else { None };
                Done::Read { into, fault }
            }
            Self::Node { sum, check, .. } => {
                let page = own.unwrap_or_else(|| Buffer::zeroed(BLOCK));
                if check && checksum::of(&page) != sum {
                    return Done::Node(Err(Fault::Sum));
                }
                Done::Node(<[u8; BLOCK]>::try_from(&page[..]).map(Arc::new).map_err(|e| Fault::Disk(e.to_string())))
            }
            Self::Write { .. } | Self::Pages { .. } | Self::Nodes { .. } => Done::Written(Ok(())),
            Self::Verify { .. } => Done::Verified(Vec::new()),
            Self::Flush => Done::Flushed(Ok(())),
        }
    }
}

/// What a kernel is asked: bytes at an offset of the disk, and memory of that length.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Move {
    Read { offset: u64, memory: *mut u8, len: u32 },
    Write { offset: u64, memory: *const u8, len: u32 },
    Flush,
}

impl Move {
    /// Whether a disk takes the memory as it is that wants it aligned to so many bytes.
    pub(crate) fn is_aligned(&self, unit: u32) -> bool {
        match self {
            Self::Read { memory, .. } => memory.align_offset(unit as usize) == 0,
            Self::Write { memory, .. } => memory.align_offset(unit as usize) == 0,
            Self::Flush => true,
        }
    }
}

/// Requests are bounded far below.
fn len32(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

fn together(pages: &[Page]) -> Buffer {
    let mut bytes = Buffer::zeroed(pages.len() * BLOCK);
    bytes.chunks_exact_mut(BLOCK).zip(pages).for_each(|(to, page)| to.copy_from_slice(&page[..]));
    bytes
}

/// Fills the parts; gives the first block that cannot be read.
fn read(disk: &dyn Disk, parts: &[Part], into: &mut [u8]) -> Option<(u64, Fault)> {
    parts.iter().find_map(|part| {
        let bytes = &mut into[part.bytes()];
        let error = disk.read(part.run.start.bytes(), bytes).err()?;
        // One by one, to tell which it is; the others are not given either, since the request is one.
        let mut places = (part.run.start.0..part.run.end()).zip(bytes.chunks_exact_mut(BLOCK));
        let failed = places.find_map(|(place, block)| disk.read(Place(place).bytes(), block).err().map(|e| (place, e)));
        let (place, error) = failed.unwrap_or((part.run.start.0, error));
        Some((place, Fault::Disk(error.to_string())))
    })
}

/// The first block of the parts that is not what its sum says.
fn compare(parts: &[Part], sums: &[u32], bytes: &[u8]) -> Option<(u64, Fault)> {
    let places = parts.iter().flat_map(|part| part.run.start.0..part.run.end());
    let blocks = parts.iter().flat_map(|part| bytes[part.bytes()].chunks_exact(BLOCK));
    let mut compared = places.zip(blocks).zip(sums);
    compared.find_map(|((place, block), sum)| (checksum::of(block) != *sum).then_some((place, Fault::Sum)))
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
