//! File systems on block devices, and what their tools say.

use crate::support::{Mounted, check, good, image, make, require, unique};
use block::testing::FileDisk;
use fuse::Host;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

const SIZE: u64 = 400 << 20;

/// The program that writes blocks with checksums in them, and reads them again.
fn verify(folder: &str) {
    let folder = format!("--directory={folder}");
    let words = [
        "--name=verify",
        &folder,
        "--size=40M",
        "--numjobs=2",
        "--rw=randwrite",
        "--bsrange=4k-1M",
        "--ioengine=libaio",
        "--direct=1",
        "--iodepth=16",
        "--fsync=32",
        "--verify=crc32c",
        "--verify_fatal=1",
        "--do_verify=1",
        "--loops=2",
        // It would leave files where the test runs.
        "--verify_state_save=0",
    ];
    good("fio", &words);
}

fn works(kind: &str) {
    let folder = tempfile::tempdir().unwrap();
    let (file, name) = (image(folder.path(), SIZE), unique(kind));
    let host = Host::new(None);
    let disk = Arc::new(FileDisk::open(&file).unwrap());
    let device = host.attach(&name, disk).unwrap();
    make(kind, &device);
    let mounted = Mounted::new(&device, folder.path().join("mounted"));
    verify(mounted.path());
    good("fsfreeze", &["-f", mounted.path()]);
    good("fsfreeze", &["-u", mounted.path()]);
    // What was deleted is trimmed, down to the file. XFS gives up the extents of deleted files in the background, and trims none that its log still
    // holds: only after an unmount is it certain that all of them are free.
    std::fs::remove_file(mounted.0.join("verify.0.0")).unwrap();
    std::fs::remove_file(mounted.0.join("verify.1.0")).unwrap();
    mounted.unmount();
    let mounted = Mounted::new(&device, folder.path().join("mounted"));
    let full = file.metadata().unwrap().blocks();
    good("fstrim", &[mounted.path()]);
    let trimmed = file.metadata().unwrap().blocks();
    assert!(trimmed + (60 << 20) / 512 < full, "{full} sectors before it was trimmed, {trimmed} after");
    mounted.unmount();
    check(kind, &device);
    host.detach(&name).unwrap();
}

#[test]
fn ext4_works_on_it() {
    require!("mkfs.ext4", "fsck.ext4", "fio", "fstrim", "fsfreeze");
    works("ext4");
}

#[test]
fn xfs_works_on_it() {
    require!("mkfs.xfs", "xfs_repair", "fio", "fstrim", "fsfreeze");
    works("xfs");
}
