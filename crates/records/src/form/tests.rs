use super::{name, read, volume, written};
use api::{Counter, RecordAttached, RecordStanding, VolumeRecordSpec};
use replication::record::{Attached, Change, Record};
use replication::units::{AttachmentId, Epoch, ReplicaId, SnapshotId, VolumeId};

fn record() -> Record {
    let members = [(ReplicaId(1), "a".into()), (ReplicaId(0xabc), "b".into())];
    Record::new(members, 1, 1 << 20).unwrap()
}

fn degraded() -> Record {
    let attached = record().claimed(Attached { node: "a".into(), id: AttachmentId(7) });
    let change = Change { leave: [ReplicaId(0xabc)].into(), ..Change::default() };
    attached.changed(&change, Epoch(1)).unwrap()
}

#[test]
fn a_record_is_written_so_that_a_person_can_read_it() {
    let found = serde_json::to_value(written(&degraded())).unwrap();
    let expected = serde_json::json!({
        "epoch": "2",
        "attached": { "node": "a", "id": "00000000000000000000000000000007" },
        "equal": "1",
        "members": [
            { "replica": "0000000000000001", "node": "a", "standing": "InSync", "retiring": false },
            { "replica": "0000000000000abc", "node": "b", "standing": "Stale", "complete": "1", "retiring": false },
        ],
        "inSync": 1,
        "memberCount": 2,
        "minimum": 1,
        "blocks": "1048576",
    });
    assert_eq!(found, expected);
}

/// With a snapshot that is there, one that is wanted, and a size that is.
fn rich() -> Record {
    let taken = degraded().with_snapshot(SnapshotId(10)).unwrap().with_taken(SnapshotId(10)).unwrap();
    taken.with_snapshot(SnapshotId(9)).unwrap().with_wanted_blocks(2 << 20).unwrap()
}

#[test]
fn snapshots_and_sizes_are_written_when_there_are_some() {
    let found = serde_json::to_value(written(&rich())).unwrap();
    let snapshots = serde_json::json!([
        { "id": "00000000000000000000000000000009" },
        {
            "id": "0000000000000000000000000000000a",
            "taken": { "epoch": "2", "blocks": "1048576", "holders": ["0000000000000001"] },
        },
    ]);
    assert_eq!((&found["wantedBlocks"], &found["snapshots"]), (&serde_json::json!("2097152"), &snapshots));
    let lost = record().with_snapshot(SnapshotId(3)).unwrap().with_taken(SnapshotId(3)).unwrap();
    assert!(read(&written(&lost)).is_ok());
}

#[test]
fn what_was_written_is_read() {
    for record in [record(), degraded(), degraded().detached(), rich(), record().with_retiring(ReplicaId(1)).unwrap()] {
        assert_eq!(read(&written(&record)), Ok(record));
    }
}

#[test]
fn names_are_ids() {
    let id = VolumeId(u128::MAX - 1);
    assert_eq!(volume(&name(id)), Some(id));
    assert_eq!(name(VolumeId(16)), "00000000000000000000000000000010");
    for wrong in [
        "",
        "10",
        "0000000000000000000000000000001G",
        "0000000000000000000000000000001A",
        "+0000000000000000000000000000010",
    ] {
        assert_eq!(volume(wrong), None, "{wrong:?}");
    }
}

#[test]
fn what_is_no_record_is_refused_with_its_reason() {
    let check = |change: fn(&mut VolumeRecordSpec), says: &str| {
        let mut spec = written(&rich());
        change(&mut spec);
        let error = read(&spec).expect_err(says).to_string();
        assert!(error.contains(says), "{error:?} does not say {says:?}");
    };
    check(|s| s.members[0].standing = RecordStanding::Stale, "replica 1 is stale and does not say since when");
    check(|s| s.members[0].complete = Some(Counter(1)), "replica 1 is in sync and says what it lacks");
    check(|s| s.members[1].replica = "0000000000000001".into(), "replica 1 is in it twice");
    check(|s| s.members[1].replica = "abc".into(), "\"abc\" is not the id of a replica");
    check(|s| s.members[1].node = "a".into(), "two of its members are on node a");
    check(|s| s.members[1].node = String::new(), "a node has no name");
    check(
        |s| s.attached = Some(RecordAttached { node: "a".into(), id: "7".into() }),
        "\"7\" is not the id of an attachment",
    );
    check(|s| s.in_sync = 2, "it counts 2 of 2 members as in sync, but lists 1 of 2");
    check(|s| s.members.truncate(1), "it counts 1 of 2 members as in sync, but lists 1 of 1");
    check(|s| s.minimum = 0, "its minimum is 0");
    check(|s| s.wanted_blocks = Some(s.blocks), "1048576 blocks are wanted, and it has 1048576");
    check(|s| s.snapshots[0].id = "9".into(), "\"9\" is not the id of a snapshot");
    check(|s| s.snapshots[0].id = s.snapshots[1].id.clone(), "0000000a is in it twice");
    let holders = |s: &mut VolumeRecordSpec, holders: &[&str]| {
        s.snapshots[1].taken.as_mut().unwrap().holders = holders.iter().map(|id| (*id).to_owned()).collect();
    };
    let mut spec = written(&rich());
    holders(&mut spec, &["0000000000000005"]);
    assert!(read(&spec).unwrap_err().to_string().contains("on replica 5, which is no member"));
    holders(&mut spec, &["0000000000000001", "0000000000000001"]);
    assert!(read(&spec).unwrap_err().to_string().contains("on replica 1 twice"));
    spec.snapshots = (0..257).map(|i| api::RecordSnapshot { id: format!("{i:032x}"), taken: None }).collect();
    assert!(read(&spec).unwrap_err().to_string().contains("257 snapshots, and 256 are the most"));
    check(
        |s| {
            s.members.remove(0);
            (s.in_sync, s.member_count) = (0, 1);
        },
        "none of its members is in sync",
    );
    check(
        |s| {
            let more = |i: u32| (format!("{:016x}", 100 + i), format!("n{i}"));
            let (last, ids) = (s.members[1].clone(), (0..15).map(more));
            s.members.extend(ids.map(|(replica, node)| api::RecordMember { replica, node, ..last.clone() }));
            s.member_count = 17;
        },
        "it has 17 members, and 16 are the most",
    );
}
