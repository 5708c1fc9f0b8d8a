//! Pools in files: on a file system that is memory, and on one that is a disk.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may end anywhere, and start threads")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use volume::{
    Access, BLOCK, Blocks, Buffer, Disk, Error, FileDisk, Listener, Memory, OpenError, Options, Pool, Reached, Shape,
    Since, State, VolumeId,
};

const SHAPE: Shape = Shape { id: *b"0123456789abcdef", log_blocks: None, most_changed_nodes: None };

fn quiet() -> Listener {
    Box::new(|_| {})
}

/// Where a pool lies, and how its disk is asked.
struct Place {
    folder: tempfile::TempDir,
    access: Access,
}

/// On a disk that is asked in either way, and in memory, where there is a folder that is memory.
fn places() -> Vec<Place> {
    let on_disk = |access| Place { folder: tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap(), access };
    let mut places = vec![on_disk(Access::Threads)];
    let ring = on_disk(Access::Ring);
    match ring.try_to_open::<Buffer>(&ring.create(2048)) {
        Ok(pool) => {
            drop(pool);
            places.push(on_disk(Access::Ring));
        }
        Err(error) => skip("pools through io_uring", &error.to_string()),
    }
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        places.push(Place { folder: tempfile::tempdir_in(memory).unwrap(), access: Access::Best });
    }
    places
}

impl Place {
    fn create(&self, blocks: u64) -> PathBuf {
        let path = self.folder.path().join("pool");
        let disk = FileDisk::create(&path, blocks * BLOCK as u64).unwrap();
        volume::create(&disk, SHAPE).unwrap();
        path
    }

    fn try_to_open<M: Memory>(&self, path: &Path) -> Result<Pool<M>, OpenError> {
        let options = Options { access: self.access, cache_bytes: volume::LEAST_CACHE, ..Options::default() };
        Pool::open(Arc::new(FileDisk::open(path).unwrap()), options, quiet())
    }

    fn open(&self, path: &Path) -> Pool {
        let pool = self.try_to_open(path).unwrap();
        match self.access {
            Access::Ring => assert_eq!(*pool.reached(), Reached::Ring),
            Access::Threads => assert!(matches!(pool.reached(), Reached::Threads(_))),
            Access::Best => assert_eq!(*pool.reached(), Reached::Inline),
        }
        pool
    }
}

fn wait<T: Send + 'static>(ask: impl FnOnce(Box<dyn FnOnce(Result<T, Error>) + Send>)) -> Result<T, Error> {
    let (sender, receiver) = mpsc::channel();
    ask(Box::new(move |result| sender.send(result).unwrap()));
    receiver.recv().unwrap()
}

fn write(pool: &Pool, volume: VolumeId, start: u64, bytes: &[u8]) {
    wait(|done| pool.write(volume, start, Buffer::copy_of(bytes), false, done)).unwrap();
}

fn read(pool: &Pool, of: State, start: u64, count: usize) -> Vec<u8> {
    wait(|done| pool.read(of, start, Buffer::zeroed(count * BLOCK), done)).unwrap().to_vec()
}

