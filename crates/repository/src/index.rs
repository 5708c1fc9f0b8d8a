//! Index runs: where the blobs of one session are, sorted by identity.
//!
//! ```text
//! header with section table │ sealed block │ sealed block │ … │ sealed block directory
//! ```
//! A reference says where its blob is, so the index is read only when the pack is gone, and then only the blocks in question.

use crate::codec::{Fields, Malformed};
use crate::crypto::{SealingKey, TAG_LEN};
use crate::error::{ErrorKind, Result};
use crate::ids::{BlobId, BlobRef, WriterId};
use crate::layout::{self, ObjectName, RunId};
use crate::pack::{BlobKind, Entry};
use crate::repository::Repository;
use bytes::Bytes;
use futures::{StreamExt, stream};
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

const MAGIC: &[u8; 8] = b"ORLOPIDX";
const VERSION: u32 = 1;
/// Magic, version, epoch, writer, sequence, number of sections.
const FIXED_HEADER_LEN: usize = 8 + 4 + 8 + WriterId::LEN + 4 + 4;
/// Kind, offset, length.
const SECTION_LEN: usize = 4 + 8 + 8;
/// How many sections a run has at most; there is room for what later versions add, such as a filter.
const MAX_SECTIONS: usize = 16;
const MAX_HEADER_LEN: usize = FIXED_HEADER_LEN + MAX_SECTIONS * SECTION_LEN + 4;
const BLOCKS: u32 = 1;
const DIRECTORY: u32 = 2;
/// The reference and the kind of a blob.
const ENTRY_LEN: usize = BlobRef::LEN + 1;
/// A block is up to 64 KiB of plain entries: one small request finds a blob.
const BLOCK_ENTRIES: usize = (64 << 10) / ENTRY_LEN;
/// First identity, offset, length, number of entries.
const BLOCK_LEN: usize = BlobId::LEN + 8 + 4 + 4;
/// A session writes a run when it has this many entries: 5 MiB of memory, and a run of 4.5 MiB per 64 GiB in blobs of 1 MiB.
pub(crate) const MAX_RUN_ENTRIES: usize = 1 << 16;
/// The longest run that is read, in bytes: a run may exceed its number of entries by those of one pack.
pub(crate) const MAX_RUN_LEN: u64 = 32 << 20;

/// Where a section lies.
type Section = (u32, Range<u64>);

/// Writes a run; sorts the entries.
pub(crate) fn encode(id: &RunId, mut entries: Vec<Entry>, key: &SealingKey) -> Bytes {
    entries.sort_unstable_by_key(|entry| entry.blob);
    let name = name_bytes(id);
    let header_len = FIXED_HEADER_LEN + 2 * SECTION_LEN + 4;
    let mut bytes = vec![0; header_len];
    let mut directory = Vec::new();
    for block in entries.chunks(BLOCK_ENTRIES) {
        let offset = bytes.len();
        for entry in block {
            bytes.extend_from_slice(&entry.blob.encode());
            bytes.push(entry.kind.encode());
        }
        key.seal_at(&name, &mut bytes, offset);
        directory.extend_from_slice(&block[0].blob.id.0);
        directory.extend_from_slice(&(offset as u64).to_le_bytes());
        directory.extend_from_slice(&narrow(bytes.len() - offset).to_le_bytes());
        directory.extend_from_slice(&narrow(block.len()).to_le_bytes());
    }
    let directory_offset = bytes.len();
    bytes.extend_from_slice(&narrow(directory.len() / BLOCK_LEN).to_le_bytes());
    bytes.extend_from_slice(&directory);
    key.seal_at(&name, &mut bytes, directory_offset);
    let sections = [
        (BLOCKS, header_len as u64..directory_offset as u64),
        (DIRECTORY, directory_offset as u64..bytes.len() as u64),
    ];
    let header = encode_header(id, &sections);
    bytes[..header_len].copy_from_slice(&header);
    Bytes::from(bytes)
}

