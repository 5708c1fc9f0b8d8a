//! The next step, in tables.

use std::time::Duration;

use jiff::Timestamp;

use super::*;
use crate::restore::volume::view::Mover;

const NOW: i64 = 10_000;
const DEADLINE: Duration = Duration::from_secs(120);

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a small number of seconds is a timestamp")
}

fn terms(policy: ReplacePolicy, attempts: u32) -> Terms {
    Terms { policy, attempts, max_attempts: 3, claim_deadline: DEADLINE }
}

const FILLED: Filled = Filled { files: 2, bytes: 7 };

fn filling(filled: Option<Filled>) -> Option<Filling> {
    Some(Filling { uid: "f".into(), filled, deleted: None })
}

fn dying(filling: Option<Filling>) -> Option<Filling> {
    filling.map(|f| Filling { deleted: Some(at(NOW)), ..f })
}

/// A volume that is promised to the claim `promised`; held if `original` is given.
fn disk(policy: &str, original: Option<&str>, promised: &str) -> Option<Disk> {
    Some(Disk {
        name: "pv".into(),
        policy: policy.into(),
        made_for_us: true,
        original: original.map(Into::into),
        promised: Some(promised.into()),
        replaces: None,
    })
}

/// A volume that is held for replacing the claim `t`.
fn replacing(promised: &str) -> Option<Disk> {
    disk("Retain", Some("Delete"), promised).map(|d| Disk { replaces: Some("t".into()), ..d })
}

fn target(ours: bool, bound: bool) -> Option<Target> {
    Some(Target { uid: "t".into(), ours, bound, ..Target::default() })
}

fn mover(attempt: u32, state: MoverState) -> Option<Mover> {
    let goes = matches!(state, MoverState::Ending { overdue: false });
    Some(Mover { attempt, state, goes })
}

fn failed(retryable: bool, tainted: bool) -> MoverState {
    MoverState::Failed { reason: "evicted".into(), retryable, tainted }
}

fn release(policy: &str) -> Step {
    Step::Release { disk: "pv".into(), policy: policy.into() }
}

fn check(what: &str, view: View, terms: &Terms, expected: Step) {
    assert_eq!(next(&view, terms), expected, "{what}: {view:?}");
}

#[test]
fn a_volume_is_filled_and_handed_over_step_by_step() {
    let t = terms(ReplacePolicy::Retain, 0);
    let hold = Step::Hold { disk: "pv".into(), policy: "Delete".into(), made_for_us: true, replaces: None };
    let promise = Step::Promise { disk: "pv".into(), claim_uid: "t".into() };
    let v = View::default();
    check("nothing is there", v.clone(), &t, Step::MakeFilling);
    let v = View { filling: filling(None), ..v };
    check("a claim", v.clone(), &t, Step::StartMover { attempt: 1 });
    let v = View { mover: mover(1, MoverState::Running), disk: disk("Delete", None, "f"), ..v };
    check("a mover works", v.clone(), &t, Step::Wait("is being filled".into()));
    let v = View { mover: mover(1, MoverState::Done(FILLED)), ..v };
    check("the mover is done", v.clone(), &t, Step::NoteFilled(FILLED));
    let v = View { filling: filling(Some(FILLED)), ..v };
    check("filled is noted", v.clone(), &t, Step::RemoveMovers);
    let v = View { mover: mover(1, MoverState::Ending { overdue: false }), ..v };
    check("the mover goes", v.clone(), &t, Step::Wait("waits for a mover pod to go".into()));
    let v = View { mover: None, ..v };
    check("the mover is gone", v.clone(), &t, hold);
    let v = View { disk: disk("Retain", Some("Delete"), "f"), ..v };
    check("the volume is held", v.clone(), &t, Step::MakeTarget { disk: "pv".into() });
    let v = View { target: target(true, false), ..v };
    check("the claim is there", v.clone(), &t, promise);
    let v = View { disk: disk("Retain", Some("Delete"), "t"), ..v };
    check("it is promised", v.clone(), &t, Step::Wait("waits for the claim to be bound to the filled volume".into()));
    let v = View { target: target(true, true), ..v };
    check("it is bound", v.clone(), &t, release("Delete"));
    let v = View { disk: disk("Delete", None, "t"), ..v };
    check("the policy is back", v.clone(), &t, Step::RemoveFilling { uid: "f".into() });
    let v = View { filling: None, ..v };
    check("nothing temporary is left", v, &t, Step::Done);
}

