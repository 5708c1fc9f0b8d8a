//! `orlop repo` keeps and forgets: tags, pins, rules, and the space that this is about.

use std::fs;
use std::ops::Deref;

use crate::support::Ran;
use crate::support::place::{Place, flip, noise};
use serde_json::{Value, json};

/// A repository, and a folder that is backed up into it.
struct Kept(Place);

impl Deref for Kept {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.0
    }
}

impl Kept {
    fn new() -> Self {
        let place = Self(Place::new());
        fs::create_dir(place.path("data")).expect("make a folder");
        fs::write(place.path("data/file"), "the same in all of them").expect("write");
        place
    }

    /// Runs it where it is always the same time zone.
    fn run(&self, words: &[&str]) -> Ran {
        self.command().env("TZ", "UTC").args(words).output().expect("run orlop").into()
    }

    /// Backs up the folder, with a file that only this recovery point has, of so many bytes that do not compress.
    fn backup(&self, id: &str, own: u64, words: &[&str]) {
        let seed = id.bytes().fold(0, |seed: u64, byte| seed.rotate_left(8) ^ u64::from(byte));
        fs::write(self.path("data/own"), noise(own, seed)).expect("write");
        let data = self.path("data");
        self.run(&[&["backup", data.to_str().expect("text"), "--id", id], words].concat()).good();
    }

    fn names(&self) -> Vec<String> {
        let text = self.run(&["list", "-o", "name"]).good();
        text.lines().map(str::to_owned).collect()
    }

    fn flip(&self, object: &str) {
        let path = self.repository().join(object);
        let middle = fs::metadata(&path).expect("look").len() / 2;
        flip(&path, usize::try_from(middle).expect("it is short"));
    }
}

#[test]
fn tags_are_kept_shown_and_looked_for() {
    let place = Kept::new();
    place.backup("a", 10, &["--tag", "release=1.2,audit", "--tag", "audit"]);
    place.backup("b", 10, &["--tag", "audit"]);
    place.backup("c", 10, &[]);
    let listed = place.run(&["list", "-o", "json"]).json();
    assert_eq!((&listed[0]["tags"], &listed[2]["tags"]), (&json!(["audit", "release=1.2"]), &Value::Null));
    assert!(place.run(&["list"]).good().contains("audit,release=1.2"));
    assert_eq!(place.run(&["list", "--tag", "audit", "-o", "name"]).good(), "a\nb\n");
    assert_eq!(place.run(&["list", "--tag", "audit,release=1.2", "-o", "name"]).good(), "a\n");
    place.run(&["list", "--tag", "none"]).ended(0).says("has these tags");
    assert!(place.run(&["show", "a"]).good().contains("Tags:            audit,release=1.2\n"));
    assert_eq!(place.run(&["show", "a", "-o", "json"]).json()["tags"], json!(["audit", "release=1.2"]));
    let data = place.path("data");
    let data = data.to_str().expect("text");
    place.run(&["backup", data, "--tag", "two words"]).ended(2).says("\"two words\" is no tag");
    let many: Vec<_> = (0..33).map(|number| number.to_string()).collect();
    place.run(&["backup", data, "--tag", &many.join(",")]).ended(2).says("33 tags are more than 32");
    assert_eq!(place.names().len(), 3);
}

