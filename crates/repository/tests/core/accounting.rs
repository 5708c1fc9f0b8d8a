//! Space accounting, against a slow model that is obviously right: for each recovery point the set of all blobs that it refers to,
//! followed page by page with a reader of pages that is written here.

use crate::faults::{EAGER, Fault, Faulty, OpenBook, memory};
use crate::fixture::{self, Contents, Stored, contents, point_id};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use repository::accounting::{self, Space};
use repository::tree::entry::{Content, Entry, Extent, Kind};
use repository::volume::{self, Segment};
use repository::{
    BlobKind, BlobRef, ErrorKind, Fields, NoProgress, RecoveryPoint, Repository, Root, RootKind, TableRef,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What the entries of a table refer to.
#[derive(Clone, Copy)]
enum Holds {
    Nothing,
    Files,
    Segments,
    Extents,
}

/// Adds all blobs of a table, its pages among them; `pages` gets those that lead to others.
async fn collect(
    repo: &Repository,
    table: TableRef,
    holds: Holds,
    blobs: &mut BTreeSet<BlobRef>,
    pages: &mut BTreeSet<BlobRef>,
) {
    let mut waiting = vec![(table.root, holds)];
    while let Some((blob, holds)) = waiting.pop() {
        blobs.insert(blob);
        let bytes = repo.read_blob(&blob).await.unwrap();
        let mut fields = Fields::new(&bytes);
        let level = fields.u32().unwrap();
        let count = fields.u32().unwrap();
        if count > 0 && (level > 0 || !matches!(holds, Holds::Nothing)) {
            pages.insert(blob);
        }
        for _ in 0..count {
            let (key_len, value_len) = (fields.u32().unwrap() as usize, fields.u32().unwrap() as usize);
            let (key, value) = (fields.bytes(key_len).unwrap(), fields.bytes(value_len).unwrap());
            if level > 0 {
                waiting.push((BlobRef::decode(&mut Fields::new(value)).unwrap(), holds));
                continue;
            }
            match holds {
                Holds::Nothing => {}
                Holds::Extents => _ = blobs.insert(Extent::decode(key, value).unwrap().blob),
                Holds::Segments => waiting.push((Segment::decode(key, value).unwrap().extents.root, Holds::Extents)),
                Holds::Files => {
                    let Kind::File(file) = Entry::decode(value).unwrap().kind else { continue };
                    match file.content {
                        Content::Extents(extents) => blobs.extend(extents.iter().map(|extent| extent.blob)),
                        Content::Table(table) => waiting.push((table.root, Holds::Extents)),
                    }
                }
            }
        }
    }
}

/// All numbers, worked out from the sets of blobs.
async fn model(repo: &Repository) -> Space {
    let (mut sets, mut points, mut pages) = (BTreeMap::new(), Vec::new(), BTreeSet::new());
    for entry in repo.points().await.unwrap() {
        let point = entry.point.unwrap();
        let mut blobs = BTreeSet::new();
        for table in [point.objects, point.ledger].into_iter().flatten() {
            collect(repo, table, Holds::Nothing, &mut blobs, &mut pages).await;
        }
        for root in &point.roots {
            let holds = match root.kind {
                RootKind::Tree => Holds::Files,
                RootKind::Volume => Holds::Segments,
                RootKind::Stream => Holds::Extents,
            };
            collect(repo, root.table, holds, &mut blobs, &mut pages).await;
        }
        sets.insert(point.id.clone(), blobs);
        points.push(point);
    }
    let lens: BTreeMap<_, _> = repo
        .store()
        .list("domains/default/packs/")
        .await
        .unwrap()
        .into_iter()
        .map(|object| (object.name.rsplit('/').next().unwrap().to_owned(), object.size))
        .collect();
    let all: BTreeSet<BlobRef> = sets.values().flatten().copied().collect();
    let stored = |blobs: &mut dyn Iterator<Item = &BlobRef>| blobs.map(|blob| u64::from(blob.stored_len)).sum::<u64>();
    let in_pack = |pack: &str| all.iter().filter(|blob| blob.pack.to_string() == pack).collect::<Vec<_>>();
    points.sort_by_key(|point| (point.created, point.id.clone()));
    let of_point = |point: &RecoveryPoint| {
        let own = &sets[&point.id];
        let others: BTreeSet<_> = sets.iter().filter(|(id, _)| **id != point.id).flat_map(|(_, set)| set).collect();
        let freed = lens.iter().filter(|(pack, _)| {
            let needed = in_pack(pack);
            !needed.is_empty() && needed.iter().all(|blob| !others.contains(blob))
        });
        accounting::PointSpace {
            id: point.id.clone(),
            created: point.created,
            source_bytes: point.stats.bytes,
            reachable_bytes: stored(&mut own.iter()),
            unique_bytes: stored(&mut own.iter().filter(|blob| !others.contains(blob))),
            freed_bytes: freed.map(|(_, len)| len).sum(),
        }
    };
    let objects = repo.store().list("").await.unwrap();
    let objects: Vec<_> = objects.iter().filter(|object| !object.name.starts_with("probes/")).collect();
    let unused: Vec<_> = lens.iter().filter(|(pack, _)| in_pack(pack).is_empty()).collect();
    // A pack has 40 + 20 bytes of header and trailer, a directory of 4 + 45 bytes an entry, and its tag of 16.
    let dead = lens.iter().filter(|(pack, _)| !in_pack(pack).is_empty()).map(|(pack, len)| {
        let needed = in_pack(pack);
        len - 80 - 45 * needed.len() as u64 - stored(&mut needed.into_iter())
    });
    let repository = accounting::RepositorySpace {
        objects: objects.len() as u64,
        bytes: objects.iter().map(|object| object.size).sum(),
        packs: lens.len() as u64,
        pack_bytes: lens.values().sum(),
        blobs: all.len() as u64,
        plain_bytes: all.iter().map(|blob| u64::from(blob.plain_len)).sum(),
        stored_bytes: stored(&mut all.iter()),
        source_bytes: points.iter().map(|point| point.stats.bytes).sum(),
        unused_packs: unused.len() as u64,
        unused_pack_bytes: unused.iter().map(|(_, len)| **len).sum(),
        dead_bytes: dead.sum(),
        missing_bytes: 0,
    };
    Space { points: points.iter().map(of_point).collect(), repository, pages_read: pages.len() as u64 }
}

/// Bytes that compress to about half, told apart by a number.
fn text(random: &mut StdRng) -> Vec<u8> {
    let len = random.random_range(1..600);
    let mut bytes = vec![b'x'; len];
    random.fill(&mut bytes[..len / 2]);
    bytes
}

/// One repository of a random history: trees with parents and without, volumes, runs that died, points that were forgotten.
async fn history(seed: u64, store: repository::Store) -> Repository {
    let mut random = StdRng::seed_from_u64(seed);
    let repo = fixture::create(store).await;
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    std::fs::write(&image, vec![0; 1 << 20]).unwrap();
    let (mut files, mut stored) = (Contents::new(), None::<Stored>);
    for index in 0..random.random_range(1..9) {
        for _ in 0..random.random_range(0..6) {
            let spread = if random.random_range(0..4) == 0 { fixture::SPREAD } else { "" };
            let content = text(&mut random);
            files.insert(format!("{spread}{}", random.random_range(0..40)), content);
        }
        if random.random_range(0..3) == 0 {
            files.pop_first();
        }
        // Enough entries for inner pages.
        if random.random_range(0..4) == 0 {
            for number in 0..400 {
                files.insert(format!("many-{number:03}-{}", "n".repeat(200)), vec![b'm']);
            }
        }
        let writer = repo.writer(&point_id(&format!("p{index}"))).await.unwrap();
        let parent = stored.as_ref().filter(|_| random.random_range(0..4) > 0);
        let now = fixture::store_contents(&writer, &files, parent).await.unwrap();
        let mut point = fixture::point_of(&format!("p{index}"), now.table, writer.session(), Vec::new());
        if random.random_range(0..2) == 0 {
            write_somewhere(&image, &mut random);
            let options = volume::BackupOptions::default();
            let summary = volume::backup(&writer, &image, &options, Arc::new(NoProgress)).await.unwrap();
            let root =
                Root { name: "disk".to_owned(), kind: RootKind::Volume, table: summary.root, ..point.roots[0].clone() };
            point.roots.push(root);
        }
        if random.random_range(0..3) == 0 {
            let mut ledger = repository::table::Builder::new(&writer);
            for entry in 0..random.random_range(0..3u8) {
                ledger.push(&[entry], b"stored").await.unwrap();
            }
            point.ledger = Some(ledger.finish().await.unwrap());
        }
        point.packs = writer.finish().await.unwrap().packs;
        point.created = repository_time(random.random_range(0..1000));
        point.stats.bytes = random.random_range(0..1_000_000);
        // A run that dies before it publishes leaves packs; so does what is forgotten.
        if random.random_range(0..5) > 0 {
            repo.publish(&point).await.unwrap();
        }
        if random.random_range(0..5) == 0 {
            repo.forget(&point_id(&format!("p{}", random.random_range(0..=index)))).await.unwrap();
        }
        stored = Some(now);
    }
    repo
}

fn repository_time(second: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_second(1_790_000_000 + second).unwrap()
}

fn write_somewhere(image: &std::path::Path, random: &mut StdRng) {
    let mut bytes = std::fs::read(image).unwrap();
    let at = random.random_range(0..15usize) << 16;
    random.fill(&mut bytes[at..at + (1 << 16)]);
    std::fs::write(image, bytes).unwrap();
}

/// 40 histories; `ORLOP_SEED` runs that one alone.
#[tokio::test]
async fn numbers_agree_with_the_sets_of_blobs() {
    let seeds = std::env::var("ORLOP_SEED").map_or(0..40, |seed| {
        let seed = seed.parse().unwrap();
        seed..seed + 1
    });
    let mut shared = 0;
    for seed in seeds {
        let repo = history(seed, memory()).await;
        let space = accounting::measure(&repo).await.unwrap();
        assert_eq!(space, model(&repo).await, "ORLOP_SEED={seed}");
        shared += space.points.iter().filter(|point| point.shared_bytes() > 0 && point.unique_bytes > 0).count();
    }
    assert!(shared > 10 || std::env::var("ORLOP_SEED").is_ok(), "the histories share nothing: {shared}");
}

/// Forgetting a point and measuring again shows what was said before.
#[tokio::test]
async fn what_a_point_would_free_is_freed_by_forgetting_it() {
    let mut freed = 0;
    for seed in 100..115 {
        let repo = history(seed, memory()).await;
        let before = accounting::measure(&repo).await.unwrap();
        let Some(point) = before.points.iter().max_by_key(|point| point.freed_bytes) else { continue };
        repo.forget(&point.id).await.unwrap();
        let after = accounting::measure(&repo).await.unwrap().repository;
        let said = (point.unique_bytes, point.freed_bytes);
        let found = (
            before.repository.stored_bytes - after.stored_bytes,
            after.unused_pack_bytes - before.repository.unused_pack_bytes,
        );
        assert_eq!(found, said, "seed {seed}");
        freed += point.freed_bytes;
    }
    assert!(freed > 0);
}

/// Ten points that share everything cost as many reads as one.
#[tokio::test]
async fn a_page_that_many_points_share_is_read_once() {
    let reads = Arc::new(AtomicU64::new(0));
    let counted = reads.clone();
    let faulty = Faulty::new(memory(), move |_, request| {
        counted.fetch_add(u64::from(request == crate::faults::Request::Read), Ordering::SeqCst);
        Fault::None
    });
    let repo = fixture::create(faulty.store(EAGER)).await;
    let files: Contents = (0..1000).map(|n| (format!("{n:04}-{}", "n".repeat(200)), vec![b'm'])).collect();
    let stored = fixture::publish(&repo, "p0", &files, None).await.unwrap();
    let cost = async |points: u64| {
        let before = reads.load(Ordering::SeqCst);
        let space = accounting::measure(&repo).await.unwrap();
        // Each point is an object that is read; the rest is the length of the configuration, and pages.
        (space.pages_read, reads.load(Ordering::SeqCst) - before - points)
    };
    let one = cost(1).await;
    assert!(one.0 > 3, "{one:?}");
    let session = repo.point(&point_id("p0")).await.unwrap().sessions[0];
    for index in 1..10 {
        repo.publish(&fixture::point_of(&format!("p{index}"), stored.table, session, Vec::new())).await.unwrap();
    }
    assert_eq!(cost(10).await, one);
}

#[tokio::test]
async fn what_cannot_be_read_is_an_error_and_no_guess() {
    let book = OpenBook::default();
    let repo = fixture::create(book.store()).await;
    fixture::publish(&repo, "a", &contents(&[("x", "1")]), None).await.unwrap();
    fixture::publish(&repo, "b", &contents(&[("x", "2")]), None).await.unwrap();
    let point = book.swap("domains/default/points/a", Some(bytes::Bytes::from_static(b"ORLOPPNT"))).unwrap();
    assert_eq!(accounting::measure(&repo).await.unwrap_err().kind(), ErrorKind::Damaged);
    book.swap("domains/default/points/a", Some(point));
    let pack = repo.point(&point_id("a")).await.unwrap().packs[0];
    let name = book.names().into_iter().find(|name| name.ends_with(&pack.id.to_string())).unwrap();
    book.swap(&name, None);
    let error = accounting::measure(&repo).await.unwrap_err();
    assert_eq!((error.kind(), error.to_string().contains(&name)), (ErrorKind::Damaged, true), "{error}");
}

#[tokio::test]
async fn an_empty_repository_takes_no_space_in_packs() {
    let space = accounting::measure(&fixture::create(memory()).await).await.unwrap();
    assert_eq!((space.points.len(), space.repository.objects, space.repository.packs), (0, 3, 0));
    assert_eq!((space.repository.compression(), space.repository.deduplication()), (None, None));
}

/// A pack is gone, and its blobs are in another one: that is then needed, and nothing is missing.
#[tokio::test]
async fn what_was_moved_counts_where_it_is() {
    let book = OpenBook::default();
    let repo = fixture::create(book.store()).await;
    let files = contents(&[("x", "1"), ("y", "2")]);
    let stored = fixture::publish(&repo, "a", &files, None).await.unwrap();
    let before = accounting::measure(&repo).await.unwrap();
    let gone = repo.point(&point_id("a")).await.unwrap().packs[0].id.to_string();
    // The same blobs, in a pack that no recovery point names.
    let writer = repo.writer(&point_id("moved")).await.unwrap();
    for blob in stored.blobs.values() {
        writer.put_blob(BlobKind::Data, repo.read_blob(blob).await.unwrap()).await.unwrap();
    }
    assert_eq!(stored.table.height, 0, "the root is the only page");
    writer.put_blob(BlobKind::Page, repo.read_blob(&stored.table.root).await.unwrap()).await.unwrap();
    writer.finish().await.unwrap();
    let name = book.names().into_iter().find(|name| name.ends_with(&gone)).unwrap();
    let pack = book.swap(&name, None);
    let after = accounting::measure(&repo).await.unwrap();
    assert_eq!(after.points, before.points);
    assert_eq!((after.repository.unused_packs, after.repository.missing_bytes), (0, 0));
    // Without the other pack, data is missing; it is counted, since no page is.
    book.swap(&name, pack);
    let data = repository_with_data_in_a_pack_of_its_own(&repo).await;
    let name = book.names().into_iter().find(|name| name.ends_with(&data)).unwrap();
    book.swap(&name, None);
    // What is known of the index is kept for a while; another program would look anew.
    let reopened = Repository::open(book.store(), &fixture::passphrase()).await.unwrap();
    assert!(accounting::measure(&reopened).await.unwrap().repository.missing_bytes > 0);
}

/// Publishes a point whose data lies in another pack than its pages; gives the pack of the data.
async fn repository_with_data_in_a_pack_of_its_own(repo: &Repository) -> String {
    let files = contents(&[("z", "only here")]);
    let first = repo.writer(&point_id("z")).await.unwrap();
    let stored = fixture::store_contents(&first, &files, None).await.unwrap();
    first.finish().await.unwrap();
    // Another table that refers to the same blob.
    let second = repo.writer(&point_id("z")).await.unwrap();
    let more = contents(&[("z", "only here"), ("zz", "more")]);
    let again = fixture::store_contents(&second, &more, Some(&stored)).await.unwrap();
    let written = second.finish().await.unwrap();
    repo.publish(&fixture::point("z", again.table, &written)).await.unwrap();
    stored.blobs["z"].pack.to_string()
}
