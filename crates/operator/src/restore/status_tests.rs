//! What a status says after what was done.

use api::{ApplicationRestoreSpec, Missed};

use super::super::plan::Move;
use super::super::volume::view::Filled;
use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a small number of seconds is a timestamp")
}

/// The status after all of that was done, a second each.
fn after(applied: &[Applied]) -> ApplicationRestoreStatus {
    from(ApplicationRestoreStatus::default(), applied)
}

fn from(status: ApplicationRestoreStatus, applied: &[Applied]) -> ApplicationRestoreStatus {
    let mut restore = ApplicationRestore::new("r", ApplicationRestoreSpec::default());
    restore.metadata.generation = Some(1);
    restore.spec.ready_timeout = Some("0s".into());
    through(&restore, status, applied)
}

/// The status of that restore, after all of that was done.
fn through(
    restore: &ApplicationRestore,
    mut status: ApplicationRestoreStatus,
    applied: &[Applied],
) -> ApplicationRestoreStatus {
    for (second, applied) in (1..).zip(applied) {
        let (limits, claims) = (Limits::default(), BTreeSet::new());
        let facts = Facts { restore, point: None, claims: &claims, limits: &limits, now: at(second) };
        status = next(&status, applied, &facts);
    }
    status
}

fn made(part: Part, created: u64, failed: u64) -> Applied {
    let item = Missed { item: "ConfigMap a/b".into(), reason: "too large".into() };
    let failed_items = if failed > 0 { vec![item] } else { Vec::new() };
    let outcomes = ObjectOutcomes { wanted: created + failed, created, failed, failed_items, ..Default::default() };
    Applied::Made { part, outcomes }
}

fn with_volume(stage: VolumeStage) -> ApplicationRestoreStatus {
    let volume = VolumeRestore { namespace: "shop".into(), claim: "data".into(), stage, ..Default::default() };
    ApplicationRestoreStatus { phase: Phase::Running, volumes: vec![volume], ..Default::default() }
}

fn steps(moved: Moved) -> Applied {
    Applied::Moved { moved: vec![moved], error: None }
}

fn moved(step: Step, acted: Acted) -> Applied {
    let planned = Move { index: 0, step, attempts: 1, failure: None };
    steps(Moved { planned, acted, filled: None })
}

#[test]
fn a_run_goes_through_its_stages_and_counts_both_parts() {
    let status = after(&[
        Applied::Waited("looks".into()),
        Applied::Begun(Vec::new()),
        made(Part::Foundations, 2, 0),
        Applied::Left,
        made(Part::Resources, 3, 0),
    ]);
    assert_eq!((status.phase, status.stage), (Phase::Succeeded, RestoreStage::Done));
    let stages: Vec<&str> = status.stages.iter().map(|s| s.stage.as_str()).collect();
    assert_eq!(stages, ["Preparing", "Foundations", "Volumes", "Resources"]);
    assert!(status.stages.iter().all(|s| s.finished_at.is_some()));
    let objects = status.objects.expect("both parts were made");
    assert_eq!((objects.wanted, objects.created, objects.failed), (5, 5, 0));
    assert_eq!((status.conditions[0].status.as_str(), status.conditions[0].reason.as_str()), ("True", "Restored"));
}

#[test]
fn only_a_run_without_a_hole_is_green() {
    let check = |volume, created, failed, phase, reason: &str| {
        let status =
            from(with_volume(volume), &[made(Part::Foundations, 0, 0), made(Part::Resources, created, failed)]);
        assert_eq!(
            (status.phase, status.conditions[0].reason.as_str()),
            (phase, reason),
            "{volume:?} {created} {failed}"
        );
    };
    check(VolumeStage::Done, 1, 0, Phase::Succeeded, "Restored");
    check(VolumeStage::Skipped, 1, 0, Phase::Succeeded, "Restored");
    check(VolumeStage::Missed, 1, 0, Phase::Incomplete, "VolumesMissed");
    check(VolumeStage::Missed, 1, 1, Phase::Incomplete, "VolumesMissed");
    check(VolumeStage::Done, 1, 1, Phase::Incomplete, "ObjectsFailed");
    check(VolumeStage::Missed, 0, 1, Phase::Failed, "VolumesMissed");
}

