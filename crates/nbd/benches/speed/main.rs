//! How fast the server is, against qemu-nbd and nbdkit: `cargo bench -p nbd`. A measurement, no test.
//!
//! All serve one file in memory over sockets of a path, and fio asks them in turn. `ROUNDS` says how often.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a measurement may panic")]

mod fio;

use fio::{Image, Peer};
use nbd::{Export, Limits, Listener, Server};
use std::path::Path;
use tokio_util::sync::CancellationToken;

fn peer(words: &[&str], socket: &Path) -> Peer {
    Peer::start(words, || std::os::unix::net::UnixStream::connect(socket).is_ok())
}

fn measure(image: &Image) {
    let socket = |name: &str| image.folder().join(name);
    let target = |name: &str, export: &str| {
        vec!["--ioengine=nbd".to_owned(), format!("--uri=nbd+unix:///{export}?socket={}", socket(name).display())]
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let stop = CancellationToken::new();
    let export = Export { name: "disk".into(), description: String::new(), device: image.device() };
    let server = Server::new(vec![export], Limits::default()).unwrap();
    let ours = runtime.block_on(async { Listener::unix(&socket("ours")).unwrap() });
    let ends = stop.clone();
    let serving = runtime.spawn(async move { server.serve(ours, ends).await });
    let (qemu_socket, kit_socket) = (socket("qemu"), socket("nbdkit"));
    let at = qemu_socket.to_str().unwrap();
    let raw = ["--cache=none", "--aio=threads", "-f", "raw"];
    let qemu = peer(&[&["qemu-nbd", "-t", "-e", "8", "-k", at][..], &raw, &[image.path()]].concat(), &qemu_socket);
    let kit = peer(&["nbdkit", "-f", "-U", kit_socket.to_str().unwrap(), "file", image.path()], &kit_socket);
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

fn main() {
    fio::bench(measure);
}
