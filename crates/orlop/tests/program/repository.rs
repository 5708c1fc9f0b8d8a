//! `orlop repo` end to end, on repositories in folders.

use std::fs;
use std::ops::Deref;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::support::place::{Place, flip, noise};
use crate::support::{Ran, orlop};
use assert_cmd::Command;
use serde_json::Value;

/// A repository, a folder that is backed up into it, and room for what is restored.
struct Files(Place);

impl Deref for Files {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.0
    }
}

impl Files {
    /// With a repository in it.
    fn new() -> Self {
        let place = Self::empty();
        place.run(&["init"]).good();
        place
    }

    fn empty() -> Self {
        let place = Self(Place::empty());
        fs::create_dir(place.data()).expect("make a folder");
        place
    }

    fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// Puts some files into the folder.
    fn fill(&self) {
        let data = self.data();
        fs::create_dir(data.join("sub folder")).expect("make a folder");
        fs::write(data.join("hello"), "hello\n").expect("write");
        fs::write(data.join("sub folder/large"), noise(3 << 20, 0)).expect("write");
        fs::hard_link(data.join("hello"), data.join("sub folder/hello too")).expect("link");
        symlink("hello", data.join("link")).expect("link");
        fs::set_permissions(data.join("hello"), fs::Permissions::from_mode(0o640)).expect("set the mode");
        let sparse = fs::File::create(data.join("sparse")).expect("make");
        sparse.set_len(5 << 20).expect("make it long");
    }

    /// Backs the folder up; gives what is printed.
    fn backup(&self, words: &[&str]) -> Value {
        let data = self.data();
        let data = data.to_str().expect("the path is text");
        self.run(&[&["backup", data, "-o", "json"], words].concat()).json()
    }
}

#[test]
fn what_is_backed_up_comes_back() {
    let place = Files::new();
    place.fill();
    let done = place.backup(&["--id", "first"]);
    assert_eq!(done["recoveryPoint"], "first");
    assert_eq!(done["complete"], true);
    assert_eq!(done["contents"][0]["files"], 3);

    let target = place.path("target");
    let restored = place.run(&["restore", "first", &place.text("target"), "-o", "json"]).json();
    assert_eq!(restored["contents"][0]["failed"]["count"], 0);
    assert_eq!(fs::read(target.join("hello")).expect("read"), b"hello\n");
    assert_eq!(fs::read(target.join("sub folder/large")).expect("read"), noise(3 << 20, 0));
    assert_eq!(fs::read_link(target.join("link")).expect("read"), Path::new("hello"));
    let hello = fs::metadata(target.join("hello")).expect("look");
    assert_eq!(hello.mode() & 0o7777, 0o640);
    assert_eq!(hello.ino(), fs::metadata(target.join("sub folder/hello too")).expect("look").ino());
    assert_eq!(hello.mtime(), fs::metadata(place.data().join("hello")).expect("look").mtime());
    let sparse = fs::metadata(target.join("sparse")).expect("look");
    assert_eq!((sparse.len(), sparse.blocks()), (5 << 20, 0));

    place.run(&["check"]).good();
    let checked = place.run(&["check", "--read-data", "-o", "json"]).json();
    assert_eq!((&checked["clean"], &checked["lookedAt"]["recoveryPoints"]), (&Value::Bool(true), &Value::from(1)));
}

#[test]
fn a_second_backup_reads_and_stores_only_what_is_new() {
    let place = Files::new();
    place.fill();
    // Times that are older than the run prove that a file is unchanged.
    let old = fs::FileTimes::new()
        .set_modified(std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000));
    fs::File::open(place.data().join("sub folder/large")).and_then(|f| f.set_times(old)).expect("set the times");
    let first = place.backup(&[]);
    fs::write(place.data().join("new"), "new").expect("write");
    let second = place.backup(&[]);
    assert_eq!(second["contents"][0]["parent"], first["recoveryPoint"]);
    assert_eq!(second["contents"][0]["files"], 4);
    let stored = |done: &Value| done["storedBytes"].as_u64().expect("a number");
    assert!(stored(&first) > 3 << 20, "{first}");
    assert!(stored(&second) < 64 << 10, "{second}");
    let list = place.run(&["list", "-o", "name"]).good();
    assert_eq!(list.lines().count(), 2);
    assert!(list.ends_with(&format!("{}\n", second["recoveryPoint"].as_str().expect("a name"))), "{list}");
    let shown = place.run(&["show", "latest", "-o", "json"]).json();
    assert_eq!(shown["id"], second["recoveryPoint"]);
}

