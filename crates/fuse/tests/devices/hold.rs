//! Hosts that go while the process goes on: nobody else gets a device that they may still write to, and somebody gets it afterwards.

use crate::support::{Cleared, direct, keeper, require, unique};
use block::testing::{Gate, Later, Memory};
use block::{Buffer, Device};
use fuse::{AttachError, DetachError, Host, Keeper, KeeperError};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

const SIZE: usize = 8 << 20;
/// How long anything may take that is to end by itself.
const LONG: Duration = Duration::from_secs(60);

fn host(socket: &str) -> Host {
    Host::new(Some(Keeper::connect(Path::new(socket)).unwrap()))
}

fn page(device: &Path, at: u64) -> u8 {
    let mut page = Buffer::zeroed(4096);
    direct(device).read_exact_at(&mut page, at).unwrap();
    assert!(page.iter().all(|byte| *byte == page[0]));
    page[0]
}

#[test]
fn of_a_host_that_is_dropped_no_thread_serves_on() {
    require!();
    let folder = tempfile::tempdir().unwrap();
    let name = unique("dropped");
    let _cleared = Cleared(name.clone());
    let (_keeper, socket) = keeper(folder.path());
    let (first, second) = (host(&socket), host(&socket));
    let path = first.attach(&name, Arc::new(Memory::writable(&vec![1; SIZE]))).unwrap();
    assert_eq!(page(&path, 0), 1);
    drop(first);
    // Were it served by both, some of these would be the first's.
    assert_eq!(second.attach(&name, Arc::new(Memory::writable(&vec![2; SIZE]))).unwrap(), path);
    for at in 1..200 {
        assert_eq!(page(&path, at * 4096), 2);
    }
    second.detach(&name).unwrap();
}

/// A host whose device is being written to, and takes its time.
struct Busy {
    name: String,
    socket: String,
    path: PathBuf,
    device: Arc<Memory>,
    gate: Arc<Gate>,
    writer: std::thread::JoinHandle<std::io::Result<()>>,
}

impl Busy {
    /// The host has made the block device itself, or goes on with that of an earlier one.
    fn start(name: &str, socket: String, goes_on: bool) -> (Self, Host) {
        let device = Arc::new(Memory::writable(&vec![1; SIZE]));
        if goes_on {
            let earlier = host(&socket);
            earlier.attach(name, device.clone()).unwrap();
            earlier.hand_over().unwrap();
            drop(earlier);
        }
        let later = Later::new(device.clone(), 2);
        let gate = later.gate();
        let host = host(&socket).with_patience(Duration::from_millis(200));
        let path = host.attach(name, Arc::new(later)).unwrap();
        // Whatever the kernel has read to see what it is.
        page(&path, 0);
        gate.close();
        let written = path.clone();
        let writer = std::thread::spawn(move || direct(&written).write_all_at(&Buffer::copy_of(&[9; 4096]), 1 << 20));
        let begun = Instant::now();
        while gate.at_once() == 0 {
            assert!(begun.elapsed() < LONG, "no write came to the device");
            std::thread::yield_now();
        }
        (Self { name: name.to_owned(), socket, path, device, gate, writer }, host)
    }

    /// Nobody else has it before the write is done, and then somebody has.
    fn hold_until_it_is_done(self) {
        let next = host(&self.socket);
        let attach = || next.attach(&self.name, self.device.clone() as Arc<dyn Device>);
        match attach() {
            Err(AttachError::Keeper(KeeperError::Held { process, .. })) => assert_eq!(process, std::process::id()),
            other => panic!("a device that is written to is another's: {other:?}"),
        }
        assert!(!self.writer.is_finished());
        self.gate.open();
        let begun = Instant::now();
        let path = loop {
            match attach() {
                Err(AttachError::Keeper(KeeperError::Held { .. })) => assert!(begun.elapsed() < LONG, "it is held on"),
                other => break other.unwrap(),
            }
        };
        assert_eq!(path, self.path);
        self.writer.join().unwrap().unwrap();
        assert_eq!(page(&path, 1 << 20), 9);
        next.detach(&self.name).unwrap();
    }
}

#[test]
fn what_a_dropped_host_has_not_answered_holds_its_device() {
    require!();
    let folder = tempfile::tempdir().unwrap();
    let name = unique("undone");
    let _cleared = Cleared(name.clone());
    let (_keeper, socket) = keeper(folder.path());
    for goes_on in [false, true] {
        let (busy, host) = Busy::start(&name, socket.clone(), goes_on);
        drop(host);
        busy.hold_until_it_is_done();
    }
}

#[test]
fn what_was_not_handed_over_in_time_is_held_until_it_is_done() {
    require!();
    let folder = tempfile::tempdir().unwrap();
    let name = unique("late");
    let _cleared = Cleared(name.clone());
    let (_keeper, socket) = keeper(folder.path());
    let (busy, host) = Busy::start(&name, socket, true);
    let late = host.hand_over();
    drop(host);
    assert!(
        matches!(&late, Err(DetachError::System { source, .. }) if source.kind() == std::io::ErrorKind::TimedOut),
        "{late:?}"
    );
    busy.hold_until_it_is_done();
}

#[test]
fn a_device_that_nobody_uses_and_nobody_writes_is_handed_over() {
    require!();
    let folder = tempfile::tempdir().unwrap();
    let name = unique("idle");
    let _cleared = Cleared(name.clone());
    let (_keeper, socket) = keeper(folder.path());
    let device: Arc<dyn Device> = Arc::new(Memory::new(&vec![3; SIZE]));
    let mut before = host(&socket);
    let path = before.attach(&name, device.clone()).unwrap();
    for _ in 0..10 {
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            let outcome = before.hand_over();
            drop(before);
            sender.send(outcome)
        });
        receiver.recv_timeout(LONG).expect("it is handed over").unwrap();
        before = host(&socket);
        assert_eq!(before.attach(&name, device.clone()).unwrap(), path);
    }
    assert_eq!(page(&path, 0), 3);
    before.detach(&name).unwrap();
}