#[test]
fn only_a_claim_that_is_there_when_the_run_begins_is_skipped_and_it_does_not_count_as_restored() {
    let check = |policy, claims: &[(&str, &str)], expected| {
        let mut restore = ApplicationRestore::new("r", ApplicationRestoreSpec::default());
        restore.spec.replace_policy = policy;
        let claims = claims.iter().map(|(namespace, name)| ((*namespace).to_owned(), (*name).to_owned())).collect();
        let limits = Limits::default();
        let facts = Facts { restore: &restore, point: None, claims: &claims, limits: &limits, now: at(1) };
        assert_eq!(listed("shop", "data", &facts).stage, expected, "{policy:?} {claims:?}");
    };
    let there = [("shop", "data")];
    check(ReplacePolicy::Retain, &there, VolumeStage::Skipped);
    check(ReplacePolicy::Update, &there, VolumeStage::Skipped);
    check(ReplacePolicy::Delete, &there, VolumeStage::Pending);
    check(ReplacePolicy::Retain, &[("shop", "other"), ("bank", "data")], VolumeStage::Pending);
    let status = from(with_volume(VolumeStage::Skipped), &[made(Part::Foundations, 1, 0), made(Part::Resources, 0, 0)]);
    let message = status.message.unwrap_or_default();
    assert!(message.contains("0 of 1 volumes, 1 left as they were"), "{message}");
    let hole = from(with_volume(VolumeStage::Skipped), &[made(Part::Foundations, 0, 0), made(Part::Resources, 0, 1)]);
    assert_eq!(hole.phase, Phase::Failed, "nothing is there");
}

#[test]
fn a_refusal_says_whether_anything_was_changed() {
    let refusal = || Applied::Failed(Refusal::new("KindMissing", "no such kind"));
    let message = |applied: &[Applied]| {
        let status = after(applied);
        assert_eq!((status.phase, status.stage), (Phase::Failed, RestoreStage::Done));
        status.message.expect("a run that is over says why")
    };
    assert_eq!(message(&[refusal()]), "no such kind; nothing was changed");
    assert_eq!(message(&[Applied::Begun(Vec::new()), refusal()]), "no such kind; what it had made stays");
}

#[test]
fn what_was_decided_about_a_volume_stays() {
    let refused = Acted::Refused("exceeded quota".into());
    let check = |before, step, acted: &Acted, stage, reason: Option<&str>| {
        let status = from(with_volume(before), &[moved(step, acted.clone())]);
        assert_eq!((status.volumes[0].stage, status.volumes[0].reason.as_deref()), (stage, reason));
    };
    check(VolumeStage::Pending, Step::MakeFilling, &Acted::Done, VolumeStage::Pending, None);
    check(VolumeStage::Pending, Step::MakeFilling, &refused, VolumeStage::Missed, Some("exceeded quota"));
    check(VolumeStage::Moving, Step::Miss("evicted".into()), &Acted::Done, VolumeStage::Missed, Some("evicted"));
    let later = Acted::PutOff("failed calling webhook".into());
    check(VolumeStage::Pending, Step::MakeFilling, &later, VolumeStage::Pending, Some("failed calling webhook"));
    check(VolumeStage::Moving, Step::Done, &Acted::Done, VolumeStage::Done, None);
    // Undoing after the decision tells nothing new.
    check(VolumeStage::Missed, Step::RemoveMovers, &Acted::Done, VolumeStage::Missed, None);
    check(VolumeStage::Missed, Step::Wait("waits".into()), &refused, VolumeStage::Missed, None);
}

#[test]
fn what_a_volume_was_filled_with_is_kept_when_its_temporary_claim_is_gone() {
    let planned = |step| Move { index: 0, step, attempts: 2, failure: None };
    let filled = Some(Filled { files: 3, bytes: 9 });
    let hold = Step::Hold { disk: "pv".into(), policy: "Delete".into(), made_for_us: true, replaces: None };
    let held = steps(Moved { planned: planned(hold), acted: Acted::Done, filled });
    let done = steps(Moved { planned: planned(Step::Done), acted: Acted::Done, filled: None });
    let volume = from(with_volume(VolumeStage::Moving), &[held, done]).volumes.remove(0);
    assert_eq!((volume.stage, volume.files, volume.bytes, volume.attempts), (VolumeStage::Done, Some(3), Some(9), 2));
    assert_eq!(volume.finished_at.map(|t| t.0), Some(at(2)));
}

fn workloads(ready: u64, wanted: u64) -> api::Workloads {
    let item = |n| api::WorkloadStatus {
        kind: "Deployment".into(),
        namespace: "shop".into(),
        name: format!("web-{n}"),
        state: if n < wanted - ready { api::WorkloadState::Waiting } else { api::WorkloadState::Ready },
        progress: None,
        reason: (n < wanted - ready).then(|| "0/3 nodes are available".into()),
    };
    api::Workloads { wanted, ready, items: (0..wanted).map(item).collect() }
}

