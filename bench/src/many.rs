//! A repository with very many extents, and what opening it, storing into it and restoring out of it take.
//!
//! It is written by the engine's own writer: a volume of which every block is an extent with a blob of its own. The blobs compress to almost
//! nothing; their number is what counts.

use crate::data::BLOCK;
use crate::measure::{Cost, run, size_of};
use crate::place::{Kind, Place};
use crate::report::{BACKUP_MIB, RESTORE_MIB};
use crate::tool::{Peer, Since, Tools};
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use repository::tree::entry::Extent;
use repository::volume::{SEGMENT_LEN, Segment};
use repository::{
    BlobKind, BlobRef, Passphrase, RecoveryPoint, Repository, RetryPolicy, Root, RootKind, Source, Stats,
};
use repository::{StoreConfig, TableRef, Writer, WrittenPacks, table};
use rustix::fs::Advice;
use std::fmt::Write;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Blobs on their way into packs.
const IN_FLIGHT: usize = 64;
/// The bytes of a blob.
const BLOCK_BYTES: usize = 4096;
/// Blobs of one task: one for each blob would cost more than the blob.
const TOGETHER: u64 = 256;
/// Changed blocks of the incremental.
const CHANGED: u64 = 5000;
/// In so many segments they lie: all extents of these are written anew, those of others are looked up.
const CHANGED_SEGMENTS: u64 = 4;
/// The bytes of the image that is stored anew and restored.
const SMALL_LEN: u64 = 64 << 20;
/// Bytes of two files that are compared at once.
const PIECE: usize = 1 << 20;
/// How long opening may take, cold.
const OPENING: Duration = Duration::from_secs(10);
const NAME: &str = "many";

/// Makes the repository and measures; gives a table, and whether the bounds hold.
pub(crate) fn measure(orlop: &Path, folder: &Path, extents: u64) -> Result<(String, bool)> {
    eprintln!("bench: a repository of {extents} extents");
    let place = Place::start(Kind::Folder, folder)?;
    let tools = Tools::find(orlop, folder)?;
    tools.init(Peer::Orlop, &place, NAME)?;
    let path = folder.join("store").join(NAME);
    let started = Instant::now();
    run(crate::again()?.arg("fill").arg(&path).arg(extents.to_string()), &folder.join("log"))?;
    let (made, bytes) = (started.elapsed(), size_of(&path)?);
    let costs = use_it(&tools, &place, folder, &path, extents)?;
    place.remove(NAME)?;
    let mut text = format!(
        "### A repository of {extents} extents\n\n{} MiB, written in {:.0} s; what is read is not in the page cache before.\n\n\
         | | CPU s | wall s | peak MiB | wanted | |\n|---|---|---|---|---|---|\n",
        bytes >> 20,
        made.as_secs_f64()
    );
    let mut good = true;
    for (what, cost, most_mib, most_wall) in costs {
        let holds = cost.peak >> 20 <= most_mib && most_wall.is_none_or(|most| cost.wall <= most);
        good &= holds;
        let wanted = most_wall.map_or_else(String::new, |most| format!(", ≤ {} s", most.as_secs()));
        writeln!(
            text,
            "| {what} | {:.2} | {:.2} | {} | ≤ {most_mib} MiB{wanted} | {} |",
            cost.cpu.as_secs_f64(),
            cost.wall.as_secs_f64(),
            cost.peak >> 20,
            if holds { "holds" } else { "**missed**" }
        )?;
    }
    text.push('\n');
    Ok((text, good))
}

type Row = (&'static str, Cost, u64, Option<Duration>);

fn use_it(tools: &Tools, place: &Place, folder: &Path, path: &Path, extents: u64) -> Result<Vec<Row>> {
    forget(path)?;
    let opening = tools.list(place, NAME)?;
    let image = folder.join("many-image");
    let ranges = folder.join("many-ranges");
    change(&image, &ranges, extents)?;
    forget(path)?;
    let since = Some(Since { parent: NAME, ranges: Some(&ranges) });
    let incremental = tools.backup_image(Peer::Orlop, place, NAME, ("incremental", &image), since)?;
    std::fs::remove_file(&image)?;
    small(&image)?;
    forget(path)?;
    let first = tools.backup_image(Peer::Orlop, place, NAME, ("small", &image), None)?;
    let target = folder.join("target");
    forget(path)?;
    let restore = tools.restore(Peer::Orlop, place, NAME, "small", &target)?;
    ensure!(is_same(&image, &target)?, "the image did not come back as it was");
    for file in [&image, &ranges, &target] {
        std::fs::remove_file(file)?;
    }
    Ok(vec![
        ("opened, and its recovery points listed", opening, RESTORE_MIB, Some(OPENING)),
        ("an incremental of the large volume", incremental, BACKUP_MIB, None),
        ("a first backup of 64 MiB into it", first, BACKUP_MIB, None),
        ("a restore of 64 MiB out of it", restore, RESTORE_MIB, None),
    ])
}

/// Lets the page cache go of all files below a folder.
fn forget(folder: &Path) -> Result<()> {
    rustix::fs::sync();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            match path.is_dir() {
                true => folders.push(path),
                false => rustix::fs::fadvise(&File::open(path)?, 0, None, Advice::DontNeed)?,
            }
        }
    }
    Ok(())
}

