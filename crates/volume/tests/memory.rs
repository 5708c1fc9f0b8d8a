//! The memory that a large map takes; alone in its process, because the peak is that of the process.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may end anywhere, and looks at its process")]

use rustix::fs::FallocateFlags;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, mpsc};
use volume::{BLOCK, Buffer, Disk, Error, FileDisk, Options, Pool, Shape};

/// Bytes of the volume, all of which is mapped: its map is 100 MiB.
const MAPPED: u64 = 25 << 30;
/// What is wanted: 64 MiB, and as much for each TiB that is mapped.
const MOST_KIB: u64 = (64 << 10) + (MAPPED >> 20) * (64 << 10) / (1 << 20);
/// What opening may take beside what the program itself takes: the log, of 64 MiB, is not read into memory as a whole.
const MOST_TO_OPEN_KIB: u64 = 16 << 10;
const TEST: &str = "a_large_map_is_used_in_bounded_memory";
/// Names the pool, to the process that uses it, and what it is to do.
const POOL: &str = "ORLOP_MEMORY_POOL";
const WORK: &str = "ORLOP_MEMORY_WORK";

/// Zeros take no room in it: maps are no zeros, and are kept.
struct Hollow {
    disk: FileDisk,
    holes: File,
}

impl Disk for Hollow {
    fn bytes(&self) -> io::Result<u64> {
        self.disk.bytes()
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.disk.read(offset, into)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if bytes.iter().any(|byte| *byte != 0) {
            return self.disk.write(offset, bytes);
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(rustix::fs::fallocate(&self.holes, flags, offset, bytes.len() as u64)?)
    }

    fn flush(&self) -> io::Result<()> {
        self.disk.flush()
    }

    fn unit(&self) -> u32 {
        self.disk.unit()
    }

    fn is_in_memory(&self) -> bool {
        self.disk.is_in_memory()
    }
}

fn status_kib(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn wait(ask: impl FnOnce(Box<dyn FnOnce(Result<(), Error>) + Send>)) {
    let (sender, receiver) = mpsc::channel();
    ask(Box::new(move |result| drop(sender.send(result))));
    receiver.recv().unwrap().unwrap();
}

/// Opens a pool, maps all of a volume, and then changes blocks all over it.
fn map(path: &Path) {
    drop(FileDisk::create(path, MAPPED + (3 << 30)).unwrap());
    let holes = OpenOptions::new().write(true).open(path).unwrap();
    let disk = Hollow { disk: FileDisk::open(path).unwrap(), holes };
    volume::create(&disk, Shape { id: [5; 16], log_blocks: None, most_changed_nodes: None }).unwrap();
    let pool: Pool = Pool::open(Arc::new(disk), Options::default(), Box::new(|_| {})).unwrap();
    let blocks = MAPPED / BLOCK as u64;
    let volume = pool.create_volume("v", blocks).unwrap();
    let before = status_kib("VmRSS:");
    for start in (0..blocks).step_by(512) {
        wait(|done| pool.write(volume, start, Buffer::zeroed(512 * BLOCK), false, done));
    }
    let filled = status_kib("VmHWM:");
    let mut random = 13_u64;
    for _ in 0..60_000 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        wait(|done| pool.write(volume, (random >> 33) % blocks, Buffer::zeroed(BLOCK), false, done));
    }
    let (peak, counts) = (status_kib("VmHWM:"), pool.counts());
    println!("before {before} KiB, filled {filled} KiB, peak {peak} KiB of {MOST_KIB}; {counts:?}");
    assert!(counts.node_reads > 20_000 && counts.checkpoints > 20, "the map is larger than its cache: {counts:?}");
    assert!(peak <= MOST_KIB, "{peak} KiB, and {MOST_KIB} are wanted");
    // Changes that the next opening finds in the log.
    for start in 0..6000 {
        wait(|done| pool.write(volume, start, Buffer::zeroed(BLOCK), false, done));
    }
}

/// Opens it again, as it was left by a process that was killed.
fn reopen(path: &Path) {
    let holes = OpenOptions::new().write(true).open(path).unwrap();
    let disk = Hollow { disk: FileDisk::open(path).unwrap(), holes };
    let logged = volume::dump(&disk).unwrap().lines().filter(|line| line.starts_with("logged")).count();
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = status_kib("VmRSS:");
    let pool: Pool = Pool::open(Arc::new(disk), Options::default(), Box::new(|_| {})).unwrap();
    let peak = status_kib("VmHWM:");
    println!("{logged} changes in the log; before {before} KiB, peak {peak} KiB");
    assert!(logged > 0, "the log has nothing to be read for");
    let nodes = pool.counts().node_reads * 4;
    assert!(peak <= before + nodes + MOST_TO_OPEN_KIB, "{peak} KiB, {before} before, and {nodes} of maps");
}

/// In a process of its own, in memory if there is a GiB of it, which is not counted as the process's; with one arena, as the program gives itself.
#[test]
fn a_large_map_is_used_in_bounded_memory() {
    if let Some(path) = std::env::var_os(POOL).map(PathBuf::from) {
        return if std::env::var_os(WORK).is_some_and(|work| work == "map") { map(&path) } else { reopen(&path) };
    }
    let memory = Path::new("/dev/shm");
    let is_roomy = rustix::fs::statvfs(memory).is_ok_and(|found| found.f_bavail * found.f_frsize >= 1 << 30);
    let folder = if is_roomy { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
    for work in ["map", "reopen"] {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", TEST, "--nocapture"]).env("MALLOC_ARENA_MAX", "1");
        let status = child.env(POOL, folder.path().join("pool")).env(WORK, work).status().unwrap();
        assert!(status.success(), "{work}: {status}");
    }
}
