//! A server of one device, and a keeper, as processes that tests can kill.
//!
//! `device keeper SOCKET` keeps until its standard input ends. `device serve NAME FILE SOCKET|- now|later|never` attaches a file, says
//! `attached PATH`, and does what it is told by lines of its standard input: `detach` and `hand-over`, both of which say how it went.

#![allow(clippy::unwrap_used, reason = "its tests see why it died")]

use block::Device;
use block::testing::{FileDisk, Later};
use fuse::{Host, Keeper, KeeperServer};
use std::io::BufRead;
use std::path::Path;
use std::sync::Arc;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["keeper", socket] => keep(Path::new(socket)),
        ["serve", name, file, socket, how] => serve(name, Path::new(file), socket, how),
        _ => panic!("unknown words: {words:?}"),
    }
}

fn keep(socket: &Path) {
    let server = KeeperServer::bind(socket).unwrap();
    println!("keeps");
    server.run(std::io::stdin()).unwrap();
}

fn serve(name: &str, file: &Path, socket: &str, how: &str) {
    // Not everywhere are tests allowed to lock memory.
    if let Err(error) = fuse::harden() {
        eprintln!("{error}");
    }
    let keeper = (socket != "-").then(|| Keeper::connect(Path::new(socket)).unwrap());
    let host = Host::new(keeper);
    let disk = FileDisk::open(file).unwrap();
    let device: Arc<dyn Device> = match how {
        "now" => Arc::new(disk),
        "later" => Arc::new(Later::new(Arc::new(disk), 3)),
        "never" => {
            let later = Later::new(Arc::new(disk), 1);
            later.gate().close();
            Arc::new(later)
        }
        other => panic!("{other} is no way to serve"),
    };
    let path = host.attach(name, device).unwrap_or_else(|error| panic!("{}", chain(&error)));
    println!("attached {}", path.display());
    for line in std::io::stdin().lock().lines() {
        match line.unwrap().as_str() {
            "detach" => match host.detach(name) {
                Ok(()) => println!("detached"),
                Err(error) => println!("{}", chain(&error)),
            },
            "hand-over" => {
                host.hand_over().unwrap();
                println!("handed over");
                return;
            }
            other => panic!("{other} is no command"),
        }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
