//! What becomes of a run that must not go on.

use api::{ApplicationBackup, ApplicationBackupSpec, ApplicationBackupStatus, HookState, HookStatus};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::*;

/// The plan for a run that is barred, in a stage, with a command that was begun.
fn barred_in(stage: BackupStage, command: Option<HookState>) -> Plan {
    let started_at = Some(Time(Timestamp::UNIX_EPOCH));
    let hook = |state| HookStatus { time: HookTime::Pre, state, started_at, ..HookStatus::default() };
    let mut run = ApplicationBackup::new("b", ApplicationBackupSpec::default());
    run.status = Some(ApplicationBackupStatus {
        stage,
        hooks: command.map(hook).into_iter().collect(),
        ..ApplicationBackupStatus::default()
    });
    let gathered = Gathered {
        run,
        uid: "u".into(),
        point_id: "p".parse().expect("a name"),
        now: Timestamp::UNIX_EPOCH,
        facts: Facts::Barred(Failure { reason: "StatusNotOwn".into(), message: "it is forged".into() }),
    };
    plan(&gathered, &Limits::default())
}

#[test]
fn a_run_that_must_not_go_on_ends_when_nothing_is_held() {
    let failed = |plan: &Plan| matches!(plan, Plan::Fail(reason) if reason.reason == "StatusNotOwn");
    for stage in [BackupStage::Preparing, BackupStage::Volumes, BackupStage::Resources, BackupStage::Publishing] {
        assert!(failed(&barred_in(stage, None)), "{stage:?}");
    }
    assert!(failed(&barred_in(BackupStage::Resources, Some(HookState::Succeeded))));
    // It passes through the stage where runs that fail let go, and does nothing else there.
    let lets_go = |plan: &Plan| matches!(plan, Plan::Command(steps) if *steps == [(0, rules::Step::Release)]);
    for stage in [BackupStage::PreExecRule, BackupStage::Volumes, BackupStage::PostExecRule] {
        assert!(lets_go(&barred_in(stage, Some(HookState::Holding))), "{stage:?}");
    }
    let given_up = barred_in(BackupStage::Volumes, Some(HookState::Failed));
    assert!(matches!(given_up, Plan::GiveUp(failure) if failure.reason == "StatusNotOwn"));
    assert!(failed(&barred_in(BackupStage::PostExecRule, Some(HookState::Failed))));
}