#[test]
fn a_backup_on_a_pack_that_is_gone_is_stored_again() {
    let place = Files::new();
    place.fill();
    place.backup(&["--id", "first"]);
    let old = place.object("domains/default/packs");
    fs::write(place.data().join("new"), "new").expect("write");
    // Its tree is in a pack of its own, the content of the large file in the old one.
    place.backup(&["--id", "second"]);
    fs::remove_file(old).expect("remove the pack");
    let third = place.run(&["backup", place.data().to_str().expect("text"), "--id", "third", "-o", "json"]);
    assert!(third.stderr.contains("everything is stored again without it"), "{}", third.stderr);
    assert!(third.json()["storedBytes"].as_u64().is_some_and(|stored| stored > 3 << 20));
    let target = place.path("target");
    let restored = place.run(&["restore", "third", &place.text("target"), "-o", "json"]).json();
    assert_eq!(restored["contents"][0]["failed"]["count"], 0);
    assert_eq!(fs::read(target.join("sub folder/large")).expect("read"), noise(3 << 20, 0));
}

#[test]
fn files_are_listed_and_dumped_without_restoring() {
    let place = Files::new();
    place.fill();
    place.backup(&["--id", "p"]);
    assert_eq!(place.run(&["ls", "p", "-o", "name"]).good(), "hello\nlink\nsparse\nsub folder\n");
    let all = place.run(&["ls", "p", "-R", "-o", "name"]).good();
    assert!(all.contains("sub folder/large\n"), "{all}");
    let listed = place.run(&["ls", "p", "sub folder", "-o", "json"]).json();
    assert_eq!(listed[0]["kind"], "hardLink");
    assert_eq!((&listed[1]["path"], &listed[1]["size"]), (&Value::from("sub folder/large"), &Value::from(3 << 20)));
    assert_eq!(place.run(&["dump", "p", "hello"]).good(), "hello\n");
    assert_eq!(place.run(&["dump", "p", "/sub folder/hello too"]).good(), "hello\n");
    let sparse = place.command().args(["dump", "p", "sparse"]).output().expect("run orlop").stdout;
    assert_eq!(sparse, vec![0; 5 << 20]);
    let large = place.command().args(["dump", "p", "sub folder/large"]).output().expect("run orlop").stdout;
    assert_eq!(large, noise(3 << 20, 0));
    place.run(&["dump", "p", "sub folder"]).ended(1).says("sub folder is not a file");
    place.run(&["dump", "p", "none"]).ended(1).says("there is no none in the file tree");
    place.run(&["ls", "p", "none"]).ended(1).says("there is no such file");
    place.run(&["ls", "p", "../up"]).ended(2).says("has no ..");
}

