//! Sparse files, large files, many extents.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};

use repository::table;
use repository::tree::entry::{Content, Entry, INLINE_EXTENTS, Kind};

use super::support::*;

const TIB: u64 = 1 << 40;

#[tokio::test(flavor = "multi_thread")]
async fn a_sparse_file_of_a_tebibyte_costs_its_data_only() {
    let world = World::new().await;
    let file = File::create(world.source().join("sparse")).unwrap();
    if let Err(error) = file.set_len(TIB) {
        return skip(&format!("a file of 1 TiB: {error}"));
    }
    file.write_all_at(&noise(5000, 1), 300 << 30).unwrap();
    file.write_all_at(&noise(70_000, 2), TIB - 100_000).unwrap();
    let stored = world.backup(None).await;
    assert_eq!((stored.files, stored.bytes), (1, TIB));
    assert!(stored.new_bytes < 200_000, "{}", stored.new_bytes);
    world.restore(&stored.root, "target").await;
    let restored = File::open(world.path("target/sparse")).unwrap();
    let metadata = restored.metadata().unwrap();
    assert_eq!(metadata.size(), TIB);
    assert!(metadata.blocks() * 512 < 1 << 20, "{} blocks", metadata.blocks());
    let mut found = vec![0; 70_000];
    restored.read_exact_at(&mut found, TIB - 100_000).unwrap();
    assert_eq!(found, noise(70_000, 2));
    assert_eq!(world.differences(&stored.root, "target").await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn holes_and_zeros_are_told_apart_from_data() {
    let world = World::new().await;
    for (name, size) in [("small", 300 << 10), ("large", 8 << 20)] {
        let file = File::create(world.source().join(name)).unwrap();
        file.set_len(size).unwrap();
        file.write_all_at(&noise(4096, size), size / 2).unwrap();
    }
    File::create(world.source().join("only-a-hole")).unwrap().set_len(1 << 30).unwrap();
    let (stored, _) = world.round_trip("target").await;
    // Data where the tree has a hole is found.
    let file = File::options().write(true).open(world.path("target/only-a-hole")).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    file.write_all_at(b"x", 700 << 20).unwrap();
    file.set_modified(modified).unwrap();
    let differences = world.differences(&stored.root, "target").await;
    assert!(differences.len() == 1 && differences[0].contains("where the tree has a hole"), "{differences:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_in_many_pieces_has_a_table_of_extents() {
    let world = World::new().await;
    let pieces = 2 * INLINE_EXTENTS as u64;
    let file = File::create(world.source().join("comb")).unwrap();
    for piece in 0..pieces {
        file.write_all_at(&noise(4096, piece), piece * 16_384).unwrap();
    }
    let (stored, _) = world.round_trip("target").await;
    let reader = table::Reader::new(&world.repository, stored.root);
    let entry = Entry::decode(&reader.get(b"comb").await.unwrap().unwrap()).unwrap();
    let Kind::File(file) = entry.kind else { panic!("{entry:?}") };
    let Content::Table(extents) = file.content else { panic!("its extents are in the entry") };
    assert!(extents.entries >= pieces, "{} extents", extents.entries);
    // Unchanged, it is taken over; touched, its chunks and the pages of its table are found again.
    let again = world.backup(Some(&stored.root)).await;
    assert_eq!((again.unchanged_files, again.root), (1, stored.root));
    let comb = File::options().write(true).open(world.source().join("comb")).unwrap();
    comb.write_all_at(b"y", 100 * 16_384).unwrap();
    let changed = world.backup(Some(&stored.root)).await;
    assert!(changed.new_bytes < 5 << 20 && changed.new_bytes > 0, "{}", changed.new_bytes);
    world.restore(&changed.root, "changed").await;
    assert_same(&world.source(), &world.path("changed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn small_files_share_blobs() {
    let world = World::new().await;
    for index in 0..200 {
        fs::write(world.source().join(format!("{index}")), noise(10_000, index)).unwrap();
    }
    let writer = world.repository.writer(&"scratch".parse().unwrap()).await.unwrap();
    let progress = std::sync::Arc::new(repository::NoProgress);
    let source = world.source();
    repository::tree::backup(&writer, &world.repository, &source, None, &settled(), progress).await.unwrap();
    let stats = writer.finish().await.unwrap().stats;
    // 2 MB in bundles of 1 MiB, and the pages of the table.
    assert!(stats.new_blobs <= 5, "{stats:?}");
}
