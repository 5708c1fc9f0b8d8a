//! What somebody may put into a repository who has its key: tables that break every rule, restored by the product.

use crate::world::{self, World};
use arbitrary::{Arbitrary, Result, Unstructured};
use futures::TryStreamExt;
use repository::table::{Builder, Reader};
use repository::tree::entry::{Attributes, Content, Device, Entry, Extent, File, Kind, Time, Xattr};
use repository::tree::{self, RestoreOptions, TreePath, VerifyOptions};
use repository::volume::{self, Map, Segment};
use repository::{BlobKind, BlobRef, NoProgress, TableRef, Writer};
use std::sync::Arc;

/// How many entries a table has at most; what a parser gets wrong, it gets wrong with few.
const ENTRIES: usize = 12;

/// Any bytes as a page, in every place where a page may be.
pub fn page(bytes: &[u8]) {
    let Some((&[height, entries], page)) = bytes.split_first_chunk::<2>() else { return };
    world::with(|world| {
        let writer = world.writer();
        let root = world.put(&writer, BlobKind::Page, page.to_vec());
        world.runtime.block_on(writer.finish()).expect("memory");
        let table = TableRef { root, height, entries: u64::from(entries) };
        let repository = &world.repository;
        world.runtime.block_on(async {
            let _ = Reader::new(repository, table).get(page).await;
            let _ = Reader::new(repository, table).scan(&[]).try_for_each(|_| async { Ok(()) }).await;
            let _ =
                tree::restore(repository, &table, &world.target(), &RestoreOptions::default(), Arc::new(NoProgress))
                    .await;
            for map in [Map::volume(repository, table, 1 << 40), Map::stream(repository, table, 1 << 20)] {
                let _ = volume::check(&map, true, &Default::default()).await;
            }
        });
    });
}

/// A tree of any entries under any keys.
pub fn tree(bytes: &[u8]) {
    world::with(|world| {
        let writer = world.writer();
        let Ok(entries) = tree_entries(world, &writer, &mut Unstructured::new(bytes)) else { return };
        let Some(table) = store(world, &writer, entries) else { return };
        world.runtime.block_on(writer.finish()).expect("memory");
        world.runtime.block_on(async {
            let options = VerifyOptions::default();
            let sound = tree::verify(&world.repository, &table, None, &options, Arc::new(NoProgress)).await;
            let options = RestoreOptions::default();
            let restored =
                tree::restore(&world.repository, &table, &world.target(), &options, Arc::new(NoProgress)).await;
            // A tree that a check accepts can be restored, or the check is of no use; the file system may still refuse parts of it.
            if let (Ok(_), Err(error)) = (sound, restored) {
                assert!(!matches!(error, tree::Error::Damaged { .. }), "checked, and yet: {error}");
            }
        });
    });
}

/// A volume of any segments and extents.
pub fn volume(bytes: &[u8]) {
    world::with(|world| {
        let writer = world.writer();
        let mut input = Unstructured::new(bytes);
        let Ok((size, segments)) = segments(world, &writer, &mut input) else { return };
        let Some(table) = store(world, &writer, segments) else { return };
        world.runtime.block_on(writer.finish()).expect("memory");
        let map = Map::volume(&world.repository, table, size);
        world.runtime.block_on(async {
            let sound = volume::check(&map, true, &Default::default()).await;
            let restored = volume::restore(&map, &world.target(), &Default::default(), Arc::new(NoProgress)).await;
            if let (Ok(()), Err(error)) = (sound, restored) {
                assert!(!matches!(error, volume::Error::Damaged { .. }), "checked, and yet: {error}");
            }
        });
    });
}

type Entries = Vec<(Vec<u8>, Vec<u8>)>;

/// Stores entries in the order of their keys, which is the one rule of tables that a writer cannot break.
fn store(world: &World, writer: &Writer, mut entries: Entries) -> Option<TableRef> {
    entries.sort();
    entries.dedup_by(|one, other| one.0 == other.0);
    world.runtime.block_on(async {
        let mut table = Builder::new(writer);
        for (key, value) in entries {
            table.push(&key, &value).await.ok()?;
        }
        table.finish().await.ok()
    })
}

fn tree_entries(world: &World, writer: &Writer, input: &mut Unstructured<'_>) -> Result<Entries> {
    let blobs = blobs(world, writer);
    let mut entries = Vec::new();
    if input.ratio(9, 10)? {
        let top = Entry { attributes: attributes(input)?, kind: Kind::Directory };
        entries.push((Vec::new(), top.encode()));
    }
    for _ in 0..input.int_in_range(1..=ENTRIES)? {
        let entry = Entry { attributes: attributes(input)?, kind: kind(world, &blobs, input)? };
        entries.push((key(input)?, entry.encode()));
    }
    Ok(entries)
}

/// Blobs of some lengths that are there, and one that is not.
fn blobs(world: &World, writer: &Writer) -> Vec<BlobRef> {
    let mut blobs: Vec<_> =
        [1, 100, 5000].into_iter().map(|len| world.put(writer, BlobKind::Data, vec![7; len])).collect();
    let mut lost = blobs[0];
    lost.id.0[0] ^= 1;
    blobs.push(lost);
    blobs
}

