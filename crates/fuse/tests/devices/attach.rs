//! Attaching and detaching.

use crate::support::{Cleared, Mounted, direct, good, image, make, output, require, server, unique};
use block::testing::{Later, Memory, random_bytes, seed};
use block::{BlockSizes, Buffer, Device};
use fuse::{AttachError, DetachError, Host, User};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::fs;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;

const SIZE: usize = 32 << 20;

/// Detaches when a test fails, so that no block device is left that answers with errors.
struct Attached<'a>(&'a Host, String);

impl Drop for Attached<'_> {
    fn drop(&mut self) {
        let _ = self.0.detach(&self.1);
    }
}

fn sys(device: &Path, file: &str) -> String {
    let name = device.file_name().unwrap().to_str().unwrap();
    fs::read_to_string(format!("/sys/block/{name}/{file}")).unwrap().trim().to_owned()
}

#[test]
fn a_device_is_a_block_device_until_it_is_detached() {
    require!();
    let (host, name) = (Host::new(None), unique("whole"));
    let memory = Arc::new(Memory::writable(&vec![0; SIZE]));
    let path = host.attach(&name, memory.clone()).unwrap();
    let _guard = Attached(&host, name.clone());
    assert_eq!(host.attach(&name, memory.clone()).unwrap(), path, "it is attached already");
    assert_eq!(host.attached(), [(name.clone(), path.clone())]);
    assert_eq!(sys(&path, "queue/logical_block_size"), "4096");
    assert_eq!(sys(&path, "size"), (SIZE / 512).to_string());
    assert_eq!(sys(&path, "loop/dio"), "1");
    assert_eq!(sys(&path, "ro"), "0");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(" - fuse orlop "), "the mount is seen: {mounts}");
    write_and_compare(&path, &memory);
    host.detach(&name).unwrap();
    assert!(!Path::new("/sys/block").join(path.file_name().unwrap()).join("loop").exists(), "it is bound still");
    host.detach(&name).unwrap();
    // And again: nothing was left that hinders.
    let again = host.attach(&name, memory).unwrap();
    assert_eq!(sys(&again, "size"), (SIZE / 512).to_string());
}

#[test]
fn a_device_that_takes_its_time_serves_all_the_same() {
    require!();
    let (host, name) = (Host::new(None), unique("later"));
    let memory = Arc::new(Memory::writable(&vec![0; SIZE]));
    let path = host.attach(&name, Arc::new(Later::new(memory.clone(), 3))).unwrap();
    let _guard = Attached(&host, name.clone());
    write_and_compare(&path, &memory);
}

/// Writes here and there, from several threads; then the block device and the memory are the same.
fn write_and_compare(path: &Path, memory: &Memory) {
    let seed = seed();
    std::thread::scope(|scope| {
        for lane in 0..4_u64 {
            scope.spawn(move || {
                let mut random = StdRng::seed_from_u64(seed + lane);
                let file = direct(path);
                for _ in 0..40 {
                    let len = 4096 << random.random_range(0..8);
                    let at = random.random_range(0..(SIZE as u64 / 4 - len) / 4096) * 4096 + lane * SIZE as u64 / 4;
                    let bytes = Buffer::copy_of(&random_bytes(&mut random, len as usize));
                    file.write_all_at(&bytes, at).unwrap();
                    let mut back = Buffer::zeroed(len as usize);
                    file.read_exact_at(&mut back, at).unwrap();
                    assert!(back[..] == bytes[..], "{len} bytes at {at} differ");
                }
            });
        }
    });
    let mut whole = Buffer::zeroed(SIZE);
    direct(path).read_exact_at(&mut whole, 0).unwrap();
    assert!(whole[..] == memory.bytes(), "the block device and its memory differ");
}

#[test]
fn who_uses_a_device_is_named_and_keeps_it() {
    require!("mkfs.ext4");
    let (host, name) = (Host::new(None), unique("used"));
    let path = host.attach(&name, Arc::new(Memory::writable(&vec![0; SIZE]))).unwrap();
    let _guard = Attached(&host, name.clone());
    let script = "exec 3<\"$0\"; echo open; read line";
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(&path).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut said = [0; 5];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut said).unwrap();
    let users = in_use(&host, &name);
    assert_eq!(users, [User::Open { process: child.id(), command: "sh".into() }]);
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    child.wait().unwrap();

    make("ext4", &path);
    let folder = tempfile::tempdir().unwrap();
    let mounted = Mounted::new(&path, folder.path().join("a mount"));
    let at = mounted.0.canonicalize().unwrap();
    let users = in_use(&host, &name);
    assert!(matches!(&users[..], [User::Mounted { at: found, .. }] if *found == at), "{users:?}");
    // It serves on.
    fs::write(mounted.0.join("file"), "still").unwrap();
    good("sync", &["-f", mounted.path()]);
    mounted.unmount();
    host.detach(&name).unwrap();
}

fn in_use(host: &Host, name: &str) -> Vec<User> {
    match host.detach(name) {
        Err(DetachError::InUse { users, .. }) => users,
        other => panic!("it is in use, and yet: {other:?}"),
    }
}

