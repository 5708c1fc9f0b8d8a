use super::store::{Operation, Outcome, Promise};
use super::{Action, Event, OperationId, Replica};
use crate::message::{Answer, Body, Refusal, Reply, Request};
use crate::units::{AttachmentId, Blocks, Epoch, Incarnation, Sequence, Session};

const FIRST: Blocks = Blocks { start: 0, count: 1 };

fn replica(promise: Promise) -> Replica {
    Replica::new(promise, Session(1), Incarnation(1), 16, 8)
}

fn request(attachment: u128, epoch: u64, sequence: u64, body: Body) -> Event {
    let session = if body == Body::Seal { None } else { Some(Session(1)) };
    let (attachment, epoch, sequence) = (AttachmentId(attachment), Epoch(epoch), Sequence(sequence));
    Event::Asked(Request { attachment, epoch, session, sequence, done_below: Sequence(0), body })
}

fn write(epoch: u64, sequence: u64) -> Event {
    request(7, epoch, sequence, Body::Write { blocks: FIRST, data: vec![1; 8].into() })
}

fn said(actions: &[Action]) -> Vec<Result<Reply, Refusal>> {
    let answers =
        actions.iter().filter_map(|action| if let Action::Answer(answer) = action { Some(answer) } else { None });
    answers.map(|Answer { body, .. }| body.clone()).collect()
}

fn stored(actions: &[Action]) -> Vec<(OperationId, Operation)> {
    let stores = actions.iter().filter_map(|action| match action {
        Action::Store(id, operation) => Some((*id, operation.clone())),
        Action::Answer(_) => None,
    });
    stores.collect()
}

fn sealed() -> Replica {
    let mut replica = replica(Promise::default());
    let asked = stored(&replica.apply(request(7, 1, 0, Body::Seal)));
    assert_eq!(said(&replica.apply(Event::Stored(asked[0].0, Outcome::Done))), [Ok(Reply::Sealed { is_whole: false })]);
    replica
}

#[test]
fn a_seal_waits_for_what_is_under_way_and_is_durable_before_it_is_answered() {
    let mut replica = sealed();
    let writing = stored(&replica.apply(write(1, 1)));
    assert_eq!(replica.apply(request(9, 2, 0, Body::Seal)), [], "a write of the old epoch is under way");
    let lower = || [Err(Refusal::LowerEpoch { sealed: Epoch(2) })];
    assert_eq!(said(&replica.apply(write(1, 2))), lower(), "nothing of it begins any more");
    assert_eq!(said(&replica.apply(request(7, 1, 3, Body::Renew))), lower(), "nor is it confirmed");
    let actions = replica.apply(Event::Stored(writing[0].0, Outcome::Done));
    assert_eq!(said(&actions), [Ok(Reply::Done)], "what was begun is done");
    let sealing = stored(&actions);
    let promise = Promise { epoch: Epoch(2), attachment: Some(AttachmentId(9)), whole: None };
    assert_eq!(sealing[0].1, Operation::Promise(promise));
    assert_eq!(said(&replica.apply(request(9, 2, 1, Body::Read { blocks: FIRST }))), [Err(Refusal::NotSealed)]);
    let answered = said(&replica.apply(Event::Stored(sealing[0].0, Outcome::Done)));
    assert_eq!((answered, replica.epoch()), (vec![Ok(Reply::Sealed { is_whole: false })], Epoch(2)));
}

#[test]
fn a_write_is_executed_once() {
    let mut replica = sealed();
    let writing = stored(&replica.apply(write(1, 1)));
    assert_eq!(replica.apply(write(1, 1)), [], "it is under way");
    assert_eq!(said(&replica.apply(Event::Stored(writing[0].0, Outcome::Done))), [Ok(Reply::Done)]);
    let again = replica.apply(write(1, 1));
    assert_eq!((said(&again), stored(&again)), (vec![Ok(Reply::Done)], vec![]), "and answered once more");
}

#[test]
fn what_is_asked_again_while_it_is_under_way_is_not_done_twice_at_once() {
    let mut replica = sealed();
    for (sequence, body) in [(1, Body::Confirm), (2, Body::Read { blocks: Blocks { start: 0, count: 1 } })] {
        let begun = stored(&replica.apply(request(7, 1, sequence, body.clone())));
        assert_eq!(begun.len(), 1, "{body:?}");
        assert_eq!(replica.apply(request(7, 1, sequence, body.clone())), [], "{body:?} is under way");
        replica.apply(Event::Stored(begun[0].0, Outcome::Failed { reason: "no room".into() }));
        assert_eq!(stored(&replica.apply(request(7, 1, sequence, body.clone()))).len(), 1, "{body:?} is done again");
    }
}

#[test]
fn the_same_seal_again_waits_for_what_was_given_up() {
    let mut replica = sealed();
    let writing = stored(&replica.apply(write(1, 1)));
    assert_eq!(replica.apply(request(7, 1, 2, Body::Seal)), [], "the write could come late, over what is copied next");
    let actions = replica.apply(Event::Stored(writing[0].0, Outcome::Done));
    assert_eq!(said(&actions), [Ok(Reply::Done), Ok(Reply::Sealed { is_whole: false })]);
    assert_eq!(stored(&actions), [], "it is durable already");
    let again = replica.apply(write(1, 1));
    assert_eq!((said(&again), stored(&again)), (vec![Ok(Reply::Done)], vec![]), "what was executed is remembered");
}

#[test]
fn a_promise_outlives_the_process_and_its_session_does_not() {
    let promise = Promise { epoch: Epoch(5), attachment: Some(AttachmentId(7)), whole: Some(Incarnation(1)) };
    let mut replica = Replica::new(promise, Session(2), Incarnation(1), 16, 8);
    assert_eq!(
        said(&replica.apply(write(5, 1))),
        [Err(Refusal::EarlierSession)],
        "it was meant for the process before"
    );
    assert_eq!(said(&replica.apply(request(7, 5, 2, Body::Seal))), [Ok(Reply::Sealed { is_whole: true })]);
    assert_eq!(
        said(&replica.apply(request(8, 5, 2, Body::Seal))),
        [Err(Refusal::NotSealed)],
        "one epoch has one attachment"
    );
    let lower = Refusal::LowerEpoch { sealed: Epoch(5) };
    assert_eq!(said(&replica.apply(request(7, 4, 2, Body::Seal))), [Err(lower)]);
    let mut replica = Replica::new(promise, Session(3), Incarnation(2), 16, 8);
    assert_eq!(
        said(&replica.apply(request(7, 5, 2, Body::Seal))),
        [Ok(Reply::Sealed { is_whole: false })],
        "the power was lost"
    );
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut replica = sealed();
    let is_unfit = |actions: &[Action]| matches!(said(actions)[..], [Err(Refusal::Unfit { .. })]);
    for blocks in
        [Blocks { start: 16, count: 1 }, Blocks { start: 0, count: 0 }, Blocks { start: u64::MAX, count: u64::MAX }]
    {
        assert!(is_unfit(&replica.apply(request(7, 1, 1, Body::Read { blocks }))), "{blocks:?}");
        assert!(is_unfit(&replica.apply(request(7, 1, 1, Body::Discard { blocks }))), "{blocks:?}");
    }
    let data = vec![0; 9].into();
    assert!(is_unfit(&replica.apply(request(7, 1, 1, Body::Write { blocks: FIRST, data }))));
    assert!(is_unfit(&replica.apply(request(7, 1, 1, Body::Changed { since: Epoch(0), from: 0, most: 0 }))));
}