#[test]
fn a_claim_that_exists_is_kept_or_replaced_by_policy() {
    let there = View { target: target(false, true), ..View::default() };
    for policy in [ReplacePolicy::Retain, ReplacePolicy::Update] {
        let filled = View { filling: filling(Some(FILLED)), disk: disk("Delete", None, "f"), ..there.clone() };
        for view in [there.clone(), filled] {
            let step = next(&view, &terms(policy, 0));
            assert!(matches!(&step, Step::Miss(why) if why.contains("somebody made the claim")), "{step:?}");
        }
    }
    let t = terms(ReplacePolicy::Delete, 1);
    check("filled beside it first", there.clone(), &t, Step::MakeFilling);
    let note = Step::Hold { disk: "pv".into(), policy: "Delete".into(), made_for_us: true, replaces: Some("t".into()) };
    let full = View { filling: filling(Some(FILLED)), disk: disk("Delete", None, "f"), ..there };
    check("noted before it is deleted", full.clone(), &t, note.clone());
    let full = View { disk: disk("Retain", Some("Delete"), "f"), ..full };
    check("noted, though it came up after the volume was held", full.clone(), &t, note);
    let full = View { disk: replacing("f"), ..full };
    check("deleted when the new one is full", full.clone(), &t, Step::RemoveTarget { uid: "t".into() });
    let mut going = full.clone();
    going.target = going.target.map(|t| Target { deleted: Some(at(NOW - 1)), ..t });
    check("waited for", going.clone(), &t, Step::Wait("waits for the claim that it replaces to go".into()));
    going.waited = Duration::from_secs(121);
    let said = |step: Step, parts: &[&str]| matches!(step, Step::Miss(why) if parts.iter().all(|p| why.contains(p)));
    assert!(said(next(&going, &t), &["did not go in 120 s", "the filled volume pv is kept"]));
    let mut used = full;
    used.target = used.target.map(|t| Target { users: vec!["shop/db-0".into()], ..t });
    assert!(matches!(next(&used, &t), Step::Miss(reason) if reason.contains("shop/db-0")));
}

#[test]
fn a_mover_that_fails_is_followed_by_another_until_there_were_enough() {
    let check = |attempts, state, expected: Step| {
        let view = View { filling: filling(None), mover: mover(attempts, state), ..View::default() };
        super::step_tests::check("a failed mover", view, &terms(ReplacePolicy::Retain, attempts), expected);
    };
    check(1, failed(true, false), Step::RemoveMovers);
    check(1, failed(true, true), Step::RemoveFilling { uid: "f".into() });
    check(1, failed(false, false), Step::Miss("evicted".into()));
    check(3, failed(true, false), Step::Miss("evicted (the last of 3 tries)".into()));
    // Whether a mover on a lost node still writes, nobody knows: its volume is not used again.
    check(1, MoverState::Ending { overdue: true }, Step::RemoveFilling { uid: "f".into() });
    check(1, MoverState::Ending { overdue: false }, Step::Wait("waits for a mover pod to go".into()));
    let gone = View { filling: filling(None), ..View::default() };
    super::step_tests::check("gone", gone.clone(), &terms(ReplacePolicy::Retain, 2), Step::StartMover { attempt: 3 });
    let missed = Step::Miss("the mover pod disappeared (the last of 3 tries)".into());
    super::step_tests::check("all gone", gone, &terms(ReplacePolicy::Retain, 3), missed);
}

#[test]
fn a_mover_that_does_not_start_is_given_up_with_the_schedulers_words() {
    let view = |state| View { filling: filling(None), mover: mover(1, state), ..View::default() };
    let t = terms(ReplacePolicy::Retain, 1);
    let why = || "0/3 nodes are available".to_owned();
    let waits = next(&view(MoverState::Waiting { why: why() }), &t);
    assert!(matches!(waits, Step::Wait(reason) if reason.contains("0/3 nodes")));
    let missed = next(&view(MoverState::NeverStarted { why: why() }), &t);
    assert!(matches!(missed, Step::Miss(reason) if reason.contains("0/3 nodes")));
}

#[test]
fn a_claim_of_ours_that_is_not_bound_in_time_is_missed() {
    let waited = Duration::from_secs(121);
    let late = disk("Retain", Some("Delete"), "t");
    let late = View { target: target(true, false), disk: late, waited, ..View::default() };
    assert!(matches!(next(&late, &terms(ReplacePolicy::Retain, 1)), Step::Miss(_)));
    // Nobody has been asked yet: the operator may have been away since it made the claim.
    let unasked = View { disk: disk("Retain", Some("Delete"), "f"), ..late.clone() };
    let promise = Step::Promise { disk: "pv".into(), claim_uid: "t".into() };
    assert_eq!(next(&unasked, &terms(ReplacePolicy::Retain, 1)), promise);
    assert!(is_control_planes_turn(&late) && !is_control_planes_turn(&unasked));
}

