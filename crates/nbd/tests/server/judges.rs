//! The clients of others: what libnbd and qemu make of the server.

use super::memory::{BLOCK, Served, sparse};
use block::Device;
use block::testing::Memory;
use nbd::Limits;
use serde_json::Value;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

/// Whether a program can be run here.
pub(super) fn has(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

pub(super) async fn run(program: &str, words: &[&str]) -> Output {
    let (program, words) = (program.to_owned(), words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
    let work = tokio::task::spawn_blocking(move || Command::new(program).args(words).output().unwrap());
    work.await.unwrap()
}

/// Runs a script of libnbd's shell, with the Python that its package is for, whatever else is installed.
pub(super) async fn nbdsh(script: &str) -> Vec<u8> {
    good("env", &["PATH=/usr/bin:/bin", "nbdsh", "-c", script]).await
}

pub(super) async fn good(program: &str, words: &[&str]) -> Vec<u8> {
    let output = run(program, words).await;
    assert!(output.status.success(), "{program} {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

const SIZE: usize = 300 * BLOCK + 512;

#[tokio::test]
async fn libnbd_lists_maps_and_copies() {
    if !has("nbdinfo") || !has("nbdcopy") {
        skips::skip!("nbdinfo and nbdcopy are missing: install libnbd-bin");
    }
    let memory = Arc::new(Memory::new(&sparse(SIZE)));
    let (disk, other): (Arc<dyn Device>, Arc<dyn Device>) = (memory.clone(), Arc::new(Memory::new(&[1; 512])));
    let served = Served::start(vec![("disk", disk), ("shop/data", other)], Limits::default());
    let socket = served.uri("");
    let list: Value = serde_json::from_slice(&good("nbdinfo", &["--json", "--list", &socket]).await).unwrap();
    let exports = list["exports"].as_array().unwrap();
    assert_eq!(exports.len(), 2, "{list}");
    for (export, name, size) in [(&exports[0], "disk", SIZE), (&exports[1], "shop/data", 512)] {
        assert_eq!((&export["export-name"], &export["export-size"]), (&name.into(), &size.into()));
        assert_eq!((&export["is_read_only"], &export["can_multi_conn"]), (&true.into(), &true.into()));
        assert_eq!(export["contexts"], serde_json::json!(["base:allocation"]));
        assert_eq!(export["description"], format!("about {name}"));
    }
    let map: Value = serde_json::from_slice(&good("nbdinfo", &["--json", "--map", &served.uri("disk")]).await).unwrap();
    let bytes = memory.bytes();
    let mut at = 0;
    for stretch in map.as_array().unwrap() {
        let len = stretch["length"].as_u64().unwrap() as usize;
        let hole = stretch["type"] == 3;
        assert_eq!(stretch["offset"], at);
        for block in bytes[at..at + len].chunks(BLOCK) {
            assert_eq!(block.iter().all(|byte| *byte == 0), hole, "{stretch}");
        }
        at += len;
    }
    assert_eq!(at, SIZE);
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy");
    for words in [&["--connections=4", "--request-size=8192"][..], &["--connections=1", "--synchronous"]] {
        good("nbdcopy", &[words, &[&served.uri("disk"), copy.to_str().unwrap()]].concat()).await;
        assert!(std::fs::read(&copy).unwrap() == bytes, "{words:?}");
    }
    served.end().await;
}

#[tokio::test]
async fn libnbd_and_qemu_write_and_read_back() {
    if !has("nbdcopy") || !has("qemu-img") {
        skips::skip!("nbdcopy or qemu-img is missing: install libnbd-bin and qemu-utils");
    }
    let (served, memory) = Served::of(Memory::writable(&[0xaa; 128 * BLOCK]));
    let folder = tempfile::tempdir().unwrap();
    let (image, copy) = (folder.path().join("image"), folder.path().join("copy"));
    let (image, copy) = (image.to_str().unwrap(), copy.to_str().unwrap());
    std::fs::write(image, sparse(128 * BLOCK)).unwrap();
    good("nbdcopy", &["--flush", image, &served.uri("disk")]).await;
    assert!(memory.bytes() == sparse(128 * BLOCK));
    assert!(memory.flushes.load(std::sync::atomic::Ordering::SeqCst) > 0);
    good("qemu-img", &["compare", "-f", "raw", "-F", "raw", image, &served.uri("disk")]).await;
    memory.set(0, &[0xbb; 128 * BLOCK]);
    good("qemu-img", &["convert", "-n", "-f", "raw", "-O", "raw", image, &served.uri("disk")]).await;
    assert!(memory.bytes() == sparse(128 * BLOCK));
    good("qemu-img", &["convert", "-f", "raw", "-O", "raw", &served.uri("disk"), copy]).await;
    assert!(std::fs::read(copy).unwrap() == sparse(128 * BLOCK));
    memory.set(77 * BLOCK as u64, &[memory.bytes()[77 * BLOCK] ^ 1]);
    let other = run("qemu-img", &["compare", "-f", "raw", "-F", "raw", image, &served.uri("disk")]).await;
    assert_eq!(other.status.code(), Some(1), "a comparison that cannot fail shows nothing");
    served.end().await;
}

#[tokio::test]
async fn a_bad_block_is_an_error_to_them_too() {
    if !has("nbdcopy") {
        skips::skip!("nbdcopy is missing: install libnbd-bin");
    }
    let mut memory = Memory::new(&[1; 64 * BLOCK]);
    memory.bad = Some(5000);
    let (served, _) = Served::of(memory);
    let output = run("nbdcopy", &[&served.uri("disk"), "/dev/null"]).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("Input/output error"), "{said}");
    served.end().await;
}
