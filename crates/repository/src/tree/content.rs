//! Reading the content of a file: where its data is, and the pieces it is cut into.

use std::os::fd::BorrowedFd;

use bytes::Bytes;
use fastcdc::v2020::FastCDC;
use rustix::fs::SeekFrom;
use rustix::io::Errno;

/// The least, mean and greatest length of a chunk, in bytes. The mean is that of the research for this format: with
/// smaller ones the references of a large volume cost more than the deduplication wins. The least is a quarter of the
/// mean and the greatest four times it, as the authors of FastCDC propose.
const CHUNK_MIN_BYTES: usize = 256 << 10;
const CHUNK_MEAN_BYTES: usize = 1 << 20;
const CHUNK_MAX_BYTES: usize = 4 << 20;

/// Bytes that are read before they are cut: a chunk of the greatest length and one of the mean. More would move what is
/// left of the buffer to its front less often, which costs little beside hashing it, and take as much memory more.
const BUFFER_BYTES: usize = CHUNK_MAX_BYTES + CHUNK_MEAN_BYTES;

/// A range of a file that holds data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) file_offset: u64,
    pub(super) len: u32,
}

/// The ranges of a file that hold data, in order; what is between them are holes.
pub(crate) struct DataRanges<'a> {
    file: BorrowedFd<'a>,
    next: u64,
    end: u64,
}

impl<'a> DataRanges<'a> {
    /// Looks at the bytes from `start` up to `end`.
    pub(crate) fn new(file: BorrowedFd<'a>, start: u64, end: u64) -> Self {
        Self { file, next: start, end }
    }

    /// The start and the end of the next range. A file system that knows no holes has one range.
    pub(crate) fn next(&mut self) -> Result<Option<(u64, u64)>, Errno> {
        if self.next >= self.end {
            return Ok(None);
        }
        let start = match rustix::fs::seek(self.file, SeekFrom::Data(self.next)) {
            Ok(start) if start < self.end => start,
            Ok(_) | Err(Errno::NXIO) => {
                self.next = self.end;
                return Ok(None);
            }
            Err(Errno::INVAL | Errno::OPNOTSUPP) => {
                let start = std::mem::replace(&mut self.next, self.end);
                return Ok(Some((start, self.end)));
            }
            Err(error) => return Err(error),
        };
        // A hole that is not found because the file was cut meanwhile is met again as the end of the file.
        let end = match rustix::fs::seek(self.file, SeekFrom::Hole(start)) {
            Ok(end) => end.min(self.end),
            Err(Errno::NXIO) => self.end,
            Err(error) => return Err(error),
        };
        self.next = end;
        Ok(Some((start, end)))
    }
}

/// The data of a file as one sequence of bytes without the holes, with the record of where they came from.
pub(super) struct DataReader<'a> {
    ranges: DataRanges<'a>,
    /// The part of the current range that is not yet read.
    current: (u64, u64),
    /// Set when the file turned out to be shorter than its size said.
    cut_at: Option<u64>,
}

impl<'a> DataReader<'a> {
    pub(super) fn new(file: BorrowedFd<'a>, size: u64) -> Self {
        Self { ranges: DataRanges::new(file, 0, size), current: (0, 0), cut_at: None }
    }

    /// Where the file ended, if that was before the size that was given.
    pub(super) fn cut_at(&self) -> Option<u64> {
        self.cut_at
    }

    /// Appends data to `buffer` until it has `limit` bytes or the file ends, and appends to `runs` where it was.
    pub(super) fn fill(&mut self, buffer: &mut Vec<u8>, limit: usize, runs: &mut Vec<Run>) -> Result<(), Errno> {
        while buffer.len() < limit && self.cut_at.is_none() {
            let (start, end) = self.current;
            if start == end {
                match self.ranges.next()? {
                    Some(range) => self.current = range,
                    None => return Ok(()),
                }
                continue;
            }
            let old_len = buffer.len();
            let wanted = usize::try_from(end - start).unwrap_or(usize::MAX).min(limit - old_len);
            buffer.resize(old_len + wanted, 0);
            let read = rustix::io::retry_on_intr(|| rustix::io::pread(self.ranges.file, &mut buffer[old_len..], start));
            let len = *read.as_ref().unwrap_or(&0);
            buffer.truncate(old_len + len);
            if read? == 0 {
                self.cut_at = Some(start);
            } else {
                self.current.0 += len as u64;
                push_run(runs, start, len);
            }
        }
        Ok(())
    }
}

