//! `orlop repo key` end to end: who opens a repository, by what, and who does not any more.

use std::fs;
use std::path::PathBuf;

use crate::support::{Ran, orlop};
use serde_json::Value;
use tempfile::TempDir;

/// A repository in a folder, made with the first of two passphrases.
struct Place {
    dir: TempDir,
}

const FIRST: &str = "open sesame";
const SECOND: &str = "second thoughts";

impl Place {
    fn new() -> Self {
        let place = Self { dir: tempfile::tempdir().expect("a folder") };
        fs::write(place.path("first"), format!("{FIRST}\n")).expect("write");
        fs::write(place.path("second"), format!("{SECOND}\r\n")).expect("write");
        place.first(&["init"]).good();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().expect("the path is text").to_owned()
    }

    fn run(&self, env: &[(&str, &str)], words: &[&str]) -> Ran {
        let mut command = orlop();
        command.env("ORLOP_LOCATION", format!("file://{}", self.text("repository"))).envs(env.iter().copied());
        command.arg("repo").args(words).output().expect("run orlop").into()
    }

    fn first(&self, words: &[&str]) -> Ran {
        self.run(&[("ORLOP_PASSWORD_FILE", &self.text("first"))], words)
    }

    fn second(&self, words: &[&str]) -> Ran {
        self.run(&[("ORLOP_PASSWORD_FILE", &self.text("second"))], words)
    }

    fn add_second(&self, words: &[&str]) -> Ran {
        self.first(&[&["key", "add", "--new-password-file", &self.text("second")], words].concat())
    }
}

fn keys(listed: &Value) -> &Vec<Value> {
    listed["keys"].as_array().expect("a list of keys")
}

#[test]
fn each_way_to_give_a_passphrase_opens_the_repository() {
    let place = Place::new();
    let file = place.text("first");
    for (env, words) in [
        (vec![("ORLOP_PASSWORD", FIRST)], vec![]),
        (vec![("ORLOP_PASSWORD_COMMAND", "echo open sesame; echo more")], vec![]),
        (vec![], vec!["--password-file", &file]),
        (vec![], vec!["--password-command", "printf 'open sesame'"]),
        // What is said on the command line counts.
        (vec![("ORLOP_PASSWORD", "wrong")], vec!["--password-file", &file]),
    ] {
        place.run(&env, &[&["list"], &words[..]].concat()).good();
    }
    place
        .run(&[("ORLOP_PASSWORD", "wrong")], &["list"])
        .ended(1)
        .says("none of the 1 keys of the repository opens with this passphrase");
    place
        .run(&[], &["list", "--password-command", "echo open sesame; exit 7"])
        .ended(1)
        .says("it ended with exit status: 7");
    place
        .run(&[("ORLOP_PASSWORD", FIRST), ("ORLOP_KMS", "aws:x")], &["list"])
        .ended(2)
        .says("ORLOP_PASSWORD and ORLOP_KMS");
}

#[test]
fn a_recipient_is_added_listed_and_removed() {
    let place = Place::new();
    place.add_second(&["--dry-run"]).good();
    place.second(&["list"]).ended(1);
    let added = place.add_second(&["--label", "on call", "-o", "json"]).json();
    let id = added["added"].as_str().expect("the id of the key");
    place.second(&["list"]).good();

    let listed = place.first(&["key", "list", "-o", "json"]).json();
    let new = keys(&listed).iter().find(|key| key["id"] == id).expect("the new key");
    assert_eq!((&new["label"], &new["proven"], &new["inUse"]), (&"on call".into(), &true.into(), &false.into()));
    assert_eq!((&new["method"], &new["beingRemoved"]), (&"passphrase-argon2id".into(), &false.into()));
    // Without a secret, the same, but nothing is proven.
    let seen = place.run(&[], &["key", "list", "-o", "json"]).json();
    assert_eq!((keys(&seen).len(), &keys(&seen)[0]["proven"]), (2, &Value::Null));
    let table = place.first(&["key", "list"]).good();
    assert!(table.contains("in use") && table.contains("on call") && table.contains("good"), "{table}");

    place.second(&["key", "remove", id]).ended(1).says("is the one in use").says("--yes");
    place.first(&["key", "remove", id, "--dry-run"]).good();
    place.second(&["list"]).good();
    place.first(&["key", "remove", "zz"]).ended(1).says("has no such key");
    place.first(&["key", "remove", ""]).ended(2).says("more than one begins like this");
    place.first(&["key", "remove", &id[..12]]).good();
    place.second(&["list"]).ended(1);
    let last = keys(&place.first(&["key", "list", "-o", "json"]).json())[0]["id"].clone();
    place.first(&["key", "remove", last.as_str().expect("an id"), "--yes"]).ended(1).says("is the last one");
    place.first(&["check", "--read-data"]).good();
}