#[test]
fn who_holds_a_temporary_claim_holds_a_volume_up_for_a_while_only() {
    let t = terms(ReplacePolicy::Retain, 1);
    let waiting = || Step::Wait("waits for its temporary claim to go".into());
    let going = View { filling: dying(filling(None)), waited: DEADLINE, ..View::default() };
    assert!(is_control_planes_turn(&going));
    check("a try that failed", going.clone(), &t, waiting());
    assert_eq!(discard(&going, DEADLINE), Some(waiting()));
    let held = View { waited: DEADLINE + Duration::from_secs(1), ..going };
    assert!(matches!(next(&held, &t), Step::Miss(why) if why.contains("see what holds it")));
    assert_eq!(discard(&held, DEADLINE), None);
    let whole = View {
        target: target(true, true),
        filling: dying(filling(Some(FILLED))),
        disk: disk("Delete", None, "t"),
        ..held
    };
    check("a volume that is handed over", whole.clone(), &t, Step::Done);
    assert_eq!(discard(&whole, DEADLINE), None);
    // What may still be written to by a mover is not waited for any less.
    let lost = View { mover: mover(1, MoverState::Ending { overdue: true }), ..whole };
    assert!(!is_control_planes_turn(&lost));
}

#[test]
fn a_copy_that_may_be_the_only_one_is_kept() {
    let check = |view: &View, expected: Option<Step>| assert_eq!(discard(view, DEADLINE), expected, "{view:?}");
    // The claim that it was to replace is still there: then it is not needed.
    let there =
        View { target: target(false, true), filling: filling(Some(FILLED)), disk: replacing("f"), ..View::default() };
    check(&there, Some(release("Delete")));
    // It is gone: what is temporary goes, and the note last.
    let gone = View { target: None, ..there };
    check(&gone, Some(Step::RemoveFilling { uid: "f".into() }));
    let ours = Target { uid: "new".into(), ours: true, ..Target::default() };
    let half = View { target: Some(ours), disk: replacing("new"), ..gone };
    check(&half, Some(Step::RemoveTarget { uid: "new".into() }));
    check(&View { stray: replacing("new"), ..View::default() }, Some(release("Retain")));
    check(&View { stray: disk("Retain", Some("Delete"), "f"), ..View::default() }, Some(release("Delete")));
    let Step::Miss(why) = miss(&half, "no luck") else { panic!("not missed") };
    assert!(why.starts_with("no luck; ") && why.contains("the filled volume pv is kept"), "{why}");
    assert_eq!(miss(&View::default(), "no luck"), Step::Miss("no luck".into()));
}

#[test]
fn what_is_left_of_a_try_goes_in_order() {
    let check = |view: View, expected: Option<Step>| assert_eq!(discard(&view, DEADLINE), expected, "{view:?}");
    let wait = |text: &str| Some(Step::Wait(text.into()));
    let remove_filling = Some(Step::RemoveFilling { uid: "f".into() });
    let empty = View::default();
    check(empty.clone(), None);
    check(
        View { mover: mover(1, MoverState::Running), filling: filling(None), ..empty.clone() },
        Some(Step::RemoveMovers),
    );
    check(View { filling: filling(None), disk: disk("Delete", None, "f"), ..empty.clone() }, remove_filling.clone());
    check(View { filling: filling(None), disk: disk("Retain", None, "f"), ..empty.clone() }, Some(release("Delete")));
    let held = disk("Retain", Some("Delete"), "f");
    check(View { filling: filling(Some(FILLED)), disk: held.clone(), ..empty.clone() }, Some(release("Delete")));
    check(View { stray: held.clone(), ..empty.clone() }, Some(release("Delete")));
    check(View { filling: dying(filling(None)), ..empty.clone() }, wait("waits for its temporary claim to go"));
    let others = held.clone().map(|d| Disk { made_for_us: false, ..d });
    check(View { filling: filling(None), disk: others, ..empty.clone() }, Some(release("Retain")));
    check(View { target: target(false, true), ..empty.clone() }, None);
    let unbound = View { target: target(true, false), filling: filling(Some(FILLED)), disk: held, ..empty.clone() };
    check(unbound, Some(Step::RemoveTarget { uid: "t".into() }));
    let whole = View { target: target(true, true), filling: filling(Some(FILLED)), ..empty };
    check(View { disk: disk("Retain", Some("Delete"), "t"), ..whole.clone() }, Some(release("Delete")));
    check(View { disk: disk("Delete", None, "t"), ..whole.clone() }, remove_filling);
    check(View { disk: disk("Delete", None, "t"), filling: None, ..whole }, None);
}