/// A run with one sealed block and a sealed directory of any bytes, for fuzzing.
#[cfg(feature = "fuzzing")]
pub(crate) fn with_parts(id: &RunId, key: &SealingKey, block: &[u8], directory: &[u8]) -> Bytes {
    let (name, header_len) = (name_bytes(id), FIXED_HEADER_LEN + 2 * SECTION_LEN + 4);
    let mut bytes = vec![0; header_len];
    bytes.extend_from_slice(block);
    key.seal_at(&name, &mut bytes, header_len);
    let directory_offset = bytes.len();
    bytes.extend_from_slice(directory);
    key.seal_at(&name, &mut bytes, directory_offset);
    let blocks = (BLOCKS, header_len as u64..directory_offset as u64);
    let header = encode_header(id, &[blocks, (DIRECTORY, directory_offset as u64..bytes.len() as u64)]);
    bytes[..header_len].copy_from_slice(&header);
    Bytes::from(bytes)
}

fn narrow(len: usize) -> u32 {
    u32::try_from(len).expect("a run is shorter than 32 MiB")
}

fn name_bytes(id: &RunId) -> Vec<u8> {
    [&id.epoch.to_le_bytes()[..], &id.writer.0, &id.sequence.to_le_bytes()].concat()
}

fn encode_header(id: &RunId, sections: &[Section]) -> Vec<u8> {
    let mut header = Vec::new();
    header.extend_from_slice(MAGIC);
    header.extend_from_slice(&VERSION.to_le_bytes());
    header.extend_from_slice(&name_bytes(id));
    header.extend_from_slice(&narrow(sections.len()).to_le_bytes());
    for (kind, range) in sections {
        header.extend_from_slice(&kind.to_le_bytes());
        header.extend_from_slice(&range.start.to_le_bytes());
        header.extend_from_slice(&(range.end - range.start).to_le_bytes());
    }
    let sum = crc32c::crc32c(&header);
    header.extend_from_slice(&sum.to_le_bytes());
    header
}

/// Reads the header from the front of a run of `run_len` bytes; the sections must lie back to back up to the end.
fn decode_header(front: &[u8], id: &RunId, run_len: u64) -> Result<Vec<Section>, Malformed> {
    let mut fields = Fields::new(front);
    fields.expect(MAGIC, "magic of the header")?;
    let version = fields.u32()?;
    if version != VERSION {
        return Err(Malformed::new(format!("it has version {version}, and this program reads version {VERSION}")));
    }
    fields.expect(&name_bytes(id), "name in the header")?;
    let count = fields.count(SECTION_LEN)?;
    if count > MAX_SECTIONS {
        return Err(Malformed::new(format!("{count} sections are more than {MAX_SECTIONS}")));
    }
    let header_len = FIXED_HEADER_LEN + count * SECTION_LEN;
    let mut sections = Vec::with_capacity(count);
    let mut end = header_len as u64 + 4;
    for _ in 0..count {
        let (kind, offset, len) = (fields.u32()?, fields.u64()?, fields.u64()?);
        if offset != end {
            return Err(Malformed::new(format!("there is a gap at {end}")));
        }
        end = end.saturating_add(len);
        sections.push((kind, offset..end));
    }
    if fields.u32()? != crc32c::crc32c(&front[..header_len]) {
        return Err(Malformed::new("the checksum of the header is wrong"));
    }
    if end == run_len { Ok(sections) } else { Err(Malformed::new("the sections do not cover the run")) }
}

fn section(sections: &[Section], wanted: u32) -> Result<Range<u64>, Malformed> {
    let found = sections.iter().find(|(kind, _)| *kind == wanted);
    found.map(|(_, range)| range.clone()).ok_or_else(|| Malformed::new(format!("section {wanted} is missing")))
}

/// A block as the directory has it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Block {
    first: BlobId,
    range: Range<u64>,
    entries: usize,
}

