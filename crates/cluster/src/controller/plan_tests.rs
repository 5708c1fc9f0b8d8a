//! Volumes from their first placement to their end, with nodes that come and go.

use super::*;
use crate::controller::place::tests::node;
use replication::record::{Attached, Change};
use replication::units::{AttachmentId, Epoch};

const REBUILD: Duration = Duration::from_secs(600);

fn wanted(replicas: usize) -> Wanted {
    Wanted {
        blocks: 256,
        replicas,
        minimum: 1,
        preferred: None,
        strategy: Ok(Strategy::default()),
        labels: Labels::new(),
        is_deleted: false,
        holders: BTreeSet::new(),
        lost: BTreeSet::new(),
        snapshots: BTreeSet::new(),
        source: None,
    }
}

fn nodes(names: &[&str]) -> Vec<NodeView> {
    names.iter().map(|name| node(name, "", 9 << 20)).collect()
}

fn decide(wanted: &Wanted, record: Option<&Record>, nodes: &[NodeView]) -> Plan {
    let mut next = 100;
    let among = Surroundings { nodes: nodes.to_vec(), volumes: Vec::new() };
    plan(wanted, record, &among, REBUILD, || {
        next += 1;
        ReplicaId(next)
    })
}

fn record(names: &[&str]) -> Record {
    let members = names.iter().enumerate().map(|(i, name)| (ReplicaId(i as u64 + 1), NodeId::from(*name)));
    let record = Record::new(members, 1, 256).unwrap();
    record.claimed(Attached { node: names[0].into(), id: AttachmentId(1) })
}

#[track_caller]
fn written(plan: Plan) -> Record {
    match plan.step {
        Step::Write(record) => record,
        other => panic!("{other:?}: {:?}", plan.message),
    }
}

#[track_caller]
fn waits(plan: &Plan, said: &str) {
    assert_eq!(plan.step, Step::Nothing);
    let message = plan.message.as_deref().unwrap_or_default();
    assert!(message.contains(said), "{message:?} does not say {said:?}");
}

#[test]
fn a_new_volume_gets_its_replicas_or_is_told_why_not() {
    let first = written(decide(&wanted(2), None, &nodes(&["a", "b", "c"])));
    assert_eq!((first.members.len(), first.in_sync().count(), first.blocks), (2, 2, 256));
    waits(&decide(&wanted(3), None, &nodes(&["a", "b"])), "b");
    let preferring = Wanted { preferred: Some("c".into()), ..wanted(2) };
    let first = written(decide(&preferring, None, &nodes(&["a", "b", "c"])));
    assert!(first.members.values().any(|member| member.node == "c".into()));
    let odd = Wanted { strategy: Err("there is no PlacementStrategy fast".into()), ..wanted(2) };
    waits(&decide(&odd, None, &nodes(&["a", "b"])), "no PlacementStrategy fast");
    let first = Wanted { is_deleted: true, ..wanted(2) };
    assert_eq!(decide(&first, None, &nodes(&["a", "b"])).step, Step::Nothing);
}

#[test]
fn a_volume_that_has_lost_its_record_is_not_made_anew_and_empty() {
    let held = Wanted { holders: ["a".into(), "b".into()].into(), ..wanted(2) };
    waits(&decide(&held, None, &nodes(&["a", "b", "c"])), "its VolumeRecord is gone, and a, b hold replicas");
    let deleted = Wanted { is_deleted: true, ..held };
    assert_eq!(decide(&deleted, None, &nodes(&["a", "b", "c"])), Plan { step: Step::Nothing, message: None });
}

#[test]
fn what_was_never_made_or_lost_while_it_was_not_in_sync_is_made_anew_on_the_same_node() {
    let nodes = nodes(&["a", "b"]);
    let left = Change { leave: [ReplicaId(2)].into(), ..Change::default() };
    let served = record(&["a", "b"]).changed(&left, Epoch(0)).unwrap();
    let lost = Wanted { lost: [ReplicaId(2)].into(), ..wanted(2) };
    let next = written(decide(&lost, Some(&served), &nodes));
    assert_eq!(next.members.keys().collect::<Vec<_>>(), [&ReplicaId(1)]);
    let next = written(decide(&lost, Some(&next), &nodes));
    let member = &next.members[&ReplicaId(101)];
    assert_eq!((member.node.clone(), member.standing), ("b".into(), Standing::Stale { complete: Epoch(0) }));
}