fn key(input: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    const NAMES: &[&[u8]] =
        &[b"a", b"b", b"c", b"..", b".", b"", b"a/b", b"../outside", b"/", b"target", b"lost+found"];
    let mut names = Vec::new();
    for _ in 0..input.int_in_range(1..=3)? {
        names.push(if input.ratio(1, 8)? { <&[u8]>::arbitrary(input)? } else { *input.choose(NAMES)? });
    }
    Ok(names.join(&0))
}

const XATTRS: &[&[u8]] = &[b"user.a", b"trusted.b", b"security.capability", b"system.posix_acl_access", b"x"];

fn attributes(input: &mut Unstructured<'_>) -> Result<Attributes> {
    let time = |input: &mut Unstructured<'_>| {
        Ok(Time { seconds: i64::arbitrary(input)?, nanoseconds: input.int_in_range(0..=999_999_999)? })
    };
    let mut xattrs = Vec::new();
    while xattrs.len() < 3 && input.ratio(1, 6)? {
        let name = input.choose(XATTRS)?;
        xattrs.push(Xattr { name: name.to_vec(), value: <Vec<u8>>::arbitrary(input)? });
    }
    Ok(Attributes {
        mode: input.int_in_range(0..=0o7777)?,
        uid: input.int_in_range(0..=70_000)?,
        gid: input.int_in_range(0..=70_000)?,
        mtime: time(input)?,
        ctime: time(input)?,
        inode: u64::arbitrary(input)?,
        xattrs,
        ..Attributes::default()
    })
}

fn kind(world: &World, blobs: &[BlobRef], input: &mut Unstructured<'_>) -> Result<Kind> {
    let outside = world.outside().to_string_lossy().into_owned();
    Ok(match input.int_in_range(0..=9)? {
        0..=2 => Kind::Directory,
        3..=4 => {
            let targets = [outside.as_str(), "../outside", "..", ".", "a", "../outside/precious", "/", ""];
            Kind::Symlink { target: input.choose(&targets)?.as_bytes().to_vec() }
        }
        5 => Kind::HardLink { first: TreePath::from_key(&key(input)?).unwrap_or_else(|_| TreePath::root()) },
        6 => Kind::Fifo,
        7 => Kind::CharacterDevice(Device { major: u32::arbitrary(input)?, minor: u32::arbitrary(input)? }),
        _ => {
            let content = Content::Extents(extents(blobs, 2, input)?);
            let size = if input.ratio(1, 8)? { u64::arbitrary(input)? } else { input.int_in_range(0..=1 << 20)? };
            Kind::File(File { size, settled: bool::arbitrary(input)?, content })
        }
    })
}

/// Mostly such as a writer makes, so that a few of them are accepted together.
fn extents(blobs: &[BlobRef], most: usize, input: &mut Unstructured<'_>) -> Result<Vec<Extent>> {
    let (mut extents, mut end) = (Vec::new(), 0_u64);
    for _ in 0..input.int_in_range(0..=most)? {
        let blob = *input.choose(blobs)?;
        let strange = input.ratio(1, 6)?;
        let file_offset = if strange { u64::arbitrary(input)? } else { end + input.int_in_range(0..=8192)? };
        let blob_offset = if strange { u32::arbitrary(input)? } else { input.int_in_range(0..=blob.plain_len - 1)? };
        let len = if strange { u32::arbitrary(input)? } else { blob.plain_len - blob_offset };
        extents.push(Extent { file_offset, len, blob_offset, blob });
        end = file_offset.saturating_add(u64::from(len)) & !(1 << 63);
    }
    Ok(extents)
}

fn segments(world: &World, writer: &Writer, input: &mut Unstructured<'_>) -> Result<(u64, Entries)> {
    let blobs = blobs(world, writer);
    let mut segments = Vec::new();
    for index in 0..input.int_in_range(0..=3)? {
        let number = if input.ratio(1, 8)? { u32::arbitrary(input)? } else { index };
        let start = u64::from(number) * volume::SEGMENT_LEN;
        let (mut bytes, mut entries) = (0, Vec::new());
        for mut extent in extents(&blobs, ENTRIES, input)? {
            extent.file_offset = extent.file_offset.saturating_add(start);
            bytes += u64::from(extent.len);
            entries.push((extent.encode_key().to_vec(), extent.encode_value().to_vec()));
        }
        let Some(extents) = store(world, writer, entries) else { continue };
        let bytes = if input.ratio(1, 8)? { u64::arbitrary(input)? } else { bytes };
        let segment = Segment { number, extents, bytes, read: bytes };
        segments.push((segment.encode_key().to_vec(), segment.encode_value().to_vec()));
    }
    let size = if input.ratio(1, 8)? { u64::arbitrary(input)? } else { input.int_in_range(0..=4 << 30)? };
    Ok((size, segments))
}