#[test]
fn a_flush_reaches_the_device_only_when_there_is_something_to_make_durable() {
    require!();
    let (host, name) = (Host::new(None), unique("flush"));
    let memory = Arc::new(Memory::writable(&vec![0; SIZE]));
    let path = host.attach(&name, memory.clone()).unwrap();
    let _guard = Attached(&host, name.clone());
    let file = direct(&path);
    // The first makes durable what an earlier process may have written.
    file.sync_all().unwrap();
    let flushes = || memory.flushes.load(Ordering::SeqCst);
    let begun = flushes();
    for _ in 0..20 {
        file.sync_all().unwrap();
    }
    assert_eq!(flushes(), begun, "nothing was written");
    for round in 1..=5 {
        file.write_all_at(&Buffer::zeroed(8192), round as u64 * 8192).unwrap();
        file.sync_all().unwrap();
        file.sync_all().unwrap();
        assert_eq!(flushes(), begun + round);
    }
}

#[test]
fn what_is_discarded_or_zeroed_is_zeros_in_the_device() {
    require!("blkdiscard");
    let (host, name) = (Host::new(None), unique("holes"));
    let memory = Arc::new(Memory::writable(&vec![7; SIZE]));
    let path = host.attach(&name, memory.clone()).unwrap();
    let _guard = Attached(&host, name.clone());
    let path = path.to_str().unwrap();
    good("blkdiscard", &["-o", "1048576", "-l", "4194304", path]);
    good("blkdiscard", &["-z", "-o", "16777216", "-l", "8388608", path]);
    let bytes = memory.bytes();
    for (range, byte) in
        [(0..1 << 20, 7), (1 << 20..5 << 20, 0), (5 << 20..16 << 20, 7), (16 << 20..24 << 20, 0), (24 << 20..SIZE, 7)]
    {
        assert!(bytes[range.clone()].iter().all(|found| *found == byte), "{range:?} is not {byte}");
    }
}

#[test]
fn a_block_that_cannot_be_read_is_an_error_of_its_own() {
    require!();
    let (host, name) = (Host::new(None), unique("bad"));
    let mut memory = Memory::writable(&vec![7; SIZE]);
    memory.bad = Some(1 << 20);
    let path = host.attach(&name, Arc::new(memory)).unwrap();
    let _guard = Attached(&host, name.clone());
    let file = direct(&path);
    let mut page = Buffer::zeroed(4096);
    assert_eq!(file.read_exact_at(&mut page, 1 << 20).unwrap_err().raw_os_error(), Some(5));
    file.read_exact_at(&mut page, (1 << 20) + 4096).unwrap();
    assert_eq!(page[..], [7; 4096]);
}

#[test]
fn a_device_that_is_only_read_is_so_for_the_kernel_too() {
    require!();
    let (host, name) = (Host::new(None), unique("read"));
    let path = host.attach(&name, Arc::new(Memory::new(&vec![7; SIZE]))).unwrap();
    let _guard = Attached(&host, name.clone());
    assert_eq!(sys(&path, "ro"), "1");
    let written =
        output("dd", &["if=/dev/zero", &format!("of={}", path.display()), "bs=4096", "count=1", "conv=fsync"]);
    assert!(!written.status.success());
    let mut page = [0; 4096];
    fs::File::open(&path).unwrap().read_exact_at(&mut page, 0).unwrap();
    assert_eq!(page, [7; 4096]);
}

#[test]
fn what_cannot_be_a_block_device_is_refused_and_nothing_is_left() {
    require!();
    let host = Host::new(None);
    let device = |size: usize, blocks| -> Arc<dyn Device> {
        let mut memory = Memory::writable(&vec![0; size]);
        memory.blocks = blocks;
        Arc::new(memory)
    };
    let strange = BlockSizes { minimum: 8192, preferred: 8192, maximum: 1 << 20 };
    for (size, blocks) in [(0, BlockSizes::ASSUMED), (5000, BlockSizes::ASSUMED), (SIZE, strange)] {
        let refused = host.attach(&unique("shape"), device(size, blocks));
        assert!(matches!(refused, Err(AttachError::Shape { .. })), "{size}: {refused:?}");
    }
    for name in ["", "a\0b", &"n".repeat(58)] {
        let refused = host.attach(name, device(SIZE, BlockSizes::ASSUMED));
        assert!(matches!(refused, Err(AttachError::Name(_))), "{name:?}: {refused:?}");
        host.detach(name).unwrap();
    }
    assert!(host.attached().is_empty());
}

#[test]
fn what_a_server_without_a_keeper_has_left_is_cleared_when_nobody_uses_it() {
    require!();
    let folder = tempfile::tempdir().unwrap();
    let (file, name) = (image(folder.path(), SIZE as u64), unique("left"));
    let _cleared = Cleared(name.clone());
    let (process, path) = server(&name, &file, "-", "now");
    let opened = fs::File::open(&path).unwrap();
    process.kill();
    let mut page = [0; 4096];
    assert_eq!(opened.read_exact_at(&mut page, 1 << 20).unwrap_err().raw_os_error(), Some(5), "nobody serves it");
    let host = Host::new(None);
    let memory: Arc<dyn Device> = Arc::new(Memory::writable(&vec![7; SIZE]));
    match host.attach(&name, memory.clone()) {
        Err(AttachError::Left { path: left, users, .. }) => {
            assert_eq!(left, path);
            assert!(matches!(users[..], [User::Open { process, .. }] if process == std::process::id()), "{users:?}");
        }
        other => panic!("{other:?}"),
    }
    drop(opened);
    let again = host.attach(&name, memory).unwrap();
    let _guard = Attached(&host, name.clone());
    fs::File::open(again).unwrap().read_exact_at(&mut page, 1 << 20).unwrap();
    assert_eq!(page, [7; 4096]);
}
