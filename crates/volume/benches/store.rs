//! What a request costs: random blocks of 4 KiB through a pool in memory, beside the same on the file itself.
//!
//! `cargo bench -p volume`. Figures of one run are to be compared with each other, not with those of another machine.
#![allow(clippy::disallowed_methods, reason = "a benchmark has a clock")]

use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use volume::{BLOCK, Blocks, Buffer, Disk, FileDisk, Options, Pool, Shape, Since, State, VolumeId};

const VOLUME: u64 = 65_536;
const POOL: u64 = 524_288;
const OPERATIONS: u64 = 100_000;
/// Changed leaves before a snapshot: a little less than what makes a pool of this size take a checkpoint by itself.
const LEAVES: u64 = 1900;

struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// Nanoseconds that this thread has been on a processor: what is left of a figure on a machine with other work.
fn processor() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(0)
}

fn timed(what: &str, operations: u64, mut operation: impl FnMut(u64)) -> Duration {
    let (begin, busy) = (Instant::now(), processor());
    (0..operations).for_each(&mut operation);
    let (took, busy) = (begin.elapsed(), Duration::from_nanos(processor() - busy));
    let each = |time: Duration| time.as_secs_f64() * 1e6 / operations as f64;
    println!("{what:44} {:8.2} us each, {:8.2} us of this thread's processor", each(took), each(busy));
    busy
}

fn wait<T: Send + 'static>(ask: impl FnOnce(Box<dyn FnOnce(Result<T, volume::Error>) + Send>)) -> T {
    let (sender, receiver) = mpsc::channel();
    ask(Box::new(move |result| sender.send(result).expect("somebody waits")));
    receiver.recv().expect("it is answered").expect("it is done")
}

fn write(pool: &Pool, volume: VolumeId, start: u64, buffer: Buffer) {
    wait(|done| pool.write(volume, start, buffer, false, done));
}

fn main() {
    let folder = ["/dev/shm", "."].iter().map(Path::new).find(|folder| folder.is_dir()).expect("there is a folder");
    let path = folder.join(format!("bench-store-{}", std::process::id()));
    let result = std::panic::catch_unwind(|| run(&path));
    std::fs::remove_file(&path).expect("remove the pool");
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

fn run(path: &Path) {
    let disk = FileDisk::create(path, POOL * BLOCK as u64).expect("create");
    // All memory of the file is there before anything is measured: who touches it first would pay for it.
    let zeros = Buffer::zeroed(256 * BLOCK);
    (0..POOL / 256).for_each(|i| disk.write(i * zeros.len() as u64, &zeros).expect("write"));
    volume::create(&disk, Shape { id: [1; 16], log_blocks: None, most_changed_nodes: None }).expect("make a pool");
    drop(disk);
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).expect("open");
    let mut random = Random(7);
    let block = vec![3; BLOCK];
    // Behind the pool's data, so that it is only the file that is measured.
    let at = |block: u64| (POOL / 2 + block) * BLOCK as u64;
    timed("file: write", OPERATIONS, |_| file.write_all_at(&block, at(random.below(VOLUME))).expect("write"));
    let mut into = vec![0; BLOCK];
    timed("file: read", OPERATIONS, |_| file.read_exact_at(&mut into, at(random.below(VOLUME))).expect("read"));
    timed("checksum", OPERATIONS, |_| {
        black_box(crc32c::crc32c(black_box(&block)));
    });

    let disk = Arc::new(FileDisk::open(path).expect("open"));
    let pool: Pool = Pool::open(disk, Options::default(), Box::new(|_| {})).expect("open the pool");
    let volume = pool.create_volume("bench", VOLUME).expect("make a volume");
    let state = State::Volume(volume);
    timed("pool: write 1 MiB in order", VOLUME / 256, |i| write(&pool, volume, i * 256, Buffer::zeroed(256 * BLOCK)));
    let mut spare = Vec::new();
    let before = timed("pool: write", OPERATIONS, |_| {
        let buffer = spare.pop().unwrap_or_else(|| Buffer::zeroed(BLOCK));
        write(&pool, volume, random.below(VOLUME), buffer);
    });
    let mut buffer = Some(Buffer::zeroed(BLOCK));
    timed("pool: read", OPERATIONS, |_| {
        let into = buffer.take().expect("it came back");
        buffer = Some(wait(|done| pool.read(state, random.below(VOLUME), into, done)));
    });
    timed("pool: write and flush", OPERATIONS / 4, |_| {
        wait(|done| pool.write(volume, random.below(VOLUME), Buffer::zeroed(BLOCK), true, done));
    });
    let first = pool.snapshot(&[(volume, "first")]).expect("a snapshot")[0];
    let after = timed("pool: write after a snapshot", OPERATIONS, |_| {
        write(&pool, volume, random.below(VOLUME), Buffer::zeroed(BLOCK));
    });
    println!("after a snapshot, a write takes {:.2} times as long", after.as_secs_f64() / before.as_secs_f64());
    timed("pool: snapshot", 1000, |i| {
        write(&pool, volume, random.below(VOLUME), Buffer::zeroed(BLOCK));
        drop(pool.snapshot(&[(volume, &format!("s{i}"))]).expect("a snapshot"));
    });
    let many = timed("pool: write with 1001 snapshots", OPERATIONS, |_| {
        write(&pool, volume, random.below(VOLUME), Buffer::zeroed(BLOCK));
    });
    println!("with 1001 snapshots, a write takes {:.2} times as long", many.as_secs_f64() / before.as_secs_f64());
    let all = Blocks { start: 0, count: VOLUME };
    timed("pool: all changes since the first snapshot", 1, |_| {
        let page = wait(|done| pool.changed(state, Since::Snapshot(first), all, usize::MAX, done));
        assert!(!page.items.is_empty());
    });
    pause(&pool);
    pool.close().expect("close");
}