/// A restore with rules on both sides, that waits for workloads.
fn with_rules() -> ApplicationRestore {
    let mut restore = ApplicationRestore::new("r", ApplicationRestoreSpec::default());
    restore.spec.pre_exec_rule = Some("quiesce".into());
    restore.spec.post_exec_rule = Some("migrate".into());
    restore
}

fn to_the_workloads() -> Vec<Applied> {
    vec![
        Applied::Begun(Vec::new()),
        Applied::RuleDone,
        made(Part::Foundations, 1, 0),
        Applied::Left,
        made(Part::Resources, 1, 0),
    ]
}

#[test]
fn rules_and_workloads_have_stages_of_their_own() {
    let mut applied = to_the_workloads();
    applied.extend([
        Applied::Looked(workloads(0, 1), Then::LookAgain),
        Applied::Looked(workloads(1, 1), Then::PostExecRule),
        Applied::Finished(None),
    ]);
    let status = through(&with_rules(), ApplicationRestoreStatus::default(), &applied);
    let stages: Vec<&str> = status.stages.iter().map(|s| s.stage.as_str()).collect();
    let expected = ["Preparing", "PreExecRule", "Foundations", "Volumes", "Resources", "Ready", "PostExecRule"];
    assert_eq!((stages, status.phase), (expected.to_vec(), Phase::Succeeded));
    assert!(status.message.unwrap_or_default().contains("1 of 1 workloads are ready"));
}

#[test]
fn what_is_not_ready_or_a_rule_that_fails_makes_no_success() {
    let end = |last: Vec<Applied>| {
        let applied: Vec<Applied> = to_the_workloads().into_iter().chain(last).collect();
        let status = through(&with_rules(), ApplicationRestoreStatus::default(), &applied);
        assert_eq!(status.phase, Phase::Incomplete);
        (status.conditions[0].reason.clone(), status.message.unwrap_or_default())
    };
    let (reason, message) = end(vec![Applied::Looked(workloads(1, 2), Then::Finish)]);
    assert_eq!(reason, "NotReady");
    for part in ["Deployment shop/web-0 is not ready: 0/3 nodes", "the rule migrate was not run"] {
        assert!(message.contains(part), "{part} in {message}");
    }
    let failure = Failure { reason: "RuleFailed".into(), message: "ended with code 3".into() };
    let ready = Applied::Looked(workloads(1, 1), Then::PostExecRule);
    let (reason, message) = end(vec![ready, Applied::Finished(Some(failure))]);
    assert_eq!(reason, "RuleFailed");
    assert!(message.contains("postExecRule: ended with code 3") && !message.contains("not run"), "{message}");
}

#[test]
fn a_rule_that_fails_first_leaves_everything_as_it_was() {
    let refusal = Refusal::new("RuleFailed", "ended with code 7");
    let status = through(
        &with_rules(),
        ApplicationRestoreStatus::default(),
        &[Applied::Begun(Vec::new()), Applied::Failed(refusal)],
    );
    assert_eq!((status.phase, status.conditions[0].reason.as_str()), (Phase::Failed, "RuleFailed"));
    assert_eq!(status.message.as_deref(), Some("ended with code 7; nothing was restored"));
}

#[test]
fn values_for_secrets_do_not_outlive_the_run() {
    let specs = |resource: &str| {
        serde_json::from_value(serde_json::json!([{"resource": resource,
            "paths": [{"path": "data.a", "operation": "add", "value": "hidden"}, {"path": "data.b", "operation": "delete"}],
            "jsonPatch": [{"op": "add", "path": "/data/c", "value": "hidden"}],
            "mergePatch": "data: {d: hidden}"}]))
        .expect("they are specs")
    };
    let kept =
        |resource: &str| api::RestoreTransform { name: "t".into(), generation: 1, transform_specs: specs(resource) };
    let transforms = vec![kept("v1/Secret"), kept("v1/ConfigMap")];
    let begun =
        ApplicationRestoreStatus { phase: Phase::Running, transforms: transforms.clone(), ..Default::default() };
    let under_way = from(begun.clone(), &[Applied::RuleDone]);
    assert_eq!(under_way.transforms, transforms, "it has yet to make them");
    for end in [Applied::Finished(None), Applied::Failed(Refusal::new("Gone", "gone"))] {
        let over = from(begun.clone(), &[end]);
        assert!(over.phase.is_final() && !format!("{:?}", over.transforms[0]).contains("hidden"), "{over:#?}");
        assert_eq!(over.transforms[0].transform_specs[0].paths.len(), 2, "what was changed is still told");
        assert_eq!(over.transforms[1], transforms[1]);
    }
}