#[test]
fn a_dead_node_is_waited_for_and_then_replaced_and_given_up() {
    let mut nodes = nodes(&["a", "b", "c"]);
    let record = record(&["a", "b"]);
    nodes[1].silent_for = Duration::from_secs(599);
    assert_eq!(decide(&wanted(2), Some(&record), &nodes).step, Step::Nothing);
    nodes[1].silent_for = REBUILD;
    let building = written(decide(&wanted(2), Some(&record), &nodes));
    let (id, member) = building.members.iter().find(|(_, member)| member.node == "c".into()).unwrap();
    assert_eq!(member.standing, Standing::Stale { complete: Epoch(0) });
    waits(&decide(&wanted(2), Some(&building), &nodes), "node c is not in sync");
    // The attachment says that the one is stale, and builds the other.
    let without = building.changed(&Change { leave: [ReplicaId(2)].into(), ..Change::default() }, Epoch(1)).unwrap();
    let built = without.changed(&Change { join: Some(*id), ..Change::default() }, Epoch(2)).unwrap();
    let done = written(decide(&wanted(2), Some(&built), &nodes));
    assert_eq!(done.members.keys().copied().collect::<Vec<_>>(), [ReplicaId(1), *id]);
    assert_eq!(decide(&wanted(2), Some(&done), &nodes), Plan { step: Step::Nothing, message: None });
}

#[test]
fn without_room_elsewhere_a_dead_node_is_waited_for_further() {
    let mut nodes = nodes(&["a", "b"]);
    nodes[1].silent_for = REBUILD;
    waits(&decide(&wanted(2), Some(&record(&["a", "b"])), &nodes), "1 of 2 replicas stay");
}

#[test]
fn a_drained_node_keeps_its_replica_until_another_has_everything() {
    let mut nodes = nodes(&["a", "b", "c"]);
    nodes[0].is_drained = true;
    let building = written(decide(&wanted(2), Some(&record(&["a", "b"])), &nodes));
    let id = *building.members.keys().last().unwrap();
    assert!(building.is_in_sync(ReplicaId(1)));
    let built = building.changed(&Change { join: Some(id), ..Change::default() }, Epoch(1)).unwrap();
    let retiring = written(decide(&wanted(2), Some(&built), &nodes));
    assert!(retiring.members[&ReplicaId(1)].is_retiring && retiring.is_in_sync(ReplicaId(1)));
    // The attachment is who lets it go.
    waits(&decide(&wanted(2), Some(&retiring), &nodes), "retires");
    waits(&decide(&wanted(2), Some(&retiring.detached()), &nodes), "when the volume is used");
}

#[test]
fn what_a_pool_has_lost_is_replaced_at_once() {
    let record = record(&["a", "b"]);
    let lost = Wanted { lost: [ReplicaId(2)].into(), ..wanted(2) };
    let next = written(decide(&lost, Some(&record), &nodes(&["a", "b", "c"])));
    assert!(next.members.values().any(|member| member.node == "c".into()));
}

#[test]
fn fewer_replicas_are_wanted_and_one_retires() {
    let next = written(decide(&wanted(2), Some(&record(&["a", "b", "c"])), &nodes(&["a", "b", "c"])));
    assert_eq!(next.members.values().filter(|member| member.is_retiring).count(), 1);
    assert_eq!(next.in_sync().count(), 3, "who is in sync is not decided here");
}

#[test]
fn a_deleted_volume_goes_when_nobody_who_lives_serves_it() {
    let (mut nodes, record) = (nodes(&["a", "b"]), record(&["a", "b"]));
    let deleted = Wanted { is_deleted: true, ..wanted(2) };
    waits(&decide(&deleted, Some(&record), &nodes), "node a serves it");
    assert_eq!(decide(&deleted, Some(&record.detached()), &nodes).step, Step::Remove);
    nodes[0].silent_for = Duration::from_secs(10);
    assert_eq!(decide(&deleted, Some(&record), &nodes).step, Step::Remove);
}