#[test]
fn a_part_is_restored_with_the_folders_that_lead_there() {
    let place = Files::new();
    place.fill();
    place.backup(&["--id", "p"]);
    place.run(&["restore", "p", &place.text("part"), "--path", "sub folder"]).good();
    let names = |folder: PathBuf| {
        let mut names: Vec<_> = fs::read_dir(folder).expect("list").map(|e| e.expect("list").file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(place.path("part")), ["sub folder"]);
    assert_eq!(names(place.path("part/sub folder")), ["hello too", "large"]);
    // The first name of this file is outside of the part.
    assert_eq!(fs::read(place.path("part/sub folder/hello too")).expect("read"), b"hello\n");
    place.run(&["restore", "p", &place.text("none"), "--path", "none"]).ended(1).says("there is no such file");
    assert!(!place.path("none").exists());
}

#[test]
fn several_folders_are_one_recovery_point() {
    let place = Files::new();
    place.fill();
    let other = place.path("other");
    fs::create_dir(&other).expect("make a folder");
    fs::write(other.join("file"), "x").expect("write");
    let other = other.canonicalize().expect("there");
    let other = other.to_str().expect("text");
    place.backup(&["--id", "p", other]);
    place.run(&["ls", "p"]).ended(2).says("name one with --volume; it has: ");
    assert_eq!(place.run(&["ls", "p", "--volume", other, "-o", "name"]).good(), "file\n");
    place.run(&["restore", "p", &place.text("target")]).good();
    assert_eq!(fs::read(place.path("target").join(&other[1..]).join("file")).expect("read"), b"x");
    place.run(&["restore", "p", &place.text("one"), "--volume", other]).good();
    assert!(place.path("one/file").exists());
    place.run(&["restore", "p", &place.text("one"), "--volume", "no"]).ended(1).says("has no volume or folder no");
}

#[test]
fn a_target_that_holds_files_is_left_alone_unless_asked() {
    let place = Files::new();
    place.fill();
    place.backup(&["--id", "p"]);
    fs::create_dir(place.path("target")).expect("make a folder");
    fs::write(place.path("target/hello"), "mine").expect("write");
    place.run(&["restore", "p", &place.text("target")]).ended(1).says("is not empty: it holds hello").says("--replace");
    assert_eq!(fs::read(place.path("target/hello")).expect("read"), b"mine");
    place.run(&["restore", "p", &place.text("target"), "--replace"]).good();
    assert_eq!(fs::read(place.path("target/hello")).expect("read"), b"hello\n");
}

#[test]
fn a_damaged_pack_is_named_with_the_recovery_points_it_hits() {
    let place = Files::new();
    place.fill();
    place.backup(&["--id", "hit"]);
    let pack = place.object("domains/default/packs");
    place.run(&["forget", "hit"]).good();
    // Two more that have nothing in common with the damaged pack, and one that has.
    place.backup(&["--id", "whole", "--no-parent"]);
    let later = place.object("domains/default/packs");
    let victim = if later == pack { pack } else { later };
    flip(&victim, 4096);
    let name = victim.file_name().and_then(|name| name.to_str()).expect("text").to_owned();

    let ran = place.run(&["check", "--read-data"]).ended(1);
    assert!(ran.stdout.contains(&name), "{}", ran.stdout);
    assert!(ran.stdout.contains("wrong."), "{}", ran.stdout);
    let checked: Value =
        serde_json::from_str(&place.run(&["check", "--read-data", "-o", "json"]).ended(1).stdout).expect("JSON");
    assert_eq!(checked["clean"], false);
    assert!(checked["findings"][0]["object"].as_str().expect("a name").contains(&name), "{checked}");
}

#[test]
fn a_missing_pack_hits_only_the_points_that_need_it() {
    let place = Files::new();
    place.fill();
    place.backup(&["--id", "hit"]);
    let pack = place.object("domains/default/packs");
    for name in ["hello", "link", "sparse", "sub folder"] {
        let path = place.data().join(name);
        if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.expect("remove");
    }
    fs::write(place.data().join("another"), "another").expect("write");
    place.backup(&["--id", "whole", "--no-parent"]);
    fs::remove_file(&pack).expect("remove");

    let ran = place.run(&["check", "-o", "json"]).ended(1);
    let checked: Value = serde_json::from_str(&ran.stdout).expect("JSON");
    let findings = checked["findings"].as_array().expect("a list");
    assert!(findings.iter().all(|f| f["recoveryPoints"] == serde_json::json!(["hit"])), "{checked}");
    assert!(!findings.is_empty());
    place.run(&["restore", "hit", &place.text("a")]).ended(1).says("orlop repo check --read-data");
    place.run(&["restore", "whole", &place.text("b")]).good();
    assert_eq!(fs::read(place.path("b/another")).expect("read"), b"another");
}

#[test]
fn a_sample_says_what_it_covered_and_can_be_repeated() {
    let place = Files::new();
    place.fill();
    place.backup(&["--id", "one"]);
    place.backup(&["--id", "two", "--no-parent"]);
    let checked = place.run(&["check", "--sample", "1", "-o", "json"]).json();
    let seen = &checked["lookedAt"];
    assert_eq!(
        (&checked["clean"], &seen["packsRead"], &seen["packs"]),
        (&Value::Bool(true), &Value::from(1), &Value::from(2))
    );
    assert!(seen["bytesRead"].as_u64() < seen["packBytes"].as_u64());
    let seed = seen["seed"].to_string();
    let again = place.run(&["check", "--sample", "1", "--seed", &seed, "-o", "json"]).json();
    assert_eq!(again["lookedAt"]["bytesRead"], seen["bytesRead"]);
    let said = place.run(&["check", "--sample", "1%", "--seed", &seed]).good();
    assert!(said.contains(&format!("chosen by the seed {seed}")) && said.contains("1 pack with"), "{said}");
}

#[test]
fn damage_is_repaired_from_a_copy_or_from_the_folder() {
    let place = Files::new();
    place.fill();
    place.backup(&["--id", "one"]);
    fs::write(place.data().join("hello"), "hello again\n").expect("write");
    place.backup(&["--id", "two"]);
    let to = format!("file://{}", place.text("second"));
    let there = ["--location", &to];
    place.run(&[&["init"][..], &there].concat()).good();
    let copy = ["copy", "--to", &to, "--to-password-file", &place.text("password")];
    let would = place.run(&[&copy[..], &["--dry-run", "-o", "json"]].concat()).json();
    assert_eq!(would["recoveryPoints"][0]["wasThere"], false);
    let copied = place.run(&[&copy[..], &["-o", "json"]].concat()).json();
    assert_eq!(copied["recoveryPoints"][1]["base"], "one");
    assert_eq!(copied["recoveryPoints"][1]["bytesRead"], "hello again\n".len());
    assert_eq!(place.run(&[&copy[..], &["two", "-o", "json"]].concat()).json()["recoveryPoints"][0]["wasThere"], true);
    place.run(&[&["check", "--read-data"][..], &there].concat()).good();
    place.run(&[&["restore", "two", &place.text("from copy")][..], &there].concat()).good();
    assert_eq!(fs::read(place.path("from copy/hello")).expect("read"), b"hello again\n");

    let pack = place.object("domains/default/packs");
    flip(&pack, 4096);
    place.run(&["repair", "--dry-run"]).ended(1);
    assert!(pack.exists());
    let data = place.data();
    let source = data.to_str().expect("text");
    let healed = place.run(&["repair", "--source", source, "-o", "json"]).json();
    assert_eq!((&healed["whole"], &healed["sourceBlobs"]), (&Value::Bool(true), &Value::from(1)), "{healed}");
    assert!(!pack.exists());
    place.run(&["check", "--read-data"]).good();

    let pack = place.object("domains/default/packs");
    fs::remove_file(pack).expect("remove");
    let from = ["repair", "--from", &to, "--from-password-file", &place.text("password")];
    let said = place.run(&from).good();
    assert!(said.contains("Nothing is wrong any more."), "{said}");
    place.run(&["check", "--read-data"]).good();
    place.run(&["restore", "one", &place.text("again")]).good();
    assert_eq!(fs::read(place.path("again/hello")).expect("read"), b"hello\n");
    place.run(&["repair", "--source", "x/y=/"]).ended(2).says("no recovery point has a content x/y");
}

#[test]
fn differences_are_lines() {
    let place = Files::new();
    place.fill();
    place.backup(&["--id", "one"]);
    place.run(&["diff", "one", "latest"]).good();
    fs::write(place.data().join("hello"), "HELLO\n").expect("write");
    fs::write(place.data().join("sub folder/new"), "new").expect("write");
    place.backup(&["--id", "two"]);
    let said = place.run(&["diff", "one", "two"]).ended(1).stdout;
    assert!(said.contains(": hello (content") && said.contains("added     "), "{said}");
    let lines = place.run(&["diff", "one", "two", "--path", "sub folder/new", "-o", "json"]).ended(1).stdout;
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("each is JSON")).collect();
    assert_eq!((lines.len(), &lines[0]["change"], &lines[0]["path"]), (2, &"added".into(), &"sub folder/new".into()));
    assert_eq!((&lines[1]["change"], &lines[1]["added"]), (&"summary".into(), &Value::from(1)));
    place.run(&["diff", "one", "two", "--path", "sub folder/large"]).good();
}

