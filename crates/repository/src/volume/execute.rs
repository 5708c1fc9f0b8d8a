//! Doing the work of a batch on one thread: read, leave zeros out, hash, compress.

use super::image::{Image, is_zero};
use super::plan::Work;
use super::{BLOCK_LEN, Error, PART_LEN, Span, narrow, span_len};
use crate::ids::BlobRef;
use crate::tree::entry::Extent;
use crate::writer::{PreparedBlob, Writer};

/// A batch that is ready to be put into packs.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// New blobs, and those that turned out to be known.
    pub(super) blobs: Vec<PreparedBlob>,
    places: Vec<Place>,
    /// Bytes that were read from the volume.
    pub(super) bytes_read: u64,
}

/// An extent whose blob may not have its place yet.
#[derive(Debug)]
enum Place {
    Kept(Extent),
    New { file_offset: u64, len: u32, blob_offset: u32, blob: usize },
}

impl Batch {
    /// The extents, now that the blobs have their places.
    pub(super) fn extents(self, blobs: &[BlobRef]) -> impl Iterator<Item = Extent> + use<'_> {
        self.places.into_iter().map(|place| match place {
            Place::Kept(extent) => extent,
            Place::New { file_offset, len, blob_offset, blob } => {
                Extent { file_offset, len, blob_offset, blob: blobs[blob] }
            }
        })
    }
}

/// Does the work of a batch; takes its time.
pub(super) fn execute(image: &Image, writer: &Writer, works: Vec<Work>) -> Result<Batch, Error> {
    let (joined, slots, buffer) = (Vec::new(), Vec::new(), Vec::new());
    let mut worker = Worker { image, writer, batch: Batch::default(), joined, slots, slot: 0, buffer };
    for work in works {
        match work {
            Work::Keep(extent) => worker.batch.places.push(Place::Kept(extent)),
            Work::Part { span, known } => worker.part(&span, known)?,
            Work::Blocks(span) => worker.blocks(&span)?,
        }
    }
    worker.join()?;
    let mut batch = worker.batch;
    batch.blobs = worker.slots.into_iter().map(|slot| slot.expect("every slot is filled by now")).collect();
    Ok(batch)
}

struct Worker<'a> {
    image: &'a Image,
    writer: &'a Writer,
    batch: Batch,
    /// Blocks of several runs that become one blob, and its slot.
    joined: Vec<u8>,
    slot: usize,
    /// The blobs; that of the joined blocks gets its place before it is full.
    slots: Vec<Option<PreparedBlob>>,
    /// What was read last; its memory is used again for what is read next.
    buffer: Vec<u8>,
}

impl Worker<'_> {
    fn part(&mut self, span: &Span, known: Option<BlobRef>) -> Result<(), Error> {
        self.read(span)?;
        if is_zero(&self.buffer) {
            return Ok(());
        }
        let prepared = self.writer.prepare(&self.buffer, |id| known.filter(|blob| blob.id == *id))?;
        let (len, blob) = (narrow(span_len(span)), self.slots.len());
        self.slots.push(Some(prepared));
        self.batch.places.push(Place::New { file_offset: span.start, len, blob_offset: 0, blob });
        Ok(())
    }

    fn blocks(&mut self, span: &Span) -> Result<(), Error> {
        self.read(span)?;
        let bytes = std::mem::take(&mut self.buffer);
        let added = self.add_blocks(span, &bytes);
        self.buffer = bytes;
        added
    }

    /// Adds the blocks of a span that are not zeros.
    fn add_blocks(&mut self, span: &Span, bytes: &[u8]) -> Result<(), Error> {
        let block_len = usize::try_from(BLOCK_LEN).expect("a block has 4 KiB");
        let mut run: Option<(u64, usize)> = None;
        let mut at = 0;
        for block in bytes.chunks(block_len) {
            match (is_zero(block), &mut run) {
                (false, None) => run = Some((span.start + at as u64, at)),
                (true, Some((offset, start))) => {
                    let (offset, start) = (*offset, *start);
                    run = None;
                    self.add(offset, &bytes[start..at])?;
                }
                _ => {}
            }
            at += block.len();
        }
        match run {
            Some((offset, start)) => self.add(offset, &bytes[start..]),
            None => Ok(()),
        }
    }

    /// Adds blocks to those that become one blob.
    fn add(&mut self, file_offset: u64, bytes: &[u8]) -> Result<(), Error> {
        if (self.joined.len() + bytes.len()) as u64 > PART_LEN {
            self.join()?;
        }
        if self.joined.is_empty() {
            self.slot = self.slots.len();
            self.slots.push(None);
        }
        let (len, blob_offset) = (narrow(bytes.len() as u64), narrow(self.joined.len() as u64));
        self.batch.places.push(Place::New { file_offset, len, blob_offset, blob: self.slot });
        self.joined.extend_from_slice(bytes);
        Ok(())
    }

    /// Makes a blob of the joined blocks.
    fn join(&mut self) -> Result<(), Error> {
        if !self.joined.is_empty() {
            self.slots[self.slot] = Some(self.writer.prepare(&self.joined, |_| None)?);
            self.joined.clear();
        }
        Ok(())
    }

    /// Reads a span into the buffer.
    fn read(&mut self, span: &Span) -> Result<(), Error> {
        self.buffer.resize(usize::try_from(span_len(span)).expect("a part has 64 KiB"), 0);
        self.image.read(span.start, &mut self.buffer)?;
        self.batch.bytes_read += self.buffer.len() as u64;
        Ok(())
    }
}
