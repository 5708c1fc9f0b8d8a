//! How fast the server is, against qemu-nbd and nbdkit: `cargo bench -p nbd`. A measurement, no test.
//!
//! All serve one file in memory over sockets of a path, and fio asks them in turn. `ROUNDS` says how often.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a measurement may panic")]

mod fio;

use block::testing::FileDisk;
use nbd::{Export, Limits, Listener, Server};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// A peer, which ends with its guard.
struct Peer(Child);

impl Peer {
    fn start(words: &[&str], socket: &Path) -> Self {
        let mut command = Command::new(words[0]);
        let mut child = command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        while std::os::unix::net::UnixStream::connect(socket).is_err() {
            assert!(child.try_wait().unwrap().is_none(), "{} has ended", words[0]);
            std::thread::yield_now();
        }
        Self(child)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() {
    // A test runner asks what there is: nothing that it should run.
    if std::env::args().any(|word| word == "--list") {
        return;
    }
    let (file, folder) = (fio::file(), tempfile::tempdir().unwrap());
    let image = file.path().to_str().unwrap();
    let socket = |name: &str| folder.path().join(name);
    let target = |name: &str, export: &str| {
        vec!["--ioengine=nbd".to_owned(), format!("--uri=nbd+unix:///{export}?socket={}", socket(name).display())]
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let stop = CancellationToken::new();
    let device = Arc::new(FileDisk::open(file.path()).unwrap());
    let export = Export { name: "disk".into(), description: String::new(), device };
    let server = Server::new(vec![export], Limits::default()).unwrap();
    let ours = runtime.block_on(async { Listener::unix(&socket("ours")).unwrap() });
    let ends = stop.clone();
    let serving = runtime.spawn(async move { server.serve(ours, ends).await });
    let (qemu_socket, kit_socket) = (socket("qemu"), socket("nbdkit"));
    let at = qemu_socket.to_str().unwrap();
    let raw = ["--cache=none", "--aio=threads", "-f", "raw"];
    let qemu = Peer::start(&[&["qemu-nbd", "-t", "-e", "8", "-k", at][..], &raw, &[image]].concat(), &qemu_socket);
    let kit = Peer::start(&["nbdkit", "-f", "-U", kit_socket.to_str().unwrap(), "file", image], &kit_socket);
    println!("{}; {}; {}\n", fio::version("qemu-nbd"), fio::version("nbdkit"), fio::version("fio"));
    fio::compare(&[
        ("orlop", target("ours", "disk")),
        ("qemu-nbd", target("qemu", "")),
        ("nbdkit file", target("nbdkit", "")),
    ]);
    drop((qemu, kit));
    stop.cancel();
    runtime.block_on(serving).unwrap().unwrap();
}