#[test]
fn damage_that_keeps_the_repository_shut_is_a_finding() {
    let place = Files::new();
    let config = place.path("repository/orlop-repository");
    let at = fs::read(&config).expect("read").len() / 2;
    flip(&config, at);
    let ran = place.run(&["check"]).ended(1);
    assert!(ran.stdout.contains("orlop-repository"), "{}", ran.stdout);
    assert!(ran.stdout.contains("all"), "{}", ran.stdout);
}

#[test]
fn a_recovery_point_that_cannot_be_read_does_not_hide_the_others() {
    let place = Files::new();
    place.fill();
    place.backup(&["--id", "good"]);
    place.backup(&["--id", "bad"]);
    flip(&place.path("repository/domains/default/points/bad"), 60);
    let ran = place.run(&["list"]).ended(1).says("1 recovery point cannot be read");
    assert!(ran.stdout.contains("bad              -") && ran.stdout.contains("good"), "{}", ran.stdout);
    place.run(&["show", "bad"]).ended(1).says("read the recovery point bad");
    place.run(&["forget", "bad"]).good();
    place.run(&["check", "--read-data"]).good();
}

#[test]
fn what_is_wrong_with_a_place_is_said_with_what_to_do() {
    let place = Files::empty();
    place.run(&["list"]).ended(1).says("holds no repository").says("next: ");
    assert!(place.run(&["init", "--dry-run"]).good().contains("A repository would be made"));
    assert!(!place.path("repository").exists());
    place.run(&["init"]).good();
    place.run(&["init"]).ended(1).says("holds a repository already");
    place.run(&["init", "--dry-run"]).ended(1).says("holds a repository already");
    fs::write(place.path("password"), "open barley").expect("write");
    place.run(&["list"]).ended(1).says("opens with this passphrase").says("next: give the passphrase");
    fs::write(place.path("password"), "\n").expect("write");
    place.run(&["list"]).ended(1).says("it is empty");
    fs::write(place.path("password"), "open sesame").expect("write");
    place.run(&["list"]).ended(0).says("There are no recovery points in");
    place.run(&["show", "none"]).ended(1).says("there is no recovery point none").says("orlop repo list");
    place.run(&["show", "latest"]).ended(1).says("there is no recovery point yet");
    place.run(&["show", "Not A Name"]).ended(2);
    place.run(&["forget", "none"]).ended(1).says("forget none");
    place.run(&["backup", &place.text("password")]).ended(2).says("it is not a folder");
    place.run(&["backup", &place.text("nowhere")]).ended(1).says("nowhere");
    crate::support::run(&["repo", "list"]).ended(2).says("the passphrase of the repository is missing");
    let password = place.text("password");
    crate::support::run(&["repo", "list", "--password-file", &password]).ended(2).says("give --location");
    crate::support::run(&["repo", "list", "--password-file", &password, "--location", "/x"])
        .ended(2)
        .says("write file:///path");
    let mut without_keys = orlop();
    without_keys.env("AWS_EC2_METADATA_DISABLED", "true");
    without_keys.args(["repo", "list", "--password-file", &password, "--location", "s3://b"]);
    let ran = Ran::from(without_keys.output().expect("run orlop"));
    ran.ended(2).says("AWS_ACCESS_KEY_ID is not set");
}

