//! How fast a block device is, against QEMU's export over FUSE behind a loop device, and a loop device alone: `cargo bench -p fuse`.
//!
//! All are made of one file in memory, and fio asks them in turn. `ROUNDS` says how often. A measurement, no test; it needs root.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a measurement may panic")]

#[path = "../../../nbd/benches/speed/fio.rs"]
mod fio;

use fio::{Image, Peer};
use fuse::Host;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A loop device, which ends with its guard.
struct Loop(PathBuf);

impl Loop {
    fn new(file: &str) -> Self {
        let mut command = Command::new("losetup");
        let output = command.args(["--find", "--show", "--direct-io=on", "-b", "4096", file]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Self(PathBuf::from(String::from_utf8(output.stdout).unwrap().trim()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("-d").arg(&self.0).status();
    }
}

/// What QEMU's daemon has mounted over a file, which ends with its guard, and before the daemon.
struct Mount(PathBuf);

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// QEMU's daemon, which exports a file over another.
fn daemon(image: &str, over: PathBuf) -> (Mount, Peer) {
    std::fs::write(&over, "").unwrap();
    let block = format!("driver=file,node-name=f,filename={image},cache.direct=on,aio=threads");
    let export = format!("type=fuse,id=e,node-name=r,mountpoint={},writable=on", over.display());
    let words = ["qemu-storage-daemon", "--blockdev", &block, "--blockdev", "driver=raw,node-name=r,file=f"];
    let serves = || std::fs::metadata(&over).unwrap().len() > 0;
    let peer = Peer::start(&[&words[..], &["--export", &export]].concat(), serves);
    (Mount(over), peer)
}

fn measure(image: &Image) {
    let host = Host::new(None);
    let name = format!("bench-{}", std::process::id());
    let ours = host.attach(&name, image.device()).unwrap();
    let daemon = daemon(image.path(), image.folder().join("export"));
    let (theirs, plain) = (Loop::new(daemon.0.0.to_str().unwrap()), Loop::new(image.path()));
    let target = |device: &Path| {
        let words = ["--ioengine=io_uring", "--direct=1"];
        let device = format!("--filename={}", device.display());
        words.into_iter().map(str::to_owned).chain([device]).collect::<Vec<_>>()
    };
    println!("{}; {}\n", fio::version("qemu-storage-daemon"), fio::version("fio"));
    fio::compare(&[
        ("orlop, FUSE and loop", target(&ours)),
        ("qemu-storage-daemon's FUSE and loop", target(&theirs.0)),
        ("loop alone", target(&plain.0)),
    ]);
    drop((theirs, plain, daemon));
    host.detach(&name).unwrap();
}

fn main() {
    fio::bench(measure);
}