#[test]
fn what_is_written_is_read_after_closing_and_opening() {
    for place in places() {
        let path = place.create(16_384);
        let pool = place.open(&path);
        let volume = pool.create_volume("data", 8192).unwrap();
        write(&pool, volume, 100, &[7; 50 * BLOCK]);
        let snapshot = pool.snapshot(&[(volume, "monday")]).unwrap()[0];
        write(&pool, volume, 120, &[8; 5 * BLOCK]);
        wait(|done| pool.discard(volume, Blocks { start: 140, count: 5 }, true, done)).unwrap();
        let clone = pool.clone_snapshot(snapshot, "copy").unwrap();
        pool.resize(clone, 100_000).unwrap();
        let all = Blocks { start: 0, count: 8192 };
        let since = Since::Snapshot(snapshot);
        let changed = wait(|done| pool.changed(State::Volume(volume), since, all, 100, done)).unwrap();
        assert_eq!(changed.items, [Blocks { start: 120, count: 5 }, Blocks { start: 140, count: 5 }]);
        let unrelated =
            wait(|done| pool.changed(State::Snapshot(snapshot), Since::Epoch(volume::Epoch(0)), all, 9, done));
        assert_eq!(unrelated.unwrap().items, [Blocks { start: 100, count: 50 }]);
        pool.close().unwrap();

        let pool = place.open(&path);
        let state = State::Volume(volume);
        assert_eq!(read(&pool, state, 100, 20), [7; 20 * BLOCK]);
        assert_eq!(read(&pool, state, 120, 5), [8; 5 * BLOCK]);
        assert_eq!(read(&pool, state, 140, 5), [0; 5 * BLOCK]);
        assert_eq!(read(&pool, State::Snapshot(snapshot), 100, 50), [7; 50 * BLOCK]);
        assert_eq!(read(&pool, State::Volume(clone), 100, 50), [7; 50 * BLOCK]);
        assert_eq!(pool.volumes().len(), 2);
        assert_eq!(pool.snapshots()[0].name, "monday");
        let extents = wait(|done| pool.extents(state, all, 100, done)).unwrap();
        let data: Vec<_> = extents.items.iter().filter(|extent| extent.is_data).map(|extent| extent.blocks).collect();
        assert_eq!(data, [Blocks { start: 100, count: 40 }, Blocks { start: 145, count: 5 }]);
        pool.delete(State::Snapshot(snapshot)).unwrap();
        pool.delete(State::Volume(volume)).unwrap();
        assert_eq!(read(&pool, State::Volume(clone), 100, 50), [7; 50 * BLOCK]);
        pool.close().unwrap();
        let disk = FileDisk::open_read_only(&path).unwrap();
        let checked = volume::check(&disk, true).unwrap();
        assert_eq!(checked.problems, []);
        assert!(volume::dump(&disk).unwrap().contains("\"copy\""));
    }
}

#[test]
fn what_was_flushed_is_there_when_the_pool_was_not_closed() {
    for place in places() {
        let path = place.create(4096);
        let pool = place.open(&path);
        let volume = pool.create_volume("data", 1000).unwrap();
        wait(|done| pool.write(volume, 3, Buffer::copy_of(&[1; BLOCK]), true, done)).unwrap();
        write(&pool, volume, 4, &[2; BLOCK]);
        wait(|done| pool.flush(done)).unwrap();
        drop(pool);
        let pool = place.open(&path);
        assert_eq!(read(&pool, State::Volume(volume), 3, 1), [1; BLOCK]);
        assert_eq!(read(&pool, State::Volume(volume), 4, 1), [2; BLOCK]);
    }
}

#[test]
fn an_epoch_tells_what_was_written_in_it_and_makes_durable_what_was_before() {
    for place in places() {
        let path = place.create(4096);
        let pool = place.open(&path);
        let volume = pool.create_volume("data", 1000).unwrap();
        let state = State::Volume(volume);
        write(&pool, volume, 10, &[1; 5 * BLOCK]);
        let before = pool.volumes()[0].epoch;
        let epoch = pool.begin_epoch(volume).unwrap();
        assert!(epoch > before && pool.volumes()[0].epoch == epoch);
        // As if the process were killed: nothing was flushed but by the epoch's begin.
        drop(pool);
        let pool = place.open(&path);
        assert_eq!((read(&pool, state, 10, 5), pool.volumes()[0].epoch), (vec![1; 5 * BLOCK], epoch));
        write(&pool, volume, 12, &[2; BLOCK]);
        wait(|done| pool.discard(volume, Blocks { start: 14, count: 1 }, false, done)).unwrap();
        let all = Blocks { start: 0, count: 1000 };
        let born_after = |since| wait(|done| pool.changed(state, Since::Epoch(since), all, 100, done)).unwrap().items;
        assert_eq!(born_after(before), [Blocks { start: 12, count: 1 }, Blocks { start: 14, count: 1 }]);
        assert_eq!((born_after(epoch), born_after(volume::Epoch(0))), (vec![], vec![Blocks { start: 10, count: 5 }]));
        assert_eq!(pool.begin_epoch(VolumeId(99)), Err(Error::NoVolume(VolumeId(99))));
        pool.close().unwrap();
        assert_eq!(volume::check(&FileDisk::open_read_only(&path).unwrap(), true).unwrap().problems, []);
    }
}