#[test]
fn what_cannot_be_locked_or_read_past_deletions_is_refused() {
    let place = Files::empty();
    place.run(&["init", "--lock-for", "30d"]).ended(1).says("cannot lock objects");
    let too_long = format!("{}w", u64::MAX);
    for (time, why) in [("30", "30d"), ("x", "30d"), ("0d", "one hour"), ("99999w", "100 years"), (&too_long, "30d")] {
        place.run(&["init", "--lock-for", time]).ended(2).says(why);
    }
    place.run(&["init", "--lock-mode", "compliance"]).ended(2).says("--lock-for");
    place.run(&["init", "--lock-for", "30d", "--lock-mode", "none"]).ended(2).says("neither governance nor compliance");
    assert!(!place.path("repository/orlop-repository").exists());
    let made = place.run(&["init", "-o", "json"]).json();
    assert_eq!(made["store"]["conditionalCreate"], true);
    assert_eq!(made["store"]["objectLock"], false);
    assert_eq!(place.run(&["check", "-o", "json"]).json()["store"], made["store"]);
    place.run(&["list", "--past-deletions"]).ended(2).says("S3 buckets only");
}

#[test]
fn dry_runs_change_nothing() {
    let place = Files::new();
    place.fill();
    let data = place.data();
    let data = data.to_str().expect("text");
    let would = place.run(&["backup", data, "--dry-run", "-o", "json"]).json();
    // A hard link counts once more here: nothing is opened.
    assert_eq!(would["contents"][0]["files"], 4);
    place.run(&["list"]).ended(0).says("There are no recovery points");
    place.backup(&["--id", "p"]);
    let would = place.run(&["restore", "p", &place.text("t"), "--dry-run", "--path", "hello", "-o", "json"]).json();
    assert_eq!((&would["contents"][0]["files"], &would["contents"][0]["bytes"]), (&Value::from(1), &Value::from(6)));
    assert!(!place.path("t").exists());
    assert!(place.run(&["forget", "p", "--dry-run"]).good().contains("p would be forgotten"));
    assert_eq!(place.run(&["list", "-o", "name"]).good(), "p\n");
    place.run(&["forget", "p"]).good();
    place.run(&["list"]).ended(0).says("There are no recovery points");
}

