//! `orlop repo` with images, devices and streams.

use std::fs::{self, File};
use std::ops::Deref;
use std::os::unix::fs::{FileExt, MetadataExt};

use crate::support::Ran;
use crate::support::place::{Place, noise};
use serde_json::Value;

const MIB: u64 = 1 << 20;

/// A repository, and an image of 8 MiB beside it: a MiB of bytes, a hole, and some more bytes.
struct Volumes(Place);

impl Deref for Volumes {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.0
    }
}

impl Volumes {
    fn new() -> Self {
        let place = Self(Place::new());
        let image = File::create(place.path("disk")).unwrap();
        image.set_len(8 * MIB).unwrap();
        place.write(0, &noise(MIB, 1));
        place.write(5 * MIB + 123, &noise(70_000, 2));
        place
    }

    fn write(&self, offset: u64, bytes: &[u8]) {
        File::options().write(true).open(self.path("disk")).unwrap().write_all_at(bytes, offset).unwrap();
    }

    fn backup(&self, words: &[&str]) -> Value {
        self.run(&[&["backup", "--image", &self.text("disk"), "--name", "disk", "-o", "json"], words].concat()).json()
    }

    fn is_the_disk(&self, name: &str) -> bool {
        fs::read(self.path(name)).unwrap() == fs::read(self.path("disk")).unwrap()
    }
}

#[test]
fn an_image_comes_back_as_a_file_and_on_standard_output() {
    let place = Volumes::new();
    let done = place.backup(&["--id", "monday"]);
    assert_eq!(done["contents"][0]["kind"], "volume");
    assert_eq!(done["contents"][0]["bytes"], 8 * MIB);
    assert!(done["contents"][0]["readBytes"].as_u64().unwrap() < 2 * MIB, "holes are not read: {done}");
    assert!(place.run(&["show", "monday"]).good().contains("disk"));

    let target = place.text("back");
    place.run(&["restore", "monday", &target]).good();
    assert!(place.is_the_disk("back"));
    assert!(fs::metadata(&target).unwrap().blocks() * 512 < 3 * MIB, "holes stay holes");
    place.run(&["restore", "monday", &target]).ended(1).says("exists; name a new file").says("next: --replace");
    fs::create_dir(place.path("folder")).unwrap();
    place.run(&["restore", "monday", &place.text("folder")]).good();
    assert!(place.is_the_disk("folder/disk"));
    place.run(&["restore", "monday", &target, "--replace"]).good();
    fs::remove_file(&target).unwrap();
    fs::rename(place.path("folder/disk"), place.path("back.orlop-unfinished")).unwrap();
    assert!(place.run(&["restore", "monday", &target, "--resume"]).good().contains("were there already"));
    assert!(place.is_the_disk("back"));

    let dumped = place.command().args(["dump", "monday"]).output().unwrap();
    assert!(dumped.status.success() && dumped.stdout == fs::read(place.path("disk")).unwrap());
    place.run(&["ls", "monday"]).ended(2).says("has no files that could be named");
    place.run(&["restore", "monday", &place.text("x"), "--path", "a"]).ended(2).says("has no files");
    place.run(&["check", "--read-data"]).good();
}

#[test]
fn with_a_list_of_changes_nothing_else_is_read_and_verify_finds_what_it_misses() {
    let place = Volumes::new();
    place.backup(&["--id", "monday"]);
    place.write(MIB / 2, b"changed and named");
    place.write(MIB / 4, b"changed and not named");
    fs::write(place.path("changes"), format!("# offset length\n{} 17\n", MIB / 2)).unwrap();
    let changes = place.text("changes");
    let done = place.backup(&["--id", "tuesday", "--parent", "monday", "--changed-ranges", &changes]);
    assert_eq!((&done["contents"][0]["readBytes"], &done["contents"][0]["parent"]), (&4096.into(), &"monday".into()));

    let disk = place.text("disk");
    let found: Value = {
        let ran = place.run(&["verify", "tuesday", "--source", &disk, "-o", "json"]).ended(1);
        serde_json::from_str(&ran.stdout).unwrap()
    };
    assert_eq!((&found["equal"], &found["differentBytes"]), (&false.into(), &4096.into()));
    assert_eq!(found["first"][0]["offset"], MIB / 4);

    // Without a list everything is read, compared by identity, and right again.
    place.backup(&["--id", "wednesday"]);
    assert!(place.run(&["verify", "latest", "--source", &disk]).good().contains("is what wednesday has of disk"));
    place.run(&["restore", "wednesday", &place.text("back")]).good();
    assert!(place.is_the_disk("back"));
    place.run(&["check", "--read-data"]).good();
}

#[test]
fn what_comes_on_standard_input_comes_back() {
    let place = Volumes::new();
    let dump = noise(6 * MIB + 5, 7);
    let words = ["backup", "--stdin", "orders.sql", "--id", "dump", "-o", "json"];
    let done: Ran = place.command().args(words).write_stdin(dump.clone()).output().unwrap().into();
    let done = done.json();
    assert_eq!((&done["contents"][0]["kind"], &done["contents"][0]["bytes"]), (&"stream".into(), &dump.len().into()));
    let back = place.command().args(["dump", "dump"]).output().unwrap();
    assert!(back.status.success() && back.stdout == dump);
    place.run(&["restore", "dump", &place.text("orders.sql")]).good();
    assert!(fs::read(place.path("orders.sql")).unwrap() == dump);
    place.run(&["check", "--read-data"]).good();
}

