//! `orlop repo serve`, as the clients of others see it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::ops::Deref;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use crate::support::place::{Place, noise};
use serde_json::{Value, json};

const MIB: u64 = 1 << 20;

/// A repository that is served from.
struct Server(Place);

impl Deref for Server {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.0
    }
}

impl Server {
    fn new() -> Self {
        Self(Place::new())
    }

    /// Stores an image; with holes, some data at its begin and its end, and some that is changed by a second backup.
    fn image(&self, name: &str, id: &str) {
        let image = File::create(self.path(name)).unwrap();
        image.set_len(40 * MIB + 512).unwrap();
        image.write_all_at(&noise(5 * MIB, 1), 0).unwrap();
        image.write_all_at(&noise(70_000, 2), 20 * MIB + 123).unwrap();
        image.write_all_at(&noise(512, 3), 40 * MIB).unwrap();
        let path = self.text(name);
        let words = ["backup", "--image", &path, "--name", name, "--id", id];
        self.run(&words).good();
        image.write_all_at(b"changed", MIB + 5000).unwrap();
        fs::write(self.path("changes"), format!("{} 7\n", MIB + 5000)).unwrap();
        let changes = self.text("changes");
        let second = format!("{id}-2");
        let words = ["backup", "--image", &path, "--name", name, "--id", &second, "--parent", id];
        self.run(&[&words[..], &["--changed-ranges", &changes]].concat()).good();
    }

    fn serve(&self, words: &[&str]) -> Served {
        let mut command = Command::new(env!("CARGO_BIN_EXE_orlop"));
        let words = [&["repo", "serve", "-o", "json"][..], words].concat();
        command.envs(self.environment()).env_remove("RUST_LOG").args(words);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        // The offer is one JSON document, written when clients can connect.
        let mut text = String::new();
        while !text.ends_with("\n}\n") {
            if stdout.read_line(&mut text).unwrap() == 0 {
                let mut said = String::new();
                child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
                panic!("it ended: {said}");
            }
        }
        Served { offer: serde_json::from_str(&text).unwrap(), child: Some(child) }
    }
}

/// A server, ended by SIGTERM at the end.
struct Served {
    offer: Value,
    child: Option<Child>,
}

impl Served {
    fn uri(&self, index: usize) -> &str {
        self.offer["exports"][index]["uri"].as_str().unwrap()
    }

    /// Tells it to end with a signal; it must, well, and what it said is given.
    fn end(mut self, signal: &str) -> String {
        let child = self.child.take().unwrap();
        let id = child.id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &id]).status().unwrap().success());
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{}: {said}", output.status);
        said
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn has(programs: &[&str]) -> bool {
    let runs = |program: &&str| Command::new(program).arg("-V").output().is_ok();
    programs.iter().all(runs)
}

fn run(program: &str, words: &[&str]) -> Output {
    Command::new(program).args(words).output().unwrap()
}