#[test]
fn what_is_forgotten_is_pruned_and_that_is_said_before() {
    let place = Files::new();
    place.fill();
    place.backup(&["--id", "kept"]);
    let packs = || {
        let folders = fs::read_dir(place.path("repository/domains/default/packs")).expect("packs").flatten();
        folders.flat_map(|folder| fs::read_dir(folder.path()).expect("a folder")).count()
    };
    assert!(place.run(&["prune"]).good().starts_with("Nothing is to be freed.\n"));
    place.backup(&["--id", "gone", "--no-parent"]);
    place.run(&["forget", "gone"]).good();
    let before = packs();
    let would = place.run(&["prune", "--dry-run", "-o", "json"]).json();
    assert_eq!((&would["state"], &would["packs"], packs()), (&Value::from("finished"), &Value::from(1), before));
    let done = place.run(&["prune", "-o", "json"]).ended(0).says("orlop: 1 pack of ");
    assert_eq!(packs(), before - 1);
    let done: Value = serde_json::from_str(&done.stdout).expect("standard output is JSON");
    assert_eq!((&done["bytes"], &done["keptPacks"]), (&would["bytes"], &Value::from(before - 1)));
    assert_eq!(done["waiting"], serde_json::json!([]));
    place.run(&["check", "--read-data"]).good();
    place.run(&["prune", "--dead-after", "soon"]).ended(2).says("is not a time");
    place.run(&["prune", "--wait", "--dry-run"]).ended(2);
}

#[test]
fn a_file_that_cannot_be_read_makes_the_recovery_point_incomplete() {
    let place = Files::new();
    place.fill();
    fs::set_permissions(place.data().join("hello"), fs::Permissions::from_mode(0o000)).expect("set the mode");
    let mut command = place.command();
    if sandbox::skip::lacks_root().is_none() {
        // Root reads every file, so the work is done by somebody else.
        let nobody = ["chown", "--recursive", "65534:65534", &place.text("")];
        Command::new(nobody[0]).args(&nobody[1..]).assert().success();
        let reach = Command::new("setpriv").args(NOBODY).args([env!("CARGO_BIN_EXE_orlop"), "version"]).output();
        if !reach.is_ok_and(|output| output.status.success()) {
            sandbox::skip!("the program cannot be run as another user here");
        }
        command = Command::new("setpriv");
        command.args(NOBODY).arg(env!("CARGO_BIN_EXE_orlop")).arg("repo");
        command.envs(place.environment());
    }
    let ran: Ran = command.arg("backup").arg(place.data()).output().expect("run orlop").into();
    let ran = ran.ended(3).says("hello: missed");
    assert!(ran.stdout.contains("NOT complete"), "{}", ran.stdout);
    assert!(place.run(&["list"]).good().contains("no\n"));
}

/// Arguments that make `setpriv` run a program as a user without any rights.
const NOBODY: [&str; 4] = ["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"];
