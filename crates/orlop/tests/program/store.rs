//! `orlop store`: pools that no daemon has open.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, mpsc};

use crate::support::{Ran, run};
use volume::{BLOCK, Blocks, Buffer, FileDisk, Options, Pool, VolumeId};

const SIZE: &str = "16MiB";

struct Store {
    folder: tempfile::TempDir,
}

impl Store {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("make a folder") }
    }

    /// With a pool that has a volume, a snapshot of it, and data; closed.
    fn filled() -> Self {
        let (store, pool) = Self::open();
        pool.close().unwrap();
        store
    }

    /// The same, with the pool open.
    fn open() -> (Self, Pool<Buffer>) {
        let store = Self::new();
        store.run("format", &["--size", SIZE]).good();
        let disk = Arc::new(FileDisk::open(&store.pool()).unwrap());
        let pool = Pool::<Buffer>::open(disk, Options::default(), Box::new(|_| {})).unwrap();
        let volume = pool.create_volume("data", 1024).unwrap();
        for start in 0..64 {
            write(&pool, volume, start, u8::try_from(start).unwrap() + 1);
        }
        pool.snapshot(&[(volume, "before")]).unwrap();
        (store, pool)
    }

    fn pool(&self) -> PathBuf {
        self.folder.path().join("pool")
    }

    fn run(&self, verb: &str, more: &[&str]) -> Ran {
        let pool = self.pool();
        run(&[&["store", verb, pool.to_str().unwrap()], more].concat())
    }
}

/// Writes a block of which all bytes are the same.
fn write(pool: &Pool<Buffer>, volume: VolumeId, start: u64, byte: u8) {
    let (sender, receiver) = mpsc::channel();
    let bytes = Buffer::copy_of(&[byte; BLOCK]);
    pool.write(volume, start, bytes, false, Box::new(move |done| sender.send(done).unwrap()));
    receiver.recv().unwrap().unwrap();
}

/// Flips a bit of every block in which all bytes are this one.
fn damage(pool: &Path, byte: u8) -> u64 {
    let file = fs::File::options().read(true).write(true).open(pool).unwrap();
    let mut block = [0; BLOCK];
    let mut hit = 0;
    for number in 0..file.metadata().unwrap().len() / BLOCK as u64 {
        file.read_exact_at(&mut block, number * BLOCK as u64).unwrap();
        if block.iter().all(|found| *found == byte) {
            file.write_all_at(&[byte ^ 1], number * BLOCK as u64 + 100).unwrap();
            hit += 1;
        }
    }
    hit
}

#[test]
fn a_pool_is_made_once_checked_and_told() {
    let store = Store::new();
    assert!(store.run("format", &["--size", SIZE]).good().contains("is an empty pool of 16.0 MiB"));
    store.run("format", &["--size", SIZE]).ended(1).says("File exists").says("leave --size out");
    store.run("format", &["--overwrite"]).ended(1).says("there is a pool already").says("if nothing in it is wanted");
    assert!(store.run("check", &["--read-data"]).good().contains("Nothing is wrong."));
    let checked = store.run("check", &["-o", "json"]).json();
    assert_eq!((&checked["clean"], &checked["states"]), (&true.into(), &0.into()));
    assert!(store.run("dump", &[]).good().starts_with("pool "));
    store.run("dump", &["-o", "json"]).ended(2).says("no other format");
}

#[test]
fn what_holds_something_is_not_taken_without_being_told_to() {
    let store = Store::new();
    store.run("format", &[]).ended(1).says("say with --size");
    fs::write(store.pool(), vec![7; 16 << 20]).unwrap();
    store.run("check", &[]).ended(1).says("no superblock of a pool is found");
    store.run("format", &[]).ended(1).says("it holds something").says("--overwrite");
    assert!(fs::read(store.pool()).unwrap().iter().all(|byte| *byte == 7), "nothing was changed");
    store.run("format", &["--overwrite"]).good();
    store.run("check", &[]).good();
    run(&["store", "format", store.folder.path().to_str().unwrap()]).ended(1).says("it is no file and no block device");
}

#[test]
fn a_size_that_is_too_small_leaves_no_file_behind() {
    let store = Store::new();
    store.run("format", &["--size", "4096"]).ended(1);
    assert!(!store.pool().exists());
}

