//! Full disks: below the repository, below the target of a restore, below a cache. What is there stays as it is; the error says what is full
//! and what to do; with room it works.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::place::{Place, noise};
use sandbox::small_disk::SmallDisk;

const MIB: u64 = 1 << 20;
const FULL: &str = "No space left on device";

/// A small disk, or a skip.
macro_rules! small_disk {
    ($mib:expr) => {
        match SmallDisk::mount($mib) {
            Ok(disk) => disk,
            Err(reason) => sandbox::skip!("{reason}"),
        }
    };
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Fills a folder with files of 1 MiB.
fn fill(folder: &Path, files: u64) {
    fs::create_dir_all(folder).unwrap();
    for number in 0..files {
        fs::write(folder.join(format!("file-{number:02}")), noise(MIB, number)).unwrap();
    }
}

fn same(one: &Path, other: &Path) {
    assert!(Command::new("diff").arg("-r").args([one, other]).status().unwrap().success(), "they differ");
}

#[test]
fn a_repository_on_a_full_disk_keeps_what_it_has_and_goes_on_when_there_is_room() {
    let disk = small_disk!(24);
    let place = Place::elsewhere(&disk.path().join("repository"));
    let data = place.path("data");
    fill(&data, 4);
    place.run(&["backup", text(&data), "--id", "first"]).good();
    let before = place.path("before");
    assert!(Command::new("cp").arg("-a").args([&data, &before]).status().unwrap().success());

    // The repository itself fills the disk.
    fill(&data, 40);
    let said = place.run(&["backup", text(&data), "--id", "second"]).ended(1);
    said.says("there is no space left").says("next: free space");
    assert_eq!(place.run(&["list", "-o", "name"]).good(), "first\n");
    assert!(place.objects("unfinished").is_empty(), "a part stays");
    place.run(&["check", "--read-data"]).good();

    // Others fill it, to the last byte.
    let ballast = disk.fill().unwrap();
    fs::write(data.join("small"), "small").unwrap();
    place
        .run(&["backup", text(&data), "--id", "third"])
        .ended(1)
        .says("there is no space left")
        .says("next: free space");
    place.run(&["prune", "--dead-after", "0s"]).ended(1).says("there is no space left").says("next: free space");
    place.run(&["check", "--read-data"]).good();
    place.run(&["restore", "first", &place.text("back")]).good();
    same(&before, &place.path("back"));

    // With room it goes on, and what the failed runs have left is freed.
    fs::remove_file(ballast).unwrap();
    let freed = place.run(&["prune", "--dead-after", "0s", "-o", "json"]).json();
    assert_eq!(freed["state"], "finished", "{freed}");
    assert_eq!(place.objects("domains/default/packs").len(), 1);
    disk.resize(64).unwrap();
    place.run(&["backup", text(&data), "--id", "fourth"]).good();
    fs::remove_dir_all(place.path("back")).unwrap();
    place.run(&["restore", "fourth", &place.text("back")]).good();
    same(&data, &place.path("back"));
    place.run(&["check", "--read-data"]).good();
}

/// The space of a process that was killed while it wrote a pack is freed although nothing else can be written.
#[test]
fn what_dead_processes_left_is_freed_on_a_disk_without_any_room() {
    let disk = small_disk!(16);
    let place = Place::elsewhere(&disk.path().join("repository"));
    let data = place.path("data");
    fill(&data, 2);
    for id in ["first", "second"] {
        place.run(&["backup", text(&data), "--id", id, "--no-parent"]).good();
    }
    place.run(&["forget", "first"]).good();
    fs::write(place.repository().join("unfinished").join("0".repeat(32)), noise(MIB, 1)).unwrap();
    disk.fill().unwrap();
    let freed = place.run(&["prune", "--dead-after", "0s", "-o", "json"]).json();
    assert_eq!((&freed["unfinishedBytes"], &freed["packs"]), (&MIB.into(), &1.into()), "{freed}");
    place.run(&["check", "--read-data"]).good();
}

#[test]
fn an_image_or_a_stream_that_does_not_fit_leaves_what_was_there() {
    let disk = small_disk!(6);
    let place = Place::new();
    fs::write(place.path("disk"), noise(8 * MIB, 1)).unwrap();
    let bytes = noise(9 * MIB, 2);
    place.run(&["backup", "--image", &place.text("disk"), "--id", "image"]).good();
    let stored = place.command().args(["backup", "--stdin", "x", "--id", "stream"]).write_stdin(bytes.clone()).output();
    assert!(stored.unwrap().status.success());
    for (id, expected) in [("image", fs::read(place.path("disk")).unwrap()), ("stream", bytes)] {
        let target = disk.path().join(id);
        for (there, words) in [(None, &[][..]), (Some("mine"), &["--replace"])] {
            there.iter().for_each(|there| fs::write(&target, there).unwrap());
            let said = place.run(&[&["restore", id, text(&target)], words].concat()).ended(1);
            said.says(FULL).says(text(&target)).says("next: make room there");
            assert_eq!(fs::read_to_string(&target).ok().as_deref(), there);
            let left = fs::read_dir(disk.path()).unwrap().count();
            assert_eq!(left, usize::from(there.is_some()), "a part stays");
        }
        disk.resize(16).unwrap();
        place.run(&["restore", id, text(&target), "--replace"]).good();
        assert!(fs::read(&target).unwrap() == expected, "{id} comes back otherwise");
        fs::remove_file(target).unwrap();
        disk.resize(6).unwrap();
    }
}

#[test]
fn what_is_written_to_a_full_disk_by_way_of_standard_output_is_an_error_too() {
    let disk = small_disk!(2);
    let place = Place::new();
    fs::write(place.path("disk"), noise(4 * MIB, 1)).unwrap();
    place.run(&["backup", "--image", &place.text("disk"), "--id", "p"]).good();
    let mut dump = Command::new(env!("CARGO_BIN_EXE_orlop"));
    dump.envs(place.environment()).args(["repo", "dump", "p"]).stderr(Stdio::piped());
    let dump = dump.stdout(File::create(disk.path().join("dump")).unwrap()).spawn().unwrap();
    let output = dump.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && said.contains(FULL) && said.contains("next: make room there"), "{said}");
}