fn good(program: &str, words: &[&str]) -> String {
    let output = run(program, words);
    assert!(output.status.success(), "{program} {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_volume_is_what_it_was_to_libnbd_and_qemu() {
    if !has(&["nbdinfo", "nbdcopy", "qemu-img"]) {
        sandbox::skip!("nbdinfo, nbdcopy or qemu-img is missing: install libnbd-bin and qemu-utils");
    }
    let place = Server::new();
    place.image("disk", "monday");
    let (socket, disk, copy) = (place.text("nbd.sock"), place.text("disk"), place.text("copy"));
    let served = place.serve(&["latest", "--socket", &socket]);
    let uri = format!("nbd+unix:///disk?socket={socket}");
    let size = 40 * MIB + 512;
    let expected = json!({"recoveryPoint": "monday-2", "exports": [{"name": "disk", "bytes": size, "uri": uri}]});
    assert_eq!(served.offer, expected);

    let info: Value = serde_json::from_str(&good("nbdinfo", &["--json", &uri])).unwrap();
    let export = &info["exports"][0];
    assert_eq!((&export["export-size"], &export["is_read_only"]), (&size.into(), &true.into()));
    assert_eq!(export["description"], "disk of the recovery point monday-2");
    let map: Value = serde_json::from_str(&good("nbdinfo", &["--json", "--map", &uri])).unwrap();
    let found: Vec<_> = map.as_array().unwrap().iter().map(|s| (&s["offset"], &s["length"], &s["type"])).collect();
    let (part, at) = (64 << 10, 20 * MIB);
    let stretches = [
        (0, 5 * MIB, 0),
        (5 * MIB, at - 5 * MIB, 3),
        (at, 2 * part, 0),
        (at + 2 * part, at - 2 * part, 3),
        (2 * at, 512, 0),
    ];
    let stretches: Vec<_> = stretches.iter().map(|(at, len, kind)| (json!(at), json!(len), json!(kind))).collect();
    assert_eq!(found, stretches.iter().map(|(at, len, kind)| (at, len, kind)).collect::<Vec<_>>());

    good("nbdcopy", &[&uri, &copy]);
    assert!(fs::read(&copy).unwrap() == fs::read(&disk).unwrap());
    good("qemu-img", &["compare", "-f", "raw", "-F", "raw", &disk, &uri]);
    File::options().write(true).open(&disk).unwrap().write_all_at(b"x", 3 * MIB).unwrap();
    assert_eq!(run("qemu-img", &["compare", "-f", "raw", "-F", "raw", &disk, &uri]).status.code(), Some(1));
    assert!(!run("nbdcopy", &[&copy, &uri]).status.success(), "it is read-only");

    assert_eq!(served.end("TERM"), "");
    assert!(!PathBuf::from(&socket).exists(), "the socket stays");
}

#[test]
fn a_file_system_on_a_volume_is_sound_and_its_files_are_there() {
    if !has(&["nbdcopy", "mkfs.ext4", "fsck.ext4", "debugfs"]) {
        sandbox::skip!("nbdcopy or e2fsprogs is missing: install libnbd-bin and e2fsprogs");
    }
    let place = Server::new();
    let files = place.path("files");
    fs::create_dir_all(files.join("folder")).unwrap();
    fs::write(files.join("folder/large"), noise(7 * MIB + 3, 5)).unwrap();
    for number in 0..200 {
        fs::write(files.join(format!("file-{number}")), noise(1000 + number, number)).unwrap();
    }
    let disk = place.text("disk");
    good("mkfs.ext4", &["-q", "-d", files.to_str().unwrap(), &disk, "48M"]);
    place.run(&["backup", "--image", &disk, "--name", "shop/data", "--id", "monday"]).good();
    let served = place.serve(&["monday", "--listen", "127.0.0.1:0"]);
    assert!(served.uri(0).starts_with("nbd://127.0.0.1:") && served.uri(0).ends_with("/shop/data"));
    let copy = place.text("copy");
    good("nbdcopy", &[served.uri(0), &copy]);
    good("fsck.ext4", &["-n", "-f", &copy]);
    let large = place.text("large");
    good("debugfs", &["-R", &format!("dump folder/large {large}"), &copy]);
    assert!(fs::read(large).unwrap() == noise(7 * MIB + 3, 5));
    served.end("INT");
}

#[test]
fn several_volumes_are_served_and_a_cache_takes_the_place_of_the_repository() {
    if !has(&["nbdinfo", "nbdcopy"]) {
        sandbox::skip!("nbdinfo or nbdcopy is missing: install libnbd-bin");
    }
    let place = Server::new();
    place.image("disk", "monday");
    let (cache, copy) = (place.text("cache"), place.text("copy"));
    let words = ["monday-2", "--cache", &cache, "--cache-size", "64MiB"];
    let served = place.serve(&words);
    assert!(served.uri(0).contains("?socket=") && served.uri(0).ends_with(".nbd"), "{}", served.uri(0));
    good("nbdcopy", &[served.uri(0), &copy]);
    place.run(&["serve", "monday", "--cache", &cache]).ended(1).says("another process uses the cache");
    served.end("TERM");
    // The packs are away; what was read once is still served.
    let packs = place.path("repository/domains/default/packs");
    fs::rename(&packs, place.path("packs")).unwrap();
    let served = place.serve(&words);
    good("nbdcopy", &[served.uri(0), &copy]);
    assert!(fs::read(&copy).unwrap() == fs::read(place.path("disk")).unwrap());
    served.end("TERM");
    // Without a cache they are missed: an error for the client, said once.
    let served = place.serve(&["monday-2"]);
    for _ in 0..3 {
        let output = run("nbdcopy", &[served.uri(0), &copy]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("Input/output error"), "{said}");
    }
    let said = served.end("TERM");
    let lines: Vec<_> = said.lines().filter(|line| line.contains("ERROR")).collect();
    let mut different = lines.iter().map(|line| line.split_once("ERROR").unwrap().1).collect::<Vec<_>>();
    different.sort_unstable();
    different.dedup();
    assert!(!lines.is_empty() && lines.len() == different.len(), "each is said once:\n{said}");
}

#[test]
fn what_cannot_be_served_is_said() {
    let place = Server::new();
    place.image("disk", "monday");
    fs::create_dir(place.path("folder")).unwrap();
    fs::write(place.path("folder/file"), "1").unwrap();
    place.run(&["backup", &place.text("folder"), "--id", "files"]).good();
    place.run(&["serve", "files"]).ended(1).says("has no volume that was stored as an image");
    let folder = place.text("folder");
    place.run(&["serve", "files", "--volume", &folder]).ended(2).says("was stored as files");
    place.run(&["serve", "monday", "--volume", "none"]).ended(1).says("it has: disk");
    place.run(&["serve", "sunday"]).ended(1).says("there is no recovery point sunday");
    place.run(&["serve", "monday", "--cache-size", "1GiB"]).ended(2).says("--cache");
    place.run(&["serve", "monday", "--cache", "c", "--cache-size", "much"]).ended(2).says("512MiB");
    let there = place.text("password");
    place.run(&["serve", "monday", "--socket", &there]).ended(1).says("is no socket that a server has left");
    place.run(&["serve", "monday", "--socket", "s", "--listen", "[::1]:0"]).ended(2).says("cannot be used with");
    assert_eq!(fs::read(there).unwrap(), b"open sesame\n");
}
