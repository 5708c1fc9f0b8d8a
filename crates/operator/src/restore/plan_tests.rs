//! What is done next for the volumes of a restore, all together.

use std::time::Duration;

use api::{ApplicationRestore, ApplicationRestoreSpec};
use jiff::Timestamp;

use super::super::volume::view::{Beside, Disk, Filling, Mover, Target, View};
use super::*;

fn gathered() -> Gathered {
    Gathered {
        restore: ApplicationRestore::new("r", ApplicationRestoreSpec::default()),
        uid: "u".into(),
        scene: Scene::Over,
        now: Timestamp::UNIX_EPOCH,
        without_point: Duration::ZERO,
    }
}

fn limits(movers_at_once: usize) -> Limits {
    Limits { movers_at_once, ..Limits::default() }
}

/// The plan for volumes, each with its stage and what is seen of it.
fn plan_of(volumes: Vec<(VolumeStage, View)>, refusal: Option<Refusal>, limits: &Limits) -> Plan {
    plan_together(volumes, &[], refusal, limits)
}

/// The same, with what is wanted of the volumes.
fn plan_together(
    volumes: Vec<(VolumeStage, View)>,
    wanted: &[WantedVolume],
    refusal: Option<Refusal>,
    limits: &Limits,
) -> Plan {
    let status = ApplicationRestoreStatus {
        volumes: volumes.iter().map(|(stage, _)| VolumeRestore { stage: *stage, ..Default::default() }).collect(),
        ..Default::default()
    };
    let seen = |(index, (_, view)): (usize, (VolumeStage, View))| Seen { index, view, ..Seen::default() };
    let seen: Vec<Seen> = volumes.into_iter().enumerate().map(seen).collect();
    super::volumes(&gathered(), &status, &seen, wanted, limits, refusal)
}

fn steps(plan: Plan) -> Vec<(usize, Step)> {
    let Plan::Move(moves) = plan else { panic!("not a plan of moves: {plan:?}") };
    moves.into_iter().map(|m| (m.index, m.step)).collect()
}

fn nothing() -> View {
    View::default()
}

fn filling() -> View {
    View { filling: Some(Filling { uid: "f".into(), ..Filling::default() }), ..View::default() }
}

fn running() -> View {
    View { mover: Some(Mover { attempt: 1, state: MoverState::Running, goes: false }), ..filling() }
}

#[test]
fn movers_work_a_few_at_a_time() {
    use VolumeStage::{Moving, Pending};
    let turn = || Step::Wait("waits for its turn".into());
    let volumes = || vec![(Moving, running()), (Pending, filling()), (Pending, nothing())];
    let filled = Step::Wait("is being filled".into());
    assert_eq!(steps(plan_of(volumes(), None, &limits(1))), [(0, filled.clone()), (1, turn()), (2, turn())]);
    let two = steps(plan_of(volumes(), None, &limits(2)));
    assert_eq!(two, [(0, filled.clone()), (1, Step::StartMover { attempt: 1 }), (2, turn())]);
    let three = steps(plan_of(volumes(), None, &limits(3)));
    assert_eq!(three, [(0, filled), (1, Step::StartMover { attempt: 1 }), (2, Step::MakeFilling)]);
}

#[test]
fn volumes_of_one_pod_are_placed_one_after_another() {
    use VolumeStage::{Done, Missed, Pending};
    let volume = |others: &[usize]| WantedVolume {
        source_name: Default::default(),
        namespace: "shop".into(),
        claim: "c".into(),
        stored: serde_json::Value::Null,
        manifest: serde_json::Value::Null,
        changes: Vec::new(),
        source: Err(String::new()),
        placement: Default::default(),
        beside: others.iter().map(|index| Beside { index: *index, claim: format!("c{index}") }).collect(),
    };
    let wanted = [volume(&[1, 2]), volume(&[0, 2]), volume(&[0, 1]), volume(&[])];
    let start = || Step::StartMover { attempt: 1 };
    let wait =
        |claim: &str| Step::Wait(format!("waits until the volume of {claim}, which the same pod mounts, is made"));
    let check = |volumes: Vec<(VolumeStage, View)>, expected: &[(usize, Step)]| {
        assert_eq!(steps(plan_together(volumes, &wanted, None, &limits(2))), expected);
    };
    let others = || [(Pending, filling()), (Pending, filling()), (Pending, filling())];
    let all = |first| std::iter::once(first).chain(others()).collect::<Vec<_>>();
    // One that waits for another takes nobody's place.
    check(all((Pending, filling())), &[(0, start()), (1, wait("c0")), (2, wait("c0")), (3, start())]);
    let placed = View { disk: Some(Disk::default()), ..running() };
    let filled = Step::Wait("is being filled".into());
    check(
        all((VolumeStage::Moving, placed)),
        &[(0, filled), (1, start()), (2, wait("c1")), (3, Step::Wait("waits for its turn".into()))],
    );
    for over in [Done, Missed] {
        check(all((over, nothing())), &[(1, start()), (2, wait("c1")), (3, start())]);
    }
}

#[test]
fn what_was_decided_is_only_tidied_up() {
    use VolumeStage::{Done, Missed, Skipped};
    let volumes = vec![(Missed, running()), (Done, nothing()), (Skipped, nothing()), (Missed, nothing())];
    assert_eq!(steps(plan_of(volumes, None, &limits(4))), [(0, Step::RemoveMovers)]);
    let tidy = vec![(Missed, nothing()), (Done, nothing()), (Skipped, nothing())];
    assert!(matches!(plan_of(tidy, None, &limits(4)), Plan::Leave));
}

#[test]
fn a_run_that_cannot_go_on_misses_its_volumes_and_tidies_up_before_it_ends() {
    use VolumeStage::{Done, Missed, Pending};
    let refusal = || Some(Refusal::new("Unreachable", "no route"));
    let volumes = vec![(Pending, running()), (Done, nothing())];
    assert_eq!(steps(plan_of(volumes, refusal(), &limits(4))), [(0, Step::Miss("no route".into()))]);
    let volumes = vec![(Missed, filling()), (Done, nothing())];
    assert_eq!(steps(plan_of(volumes, refusal(), &limits(4))), [(0, Step::RemoveFilling { uid: "f".into() })]);
    assert!(
        matches!(plan_of(vec![(Done, nothing())], refusal(), &limits(4)), Plan::Fail(r) if r.reason == "Unreachable")
    );
}

#[test]
fn a_claim_that_is_somebody_elses_survives_everything() {
    let theirs =
        || View { target: Some(Target { uid: "t".into(), bound: true, ..Target::default() }), ..View::default() };
    for stage in [VolumeStage::Missed, VolumeStage::Skipped, VolumeStage::Done] {
        assert!(matches!(plan_of(vec![(stage, theirs())], None, &limits(4)), Plan::Leave), "{stage:?}");
    }
}

#[test]
fn a_mover_that_was_not_noted_counts() {
    let Plan::Move(moves) = plan_of(vec![(VolumeStage::Pending, running())], None, &limits(4)) else {
        panic!("no moves")
    };
    assert_eq!(moves[0].attempts, 1);
}