#[test]
fn a_tree_that_does_not_fit_leaves_what_was_there_and_goes_on_when_there_is_room() {
    let disk = small_disk!(8);
    let place = Place::new();
    let data = place.path("data");
    fill(&data, 12);
    fs::write(data.join("file-11"), noise(7 * MIB, 11)).unwrap();
    place.run(&["backup", text(&data), "--id", "p"]).good();
    let target = disk.path().join("target");
    fs::create_dir(&target).unwrap();
    fs::write(target.join("other"), "mine").unwrap();
    // The last one needs more than there is in all, whatever was restored before.
    for name in ["file-00", "file-11"] {
        fs::write(target.join(name), "old").unwrap();
    }
    let said = place.run(&["restore", "p", text(&target), "--replace"]).ended(1);
    said.says(FULL).says(text(&target)).says("next: make room there");
    assert_eq!(fs::read(target.join("other")).unwrap(), b"mine");
    for entry in fs::read_dir(&target).unwrap() {
        let path = entry.unwrap().path();
        let (found, whole) = (fs::read(&path).unwrap(), fs::read(data.join(path.file_name().unwrap())).ok());
        assert!(found == b"mine" || found == b"old" || whole == Some(found), "{} is half of a file", path.display());
    }
    disk.resize(32).unwrap();
    place.run(&["restore", "p", text(&target), "--replace"]).good();
    fs::remove_file(target.join("other")).unwrap();
    same(&data, &target);
}

/// A server, killed at the end.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_cache_on_a_full_disk_only_stays_as_it_is() {
    if Command::new("nbdcopy").arg("--version").output().is_err() {
        sandbox::skip!("nbdcopy is missing: install libnbd-bin");
    }
    let disk = small_disk!(2);
    let place = Place::new();
    let image = File::create(place.path("disk")).unwrap();
    image.write_all_at(&noise(8 * MIB, 1), 0).unwrap();
    place.run(&["backup", "--image", &place.text("disk"), "--id", "p"]).good();
    let (cache, socket) = (disk.path().join("cache"), place.text("socket"));
    let mut serve = Command::new(env!("CARGO_BIN_EXE_orlop"));
    serve.envs(place.environment()).env_remove("RUST_LOG").args(["repo", "serve", "p", "-o", "name"]);
    serve.args(["--socket", &socket, "--cache", text(&cache), "--cache-size", "64MiB"]);
    let mut server = Server(serve.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    // It says where, when clients can connect.
    let uri = {
        let (mut uri, mut byte) = (Vec::new(), [0]);
        while !uri.ends_with(b"\n") && server.0.stdout.as_mut().unwrap().read(&mut byte).unwrap() > 0 {
            uri.extend(byte);
        }
        String::from_utf8(uri).unwrap()
    };
    for _ in 0..2 {
        let copy = place.path("copy");
        assert!(Command::new("nbdcopy").args([uri.trim(), text(&copy)]).status().unwrap().success());
        assert!(fs::read(copy).unwrap() == fs::read(place.path("disk")).unwrap());
    }
    server.0.kill().unwrap();
    let mut said = String::new();
    server.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    let warnings = said.lines().filter(|line| line.contains("the cache takes no more for now")).count();
    assert!(warnings == 1 && said.contains(FULL) && said.contains(text(&cache)), "{said}");
    let left = fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(left.into_iter().all(|name| !name.starts_with("unfinished")), "a part stays");
}