#[test]
fn a_pool_has_one_user_at_a_time() {
    for place in places() {
        let path = place.create(2048);
        let pool = place.open(&path);
        match FileDisk::open(&path) {
            Err(error @ OpenError::InUse { .. }) => {
                assert!(error.to_string().contains("stop that one first"), "{error}")
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(FileDisk::open_read_only(&path), Err(OpenError::InUse { .. })));
        drop(pool);
        drop(place.open(&path));
        assert!(matches!(FileDisk::create(&path, 1 << 23), Err(OpenError::Disk { .. })), "it is there");
        let disk = FileDisk::open(&path).unwrap();
        assert!(matches!(volume::create(&disk, SHAPE), Err(OpenError::Exists)));
    }
}

#[test]
fn a_pool_in_a_file_grows() {
    for place in places() {
        let path = place.create(2048);
        let disk = Arc::new(FileDisk::open(&path).unwrap());
        let options = Options { access: place.access, ..Options::default() };
        let pool: Pool = Pool::open(Arc::clone(&disk) as Arc<dyn Disk>, options, quiet()).unwrap();
        let volume = pool.create_volume("data", 100).unwrap();
        write(&pool, volume, 3, &[7; BLOCK]);
        let before = pool.usage();
        disk.extend(50_000 * BLOCK as u64).unwrap();
        pool.grow().unwrap();
        assert!(pool.usage().free > before.free + 47_000, "{:?}", pool.usage());
        let grown = pool.usage().free;
        pool.close().unwrap();
        drop(disk);
        assert_eq!(volume::check(&FileDisk::open_read_only(&path).unwrap(), true).unwrap().problems, []);
        let pool = place.open(&path);
        assert!(pool.usage().free >= grown - 10, "{:?} of {grown}", pool.usage());
        assert_eq!(read(&pool, State::Volume(volume), 3, 1), [7; BLOCK]);
    }
}

/// Threads that write, flush, read and compare at once, each in blocks of its own, while snapshots come and go.
#[test]
fn many_threads_share_a_pool() {
    const THREADS: u64 = 4;
    const ROUNDS: u64 = 300;
    for place in places() {
        let path = place.create(16_384);
        let pool = Arc::new(place.open(&path));
        let volume = pool.create_volume("data", THREADS * 64).unwrap();
        let done = Arc::new(AtomicU64::new(0));
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (pool, done) = (Arc::clone(&pool), Arc::clone(&done));
                std::thread::spawn(move || {
                    for round in 0..ROUNDS {
                        let start = thread * 64 + round * 7 % 60;
                        let byte = u8::try_from((round * 3 + thread) % 251 + 1).unwrap();
                        write(&pool, volume, start, &[byte; 4 * BLOCK]);
                        assert_eq!(read(&pool, State::Volume(volume), start, 4), [byte; 4 * BLOCK]);
                        if round % 5 == 0 {
                            wait(|done| pool.flush(done)).unwrap();
                        }
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                })
            })
            .collect();
        let mut count = 0;
        while done.load(Ordering::Relaxed) < THREADS {
            let name = format!("snapshot {count}");
            let snapshot = pool.snapshot(&[(volume, &name)]).unwrap()[0];
            let first = read(&pool, State::Snapshot(snapshot), 0, 256);
            assert_eq!(read(&pool, State::Snapshot(snapshot), 0, 256), first, "a snapshot does not change");
            pool.delete(State::Snapshot(snapshot)).unwrap();
            count += 1;
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let pool = Arc::into_inner(pool).unwrap();
        pool.close().unwrap();
        let checked = volume::check(&FileDisk::open_read_only(&path).unwrap(), true).unwrap();
        assert_eq!(checked.problems, []);
    }
}

/// Bytes at an odd address, which no disk takes without the system's cache.
struct Crooked(Vec<u8>);

impl AsRef<[u8]> for Crooked {
    fn as_ref(&self) -> &[u8] {
        let odd = self.0.as_ptr().align_offset(2) + 1;
        &self.0[odd..odd + self.0.len() - 4]
    }
}

impl AsMut<[u8]> for Crooked {
    fn as_mut(&mut self) -> &mut [u8] {
        let odd = self.0.as_ptr().align_offset(2) + 1;
        let len = self.0.len() - 4;
        &mut self.0[odd..odd + len]
    }
}

#[test]
fn memory_may_lie_anywhere() {
    for place in places() {
        let path = place.create(2048);
        let pool = place.try_to_open::<Crooked>(&path).unwrap();
        let volume = pool.create_volume("data", 100).unwrap();
        wait(|done| pool.write(volume, 3, Crooked(vec![7; 5 * BLOCK + 4]), true, done)).unwrap();
        let state = State::Volume(volume);
        let found = wait(|done| pool.read(state, 2, Crooked(vec![1; 7 * BLOCK + 4]), done)).unwrap();
        assert!(found.as_ref()[BLOCK..6 * BLOCK].iter().all(|byte| *byte == 7));
        assert!(found.as_ref()[..BLOCK].iter().chain(&found.as_ref()[6 * BLOCK..]).all(|byte| *byte == 0));
        pool.close().unwrap();
    }
}

/// More requests at once than a ring holds, in pieces, and a pool that ends while they are under way.
#[test]
fn many_requests_are_under_way_at_once() {
    for place in places() {
        let path = place.create(16_384);
        let pool = place.open(&path);
        let volume = pool.create_volume("data", 4096).unwrap();
        let (sender, receiver) = mpsc::channel();
        let byte = |block: u64| u8::try_from(block % 251 + 1).unwrap();
        // Every second block twice, so that what is read later lies in many pieces.
        for block in (0..4096).chain((0..4096).step_by(2)) {
            let sender = sender.clone();
            let bytes = Buffer::copy_of(&[byte(block); BLOCK]);
            pool.write(volume, block, bytes, block % 64 == 0, move |result| sender.send(result).unwrap());
        }
        receiver.iter().take(4096 + 2048).for_each(|result| result.unwrap());
        let (sender, receiver) = mpsc::channel();
        for start in 0..500 {
            let sender = sender.clone();
            let into = Buffer::zeroed(32 * BLOCK);
            pool.read(State::Volume(volume), start * 8, into, move |result| sender.send((start, result)).unwrap());
        }
        for (start, result) in receiver.iter().take(500) {
            let expected = (start * 8..start * 8 + 32).map(byte);
            assert!(result.unwrap().chunks(BLOCK).zip(expected).all(|(block, byte)| block == [byte; BLOCK]));
        }
        let (sender, receiver) = mpsc::channel();
        for block in 0..1000 {
            let sender = sender.clone();
            let answered = move |result: Result<(), Error>| sender.send(result).unwrap();
            pool.write(volume, block, Buffer::copy_of(&[byte(block); BLOCK]), false, answered);
        }
        drop((pool, sender));
        let ended: Vec<_> = receiver.iter().collect();
        assert!(ended.len() == 1000 && ended.iter().all(|result| matches!(result, Ok(()) | Err(Error::Closed))));
        let pool = place.open(&path);
        assert_eq!(read(&pool, State::Volume(volume), 999, 1), [byte(999); BLOCK]);
    }
}

/// A file that has become shorter under a pool: what the kernel does in part is done again by somebody who tells what is wrong.
#[test]
fn what_cannot_be_read_is_told() {
    for place in places() {
        let path = place.create(16_384);
        let pool = place.open(&path);
        let volume = pool.create_volume("data", 8192).unwrap();
        (0..32).for_each(|i| write(&pool, volume, i * 256, &[7; 256 * BLOCK]));
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(6000 * BLOCK as u64).unwrap();
        let state = State::Volume(volume);
        assert_eq!(read(&pool, state, 0, 256), [7; 256 * BLOCK]);
        let failed = wait(|done| pool.read(state, 8000, Buffer::zeroed(100 * BLOCK), done)).unwrap_err();
        assert!(matches!(failed, Error::Unreadable { block: 8000, .. }), "{failed}");
    }
}

#[test]
fn wrong_requests_are_refused_and_change_nothing() {
    let place = places().remove(0);
    let pool = place.open(&place.create(2048));
    let volume = pool.create_volume("data", 100).unwrap();
    let refused = |start, len| wait(|done| pool.write(volume, start, Buffer::zeroed(len), false, done)).unwrap_err();
    assert_eq!(refused(0, 100), Error::Unaligned(100));
    assert_eq!(refused(0, 0), Error::Unaligned(0));
    assert!(matches!(refused(99, 2 * BLOCK), Error::BeyondEnd { size: 100, .. }));
    assert!(matches!(refused(u64::MAX, BLOCK), Error::BeyondEnd { .. }));
    assert_eq!(pool.create_volume("data", 5), Err(Error::NameTaken("data".into())));
    assert_eq!(pool.create_volume("", 5), Err(Error::BadName(String::new())));
    assert!(matches!(pool.create_volume("none", 0), Err(Error::BadSize { .. })));
    assert!(matches!(pool.create_volume("huge", u64::MAX), Err(Error::BadSize { .. })));
    assert!(matches!(pool.resize(volume, 99), Err(Error::BadSize { .. })));
    assert_eq!(pool.delete(State::Volume(VolumeId(77))), Err(Error::NoVolume(VolumeId(77))));
    let snapshot = pool.snapshot(&[(volume, "s")]).unwrap()[0];
    let other = pool.create_volume("other", 100).unwrap();
    let all = Blocks { start: 0, count: 100 };
    let unrelated = wait(|done| pool.changed(State::Volume(other), Since::Snapshot(snapshot), all, 9, done));
    assert!(matches!(unrelated, Err(Error::Unrelated { .. })), "{unrelated:?}");
    assert_eq!(pool.volumes().len(), 2);
}

/// Says that a test is skipped, the way `sandbox::skip` does: building that crate for one line would take longer than all of these tests.
fn skip(test: &str, reason: &str) {
    assert!(std::env::var_os("ORLOP_NO_SKIP").is_none_or(|v| v != "1"), "{test} must run, but: {reason}");
    let line = format!("SKIP: {test}: {}\n", reason.replace('\n', " "));
    eprint!("{line}");
    if let Some(file) = std::env::var_os("ORLOP_SKIPS").filter(|file| !file.is_empty()) {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(file).unwrap();
        std::io::Write::write_all(&mut file, line.as_bytes()).unwrap();
    }
}

/// A loop device, detached at the end.
struct Loop(PathBuf);

impl Loop {
    fn new(file: &Path) -> Result<Self, String> {
        let output =
            Command::new("losetup").args(["--find", "--show"]).arg(file).output().map_err(|e| e.to_string())?;
        let device = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if output.status.success() {
            Ok(Self(device.into()))
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into())
        }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        drop(Command::new("losetup").arg("--detach").arg(&self.0).status());
    }
}