/// How long a write takes at most while snapshots are taken of a volume with as many changed nodes as there may be: of a round each.
fn pause(pool: &Pool) {
    const ROUNDS: usize = 20;
    let volume = pool.create_volume("wide", 1 << 20).expect("make a volume");
    let other = pool.create_volume("other", 1024).expect("make a volume");
    let (ends, is_taken) = (AtomicBool::new(false), AtomicBool::new(false));
    let mut pauses: Vec<Duration> = (0..ROUNDS)
        .map(|round| {
            // A checkpoint that is made meanwhile for their number would take them away.
            (0..LEAVES).for_each(|leaf| write(pool, volume, leaf * 256, Buffer::zeroed(BLOCK)));
            ends.store(false, Ordering::Relaxed);
            is_taken.store(false, Ordering::Relaxed);
            std::thread::scope(|scope| {
                let writer = scope.spawn(|| {
                    let mut longest = Duration::ZERO;
                    for i in 0.. {
                        let begin = Instant::now();
                        write(pool, other, i % 1024, Buffer::zeroed(BLOCK));
                        if is_taken.load(Ordering::Relaxed) {
                            longest = longest.max(begin.elapsed());
                        }
                        if ends.load(Ordering::Relaxed) {
                            break;
                        }
                    }
                    longest
                });
                std::thread::sleep(Duration::from_millis(20));
                is_taken.store(true, Ordering::Relaxed);
                drop(pool.snapshot(&[(volume, &format!("wide {round}"))]).expect("a snapshot"));
                ends.store(true, Ordering::Relaxed);
                writer.join().expect("it ends")
            })
        })
        .collect();
    pauses.sort_unstable();
    println!(
        "a write while a snapshot of {LEAVES} changed leaves is taken: median {:?}, longest {:?} of {ROUNDS}",
        pauses[ROUNDS / 2],
        pauses[ROUNDS - 1]
    );
}
