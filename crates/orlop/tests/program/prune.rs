//! `orlop repo prune` and processes that die.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::place::{Place, noise};

/// More than a pack, so that one is stored while the backup still reads.
const LEN: u64 = 40 << 20;
/// Far more than a development build on a busy machine takes.
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn a_backup_whose_process_has_ended_is_given_up_at_once() {
    let place = Place::new();
    let mut command = Command::new(env!("CARGO_BIN_EXE_orlop"));
    command.envs(place.environment()).args(["repo", "backup", "--stdin", "dump", "--id", "dying"]);
    let mut dying = command.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    dying.stdin.as_mut().unwrap().write_all(&noise(LEN, 1)).unwrap();
    let begun = Instant::now();
    while place.objects("domains/default/packs").is_empty() {
        assert!(begun.elapsed() < PATIENCE && dying.try_wait().unwrap().is_none(), "no pack was stored");
        std::thread::sleep(Duration::from_millis(20));
    }

    let waits: serde_json::Value =
        serde_json::from_str(&place.run(&["prune", "--json"]).ended(4).stdout).expect("standard output is JSON");
    assert_eq!((&waits["state"], &waits["waiting"][0]["recoveryPoint"]), (&"waiting".into(), &"dying".into()));
    let host = waits["waiting"][0]["host"].as_str().unwrap();
    assert!(host.ends_with(&format!(" process {}", dying.id())), "{host}");

    dying.kill().unwrap();
    dying.wait().unwrap();
    let pruned = place.run(&["prune", "--json"]).json();
    assert_eq!((&pruned["state"], &pruned["packs"]), (&"finished".into(), &1.into()), "{pruned}");
    assert_eq!(pruned["revoked"][0]["recoveryPoint"], "dying");
    assert!(place.objects("domains/default/packs").is_empty() && place.objects("unfinished").is_empty());
    place.run(&["check", "--read-data"]).good();
}