#[test]
fn a_pool_lies_on_a_raw_device() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let file = folder.path().join("disk");
    std::fs::File::create_new(&file).unwrap().set_len(64 << 20).unwrap();
    let device = match Loop::new(&file) {
        Ok(device) => device,
        Err(reason) => return skip("a_pool_lies_on_a_raw_device", &format!("losetup gives no loop device: {reason}")),
    };
    let disk = FileDisk::open(&device.0).unwrap();
    assert_eq!(disk.bytes().unwrap(), 64 << 20);
    volume::create(&disk, SHAPE).unwrap();
    drop(disk);
    let place = Place { folder, access: Access::Threads };
    let pool = place.open(&device.0);
    let volume = pool.create_volume("data", 10_000).unwrap();
    write(&pool, volume, 5000, &[9; 300 * BLOCK]);
    wait(|done| pool.flush(done)).unwrap();
    assert!(matches!(FileDisk::open(&device.0), Err(OpenError::InUse { .. } | OpenError::Disk { .. })));
    drop(pool);
    let pool = place.open(&device.0);
    assert_eq!(read(&pool, State::Volume(volume), 5000, 300), [9; 300 * BLOCK]);
    pool.close().unwrap();
    assert_eq!(volume::check(&FileDisk::open_read_only(&device.0).unwrap(), true).unwrap().problems, []);
}
