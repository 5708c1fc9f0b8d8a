//! Servers that are killed or replaced while their block devices are used.
//!
//! The fault: the process that serves a device is killed by SIGKILL, at any instant, while a file system on it has reads, writes, flushes
//! and discards under way; the keeper, the kernel and the file behind the device live on. Then another process serves it. What must hold:
//! nobody above sees an error, and every byte that was written is there.

use crate::support::{Cleared, Mounted, check, completed, direct, image, keeper, make, require, server, unique};
use block::Buffer;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const SIZE: u64 = 400 << 20;
/// Reads and writes after which the next kill comes, at least: the server has begun again in earnest.
const BETWEEN: u64 = 300;
/// How long a device may do nothing before that is a failure.
const PATIENCE: Duration = Duration::from_secs(120);

/// How often a server is killed in one test; the variable is for a soak test.
fn kills() -> u64 {
    std::env::var("ORLOP_KILLS").map_or(5, |kills| kills.parse().expect("ORLOP_KILLS is a number"))
}

fn load(folder: &Path) -> Child {
    let folder = format!("--directory={}", folder.display());
    let mut command = Command::new("fio");
    command.args(["--name=verify", &folder, "--size=48M", "--numjobs=2", "--rw=randwrite", "--bsrange=4k-1M"]);
    command.args(["--ioengine=libaio", "--direct=1", "--iodepth=16", "--fsync=32", "--loops=4"]);
    command.args([
        "--verify=crc32c",
        "--verify_fatal=1",
        "--do_verify=1",
        "--verify_backlog=64",
        "--verify_state_save=0",
    ]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn survives_kills(kind: &str, how: &str) {
    let folder = tempfile::tempdir().unwrap();
    let (file, name) = (image(folder.path(), SIZE), unique(&format!("{kind}-{how}")));
    let _cleared = Cleared(name.clone());
    let (_keeper, socket) = keeper(folder.path());
    let (mut process, device) = server(&name, &file, &socket, how);
    make(kind, &device);
    let mounted = Mounted::new(&device, folder.path().join("mounted"));
    let (mut killed, wanted) = (0, kills());
    while killed < wanted {
        let mut fio = load(&mounted.0);
        let mut since = completed(&device);
        let mut last = Instant::now();
        while fio.try_wait().unwrap().is_none() {
            assert!(last.elapsed() < PATIENCE, "nothing was read or written after {killed} kills");
            if completed(&device) < since + BETWEEN || killed == wanted {
                std::thread::yield_now();
                continue;
            }
            process.kill();
            let (next, path) = server(&name, &file, &socket, how);
            assert_eq!(path, device, "another block device");
            (process, since, last) = (next, completed(&device), Instant::now());
            killed += 1;
        }
        let output = fio.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "after {killed} kills: {said}");
    }
    mounted.unmount();
    check(kind, &device);
    assert_eq!(process.tell("detach"), "detached");
}

#[test]
fn ext4_on_a_device_in_memory_sees_nothing_of_kills() {
    require!("mkfs.ext4", "fsck.ext4", "fio");
    survives_kills("ext4", "now");
}

#[test]
fn xfs_on_a_device_that_takes_its_time_sees_nothing_of_kills() {
    require!("mkfs.xfs", "xfs_repair", "fio");
    survives_kills("xfs", "later");
}

#[test]
fn what_a_server_had_taken_and_not_answered_is_answered_by_the_next() {
    require!();
    let folder = tempfile::tempdir().unwrap();
    let (file, name) = (image(folder.path(), SIZE), unique("taken"));
    let _cleared = Cleared(name.clone());
    let (_keeper, socket) = keeper(folder.path());
    let (process, device) = server(&name, &file, &socket, "now");
    // The kernel has looked at its partitions; the next server takes requests and answers none.
    process.kill();
    let (process, _) = server(&name, &file, &socket, "never");
    let before = in_flight(&device);
    let bytes = Buffer::copy_of(&[9; 8192]);
    let waits = device.clone();
    let writer = std::thread::spawn(move || direct(&waits).write_all_at(&bytes, 1 << 20));
    let begun = Instant::now();
    while in_flight(&device) == before {
        assert!(begun.elapsed() < PATIENCE, "no write came to the block device");
        std::thread::yield_now();
    }
    process.kill();
    assert!(!writer.is_finished(), "nobody has answered");
    let (mut process, _) = server(&name, &file, &socket, "now");
    writer.join().unwrap().unwrap();
    let mut back = Buffer::zeroed(8192);
    direct(&device).read_exact_at(&mut back, 1 << 20).unwrap();
    assert_eq!(back[..], [9; 8192]);
    assert_eq!(process.tell("detach"), "detached");
}

fn in_flight(device: &Path) -> String {
    let name = device.file_name().unwrap().to_str().unwrap();
    std::fs::read_to_string(format!("/sys/block/{name}/inflight")).unwrap()
}

#[test]
fn a_server_hands_its_device_over_to_the_next() {
    require!();
    let folder = tempfile::tempdir().unwrap();
    let (file, name) = (image(folder.path(), SIZE), unique("handed"));
    let _cleared = Cleared(name.clone());
    let (_keeper, socket) = keeper(folder.path());
    let (mut process, device) = server(&name, &file, &socket, "later");
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let file = direct(&device);
            let mut rounds = 0_u64;
            while !done.load(std::sync::atomic::Ordering::SeqCst) {
                let bytes = Buffer::copy_of(&[rounds as u8; 16384]);
                file.write_all_at(&bytes, rounds % 1000 * 16384).unwrap();
                file.sync_data().unwrap();
                let mut back = Buffer::zeroed(16384);
                file.read_exact_at(&mut back, rounds % 1000 * 16384).unwrap();
                assert!(back[..] == bytes[..]);
                rounds += 1;
            }
            rounds
        });
        for _ in 0..3 {
            let before = completed(&device);
            while completed(&device) < before + 100 {
                std::thread::yield_now();
            }
            assert_eq!(process.tell("hand-over"), "handed over");
            std::mem::replace(&mut process, server(&name, &file, &socket, "later").0).wait();
        }
        done.store(true, std::sync::atomic::Ordering::SeqCst);
        assert!(reader.join().unwrap() > 0);
    });
    assert_eq!(process.tell("detach"), "detached");
}

#[test]
fn two_servers_do_not_serve_one_device() {
    require!();
    let folder = tempfile::tempdir().unwrap();
    let (file, name) = (image(folder.path(), SIZE), unique("two"));
    let _cleared = Cleared(name.clone());
    let (_keeper, socket) = keeper(folder.path());
    let (mut first, _) = server(&name, &file, &socket, "now");
    let keeper = fuse::Keeper::connect(Path::new(&socket)).unwrap();
    let host = fuse::Host::new(Some(keeper));
    let disk = std::sync::Arc::new(block::testing::FileDisk::open(&file).unwrap());
    let process = first.child.id();
    match host.attach(&name, disk) {
        Err(fuse::AttachError::Keeper(fuse::KeeperError::Held { process: found, .. })) => assert_eq!(found, process),
        other => panic!("{other:?}"),
    }
    assert!(matches!(host.detach(&name), Err(fuse::DetachError::Elsewhere(_))));
    assert_eq!(host.kept().unwrap(), std::slice::from_ref(&name));
    assert_eq!(first.tell("detach"), "detached");
    host.detach(&name).unwrap();
}
