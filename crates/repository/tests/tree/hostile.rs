//! Trees that a hostile repository could hold: nothing outside of the target is touched, and nothing panics.

use std::fs;
use std::os::unix::fs::symlink;

use proptest::prelude::*;
use repository::table::Builder;
use repository::tree::entry::{Attributes, Content, Entry, Extent, File, Kind, Time, Xattr};
use repository::tree::{self, RestoreOptions, TreePath};
use repository::{BlobId, BlobRef, PackId, TableRef, WriterId};

use super::support::*;

fn entry(kind: Kind) -> Entry {
    Entry { attributes: Attributes { mode: 0o644, ..Attributes::default() }, kind }
}

fn directory() -> Entry {
    let attributes = Attributes { mode: 0o755, ..Attributes::default() };
    Entry { attributes, kind: Kind::Directory }
}

fn file(size: u64, extents: Vec<Extent>) -> Entry {
    entry(Kind::File(File { size, settled: true, content: Content::Extents(extents) }))
}

fn link(target: &str) -> Entry {
    entry(Kind::Symlink { target: target.as_bytes().to_vec() })
}

async fn table(world: &World, entries: &[(&[u8], Entry)]) -> TableRef {
    let writer = world.repository.writer(&"scratch".parse().unwrap()).await.unwrap();
    let mut table = Builder::new(&writer);
    for (key, entry) in entries {
        table.push(key, &entry.encode()).await.unwrap();
    }
    let root = table.finish().await.unwrap();
    writer.finish().await.unwrap();
    root
}