/// An image as large as the volume, of which only the changed blocks hold anything; they lie in its first segments.
fn change(image: &Path, ranges: &Path, extents: u64) -> Result<()> {
    let file = File::create(image)?;
    file.set_len(extents * BLOCK)?;
    let mut list = String::new();
    let among = extents.min(CHANGED_SEGMENTS * SEGMENT_LEN / BLOCK);
    let changed = CHANGED.min(among);
    for number in 0..changed {
        let block = number * (among / changed);
        file.write_all_at(&[&number.to_le_bytes()[..], b"changed"].concat(), block * BLOCK)?;
        writeln!(list, "{} {BLOCK}", block * BLOCK)?;
    }
    Ok(std::fs::write(ranges, list)?)
}

/// Piece by piece, as all here: the most memory that this program has ever had is counted to what it starts.
fn small(image: &Path) -> Result<()> {
    let bytes = blake3::Hasher::new().update(b"small").finalize_xof();
    std::io::copy(&mut bytes.take(SMALL_LEN), &mut File::create(image)?)?;
    Ok(())
}

fn is_same(one: &Path, other: &Path) -> Result<bool> {
    let mut files = [File::open(one)?, File::open(other)?].map(|file| BufReader::with_capacity(PIECE, file));
    loop {
        let [a, b] = &mut files;
        let len = {
            let (a, b) = (a.fill_buf()?, b.fill_buf()?);
            if a.is_empty() || b.is_empty() {
                return Ok(a.is_empty() && b.is_empty());
            }
            let len = a.len().min(b.len());
            if a[..len] != b[..len] {
                return Ok(false);
            }
            len
        };
        a.consume(len);
        b.consume(len);
    }
}

/// Writes the volume into a repository that is there.
pub(crate) async fn fill(path: &Path, extents: u64) -> Result<()> {
    let store = StoreConfig::FileSystem { path: path.to_owned() }.open(RetryPolicy::default())?;
    let repository = Repository::open(store, &Passphrase::new("a passphrase for the benchmark")).await?;
    let writer = repository.writer(&NAME.parse()?).await?;
    let mut segments = table::Builder::new(&writer);
    let each = SEGMENT_LEN / BLOCK;
    for number in 0..extents.div_ceil(each) {
        let (start, end) = (number * each, ((number + 1) * each).min(extents));
        let table = segment(&writer, start, end).await?;
        let bytes = (end - start) * BLOCK;
        let segment = Segment { number: u32::try_from(number)?, extents: table, bytes, read: bytes };
        segments.push(&segment.encode_key(), &segment.encode_value()).await?;
    }
    let root = segments.finish().await?;
    let written = writer.finish().await?;
    publish(&repository, root, extents, written).await
}

/// Writes the extents of a segment, one for each block.
async fn segment(writer: &Writer, start: u64, end: u64) -> Result<TableRef> {
    let mut table = table::Builder::new(writer);
    let runs = (start..end).step_by(usize::try_from(TOGETHER)?).map(|first| {
        let writer = writer.clone();
        tokio::spawn(async move { put(&writer, first, (first + TOGETHER).min(end)).await })
    });
    let mut runs = stream::iter(runs).buffered(IN_FLIGHT);
    let mut block = start;
    while let Some(blobs) = runs.try_next().await? {
        for blob in blobs? {
            let extent = Extent { file_offset: block * BLOCK, len: u32::try_from(BLOCK)?, blob_offset: 0, blob };
            table.push(&extent.encode_key(), &extent.encode_value()).await?;
            block += 1;
        }
    }
    Ok(table.finish().await?)
}

/// Stores a blob for each of some blocks.
async fn put(writer: &Writer, first: u64, end: u64) -> repository::Result<Vec<BlobRef>> {
    let mut blobs = Vec::new();
    for number in first..end {
        let mut plain = vec![0; BLOCK_BYTES];
        plain[..8].copy_from_slice(&(number + 1).to_le_bytes());
        blobs.push(writer.put_blob(BlobKind::Data, Bytes::from(plain)).await?);
    }
    Ok(blobs)
}

async fn publish(repository: &Repository, root: TableRef, extents: u64, written: WrittenPacks) -> Result<()> {
    let time = "2026-11-22T10:00:00Z".parse().context("read a time")?;
    let root = Root {
        name: "image".to_owned(),
        kind: RootKind::Volume,
        table: root,
        files: 0,
        bytes: extents * BLOCK,
        changed_while_read: 0,
        started: time,
        finished: time,
        claim: None,
    };
    let point = RecoveryPoint {
        version: RecoveryPoint::VERSION,
        id: NAME.parse()?,
        created: time,
        source: Source::Paths { host: "bench".to_owned() },
        tags: repository::Tags::default(),
        complete: true,
        objects: None,
        ledger: None,
        roots: vec![root],
        sessions: vec![written.session],
        packs: written.packs,
        stats: Stats {
            objects: 0,
            files: 0,
            bytes: extents * BLOCK,
            new_bytes: written.stats.new_bytes,
            stored_bytes: written.stats.stored_bytes,
        },
    };
    Ok(repository.publish(&point).await?)
}
