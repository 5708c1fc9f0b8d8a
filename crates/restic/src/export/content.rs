//! Cutting content into blobs.
//!
//! The pieces in which Orlop stores a file end where its content says so, so they make good blobs; small ones are joined. A volume is cut at
//! multiples of a fixed length. Long runs of zeros become blobs of one length, all the same one.

use ::repository::{Counters, tree::TreePath, tree::entry::File};

use super::{Error, Run};
use crate::format::{BlobKind, Id};

/// A blob ends with a piece that makes it so long, in bytes: the least that Orlop cuts but at the end of a file.
const LEAST_LEN: usize = 256 << 10;
/// The longest blob, in bytes: restic's chunker makes none that is longer.
const MOST_LEN: usize = 8 << 20;
/// Blobs of a volume of up to 64 GiB, in bytes.
const VOLUME_LEN: u64 = 1 << 20;
/// A volume is cut into longer blobs, up to [`MOST_LEN`], rather than into more than these: its list of names takes 67 bytes for each.
const VOLUME_BLOBS: u64 = 65_536;

static ZEROS: [u8; MOST_LEN] = [0; MOST_LEN];

/// The blobs of one file.
pub(super) struct Cutter {
    buffer: Vec<u8>,
    content: Vec<Id>,
    /// The blob of zeros, once it was stored.
    zeros: Option<Id>,
    len: u64,
}

impl Cutter {
    pub(super) fn new() -> Self {
        Self { buffer: Vec::new(), content: Vec::new(), zeros: None, len: 0 }
    }

    /// Takes a piece.
    pub(super) fn data(&mut self, run: &mut Run<'_>, mut bytes: &[u8]) -> Result<(), Error> {
        self.count(run, bytes.len() as u64)?;
        while !bytes.is_empty() {
            if self.buffer.len() == MOST_LEN || (self.buffer.len() + bytes.len() > MOST_LEN && !self.buffer.is_empty())
            {
                self.cut(run)?;
            }
            let (now, rest) = bytes.split_at(bytes.len().min(MOST_LEN));
            self.buffer.extend_from_slice(now);
            bytes = rest;
        }
        if self.buffer.len() >= LEAST_LEN { self.cut(run) } else { Ok(()) }
    }

    /// Takes zeros, which nobody has to read.
    pub(super) fn zeros(&mut self, run: &mut Run<'_>, mut len: u64) -> Result<(), Error> {
        self.count(run, len)?;
        if len >= MOST_LEN as u64 {
            self.cut(run)?;
        }
        while len >= MOST_LEN as u64 {
            let id = match self.zeros {
                Some(id) => id,
                None => run.target.put(BlobKind::Data, &ZEROS)?,
            };
            self.zeros = Some(id);
            self.content.push(id);
            len -= MOST_LEN as u64;
        }
        let rest = &ZEROS[..usize::try_from(len).unwrap_or_default()];
        if self.buffer.len() + rest.len() > MOST_LEN {
            self.cut(run)?;
        }
        self.buffer.extend_from_slice(rest);
        if self.buffer.len() >= LEAST_LEN { self.cut(run) } else { Ok(()) }
    }

    fn count(&mut self, run: &Run<'_>, len: u64) -> Result<(), Error> {
        run.check_cancelled()?;
        self.len += len;
        run.progress.add(Counters { bytes: len, ..Counters::default() });
        Ok(())
    }

    /// Stores what has come together.
    fn cut(&mut self, run: &mut Run<'_>) -> Result<(), Error> {
        if !self.buffer.is_empty() {
            self.content.push(run.target.put(BlobKind::Data, &self.buffer)?);
            self.buffer.clear();
        }
        Ok(())
    }

    /// The blobs of all that was taken, and how many bytes that was.
    pub(super) fn finish(mut self, run: &mut Run<'_>) -> Result<(Vec<Id>, u64), Error> {
        self.cut(run)?;
        run.files += 1;
        run.bytes += self.len;
        run.progress.add(Counters { files: 1, ..Counters::default() });
        Ok((self.content, self.len))
    }
}

/// How long the blobs of a volume are; a divisor of [`MOST_LEN`].
pub(super) fn volume_blob_len(size: u64) -> usize {
    let mut len = VOLUME_LEN;
    while len < MOST_LEN as u64 && size.div_ceil(len) > VOLUME_BLOBS {
        len *= 2;
    }
    usize::try_from(len).unwrap_or(MOST_LEN)
}

impl Run<'_> {
    /// Stores the content of a file or a stream.
    pub(super) fn file_content(&mut self, path: &TreePath, file: &File) -> Result<Vec<Id>, Error> {
        let contents = self.contents.clone();
        let mut cutter = Cutter::new();
        contents.read(path, file, |offset, bytes| {
            cutter.zeros(self, offset - cutter.len)?;
            cutter.data(self, bytes)
        })?;
        cutter.zeros(self, file.size - cutter.len)?;
        Ok(cutter.finish(self)?.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_volumes_have_longer_blobs() {
        const GIB: u64 = 1 << 30;
        for (size, expected) in
            [(0, 1 << 20), (64 * GIB, 1 << 20), (64 * GIB + 1, 2 << 20), (512 * GIB, 8 << 20), (1 << 50, 8 << 20)]
        {
            assert_eq!(volume_blob_len(size), expected, "{size}");
            assert_eq!(MOST_LEN % expected, 0);
        }
    }
}