const S: SnapshotId = SnapshotId(5);

#[test]
fn snapshots_and_sizes_are_brought_into_the_record() {
    let nodes = nodes(&["a", "b"]);
    let more = Wanted { blocks: 512, snapshots: [S].into(), ..wanted(2) };
    let larger = written(decide(&more, Some(&record(&["a", "b"])), &nodes));
    assert_eq!((larger.blocks, larger.wanted_blocks), (256, 512));
    let wants = written(decide(&more, Some(&larger), &nodes));
    assert_eq!(wants.wanted_snapshot(), Some(S));
    let taken = wants.with_taken(S).unwrap().grown(512);
    waits(&decide(&more, Some(&taken), &nodes), "");
    let dropped = written(decide(&Wanted { snapshots: BTreeSet::new(), ..more.clone() }, Some(&taken), &nodes));
    assert!(dropped.snapshots.is_empty());
    waits(&decide(&Wanted { blocks: 8, ..more }, Some(&taken), &nodes), "");
}

#[test]
fn who_alone_has_a_snapshot_stays_unless_it_is_lost() {
    let with = Wanted { snapshots: [S].into(), ..wanted(2) };
    let mut nodes = nodes(&["a", "b", "c"]);
    let taken = record(&["a"]).with_snapshot(S).unwrap().with_taken(S).unwrap();
    let more = taken.with_replica(ReplicaId(2), "b".into()).unwrap();
    let more = more.with_replica(ReplicaId(3), "c".into()).unwrap();
    let joined = |record: &Record, id| {
        record.changed(&Change { join: Some(ReplicaId(id)), ..Change::default() }, Epoch(1)).unwrap()
    };
    let all = joined(&joined(&more, 2), 3);
    nodes[0].is_drained = true;
    waits(&decide(&with, Some(&all), &nodes), "stays until these are deleted");
    let lost = Wanted { lost: [ReplicaId(1)].into(), ..with };
    let leave = Change { leave: [ReplicaId(1)].into(), ..Change::default() };
    let next = written(decide(&lost, Some(&all.changed(&leave, Epoch(1)).unwrap()), &nodes));
    assert!(!next.members.contains_key(&ReplicaId(1)) && next.taken(S).unwrap().holders.is_empty());
}

#[test]
fn a_volume_begins_as_a_snapshot_on_nodes_that_hold_it() {
    let taken = record(&["a", "b"]).with_snapshot(S).unwrap().with_taken(S).unwrap();
    let source = |record: Option<&Record>| Some(Source::of(record, S));
    let nodes = nodes(&["a", "b", "c"]);
    let clone = Wanted { blocks: 512, source: source(Some(&taken)), ..wanted(3) };
    let first = written(decide(&clone, None, &nodes));
    let on: BTreeSet<NodeId> = first.members.values().map(|member| member.node.clone()).collect();
    assert_eq!(
        (on, first.blocks),
        (["a".into(), "b".into()].into(), 256),
        "it grows, and is built elsewhere, afterwards"
    );
    let needs = Wanted { minimum: 2, ..clone.clone() };
    waits(&decide(&needs, None, &nodes[1..]), "2 of them are needed");
    waits(&decide(&Wanted { source: source(None), ..clone }, None, &nodes), "is not there any more");
}

#[test]
fn at_the_limit_a_snapshot_that_is_gone_makes_room_for_the_next() {
    use replication::record::snapshots::MOST_SNAPSHOTS;
    let ids = |from: u128| -> BTreeSet<SnapshotId> { (from..from + MOST_SNAPSHOTS as u128).map(SnapshotId).collect() };
    let full = ids(0).iter().fold(record(&["a", "b"]), |record, id| record.with_snapshot(*id).unwrap());
    let next = Wanted { snapshots: ids(1), ..wanted(2) };
    let nodes = nodes(&["a", "b"]);
    let less = written(decide(&next, Some(&full), &nodes));
    assert!(!less.snapshots.contains_key(&SnapshotId(0)));
    let full = written(decide(&next, Some(&less), &nodes));
    assert!(full.snapshots.contains_key(&SnapshotId(MOST_SNAPSHOTS as u128)));
}