#[test]
fn a_pool_that_is_open_is_left_alone() {
    let store = Store::filled();
    let disk = FileDisk::open(&store.pool()).unwrap();
    for verb in ["check", "dump", "repair", "format"] {
        store.run(verb, &[]).ended(1).says("is in use by another process");
    }
    drop(disk);
    store.run("check", &["--read-data"]).good();
}

#[test]
fn damage_of_data_is_found_and_named_and_that_of_superblocks_mended() {
    let store = Store::filled();
    let told = store.run("dump", &[]).good();
    assert!(told.contains("\"data\"") && told.contains("\"before\""), "{told}");
    assert_eq!(damage(&store.pool(), 5), 1);
    assert!(store.run("check", &[]).good().contains("which was not read"));
    let checked = store.run("check", &["--read-data", "-o", "json"]).ended(1).stdout;
    let checked: serde_json::Value = serde_json::from_str(&checked).unwrap();
    let problems = checked["problems"].as_array().unwrap();
    assert!(
        !problems.is_empty()
            && problems.iter().all(|p| p.as_str().unwrap().contains("block 4 at"))
            && problems[0].as_str().unwrap().contains("(data@before)"),
        "{problems:?}"
    );
    // What it does not read it does not call sound.
    assert!(store.run("repair", &[]).good().contains("data was not read"));

    let store = Store::filled();
    let file = fs::File::options().read(true).write(true).open(store.pool()).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 100).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 100).unwrap();
    drop(file);
    let found = store.run("check", &[]).ended(1).stdout;
    assert!(found.contains("superblock") && found.contains("It is NOT sound."), "{found}");
    assert!(store.run("repair", &[]).good().contains("maps are sound"));
    store.run("check", &["--read-data"]).good();
}

#[test]
fn a_pool_without_a_superblock_is_told_what_is_left_to_do() {
    let store = Store::filled();
    let file = fs::File::options().read(true).write(true).open(store.pool()).unwrap();
    for copy in 0..4 {
        let at = copy * BLOCK as u64 + 100;
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    }
    drop(file);
    store.run("check", &[]).ended(1).says("every superblock is damaged").says("a replica or a backup");
    store.run("repair", &[]).ended(1).says("nothing in the pool tells what was there");
    fs::write(store.pool(), b"short").unwrap();
    for verb in ["check", "dump", "repair"] {
        store.run(verb, &[]).ended(1).says("no superblock of a pool is found");
    }
}

/// The reader was written from the description of the format, without a look at the program, so it shows that that is enough and right.
#[test]
fn a_reader_of_the_description_alone_reads_a_pool_that_was_left_open() {
    let (store, pool) = Store::open();
    let volume = pool.volumes()[0].id;
    for start in [3, 700] {
        write(&pool, volume, start, 200);
    }
    let (sender, receiver) = mpsc::channel();
    pool.discard(volume, Blocks { start: 10, count: 20 }, false, Box::new(move |done| sender.send(done).unwrap()));
    receiver.recv().unwrap().unwrap();
    drop(pool);
    let copy = store.folder.path().join("copy");
    let reader = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools/reader/pool.py");
    let read = |more: &[&Path]| {
        let output = Command::new("python3").arg(&reader).arg(store.pool()).args(more).output().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr))
    };
    let (is_well, told) = read(&[Path::new("data"), &copy]);
    assert!(is_well && told.contains("snapshot 2 before: 1024 blocks, 64 of them data"), "{told}");
    assert!(!told.contains(" 0 records in the log"), "what the log has is read, too: {told}");
    let byte_of = |block: u8| match block {
        3 => 200,
        0..10 | 30..64 => block + 1,
        _ => 0,
    };
    let mut expected: Vec<u8> = (0..=255).flat_map(|block| [byte_of(block); BLOCK]).collect();
    expected.resize(1024 * BLOCK, 0);
    expected[700 * BLOCK..701 * BLOCK].fill(200);
    assert!(fs::read(&copy).unwrap() == expected);
    // It is no reader that finds everything well.
    assert_eq!(damage(&store.pool(), 2), 1);
    fs::remove_file(&copy).unwrap();
    let (is_well, told) = read(&[Path::new("data"), &copy]);
    assert!(!is_well && told.contains("block 1 of data"), "{told}");
}
