//! A pool that no node has open.

use crate::node::world::World;
use serde_json::{Value, json};

fn names(listed: &Value) -> Vec<&str> {
    listed.as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap()).collect()
}

#[test]
fn volumes_are_made_cloned_rolled_back_and_deleted() {
    let world = World::with_pool("50MiB");
    let ask = |words: &[&str]| world.offline(words);
    ask(&["create", "web", "--size", "10000000"]).good();
    let shown = ask(&["show", "web", "-o", "json"]).json();
    assert_eq!((&shown["bytes"], &shown["pool"]), (&json!(10_002_432), &json!("pool")), "whole blocks");
    assert!(shown["created"].is_string());
    // Asked again it is a success, and as another it is not.
    ask(&["create", "web", "--size", "10000000"]).good();
    ask(&["create", "web", "--size", "20000000"]).ended(1).says("there is one, and it has 10002432 bytes");
    ask(&["create", "web", "--size", "10000000", "--pool", "x"])
        .ended(1)
        .says("there is no pool x on this node, but pool");
    for wrong in ["", ".orlop", "-x", "a/b", "a@b", &"x".repeat(128)] {
        ask(&["create", "--size=4096", "--", wrong]).ended(1).says("cannot be a name");
    }
    ask(&["create", "none", "--size", "0"]).ended(1).says("it would be empty");

    ask(&["snapshot", "web@one"]).good();
    ask(&["snapshot", "web@one"]).good();
    ask(&["snapshot", "web@one", "web@two"]).ended(1).says("there is one of this name, and not of the others");
    ask(&["snapshot", "web"]).ended(1).says("VOLUME@SNAPSHOT");
    ask(&["clone", "web", "copy"]).ended(1).says("orlop volume snapshot");
    ask(&["snapshot", "nothing@one"]).ended(1).says("there is no volume nothing");
    ask(&["clone", "web@one", "copy", "--iops", "100"]).good();
    ask(&["clone", "web@one", "copy"]).good();
    ask(&["clone", "web@one", "web"]).ended(1).says("there is a volume web, and it is another");
    let copy = ask(&["show", "copy", "-o", "json"]).json();
    assert_eq!((&copy["origin"], &copy["iopsLimit"]), (&json!("web@one"), &json!(100)));

    ask(&["rollback", "web@one"]).good();
    ask(&["snapshot", "web@two"]).good();
    assert_eq!(names(&ask(&["list", "--snapshots", "web", "-o", "json"]).json()), ["web@one", "web@two"]);
    ask(&["list", "--snapshots", "nothing"]).ended(1).says("there is no volume nothing");
    ask(&["delete", "web"]).good();
    assert_eq!(names(&ask(&["list", "-o", "json"]).json()), ["copy"], "its snapshots stay");
    ask(&["clone", "web@two", "web"]).good();
    ask(&["delete", "web@two"]).good();
    ask(&["delete", "web@two"]).good();
    ask(&["delete", "web", "--with-snapshots"]).good();
    ask(&["show", "web"]).ended(1).says("there is no volume web on this node");
    // The snapshots of a volume go with it also when it is gone already.
    assert_eq!(names(&ask(&["list", "--snapshots", "-o", "json"]).json()), [] as [&str; 0]);
    ask(&["create", "late", "--size", "1MiB"]).good();
    ask(&["snapshot", "late@one"]).good();
    let shown = ask(&["show", "late@one", "-o", "json"]).json();
    assert_eq!((&shown["name"], &shown["bytes"]), (&json!("late@one"), &json!(1 << 20)));
    ask(&["show", "late@two"]).ended(1).says("there is no snapshot late@two");
    ask(&["delete", "late"]).good();
    assert_eq!(names(&ask(&["list", "--snapshots", "-o", "json"]).json()), ["late@one"]);
    ask(&["delete", "late", "--with-snapshots"]).good();
    assert_eq!(names(&ask(&["list", "--snapshots", "-o", "json"]).json()), [] as [&str; 0]);
    ask(&["attach", "copy"]).ended(1).says("start `orlop node`");
    world.is_sound();
}

#[test]
fn what_cannot_be_snapshotted_together_changes_nothing() {
    let world = World::with_pool("50MiB");
    for name in ["a", "b"] {
        world.offline(&["create", name, "--size", "1MiB"]).good();
    }
    world.offline(&["snapshot", "a@x", "a@y"]).ended(1).says("they would be the same");
    world.offline(&["snapshot", "a@x", "missing@x"]).ended(1).says("there is no volume missing");
    assert_eq!(world.offline(&["list", "--snapshots", "-o", "json"]).json(), json!([]));
    world.offline(&["snapshot", "a@x", "b@x"]).good();
    assert_eq!(names(&world.offline(&["list", "--snapshots", "-o", "json"]).json()), ["a@x", "b@x"]);
}

#[test]
fn limits_are_kept_with_the_volume() {
    let world = World::with_pool("50MiB");
    world.offline(&["create", "web", "--size", "1MiB", "--iops", "500", "--bandwidth", "1MiB"]).good();
    world.offline(&["limit", "web", "--iops", "0"]).good();
    let shown = world.offline(&["show", "web", "-o", "json"]).json();
    assert_eq!((&shown["iopsLimit"], &shown["bytesPerSecondLimit"]), (&Value::Null, &json!(1 << 20)));
}

#[test]
fn a_node_that_is_not_there_is_said_to_be_so() {
    let world = World::with_pool("50MiB");
    world.volume(&["list"]).ended(1).says("connect to").says("start `orlop node`, or name a pool");
}