/// The next generation may lie in another file, as snapshots do.
#[test]
fn an_image_of_another_name_is_compared_with_the_only_one_of_its_size() {
    let place = Volumes::new();
    place.backup(&["--id", "monday"]);
    let (next, list) = (place.text("next"), place.text("changes"));
    let mut image = fs::read(place.path("disk")).unwrap();
    image[4096..8192].copy_from_slice(&noise(4096, 5));
    fs::write(&next, &image).unwrap();
    fs::write(&list, "4096 4096\n").unwrap();
    let backup = |id: &str, words: &[&str]| {
        let all = [&["backup", "--image", &next, "--id", id, "--json"], words].concat();
        let done = place.run(&all).json();
        assert_eq!(done["contents"][0]["parent"], "monday", "{done}");
        assert!(done["storedBytes"].as_u64().unwrap() < 100 << 10, "{done}");
        place.run(&["verify", id, "--source", &next]).good();
        place.run(&["forget", id]).good();
    };
    backup("all", &[]);
    backup("list", &["--parent", "monday", "--changed-ranges", &list]);
    fs::write(&next, &image[..image.len() - 4096]).unwrap();
    let by_list = ["--parent", "monday", "--changed-ranges", &list];
    place.run(&[&["backup", "--image", &next], &by_list[..]].concat()).ended(1).says("has no volume");
    let other = place.run(&["backup", "--image", &next, "--json"]).json();
    assert_eq!(other["contents"][0].get("parent"), None, "an image of another size is another one");
}

#[test]
fn what_cannot_be_done_is_said_and_changes_nothing() {
    let place = Volumes::new();
    place.backup(&["--id", "monday"]);
    let (disk, list) = (place.text("disk"), place.text("changes"));
    fs::write(&list, "0 4096\nall of it\n").unwrap();
    let image = ["backup", "--image", &disk, "--name", "disk"];
    let refused = |words: &[&str], code, said: &str| {
        place.run(&[&image, words].concat()).ended(code).says(said);
    };
    refused(&["--changed-ranges", &list], 2, "--parent");
    refused(&["--changed-ranges", &list, "--parent", "monday"], 1, "line 2 of the list of changes is \"all of it\"");
    fs::write(&list, format!("{} 1\n", 8 * MIB)).unwrap();
    refused(&["--changed-ranges", &list, "--parent", "monday"], 1, "the volume ends at 8388608");
    refused(&["--parent", "sunday"], 1, "there is no recovery point sunday");
    place.command().args(["backup", "--stdin", "text", "--id", "text"]).write_stdin("text").assert().success();
    place.run(&["backup", "--image", &disk, "--parent", "text"]).ended(1).says("has no volume");
    place.run(&["backup", "--image", &place.text("no-disk")]).ended(1).says("no-disk");
    place.run(&["backup", "--image", &place.text("")]).ended(2).says("it is a folder");
    place.run(&["backup", "--image", "/dev/null"]).ended(2).says("neither a file nor a block device");
    place.run(&["backup", "--stdin", ""]).ended(2).says("a value is required");
    place.run(&["backup", "--stdin", "x", "--dry-run"]).ended(2).says("leave --dry-run out");
    let would = place.run(&[&image, &["--dry-run", "-o", "json"][..]].concat()).json();
    assert_eq!(
        (&would["bytes"], &would["parent"], &would["dryRun"]),
        (&(8 * MIB).into(), &"monday".into(), &true.into())
    );
    let points = place.run(&["list", "-o", "json"]).json();
    assert_eq!(points.as_array().unwrap().len(), 2, "the first and the text");
}

/// A loop device over a file, taken away again at the end.
struct Loop {
    device: String,
}

impl Loop {
    fn over(file: &std::path::Path) -> Option<Self> {
        let out = std::process::Command::new("losetup").args(["--find", "--show"]).arg(file).output().ok()?;
        let device = String::from_utf8(out.stdout).ok()?.trim().to_owned();
        out.status.success().then_some(Self { device })
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let detached = std::process::Command::new("losetup").args(["--detach", &self.device]).status();
        assert!(detached.is_ok_and(|status| status.success()), "{} stays", self.device);
    }
}

#[test]
fn a_device_is_stored_and_filled_and_what_was_on_it_is_gone() {
    sandbox::require_root!();
    let place = Volumes::new();
    fs::write(place.path("garbage"), noise(9 * MIB, 9)).unwrap();
    let (Some(source), Some(target)) = (Loop::over(&place.path("disk")), Loop::over(&place.path("garbage"))) else {
        sandbox::skip::report("a_device_is_stored_and_filled", "losetup finds no free loop device");
        return;
    };
    place.run(&["backup", "--image", &source.device, "--name", "disk", "--id", "monday"]).good();
    place.run(&["verify", "monday", "--source", &place.text("disk")]).good();
    place.run(&["restore", "monday", &target.device]).good();
    let ran = place.run(&["verify", "monday", "--source", &target.device, "-o", "json"]).ended(1);
    let found: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(found["differentBytes"], 0, "only its size is another one: {found}");
    assert_eq!(found["otherSize"], 9 * MIB);
    drop(target);
    File::options().write(true).open(place.path("garbage")).unwrap().set_len(4 * MIB).unwrap();
    let small = Loop::over(&place.path("garbage")).unwrap();
    place.run(&["restore", "monday", &small.device]).ended(1).says("has 4194304 bytes, and the volume has 8388608");
}