/// Reads the block directory; the blocks must lie back to back in their section.
fn decode_directory(plain: &[u8], blocks: &Range<u64>) -> Result<Vec<Block>, Malformed> {
    let mut fields = Fields::new(plain);
    let count = fields.count(BLOCK_LEN)?;
    let mut directory = Vec::with_capacity(count);
    let mut end = blocks.start;
    for _ in 0..count {
        let first = BlobId::decode(&mut fields)?;
        let (offset, len, entries) = (fields.u64()?, fields.u32()?, fields.u32()? as usize);
        if offset != end || entries > BLOCK_ENTRIES || len as usize != entries * ENTRY_LEN + TAG_LEN {
            return Err(Malformed::new(format!("the block at {offset} does not fit")));
        }
        end += u64::from(len);
        directory.push(Block { first, range: offset..end, entries });
    }
    fields.finish()?;
    if end == blocks.end { Ok(directory) } else { Err(Malformed::new("the blocks do not cover their section")) }
}

fn decode_block(sealed: &[u8], block: &Block, name: &[u8], key: &SealingKey) -> Result<Vec<Entry>, Malformed> {
    let plain = key
        .open_at(name, sealed, block.range.start)
        .ok_or_else(|| Malformed::new(format!("the block at {} does not open with its key", block.range.start)))?;
    let mut fields = Fields::new(&plain);
    let mut entries = Vec::with_capacity(block.entries);
    for _ in 0..block.entries {
        entries.push(Entry { blob: BlobRef::decode(&mut fields)?, kind: BlobKind::decode(fields.u8()?)? });
    }
    fields.finish()?;
    let sorted = entries.is_sorted_by_key(|entry| entry.blob);
    if sorted && entries.first().is_some_and(|entry| entry.blob.id == block.first) {
        Ok(entries)
    } else {
        Err(Malformed::new(format!("the block at {} is out of order", block.range.start)))
    }
}

fn open_directory(
    sealed: &[u8],
    offset: u64,
    blocks: &Range<u64>,
    name: &[u8],
    key: &SealingKey,
) -> Result<Vec<Block>, Malformed> {
    let plain = key
        .open_at(name, sealed, offset)
        .ok_or_else(|| Malformed::new("the block directory does not open with its key"))?;
    decode_directory(&plain, blocks)
}

/// Reads a whole run, every byte of it.
pub(crate) fn decode(bytes: &[u8], id: &RunId, key: &SealingKey) -> Result<Vec<Entry>, Malformed> {
    let part = |range: &Range<u64>| {
        let bounds = usize::try_from(range.start).ok().zip(usize::try_from(range.end).ok());
        bounds.and_then(|(start, end)| bytes.get(start..end)).ok_or_else(|| Malformed::new("the run is cut off"))
    };
    let sections = decode_header(bytes, id, bytes.len() as u64)?;
    let (blocks, directory) = (section(&sections, BLOCKS)?, section(&sections, DIRECTORY)?);
    let name = name_bytes(id);
    let mut entries = Vec::new();
    for block in open_directory(part(&directory)?, directory.start, &blocks, &name, key)? {
        entries.extend(decode_block(part(&block.range)?, &block, &name, key)?);
    }
    if entries.is_sorted_by_key(|entry| entry.blob) {
        Ok(entries)
    } else {
        Err(Malformed::new("the blocks are out of order"))
    }
}

/// The parts of a run that lead to its blocks.
#[derive(Debug)]
struct RunDirectory {
    blocks: Vec<Block>,
    key: SealingKey,
}

/// What lookups have learned of the index. Without it, a pack that is gone would cost every blob of it a walk over all runs.
#[derive(Debug, Default)]
pub(crate) struct Lookups {
    learned: Mutex<Learned>,
}

#[derive(Debug, Default)]
struct Learned {
    /// When the first of it was learned.
    since: Option<Instant>,
    runs: Option<Arc<Vec<(RunId, u64)>>>,
    /// By run; none for one that is damaged.
    directories: HashMap<RunId, Option<Arc<RunDirectory>>>,
    kept_blocks: usize,
    /// Blobs that are nowhere.
    lost: HashSet<BlobId>,
}

