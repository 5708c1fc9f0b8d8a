//! Every kind of file and every attribute.

use std::fs::{self, File, FileTimes, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use repository::tree::{self, RestoreOptions, TreePath, VerifyOptions};
use repository::{NoProgress, Passphrase, Repository, RetryPolicy, StoreConfig};
use rustix::fs::{CWD, FileType, Gid, Mode, Uid, XattrFlags, makedev, mknodat};
use rustix::thread::CapabilitySet;

use super::support::*;

/// An access control list as the kernel has it: version 2, then entries of tag, permissions and id. It gives user 1234
/// what the group has, under the mask.
fn access_list() -> Vec<u8> {
    let entries: [(u16, u16, u32); 5] = [
        (0x01, 6, u32::MAX), // the owner
        (0x02, 4, 1234),     // a named user
        (0x04, 4, u32::MAX), // the group
        (0x10, 6, u32::MAX), // the mask
        (0x20, 0, u32::MAX), // others
    ];
    let mut list = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        list.extend(tag.to_le_bytes());
        list.extend(permissions.to_le_bytes());
        list.extend(id.to_le_bytes());
    }
    list
}

fn set_xattr(path: &Path, name: &str, value: &[u8]) -> bool {
    match rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()) {
        Ok(()) => true,
        Err(error) => {
            skip(&format!("attribute {name}: {error}"));
            false
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_kinds_come_back() {
    let world = World::new().await;
    let source = world.source();
    fs::write(source.join("empty"), "").unwrap();
    fs::write(source.join("small"), "a few bytes").unwrap();
    fs::write(source.join("large"), noise(3 << 20, 1)).unwrap();
    fs::create_dir_all(source.join("a/b/c")).unwrap();
    fs::write(source.join("a/b/c/inside"), noise(1000, 2)).unwrap();
    symlink("small", source.join("link")).unwrap();
    symlink("/nowhere/at all", source.join("dangling")).unwrap();
    mknodat(CWD, source.join("fifo"), FileType::Fifo, Mode::from_raw_mode(0o640), 0).unwrap();
    let (stored, _) = world.round_trip("target").await;
    assert_eq!((stored.files, stored.directories, stored.others), (4, 4, 3));
    assert_eq!(stored.bytes, 11 + (3 << 20) + 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_bytes() {
    let world = World::new().await;
    let names: [&[u8]; 9] = [
        b" ",
        b"two words",
        b"new\nline",
        b"\xff\xfe",
        b"\x01",
        b"-rf",
        b"back\\slash",
        "größe".as_bytes(),
        &[b'x'; 255],
    ];
    for name in names {
        fs::create_dir(world.source().join(os(name))).unwrap();
        fs::write(world.source().join(os(name)).join(os(name)), name).unwrap();
    }
    let (stored, _) = world.round_trip("target").await;
    assert_eq!(stored.files, names.len() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn modes_and_times_come_back() {
    let world = World::new().await;
    let source = world.source();
    let modes = [0o000, 0o400, 0o644, 0o777, 0o1777, 0o2755, 0o4755, 0o6711];
    for mode in modes.into_iter().filter(|mode| is_root() || mode & 0o400 != 0) {
        let path = source.join(format!("file-{mode:o}"));
        fs::write(&path, format!("{mode:o}")).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let directory = source.join(format!("directory-{mode:o}"));
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("inside"), "").unwrap();
        if is_root() || mode & 0o500 == 0o500 {
            fs::set_permissions(&directory, Permissions::from_mode(mode)).unwrap();
        }
    }
    let times = [
        SystemTime::UNIX_EPOCH,
        SystemTime::UNIX_EPOCH + Duration::new(1, 1),
        SystemTime::UNIX_EPOCH + Duration::new(4_102_444_800, 999_999_999),
        SystemTime::UNIX_EPOCH - Duration::new(1_000_000, 5),
    ];
    for (index, time) in times.into_iter().enumerate() {
        let path = source.join(format!("time-{index}"));
        fs::write(&path, "").unwrap();
        File::options().write(true).open(&path).unwrap().set_times(FileTimes::new().set_modified(time)).unwrap();
    }
    File::open(source.join("directory-777")).unwrap().set_modified(times[1]).unwrap();
    File::open(&source).unwrap().set_modified(times[2]).unwrap();
    world.round_trip("target").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hard_links_stay_one_file() {
    let world = World::new().await;
    let source = world.source();
    fs::create_dir(source.join("z")).unwrap();
    for (file, content) in [("m-small", noise(100, 1)), ("m-large", noise(2 << 20, 2))] {
        fs::write(source.join(file), content).unwrap();
        fs::hard_link(source.join(file), source.join(format!("a-{file}"))).unwrap();
        fs::hard_link(source.join(file), source.join(format!("z/{file}"))).unwrap();
    }
    symlink("m-small", source.join("symlink")).unwrap();
    fs::hard_link(source.join("symlink"), source.join("z/symlink")).unwrap();
    let (stored, _) = world.round_trip("target").await;
    assert_eq!((stored.files, stored.bytes), (2, 100 + (2 << 20)));
    // Another name becomes the first; the content is found where the parent has it.
    fs::remove_file(source.join("a-m-large")).unwrap();
    let again = world.backup(Some(&stored.root)).await;
    assert!(again.new_bytes < 64 << 10, "{} new bytes", again.new_bytes);
    world.restore(&again.root, "again").await;
    assert_same(&source, &world.path("again"));
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_a_file_outside_of_the_part_that_is_restored_stay_one_file() {
    let world = World::new().await;
    let source = world.source();
    fs::create_dir_all(source.join("part/deeper")).unwrap();
    fs::write(source.join("a-outside"), "content").unwrap();
    for name in ["part/b", "part/c", "part/deeper/d"] {
        fs::hard_link(source.join("a-outside"), source.join(name)).unwrap();
    }
    let stored = world.backup(None).await;
    let only = Some(TreePath::root().child(b"part"));
    let options = RestoreOptions { only, ..RestoreOptions::default() };
    let restored = world.restore_with(&stored.root, "target", &options).await.unwrap();
    assert_eq!((restored.files, restored.others, restored.failed.count), (1, 2, 0), "{restored:?}");
    assert_same(&source.join("part"), &world.path("target/part"));
}

/// The capabilities that the movers have, and no others; see `mover_pod` of the operator.
#[test]
fn the_capabilities_of_the_movers_suffice() {
    if !is_root() {
        return skip("capabilities: not root");
    }
    let home = tempfile::tempdir().unwrap();
    let of_backup = CapabilitySet::DAC_OVERRIDE;
    let of_restore = of_backup
        | CapabilitySet::CHOWN
        | CapabilitySet::FOWNER
        | CapabilitySet::FSETID
        | CapabilitySet::MKNOD
        | CapabilitySet::SETFCAP;
    let source = home.path().join("source");
    fill_with_every_kind(&source);
    let (store, target) = (home.path().join("store"), home.path().join("target"));
    let repository = async || {
        let store = StoreConfig::FileSystem { path: store.clone() }.open(RetryPolicy::never()).unwrap();
        Repository::open_or_create(store, &Passphrase::new("for tests")).await.unwrap()
    };
    let stored = runtime_with(of_backup).block_on(async {
        let repository = repository().await;
        let writer = repository.writer(&"scratch".parse().unwrap()).await.unwrap();
        let progress = Arc::new(NoProgress);
        let stored = tree::backup(&writer, &repository, &source, None, &settled(), progress).await.unwrap();
        writer.finish().await.unwrap();
        stored
    });
    assert!(stored.is_complete(), "{stored:?}");
    runtime_with(of_restore).block_on(async {
        let (repository, progress) = (repository().await, Arc::new(NoProgress));
        let options = RestoreOptions::default();
        let restored = tree::restore(&repository, &stored.root, &target, &options, progress.clone()).await.unwrap();
        assert!(restored.failed.is_empty(), "{restored:?}");
        let options = VerifyOptions::default();
        let found = tree::verify(&repository, &stored.root, Some(&target), &options, progress).await.unwrap();
        assert!(found.differences.is_empty(), "{found:?}");
    });
    assert_same(&source, &target);
}

/// What a volume may hold, of several owners.
fn fill_with_every_kind(source: &Path) {
    fs::create_dir_all(source.join("directory")).unwrap();
    fs::write(source.join("file"), "content").unwrap();
    fs::write(source.join("directory/secret"), noise(700_000, 1)).unwrap();
    fs::write(source.join("capable"), "a program").unwrap();
    symlink("file", source.join("link")).unwrap();
    fs::hard_link(source.join("file"), source.join("directory/linked")).unwrap();
    let node = |name: &str, kind, device| mknodat(CWD, source.join(name), kind, Mode::from_raw_mode(0o600), device);
    node("fifo", FileType::Fifo, 0).unwrap();
    if let Err(error) = node("null", FileType::CharacterDevice, makedev(1, 3)) {
        skip(&format!("devices: {error}"));
    }
    set_xattr(&source.join("file"), "user.name", b"value");
    set_xattr(&source.join("file"), "system.posix_acl_access", &access_list());
    for (index, name) in ["file", "directory/secret", "directory", "link", "fifo"].into_iter().enumerate() {
        let id = 6_000 + u32::try_from(index).unwrap();
        std::os::unix::fs::lchown(source.join(name), Some(id), Some(id)).unwrap();
    }
    let capability = [&0x0200_0001_u32.to_le_bytes()[..], &[0, 4, 0, 0], &[0; 12]].concat();
    set_xattr(&source.join("capable"), "security.capability", &capability);
    fs::set_permissions(source.join("file"), Permissions::from_mode(0o6711)).unwrap();
    fs::set_permissions(source.join("directory/secret"), Permissions::from_mode(0o000)).unwrap();
    fs::set_permissions(source.join("directory"), Permissions::from_mode(0o2700)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn extended_attributes_and_access_lists_come_back() {
    let world = World::new().await;
    let source = world.source();
    fs::write(source.join("file"), "content").unwrap();
    fs::write(source.join("plain"), "in the directory with the default list").unwrap();
    fs::create_dir(source.join("directory")).unwrap();
    fs::write(source.join("directory/inside"), "").unwrap();
    for path in [source.join("file"), source.join("directory"), source.clone()] {
        set_xattr(&path, "user.empty", b"");
        set_xattr(&path, "user.bytes", &noise(700, 3));
    }
    let listed = set_xattr(&source.join("file"), "system.posix_acl_access", &access_list());
    // Made by the directory's default list, which must not rub off on the restored files.
    set_xattr(&source.join("directory"), "system.posix_acl_default", &access_list());
    fs::write(source.join("directory/inherited"), "").unwrap();
    if is_root() {
        let capability = [&0x0200_0001_u32.to_le_bytes()[..], &[0, 4, 0, 0], &[0; 12]].concat();
        set_xattr(&source.join("plain"), "security.capability", &capability);
        set_xattr(&source.join("plain"), "trusted.orlop", b"value");
    } else {
        skip("attributes of the classes security and trusted: not root");
    }
    world.round_trip("target").await;
    assert_eq!(xattrs(&world.path("target/file")).contains_key(&b"system.posix_acl_access"[..]), listed);
    assert!(!xattrs(&world.path("target/directory/inside")).contains_key(&b"system.posix_acl_access"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn owners_and_devices_come_back() {
    if !is_root() {
        return skip("owners and devices: not root");
    }
    let world = World::new().await;
    let source = world.source();
    fs::write(source.join("file"), "content").unwrap();
    fs::create_dir(source.join("directory")).unwrap();
    symlink("file", source.join("link")).unwrap();
    let node = |name: &str, kind, device| mknodat(CWD, source.join(name), kind, Mode::from_raw_mode(0o600), device);
    if let Err(error) = node("null", FileType::CharacterDevice, makedev(1, 3)) {
        return skip(&format!("devices: {error}"));
    }
    node("loop", FileType::BlockDevice, makedev(7, 4_000)).unwrap();
    node("fifo", FileType::Fifo, 0).unwrap();
    for (index, name) in ["file", "directory", "link", "null", "loop", "fifo"].into_iter().enumerate() {
        let id = 5_000 + u32::try_from(index).unwrap();
        std::os::unix::fs::lchown(source.join(name), Some(id), Some(id + 100)).unwrap();
    }
    // The set-user-id bit must survive the change of the owner.
    fs::set_permissions(source.join("file"), Permissions::from_mode(0o4711)).unwrap();
    rustix::fs::chown(&source, Some(Uid::from_raw(70)), Some(Gid::from_raw(70))).unwrap();
    world.round_trip("target").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_and_an_empty_lost_and_found_are_skipped_by_name() {
    let world = World::new().await;
    let source = world.source();
    let _listening = UnixListener::bind(source.join("socket")).unwrap();
    fs::create_dir(source.join("lost+found")).unwrap();
    fs::create_dir_all(source.join("deeper/lost+found")).unwrap();
    let stored = world.backup(None).await;
    let skipped: Vec<_> = stored.skipped.first.iter().map(|one| one.path.as_str()).collect();
    assert_eq!((stored.skipped.count, skipped), (2, vec!["lost+found", "socket"]));
    assert_eq!((stored.directories, stored.others, stored.is_complete()), (3, 0, true));
    // What is in it was saved by a repair of the file system, and nobody knows yet what it is.
    fs::write(source.join("lost+found/#123"), "found again").unwrap();
    let stored = world.backup(None).await;
    assert_eq!((stored.skipped.count, stored.files), (1, 1));
}
