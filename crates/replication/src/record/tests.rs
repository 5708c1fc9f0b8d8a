use super::{Attached, Change, MOST_MEMBERS, Record, RecordError, Standing};
use crate::units::{AttachmentId, Epoch, NodeId, ReplicaId};

fn three() -> Record {
    let node = |name: &str| NodeId::from(name);
    Record::new([(ReplicaId(1), node("a")), (ReplicaId(2), node("b")), (ReplicaId(3), node("c"))], 2, 64).unwrap()
}

fn me() -> Attached {
    Attached { node: "a".into(), id: AttachmentId(7) }
}

#[test]
fn the_epoch_grows_with_each_attachment_and_each_change() {
    let record = three().claimed(me());
    assert_eq!((record.epoch, record.is_attached_to(AttachmentId(7))), (Epoch(1), true));
    let change = Change { leave: [ReplicaId(3)].into(), ..Change::default() };
    let record = record.changed(&change, Epoch(1)).unwrap();
    assert_eq!(record.epoch, Epoch(2));
    assert_eq!(record.members[&ReplicaId(3)].standing, Standing::Stale { complete: Epoch(1) });
    let change = Change { join: Some(ReplicaId(3)), ..Change::default() };
    let record = record.changed(&change, Epoch(2)).unwrap();
    assert_eq!((record.epoch, record.equal, record.in_sync().count()), (Epoch(3), Epoch(2), 3));
    let detached = record.detached();
    assert_eq!((detached.attached.is_none(), detached.equal), (true, Epoch(4)));
    assert_eq!(detached.claimed(me()).epoch, Epoch(4), "nothing differs when it is attached again");
}

#[test]
fn the_last_one_in_sync_does_not_leave() {
    let all = [ReplicaId(1), ReplicaId(2), ReplicaId(3)];
    let change = Change { leave: all.into(), ..Change::default() };
    assert_eq!(three().changed(&change, Epoch(0)), Err(RecordError::NoneLeft { last: ReplicaId(1) }));
    let change = Change { forget: all.into(), ..Change::default() };
    assert_eq!(three().changed(&change, Epoch(0)), Err(RecordError::NoneLeft { last: ReplicaId(1) }));
    let change = Change { leave: [ReplicaId(9)].into(), ..Change::default() };
    assert_eq!(three().changed(&change, Epoch(0)), Err(RecordError::NoMember(ReplicaId(9))));
}

#[test]
fn numbers_that_cannot_be_are_refused() {
    assert_eq!(three().with_minimum(4), Err(RecordError::Minimum { minimum: 4, count: 3 }));
    assert_eq!(three().with_minimum(0), Err(RecordError::Minimum { minimum: 0, count: 3 }));
    assert_eq!(three().with_replica(ReplicaId(1), "d".into()), Err(RecordError::Exists(ReplicaId(1))));
    assert_eq!(three().with_replica(ReplicaId(4), "a".into()), Err(RecordError::NodeTaken("a".into())));
    assert_eq!(Record::new([], 1, 64), Err(RecordError::Minimum { minimum: 1, count: 0 }));
    let many = (0..=MOST_MEMBERS as u64).map(|i| (ReplicaId(i), NodeId::from(format!("n{i}").as_str())));
    assert_eq!(Record::new(many, 1, 64), Err(RecordError::Count { count: MOST_MEMBERS + 1 }));
}

#[test]
fn a_replica_retires_when_enough_stay_and_is_forgotten_when_it_is_stale() {
    let record = three().with_retiring(ReplicaId(3)).unwrap();
    assert_eq!(record.with_retiring(ReplicaId(2)), Err(RecordError::Minimum { minimum: 2, count: 1 }));
    assert_eq!(three().without_stale(ReplicaId(2)), Err(RecordError::InSync(ReplicaId(2))));
    let grown = three().with_replica(ReplicaId(4), "d".into()).unwrap();
    assert_eq!(grown.members[&ReplicaId(4)].standing, Standing::Stale { complete: Epoch(0) });
    assert_eq!(grown.without_stale(ReplicaId(4)), Ok(three()));
}