#[tokio::test(flavor = "multi_thread")]
async fn trees_that_break_the_rules_are_refused() {
    let world = World::new().await;
    let outside = world.path("outside");
    fs::create_dir(&outside).unwrap();
    let to_outside = outside.to_str().unwrap();
    let check = async |what: &str, entries: &[(&[u8], Entry)]| {
        let root = table(&world, entries).await;
        let target = world.path(what);
        let options = RestoreOptions::default();
        let progress = std::sync::Arc::new(repository::NoProgress);
        let restored = tree::restore(&world.repository, &root, &target, &options, progress.clone()).await;
        assert!(matches!(restored, Err(tree::Error::Damaged { .. })), "{what}: {restored:?}");
        let verified = tree::verify(&world.repository, &root, None, &Default::default(), progress).await;
        assert!(verified.is_err(), "{what}: {verified:?}");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "{what}");
    };
    check("dotdot", &[(b"", directory()), (b"..", directory()), (b"..\0outside", directory())]).await;
    check("dotdot-file", &[(b"", directory()), (b"..\0outside\0file", file(0, vec![]))]).await;
    check("slash", &[(b"", directory()), (b"../outside/file", file(0, vec![]))]).await;
    check("through-a-link", &[(b"", directory()), (b"a", link(to_outside)), (b"a\0file", file(0, vec![]))]).await;
    check("no-directory", &[(b"", directory()), (b"a\0file", file(0, vec![]))]).await;
    check("no-top", &[(b"a", file(0, vec![]))]).await;
    check("top-is-a-link", &[(b"", link(to_outside))]).await;
    check("top-is-a-file", &[(b"", file(0, vec![]))]).await;
    let to_later = entry(Kind::HardLink { first: TreePath::root().child(b"b") });
    check("link-forward", &[(b"", directory()), (b"a", to_later)]).await;
    let to_top = entry(Kind::HardLink { first: TreePath::root() });
    check("link-to-top", &[(b"", directory()), (b"a", to_top)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn links_in_the_target_are_replaced_and_not_followed() {
    let world = World::new().await;
    let outside = world.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("precious"), "keep me").unwrap();
    let source = world.source();
    fs::create_dir(source.join("directory")).unwrap();
    fs::write(source.join("directory/precious"), "from the tree").unwrap();
    fs::write(source.join("file"), "from the tree").unwrap();
    let stored = world.backup(None).await;
    let target = world.path("target");
    fs::create_dir(&target).unwrap();
    symlink(&outside, target.join("directory")).unwrap();
    symlink(outside.join("precious"), target.join("file")).unwrap();
    let options = RestoreOptions { replace: true, ..RestoreOptions::default() };
    world.restore_with(&stored.root, "target", &options).await.unwrap();
    assert_same(&source, &target);
    assert_eq!(fs::read_to_string(outside.join("precious")).unwrap(), "keep me");
}

#[tokio::test(flavor = "multi_thread")]
async fn extents_that_lie_wrongly_are_errors() {
    let world = World::new().await;
    let check = async |what: &str, size: u64, places: &[(u64, u32, u32)]| {
        let blob = BlobRef {
            id: BlobId([1; 32]),
            pack: PackId { epoch: 1, writer: WriterId([2; 12]), sequence: 0 },
            offset: 64,
            stored_len: 100,
            plain_len: 80,
        };
        let extent = |&(file_offset, len, blob_offset)| Extent { file_offset, len, blob_offset, blob };
        let entries: [(&[u8], Entry); 2] =
            [(b"", directory()), (b"f", file(size, places.iter().map(extent).collect()))];
        let root = table(&world, &entries).await;
        let progress = std::sync::Arc::new(repository::NoProgress);
        let verified = tree::verify(&world.repository, &root, None, &Default::default(), progress).await;
        assert_eq!(verified.is_ok(), what == "fine", "{what}: {verified:?}");
    };
    check("fine", 100, &[(0, 40, 40), (60, 40, 0)]).await;
    check("beyond the file", 99, &[(0, 40, 40), (60, 40, 0)]).await;
    check("overlapping", 100, &[(0, 61, 0), (60, 40, 0)]).await;
    check("out of order", 100, &[(60, 40, 0), (0, 40, 40)]).await;
    check("beyond the blob", 100, &[(0, 41, 40)]).await;
    check("empty", 100, &[(0, 0, 0)]).await;
    check("overflowing", u64::MAX, &[(u64::MAX - 1, 40, 0)]).await;
}

fn any_entry() -> impl Strategy<Value = Entry> {
    let xattr = (prop::collection::vec(any::<u8>(), 1..20), prop::collection::vec(any::<u8>(), 0..50));
    let xattrs = prop::collection::vec(xattr.prop_map(|(name, value)| Xattr { name, value }), 0..4);
    let time = (any::<i64>(), 0..1_000_000_000_u32).prop_map(|(seconds, nanoseconds)| Time { seconds, nanoseconds });
    let kind = prop_oneof![
        Just(Kind::Directory),
        Just(Kind::Fifo),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(|target| Kind::Symlink { target }),
        Just(Kind::HardLink { first: TreePath::root().child(b"a").child(b"\xff") }),
        (any::<u64>(), any::<bool>())
            .prop_map(|(size, settled)| { Kind::File(File { size, settled, content: Content::Extents(Vec::new()) }) }),
    ];
    let ids = (0..u32::MAX, 0..u32::MAX, any::<u64>());
    (0..0o10000_u32, ids, time.clone(), time, xattrs, kind).prop_map(
        |(mode, (uid, gid, inode), mtime, ctime, xattrs, kind)| {
            let attributes = Attributes { mode, uid, gid, mtime, ctime, inode, xattrs, ..Attributes::default() };
            Entry { attributes, kind }
        },
    )
}

/// To the calls that change an owner, -1 means to leave it as it is; so a restore would give the file its own user.
#[test]
fn an_owner_that_leaves_the_owner_as_it_is_is_refused() {
    let with = |uid, gid| {
        let attributes = Attributes { uid, gid, ..Attributes::default() };
        Entry::decode(&Entry { attributes, kind: Kind::Fifo }.encode())
    };
    assert!(with(u32::MAX - 1, 65_534).is_ok());
    assert!(with(u32::MAX, 0).is_err());
    assert!(with(0, u32::MAX).is_err());
}

/// As a volume on an NFS server, a btrfs and a node with integrity measurement have them.
#[tokio::test(flavor = "multi_thread")]
async fn attributes_that_belong_to_another_file_system_do_not_fail_a_restore() {
    let world = World::new().await;
    let xattr = |name: &str| Xattr { name: name.as_bytes().to_vec(), value: b"value".to_vec() };
    let names =
        ["btrfs.compression", "security.evm", "security.ima", "system.cifs_acl", "system.nfs4_acl", "user.kept"];
    let ours = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let mut entries = [(&b""[..], directory()), (b"file", file(0, vec![]))];
    for (_, entry) in &mut entries {
        (entry.attributes.uid, entry.attributes.gid) = ours;
        entry.attributes.xattrs = names.into_iter().map(xattr).collect();
    }
    let root = table(&world, &entries).await;
    let restored = world.restore(&root, "target").await;
    assert!(restored.failed.is_empty(), "{restored:?}");
    let found = xattrs(&world.path("target/file"));
    assert_eq!(
        found.keys().map(Vec::as_slice).filter(|name| !name.starts_with(b"security.")).collect::<Vec<_>>(),
        [b"user.kept"]
    );
    assert_eq!(world.differences(&root, "target").await, [""; 0]);
}

proptest! {
    #[test]
    fn entries_survive(entry in any_entry()) {
        prop_assert_eq!(Entry::decode(&entry.encode()), Ok(entry));
    }

    #[test]
    fn any_bytes_are_an_entry_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(entry) = Entry::decode(&bytes) {
            prop_assert_eq!(&entry.encode(), &bytes);
        }
    }

    #[test]
    fn a_changed_entry_is_an_entry_or_an_error(entry in any_entry(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = entry.encode();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(entry) = Entry::decode(&bytes) {
            prop_assert_eq!(&entry.encode(), &bytes);
        }
        prop_assert!(Entry::decode(&bytes[..at]).is_err());
    }
}