#[test]
fn what_is_pinned_stays_until_it_is_unpinned() {
    let place = Kept::new();
    place.backup("a", 10, &[]);
    place.backup("b", 10, &[]);
    place.run(&["pin", "a"]).ended(2).says("--reason");
    place.run(&["pin", "none", "--reason", "x"]).ended(1).says("there is no recovery point none");
    assert!(place.run(&["pin", "a", "--reason", "x", "--dry-run"]).good().contains("a would be pinned: x (dry run"));
    place.run(&["unpin", "a"]).ended(1).says("it is not pinned");
    assert_eq!(place.run(&["pin", "a", "--reason", "audit 2026"]).good(), "a is pinned: audit 2026\n");
    place.run(&["pin", "a", "--reason", "another"]).ended(1).says("recovery point a is pinned: audit 2026");
    assert_eq!(place.run(&["pin", "latest", "--reason", "x", "-o", "json"]).json()["recoveryPoint"], "b");
    place.run(&["unpin", "b", "--dry-run"]).good();
    place.run(&["unpin", "b"]).good();
    place.run(&["unpin", "b", "--dry-run"]).ended(1).says("it is not pinned");

    let listed = place.run(&["list", "-o", "json"]).json();
    assert_eq!((&listed[0]["pin"]["reason"], &listed[1]["pin"]), (&json!("audit 2026"), &Value::Null));
    assert!(place.run(&["show", "a"]).good().contains("Pinned:          audit 2026 (since 20"));
    assert_eq!(place.run(&["show", "a", "-o", "json"]).json()["pin"]["reason"], "audit 2026");
    // Also the one that could be forgotten stays, since the whole request is wrong.
    place.run(&["forget", "b", "a"]).ended(1).says("forget a: recovery point a is pinned: audit 2026").says("unpin");
    place.run(&["forget", "a", "--dry-run"]).ended(1).says("is pinned");
    assert_eq!(place.names(), ["a", "b"]);
    let plan = place.run(&["forget", "--keep-last", "1", "-o", "json"]).json();
    assert_eq!(plan["recoveryPoints"], json!([]));
    assert_eq!(plan["groups"][0]["recoveryPoints"][1]["reasons"], json!([{ "rule": "pinned" }]));

    // Damage does not give it free, and is found.
    place.flip("domains/default/pins/a");
    place.run(&["forget", "a"]).ended(1).says("its pin is damaged");
    place.run(&["forget", "--keep-last", "1"]).good();
    assert_eq!(place.names(), ["a", "b"]);
    assert!(place.run(&["show", "a"]).good().contains("is damaged"));
    assert!(place.run(&["check"]).ended(1).stdout.contains("domains/default/pins/a"));

    place.run(&["unpin", "a"]).good();
    place.run(&["unpin", "a"]).ended(1).says("it is not pinned");
    place.run(&["forget", "a"]).good();
    assert_eq!(place.names(), ["b"]);
    place.run(&["check", "--read-data"]).good();
}

#[test]
fn rules_say_what_they_keep_and_why_before_they_forget() {
    let place = Kept::new();
    place.backup("a", 10, &["--tag", "release"]);
    for id in ["b", "c", "d"] {
        place.backup(id, 10, &[]);
    }
    place.backup("other", 10, &["--host", "elsewhere"]);
    let words = ["forget", "--keep-last", "1", "--keep-yearly", "1", "--keep-tag", "release"];
    let would = place.run(&[&words[..], &["--dry-run"]].concat()).good();
    assert!(would.contains("2 recovery points would be forgotten, 3 kept (dry run: nothing was changed)"), "{would}");
    assert!(would.contains("tag release") && would.contains("last 1; yearly 20"), "{would}");
    assert!(would.contains(" of host elsewhere\n"), "{would}");
    assert_eq!(place.names().len(), 5);

    let plan = place.run(&[&words[..], &["-o", "json"]].concat()).json();
    assert_eq!(plan["recoveryPoints"], json!(["c", "b"]), "{plan}");
    assert_eq!((&plan["dryRun"], &plan["timeZone"]), (&json!(false), &json!("UTC")));
    let groups = plan["groups"].as_array().expect("a list");
    let ours = groups.iter().find(|group| group["group"]["host"] != "elsewhere").expect("our group");
    let newest = &ours["recoveryPoints"][0];
    assert_eq!((&newest["id"], &newest["kept"]), (&json!("d"), &json!(true)));
    let rules: Vec<_> = newest["reasons"].as_array().expect("a list").iter().map(|reason| &reason["rule"]).collect();
    assert_eq!(rules, ["last", "every", "newestComplete"]);
    assert_eq!(ours["recoveryPoints"][1]["kept"], false);
    assert_eq!(place.names(), ["a", "d", "other"]);
    // Again, nothing is left to forget.
    assert!(place.run(&words).good().contains("0 recovery points forgotten, 3 kept"));
    // Without groups, the one of the other host competes too.
    let plan = place.run(&["forget", "--keep-last", "1", "--group-by", "none", "--dry-run", "-o", "json"]).json();
    assert_eq!(plan["recoveryPoints"], json!(["d", "a"]));
    let plan = place.run(&["forget", "--keep-last", "1", "--host", "elsewhere", "--dry-run", "-o", "json"]).json();
    assert_eq!((&plan["recoveryPoints"], plan["groups"].as_array().map(Vec::len)), (&json!([]), Some(1)));
    let plan = place.run(&["forget", "--keep-last", "1", "--tag", "release", "--dry-run", "-o", "json"]).json();
    assert_eq!(plan["groups"][0]["recoveryPoints"].as_array().map(Vec::len), Some(1));
    place.run(&["check", "--read-data"]).good();
}