/// Appends a range, joined to the last one where it continues it.
fn push_run(runs: &mut Vec<Run>, file_offset: u64, len: usize) {
    let len = u32::try_from(len).expect("a range in a buffer is at most as long as the buffer, which is some MiB");
    match runs.last_mut() {
        Some(last) if last.file_offset + u64::from(last.len) == file_offset => last.len += len,
        _ => runs.push(Run { file_offset, len }),
    }
}

/// A piece of a file's data and where it belongs.
pub(super) struct Chunk {
    pub(super) bytes: Bytes,
    pub(super) runs: Vec<Run>,
}

/// Cuts bytes where their content says so (FastCDC of 2020), so that bytes put in or taken out change the chunks around
/// them and no others.
#[derive(Debug, Default)]
pub(crate) struct Cutter {
    buffer: Vec<u8>,
    /// Bytes at the front of the buffer that were given out already.
    used: usize,
}

impl Cutter {
    /// Where further bytes are appended, up to [`BUFFER_BYTES`] in all.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        self.buffer.drain(..self.used);
        self.used = 0;
        self.buffer.reserve(BUFFER_BYTES.saturating_sub(self.buffer.len()));
        &mut self.buffer
    }

    /// Whether there are so few bytes that where the next chunk ends depends on what follows.
    pub(crate) fn wants_more(&self) -> bool {
        self.buffer.len() - self.used < CHUNK_MAX_BYTES
    }

    /// The next chunk; nothing when all was given out.
    pub(crate) fn next(&mut self) -> Option<Bytes> {
        let mut cutter = FastCDC::new(&self.buffer[self.used..], CHUNK_MIN_BYTES, CHUNK_MEAN_BYTES, CHUNK_MAX_BYTES);
        let found = cutter.next()?;
        let bytes = Bytes::copy_from_slice(&self.buffer[self.used..self.used + found.length]);
        self.used += found.length;
        Some(bytes)
    }
}

/// Cuts the data of a file. The holes do not count: a file that is filled later keeps its chunks.
pub(super) struct Chunker<'a> {
    reader: DataReader<'a>,
    cutter: Cutter,
    /// Where the bytes that were not yet given out came from.
    runs: Vec<Run>,
}

impl<'a> Chunker<'a> {
    pub(super) fn new(reader: DataReader<'a>) -> Self {
        Self { reader, cutter: Cutter::default(), runs: Vec::new() }
    }

    pub(super) fn cut_at(&self) -> Option<u64> {
        self.reader.cut_at()
    }

    /// The next chunk; nothing at the end of the file.
    pub(super) fn next(&mut self) -> Result<Option<Chunk>, Errno> {
        if self.cutter.wants_more() {
            self.reader.fill(self.cutter.buffer(), BUFFER_BYTES, &mut self.runs)?;
        }
        let Some(bytes) = self.cutter.next() else { return Ok(None) };
        let runs = take_front(&mut self.runs, bytes.len() as u64);
        Ok(Some(Chunk { bytes, runs }))
    }
}

