//! `orlop repo` as a script calls it: everything is said on the command line, nothing in variables, and every result is JSON.

use std::fs;

use serde_json::Value;

use crate::support::place::{Place, noise};
use crate::support::{Ran, orlop};

/// Runs verbs of `orlop repo` on one repository and looks that what comes is JSON.
struct Script {
    place: Place,
    location: String,
}

impl Script {
    fn new() -> Self {
        let place = Place::empty();
        let location = format!("file://{}", place.repository().display());
        Self { place, location }
    }

    fn run(&self, words: &[&str], input: &str) -> Ran {
        let password = self.place.text("password");
        let first = ["repo", "--location", &self.location, "--password-file", &password];
        orlop().args(first).args(words).write_stdin(input).output().expect("run orlop").into()
    }

    fn json(&self, words: &[&str]) -> Value {
        self.run(&[words, &["--json"][..]].concat(), "").json()
    }
}

#[test]
fn every_verb_tells_its_result_as_json() {
    let script = Script::new();
    let path = |name: &str| script.place.text(name);
    fs::create_dir(path("data")).unwrap();
    fs::write(path("data/file"), "one").unwrap();
    fs::write(path("disk"), noise(1 << 20, 1)).unwrap();
    fs::write(path("changes"), "4096 4096\n").unwrap();

    assert!(script.json(&["init"])["id"].is_string());
    assert_eq!(script.json(&["backup", &path("data"), "--id", "tree-1"])["complete"], true);
    fs::write(path("data/file"), "two").unwrap();
    script.json(&["backup", &path("data"), "--id", "tree-2"]);
    script.json(&["backup", "--image", &path("disk"), "--id", "disk-1"]);
    let ranges = ["--parent", "disk-1", "--changed-ranges", &path("changes")];
    let image = script.json(&[&["backup", "--image", &path("disk"), "--id", "disk-2"], &ranges[..]].concat());
    assert_eq!(image["contents"][0]["readBytes"], 4096);
    let stream = script.run(&["backup", "--stdin", "words", "--id", "words", "--json"], "from a pipe").json();
    assert_eq!(stream["recoveryPoint"], "words");
    assert_eq!(script.run(&["dump", "words"], "").good(), "from a pipe");

    assert_eq!(script.json(&["list"]).as_array().map(Vec::len), Some(5));
    assert_eq!(script.json(&["show", "tree-1"])["id"], "tree-1");
    assert_eq!(script.json(&["ls", "tree-1"])[0]["path"], "file");
    assert_eq!(script.json(&["restore", "tree-1", &path("out"), "--path", "file"])["contents"][0]["files"], 1);
    assert_eq!(script.json(&["restore", "disk-2", &path("out.img"), "--volume", &path("disk")])["dryRun"], false);
    let differences = script.run(&["diff", "tree-1", "tree-2", "--json"], "").ended(1).stdout;
    assert!(differences.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{differences}");
    assert_eq!(script.json(&["verify", "disk-2", "--source", &path("disk")])["equal"], true);
    assert_eq!(script.json(&["check"])["clean"], true);
    assert_eq!(script.json(&["check", "--sample", "50"])["clean"], true);
    assert_eq!(script.json(&["check", "--read-data"])["clean"], true);
    assert_eq!(script.json(&["repair"])["whole"], true);
    assert_eq!(script.json(&["stats"])["repository"]["recoveryPoints"], 5);
    assert_eq!(script.json(&["key", "list"])["keys"].as_array().map(Vec::len), Some(1));
    script.json(&["pin", "tree-2", "--reason", "kept"]);
    script.json(&["unpin", "tree-2"]);

    // What opens the one repository opens the other, where nothing else is said.
    let second = format!("file://{}", path("second"));
    let password = path("password");
    orlop().args(["repo", "init", "--location", &second, "--password-file", &password]).assert().success();
    assert_eq!(script.json(&["copy", "--to", &second])["recoveryPoints"].as_array().map(Vec::len), Some(5));
    assert_eq!(script.json(&["repair", "--from", &second])["whole"], true);
    let exported = script.json(&["export", "tree-1", "--to", &format!("restic:{}", path("restic"))]);
    assert_eq!(exported["snapshots"][0]["recoveryPoint"], "tree-1");

    assert_eq!(script.json(&["forget", "--keep-last", "1", "--dry-run"])["dryRun"], true);
    script.json(&["forget", "tree-1"]);
    let pruned = script.json(&["prune"]);
    assert_eq!(pruned["state"], "finished", "{pruned}");
}

#[test]
fn another_repository_that_another_passphrase_opens_is_told_of() {
    let script = Script::new();
    script.json(&["init"]);
    let (second, other) = (format!("file://{}", script.place.text("second")), script.place.text("other"));
    fs::write(&other, "another\n").unwrap();
    orlop().args(["repo", "init", "--location", &second, "--password-file", &other]).assert().success();
    script.run(&["copy", "--to", &second], "").ended(1).says("with what opens this one");
    script.run(&["copy", "--to", &second, "--to-password-file", &other], "").good();
}

#[test]
fn a_path_may_be_written_as_it_was_where_it_was_backed_up() {
    let script = Script::new();
    script.json(&["init"]);
    let path = |name: &str| script.place.text(name);
    for (file, text) in [("one/sub/file", "1"), ("two/sub/file", "2")] {
        fs::create_dir_all(script.place.path(file).parent().unwrap()).unwrap();
        fs::write(path(file), text).unwrap();
    }
    script.json(&["backup", &path("one"), &path("two"), "--id", "both"]);
    assert_eq!(script.run(&["dump", "both", &path("two/sub/file")], "").good(), "2");
    assert_eq!(script.json(&["ls", "both", &path("one/sub")])[0]["path"], "sub/file");
    assert_eq!(script.json(&["ls", "both", "sub", "--volume", &path("one")])[0]["path"], "sub/file");
    script.json(&["restore", "both", &path("out"), "--path", &path("two/sub")]);
    assert_eq!(fs::read_to_string(path("out/sub/file")).unwrap(), "2");
    script.run(&["dump", "both", "sub/file"], "").ended(2).says("--volume");
    script.run(&["dump", "both", &path("two/sub/no")], "").ended(1).says("there is no sub/no in the file tree");
    fs::write(path("two/sub/file"), "3").unwrap();
    script.json(&["backup", &path("one"), &path("two"), "--id", "later"]);
    let words = ["diff", "both", "later", "--path", &path("two/sub/file"), "--volume", &path("two"), "--json"];
    let differences = script.run(&words, "").ended(1).stdout;
    assert!(differences.contains("\"path\":\"sub/file\""), "{differences}");
}

#[test]
fn limits_of_the_rate_are_kept() {
    let script = Script::new();
    script.json(&["init"]);
    let path = |name: &str| script.place.text(name);
    fs::write(path("disk"), noise(600 << 10, 1)).unwrap();
    let took = |words: &[&str]| script.json(words)["seconds"].as_f64().unwrap();
    assert!(took(&["backup", "--image", &path("disk"), "--id", "p", "--limit-upload", "512KiB"]) > 1.1);
    assert!(took(&["restore", "p", &path("out"), "--limit-download", "512KiB"]) > 1.1);
    script.run(&["list", "--limit-upload", "0"], "").ended(2).says("nothing would ever be done");
}