#[test]
fn nothing_is_forgotten_if_any_argument_is_wrong() {
    let place = Kept::new();
    for id in ["a", "b"] {
        place.backup(id, 10, &[]);
    }
    for (words, said) in [
        (&["forget"][..], "required"),
        (&["forget", "a", "--keep-last", "1"], "cannot be used with"),
        (&["forget", "--keep-last", "0"], "--keep-last"),
        (&["forget", "--keep-last", "-1"], "-1"),
        (&["forget", "--keep-daily", "many"], "--keep-daily"),
        (&["forget", "--keep-within", "1m"], "is not a length of time such as 1y6mo"),
        (&["forget", "--keep-last", "1", "--keep-tag", "a b"], "is no tag"),
        (&["forget", "--keep-last", "1", "--group-by", "colour"], "[possible values: none, host, source]"),
        (&["forget", "a", "--host", "x"], "required"),
        (&["forget", "--host", "x"], "required"),
        (&["forget", "--tag", "x"], "required"),
        (&["forget", "a", "B"], "forget B"),
    ] {
        let ran = place.run(words).ended(2);
        assert!(ran.stderr.contains(said), "{words:?}: {}", ran.stderr);
    }
    place.run(&["forget", "a", "none"]).ended(1).says("there is no recovery point none");
    assert_eq!(place.names(), ["a", "b"]);
    assert_eq!(place.run(&["forget", "a", "a"]).good(), "a forgotten\n");
}

#[test]
fn rules_leave_alone_what_cannot_be_read() {
    let place = Kept::new();
    for id in ["a", "b", "c"] {
        place.backup(id, 10, &[]);
    }
    place.flip("domains/default/points/c");
    let ran = place.run(&["forget", "--keep-last", "1"]).good();
    assert!(ran.contains("c is left alone, since it cannot be read"), "{ran}");
    assert_eq!(place.run(&["list", "-o", "name"]).ended(1).stdout, "b\nc\n");
}

#[test]
fn space_is_told_for_each_recovery_point_and_for_all() {
    let place = Kept::new();
    fs::write(place.path("data/shared"), vec![7; 1 << 20]).expect("write");
    place.backup("a", 200_000, &[]);
    place.backup("b", 300_000, &[]);
    let stats = place.run(&["stats", "-o", "json"]).json();
    let points = stats["recoveryPoints"].as_array().expect("a list");
    let number = |value: &Value| value.as_u64().expect("a number");
    for (point, own) in points.iter().zip([200_000, 300_000]) {
        let unique = number(&point["uniqueBytes"]);
        assert!((own..own + 5000).contains(&unique), "{point}");
        assert!(number(&point["sharedBytes"]) > 0, "{point}");
        assert_eq!(number(&point["reachableBytes"]), unique + number(&point["sharedBytes"]));
    }
    // The first pack has what both share; the second is needed by the second alone.
    assert_eq!(points[0]["freedBytes"], 0);
    assert!(number(&points[1]["freedBytes"]) > 300_000);
    assert_eq!((&stats["repository"]["unusedPacks"], &stats["repository"]["missingBytes"]), (&json!(0), &json!(0)));
    assert!(stats["repository"]["deduplicationRatio"].as_f64().is_some_and(|ratio| ratio > 1.5), "{stats}");
    let table = place.run(&["stats", "b"]).good();
    assert!(table.contains("\nb ") && !table.contains("\na ") && table.contains("Deduplication:"), "{table}");
    place.run(&["stats", "none"]).ended(1).says("there is no recovery point none");

    place.run(&["forget", "b"]).good();
    let after = place.run(&["stats", "-o", "json"]).json();
    assert_eq!(after["repository"]["unusedPackBytes"], points[1]["freedBytes"]);
    place.flip("domains/default/points/a");
    place.run(&["stats"]).ended(1).says("points/a is damaged").says("next: ");
}