/// How long it is believed: a writer elsewhere may add runs.
const LEARNED_FOR: Duration = Duration::from_secs(600);
/// How many entries of run directories are kept, at 56 bytes each: 7 MiB, the directories of a thousand full runs. Others are read
/// again.
const MAX_KEPT_BLOCKS: usize = 1 << 17;
/// How many lost blobs are kept, at 32 bytes each and as much again for the table; then all of them are forgotten.
const MAX_LOST: usize = 1 << 16;
/// How many runs are asked at once: each takes a few small requests, one after the other.
const ASKED_AT_ONCE: usize = 8;

impl Lookups {
    fn learned(&self) -> MutexGuard<'_, Learned> {
        // Nothing is half done between two statements that hold it.
        let mut learned = self.learned.lock().unwrap_or_else(PoisonError::into_inner);
        if learned.since.is_some_and(|since| since.elapsed() > LEARNED_FOR) {
            *learned = Learned::default();
        }
        learned.since.get_or_insert_with(Instant::now);
        learned
    }

    /// Whether a lookup has found that the blob is nowhere.
    pub(crate) fn is_lost(&self, id: &BlobId) -> bool {
        self.learned().lost.contains(id)
    }

    /// Forgets everything: new runs are there, which may say where something is that was lost.
    pub(crate) fn forget(&self) {
        *self.learned.lock().unwrap_or_else(PoisonError::into_inner) = Learned::default();
    }

    pub(crate) fn lose(&self, id: BlobId) {
        let mut learned = self.learned();
        if learned.lost.len() >= MAX_LOST {
            learned.lost.clear();
        }
        learned.lost.insert(id);
    }

    fn keep(&self, run: RunId, directory: Option<&Arc<RunDirectory>>) {
        let mut learned = self.learned();
        let blocks = directory.map_or(1, |directory| directory.blocks.len());
        if learned.kept_blocks + blocks <= MAX_KEPT_BLOCKS {
            learned.kept_blocks += blocks;
            learned.directories.insert(run, directory.cloned());
        }
    }
}

