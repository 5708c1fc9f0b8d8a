//! The memory that a large tree takes; alone in its process, because the peak is that of the process.

#![allow(clippy::unwrap_used, reason = "a test's helpers may panic as the test may")]

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use repository::tree::{self, BackupOptions, RestoreOptions};
use repository::{NoProgress, Passphrase, Repository, RetryPolicy, StoreConfig};

const DIRECTORIES: usize = 500;
const FILES_EACH: usize = 100;
const LARGE_FILES: usize = 6;
const LARGE_FILE_BYTES: usize = 48 << 20;

/// What the whole process may take, in KiB. Packs that are being filled and uploaded are the greater part: three of 32 MiB.
const PEAK_KIB: u64 = 192 << 10;

/// In memory if there are 4 GiB of it, because some disks take milliseconds to remove a file; it is not counted as the
/// process's.
fn roomy_directory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    match rustix::fs::statvfs(memory) {
        Ok(found) if found.f_bavail * found.f_frsize >= 4 << 30 => tempfile::tempdir_in(memory).unwrap(),
        _ => tempfile::tempdir().unwrap(),
    }
}

/// What the process has now; what is left over from the phase before is part of every peak.
fn now_kib() -> u64 {
    status_kib("VmRSS:")
}

/// Argon2id takes its 64 MiB or so when the repository is opened; the peak is counted from then on.
fn reset_peak() {
    fs::write("/proc/self/clear_refs", "5").expect("the kernel resets the peak of a process for itself");
}

fn peak_kib() -> u64 {
    status_kib("VmHWM:")
}

fn status_kib(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn noise(len: usize, seed: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

#[test]
fn fifty_thousand_files_and_large_ones_are_moved_in_bounded_memory() {
    let making = Instant::now();
    let home = roomy_directory();
    let source = home.path().join("source");
    for directory in 0..DIRECTORIES {
        let path = source.join(format!("directory-{directory}"));
        fs::create_dir_all(&path).unwrap();
        for file in 0..FILES_EACH {
            fs::write(path.join(format!("file-{file}")), noise(1500, directory * FILES_EACH + file)).unwrap();
        }
    }
    for file in 0..LARGE_FILES {
        fs::write(source.join(format!("large-{file}")), noise(LARGE_FILE_BYTES, usize::MAX - file)).unwrap();
    }
    println!("the files are made in {:?}", making.elapsed());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = StoreConfig::FileSystem { path: home.path().join("store") };
        let store = store.open(RetryPolicy::default()).unwrap();
        let repository = Repository::create(store, &Passphrase::new("for tests")).await.unwrap();
        let options = BackupOptions::new(jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1));
        let mut parent = None;
        for run in ["first backup", "second backup"] {
            let before = now_kib();
            reset_peak();
            let started = Instant::now();
            let writer = repository.writer(&"scratch".parse().unwrap()).await.unwrap();
            let progress = Arc::new(NoProgress);
            let stored =
                tree::backup(&writer, &repository, &source, parent.as_ref(), &options, progress).await.unwrap();
            writer.finish().await.unwrap();
            println!(
                "{run}: {} files, before {before} KiB, peak {} KiB, {:?}",
                stored.files,
                peak_kib(),
                started.elapsed()
            );
            assert_eq!(stored.files, (DIRECTORIES * FILES_EACH + LARGE_FILES) as u64);
            assert!(peak_kib() < PEAK_KIB, "{run} took {} KiB", peak_kib());
            parent = Some(stored.root);
        }
        let root = parent.unwrap();
        let before = now_kib();
        reset_peak();
        let started = Instant::now();
        let (target, options) = (home.path().join("target"), RestoreOptions::default());
        let restored = tree::restore(&repository, &root, &target, &options, Arc::new(NoProgress)).await.unwrap();
        println!(
            "restore: {} files, before {before} KiB, peak {} KiB, {:?}",
            restored.files,
            peak_kib(),
            started.elapsed()
        );
        assert!(restored.failed.is_empty(), "{restored:?}");
        assert!(peak_kib() < PEAK_KIB, "the restore took {} KiB", peak_kib());
        let before = now_kib();
        reset_peak();
        let started = Instant::now();
        let options = tree::VerifyOptions::default();
        let found = tree::verify(&repository, &root, Some(&target), &options, Arc::new(NoProgress)).await.unwrap();
        println!(
            "comparison: {} files, before {before} KiB, peak {} KiB, {:?}",
            found.files,
            peak_kib(),
            started.elapsed()
        );
        assert!(found.differences.is_empty(), "{found:?}");
    });
}