/// Takes the ranges of the first `len` bytes.
fn take_front(runs: &mut Vec<Run>, len: u64) -> Vec<Run> {
    let mut left = len;
    let mut whole = 0;
    while whole < runs.len() && u64::from(runs[whole].len) <= left {
        left -= u64::from(runs[whole].len);
        whole += 1;
    }
    let mut taken: Vec<Run> = runs.drain(..whole).collect();
    if left > 0 {
        let part = u32::try_from(left).expect("it is less than the length of the run, which is of this type");
        let split = &mut runs[0];
        taken.push(Run { file_offset: split.file_offset, len: part });
        split.file_offset += left;
        split.len -= part;
    }
    taken
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::fs::FileExt;

    use super::*;

    fn noise(len: usize, seed: u64) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let mut reader = blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof();
        reader.fill(&mut bytes);
        bytes
    }

    fn chunks(file: &std::fs::File) -> Vec<Chunk> {
        let size = file.metadata().unwrap().len();
        let mut chunker = Chunker::new(DataReader::new(file.as_fd(), size));
        std::iter::from_fn(|| chunker.next().unwrap()).collect()
    }

    #[test]
    fn chunks_give_the_file_back_and_have_the_lengths_of_the_format() {
        let content = noise(20 << 20, 1);
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&content, 0).unwrap();
        let chunks = chunks(&file);
        let joined: Vec<u8> = chunks.iter().flat_map(|chunk| chunk.bytes.to_vec()).collect();
        assert_eq!(joined, content);
        let (last, whole) = chunks.split_last().unwrap();
        assert!(whole.iter().all(|chunk| (CHUNK_MIN_BYTES..=CHUNK_MAX_BYTES).contains(&chunk.bytes.len())));
        assert!(last.bytes.len() <= CHUNK_MAX_BYTES);
        assert!((10..=40).contains(&chunks.len()), "{} chunks", chunks.len());
    }

    #[test]
    fn an_insertion_changes_the_chunks_around_it_only() {
        let mut content = noise(20 << 20, 2);
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&content, 0).unwrap();
        let before: std::collections::HashSet<Bytes> = chunks(&file).into_iter().map(|chunk| chunk.bytes).collect();
        content.splice(5 << 20..5 << 20, *b"inserted");
        file.write_all_at(&content, 0).unwrap();
        let new = chunks(&file).into_iter().filter(|chunk| !before.contains(&chunk.bytes)).count();
        assert!((1..=3).contains(&new), "{new} new chunks of {}", before.len());
    }

    #[test]
    fn holes_are_not_read_and_runs_say_where_the_data_was() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 30).unwrap();
        file.write_all_at(&noise(4096, 3), 1 << 20).unwrap();
        file.write_all_at(&noise(8192, 4), 512 << 20).unwrap();
        let chunks = chunks(&file);
        assert_eq!(chunks.len(), 1);
        assert_eq!(
            chunks[0].runs,
            [Run { file_offset: 1 << 20, len: 4096 }, Run { file_offset: 512 << 20, len: 8192 }]
        );
    }

    #[test]
    fn a_file_that_is_shorter_than_it_was_says_where_it_ended() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(b"short", 0).unwrap();
        // A range that was found before the file was cut.
        let ranges = DataRanges::new(file.as_fd(), 100, 100);
        let mut reader = DataReader { ranges, current: (0, 100), cut_at: None };
        let (mut buffer, mut runs) = (Vec::new(), Vec::new());
        reader.fill(&mut buffer, 1000, &mut runs).unwrap();
        assert_eq!(reader.cut_at(), Some(5));
        assert_eq!((&buffer[..], runs), (&b"short"[..], vec![Run { file_offset: 0, len: 5 }]));
    }

    #[test]
    fn the_front_of_runs_is_cut_where_it_is_asked() {
        let run = |file_offset, len| Run { file_offset, len };
        let check = |len, expected: (&[Run], &[Run])| {
            let mut runs = vec![run(0, 10), run(100, 10)];
            let taken = take_front(&mut runs, len);
            assert_eq!((&taken[..], &runs[..]), expected, "{len}");
        };
        check(5, (&[run(0, 5)], &[run(5, 5), run(100, 10)]));
        check(10, (&[run(0, 10)], &[run(100, 10)]));
        check(15, (&[run(0, 10), run(100, 5)], &[run(105, 5)]));
        check(20, (&[run(0, 10), run(100, 10)], &[]));
    }
}