/// Looks a blob up in all runs, reading of each its directory and the blocks that can hold the blob.
///
/// A damaged run is left out, because another may have what is looked for; a check names it.
pub(crate) async fn find(repo: &Repository, id: &BlobId) -> Result<Vec<BlobRef>> {
    let runs = runs(repo).await?;
    let asked = runs.iter().map(|(run, len)| find_in_run(repo, *run, *len, id)).collect::<Vec<_>>();
    let mut answers = stream::iter(asked).buffered(ASKED_AT_ONCE);
    let mut found = Vec::new();
    while let Some(blobs) = answers.next().await {
        match blobs {
            Ok(blobs) => found.extend(blobs),
            // One that is gone was cleared away since the runs were listed.
            Err(error) if matches!(error.kind(), ErrorKind::Damaged | ErrorKind::NotFound) => {
                tracing::warn!(%error, "an index run is left out of a search");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// All runs, with their lengths.
async fn runs(repo: &Repository) -> Result<Arc<Vec<(RunId, u64)>>> {
    if let Some(runs) = &repo.lookups().learned().runs {
        return Ok(Arc::clone(runs));
    }
    let objects = repo.store().list(&layout::domain_folder("index")).await?;
    let runs = objects.iter().filter_map(|object| match layout::parse(&object.name) {
        ObjectName::Run(run) => Some((run, object.size)),
        _ => None,
    });
    let runs = Arc::new(runs.collect::<Vec<_>>());
    repo.lookups().learned().runs = Some(Arc::clone(&runs));
    Ok(runs)
}

async fn find_in_run(repo: &Repository, run: RunId, run_len: u64, id: &BlobId) -> Result<Vec<BlobRef>> {
    let name = layout::run(&run);
    let Some(directory) = directory_of(repo, run, run_len).await? else { return Ok(Vec::new()) };
    let blocks = &directory.blocks;
    // A blob may be at the end of the block before the first one that begins with it, and in several blocks.
    let start = blocks.partition_point(|block| block.first < *id).saturating_sub(1);
    let end = blocks.partition_point(|block| block.first <= *id);
    let mut found = Vec::new();
    for block in blocks.get(start..end).unwrap_or_default() {
        let sealed = repo.store().get_range(&name, block.range.clone()).await?;
        let entries =
            decode_block(&sealed, block, &name_bytes(&run), &directory.key).map_err(|what| what.in_object(&name))?;
        found.extend(entries.into_iter().map(|entry| entry.blob).filter(|blob| blob.id == *id));
    }
    Ok(found)
}

/// The directory of a run; none if the run was found to be damaged before.
async fn directory_of(repo: &Repository, run: RunId, run_len: u64) -> Result<Option<Arc<RunDirectory>>> {
    if let Some(known) = repo.lookups().learned().directories.get(&run) {
        return Ok(known.clone());
    }
    match read_directory(repo, &run, run_len).await {
        Ok(directory) => {
            let directory = Arc::new(directory);
            repo.lookups().keep(run, Some(&directory));
            Ok(Some(directory))
        }
        Err(error) => {
            if error.kind() == ErrorKind::Damaged {
                repo.lookups().keep(run, None);
            }
            Err(error)
        }
    }
}

async fn read_directory(repo: &Repository, run: &RunId, run_len: u64) -> Result<RunDirectory> {
    let name = layout::run(run);
    let damaged = |what: Malformed| what.in_object(&name);
    if run_len > MAX_RUN_LEN {
        return Err(damaged(Malformed::new(format!("no run has {run_len} bytes"))));
    }
    let front = repo.store().get_range(&name, 0..run_len.min(MAX_HEADER_LEN as u64)).await?;
    let sections = decode_header(&front, run, run_len).map_err(damaged)?;
    let (blocks, directory) =
        (section(&sections, BLOCKS).map_err(damaged)?, section(&sections, DIRECTORY).map_err(damaged)?);
    let key = repo.keys().run(run);
    let sealed = repo.store().get_range(&name, directory.clone()).await?;
    let blocks = open_directory(&sealed, directory.start, &blocks, &name_bytes(run), &key).map_err(damaged)?;
    Ok(RunDirectory { blocks, key })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{DomainKeys, Key};
    use crate::ids::PackId;
    use proptest::prelude::*;

    const RUN: RunId = RunId { epoch: 1, writer: WriterId([7; 12]), sequence: 0 };

    fn entry(id: u8, sequence: u32) -> Entry {
        let pack = PackId { epoch: 1, writer: RUN.writer, sequence };
        let blob = BlobRef { id: BlobId([id; 32]), pack, offset: 40, stored_len: 20, plain_len: 3 };
        Entry { blob, kind: BlobKind::Data }
    }

    fn key() -> SealingKey {
        DomainKeys::derive(&Key::new([1; 32])).run(&RUN)
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let bytes = encode(&RUN, vec![entry(9, 0), entry(1, 1), entry(1, 0)], &key());
        assert_eq!(decode(&bytes, &RUN, &key()), Ok(vec![entry(1, 0), entry(1, 1), entry(9, 0)]));
        for position in 0..bytes.len() {
            let mut flipped = bytes.to_vec();
            flipped[position] ^= 1;
            assert!(decode(&flipped, &RUN, &key()).is_err(), "byte {position}");
        }
        for cut in 0..bytes.len() {
            assert!(decode(&bytes[..cut], &RUN, &key()).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn sizes_on_disk_are_fixed() {
        assert_eq!((FIXED_HEADER_LEN, SECTION_LEN, ENTRY_LEN, BLOCK_LEN), (40, 20, 69, 48));
        assert!((MAX_RUN_ENTRIES as u64 + (1 << 16)) * 72 < MAX_RUN_LEN);
    }

    proptest! {
        #[test]
        fn runs_survive(ids in proptest::collection::vec((any::<u8>(), any::<u32>()), 0..3000)) {
            let mut entries: Vec<_> = ids.into_iter().map(|(id, sequence)| entry(id, sequence)).collect();
            let bytes = encode(&RUN, entries.clone(), &key());
            entries.sort_unstable_by_key(|entry| entry.blob);
            prop_assert_eq!(decode(&bytes, &RUN, &key()), Ok(entries));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(decode(&bytes, &RUN, &key()).is_err());
            let _ = decode_directory(&bytes, &(0..100));
        }
    }
}