#[test]
fn a_rotation_exchanges_the_key_in_use_and_keeps_its_label() {
    let place = Place::new();
    let second = place.text("second");
    let rotate = ["key", "rotate", "--new-password-file", &second];
    place.first(&[&rotate[..], &["--dry-run"]].concat()).good();
    place.first(&["list"]).good();
    place.first(&rotate).good();
    place.first(&["list"]).ended(1);
    let listed = place.second(&["key", "list", "-o", "json"]).json();
    assert_eq!((keys(&listed).len(), &keys(&listed)[0]["label"]), (1, &"first".into()));
}

#[test]
fn an_erasure_wants_the_id_and_leaves_nothing_that_opens() {
    let place = Place::new();
    place.add_second(&[]).good();
    let listed = place.run(&[], &["key", "list", "-o", "json"]).json();
    let id = listed["repository"].as_str().expect("the id of the repository");
    place.run(&[], &["key", "erase"]).ended(2).says("nobody can undo this").says(&format!("--yes-erase {id}"));
    place.run(&[], &["key", "erase", "--yes-erase", &"0".repeat(32)]).ended(2).says(&format!("it is {id}, not 0000"));
    place.run(&[], &["key", "erase", "--yes-erase", id, "--dry-run"]).good();
    place.first(&["list"]).good();
    let said = place.run(&[], &["key", "erase", "--yes-erase", id]).good();
    assert!(said.starts_with("2 keys destroyed") && said.contains("What this cannot reach"), "{said}");
    for ran in [place.first(&["list"]), place.second(&["list"]), place.first(&["init"])] {
        assert_eq!(ran.code, 1, "{ran:?}");
    }
    place.first(&["list"]).ended(1).says("they were erased or lost, and nothing opens it any more");
}

#[test]
fn a_key_of_aws_kms_is_a_recipient() {
    sandbox::require_kms!();
    let server = sandbox::kms::Kms::start().expect("start the service");
    let place = Place::new();
    let (environment, name) = (server.environment(server.user()), format!("aws:{}", server.first_key()));
    let kms: Vec<_> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let by_kms = |words: &[&str]| place.run(&[&kms[..], &[("ORLOP_KMS", &name)]].concat(), words);
    by_kms(&["list"]).ended(1).says("none of the 1 keys of the repository opens with the key arn:aws:kms:");
    let file = place.text("first");
    let add = ["key", "add", "--password-file", &file, "--new-kms", &name, "--label", "the operator"];
    place.run(&kms, &add).good();
    by_kms(&["list"]).good();
    let listed = by_kms(&["key", "list", "-o", "json"]).json();
    let own = keys(&listed).iter().find(|key| key["inUse"] == true).expect("the key in use");
    assert_eq!((&own["kms"], &own["label"]), (&name.as_str().into(), &"the operator".into()));
    // The passphrase can go; then only the service opens the repository.
    let other = keys(&listed).iter().find(|key| key["inUse"] == false).expect("the other key")["id"].clone();
    by_kms(&["key", "remove", other.as_str().expect("an id")]).good();
    place.first(&["list"]).ended(1);
    by_kms(&["check", "--read-data"]).good();
}
