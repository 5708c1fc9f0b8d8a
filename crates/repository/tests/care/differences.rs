//! What differs between two recovery points is told, and nothing else.

use crate::support::{IMAGE_LEN, World, noise};
use repository::diff::{self, Changed, FileChange};
use repository::tree::TreePath;
use repository::{RecoveryPoint, Repository};
use std::fs;
use std::os::unix::fs::PermissionsExt;

async fn tree(repo: &Repository, old: &RecoveryPoint, new: &RecoveryPoint) -> Vec<(String, FileChange)> {
    let (old, new) = (old.root("/folder").unwrap().table, new.root("/folder").unwrap().table);
    let mut found = Vec::new();
    let mut tell = |path: &TreePath, change| found.push((path.to_string(), change));
    diff::tree(repo, &old, &new, &TreePath::root(), &mut tell).await.unwrap();
    found.retain(|(path, _)| path != ".");
    found
}

async fn volume(repo: &Repository, old: &RecoveryPoint, new: &RecoveryPoint) -> Vec<(u64, u64)> {
    let mut found = Vec::new();
    let mut tell = |range: std::ops::Range<u64>| found.push((range.start, range.end - range.start));
    let (old, new) = (old.root("disk").unwrap(), new.root("disk").unwrap());
    let summed = diff::volume(repo, old, new, &mut tell).await.unwrap();
    let bytes = found.iter().map(|(_, len)| len).sum::<u64>();
    assert_eq!((summed.bytes, summed.ranges), (bytes, found.len() as u64));
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_told_apart_by_what_differs() {
    let mut world = World::new().await;
    for name in ["same", "mode", "content", "gone", "touched", "kind", "grown"] {
        world.write_file(name, &noise(2000, 1));
    }
    let old = world.backup().await;
    let path = |name: &str| world.path("folder").join(name);
    fs::set_permissions(path("mode"), fs::Permissions::from_mode(0o600)).unwrap();
    // With the time that it had, so that nothing but its bytes differs.
    let time = fs::metadata(path("content")).unwrap().modified().unwrap();
    world.write_file("content", &noise(2000, 2));
    fs::File::options().write(true).open(path("content")).unwrap().set_modified(time).unwrap();
    fs::remove_file(path("gone")).unwrap();
    let later = time + std::time::Duration::from_secs(5);
    fs::File::options().write(true).open(path("touched")).unwrap().set_modified(later).unwrap();
    fs::remove_file(path("kind")).unwrap();
    std::os::unix::fs::symlink("same", path("kind")).unwrap();
    world.write_file("grown", &noise(2001, 1));
    fs::File::options().write(true).open(path("grown")).unwrap().set_modified(time).unwrap();
    world.write_file("new", b"");
    let new = world.backup().await;
    let changed = |kind, content, metadata: &[&'static str]| {
        FileChange::Changed(Changed { kind, content, metadata: metadata.to_vec() })
    };
    let found = tree(&world.repo, &old, &new).await;
    let kind = found.iter().find(|(path, _)| path == "kind").unwrap().1.clone();
    assert!(matches!(kind, FileChange::Changed(Changed { kind: true, content: false, .. })), "{kind:?}");
    let grown = found.iter().find(|(path, _)| path == "grown").unwrap().1.clone();
    assert!(matches!(grown, FileChange::Changed(Changed { kind: false, content: true, .. })), "{grown:?}");
    let expected = [
        ("content", changed(false, true, &[])),
        ("gone", FileChange::Removed),
        ("grown", grown),
        ("kind", kind),
        ("mode", changed(false, false, &["mode"])),
        ("new", FileChange::Added),
        ("touched", changed(false, false, &["mtime"])),
    ];
    assert_eq!(found, expected.map(|(name, change)| (name.to_owned(), change)));
    assert_eq!(tree(&world.repo, &new, &new).await, []);
    let back = tree(&world.repo, &new, &old).await;
    let names = |found: &[(String, FileChange)]| found.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>();
    assert_eq!(names(&back), names(&found));
    assert_eq!(back[1].1, FileChange::Added);
}

/// Ranges of a volume by its bytes: what is stored otherwise and is the same is no difference.
#[tokio::test(flavor = "multi_thread")]
async fn ranges_of_a_volume_are_those_whose_bytes_differ() {
    let mut world = World::new().await;
    world.write_image(0, &noise(1 << 20, 1));
    let first = world.backup().await;
    world.write_image(4096, &noise(8192, 2));
    world.write_image(65536 * 3 + 100, &[1; 10]);
    world.write_image(IMAGE_LEN - 1, &[9]);
    world.write_image(8 << 12, &noise(1 << 20, 1)[8 << 12..9 << 12]);
    let second = world.backup().await;
    let expected = [(4096, 8192), (65536 * 3, 4096), (IMAGE_LEN - 4096, 4096)];
    assert_eq!(volume(&world.repo, &first, &second).await, expected);
    assert_eq!(volume(&world.repo, &second, &first).await, expected);
    assert_eq!(volume(&world.repo, &second, &second).await, []);
    // Back to what it was: the blobs are others, the bytes are not.
    world.write_image(0, &noise(1 << 20, 1));
    world.write_image(IMAGE_LEN - 1, &[0]);
    let third = world.backup().await;
    assert_eq!(volume(&world.repo, &first, &third).await, []);
    assert_eq!(volume(&world.repo, &second, &third).await, expected);
}
