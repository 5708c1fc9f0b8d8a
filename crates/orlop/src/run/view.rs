//! A run as it is shown, whatever its kind. Pure: from a resource to text.

use api::{
    ApplicationBackup, ApplicationClone, ApplicationRestore, Consistency, GitOpsHold, HoldState, HookState, HookStatus,
    LedgerSummary, Missed, ObjectOutcomes, Phase, RestorePlan, Timed, VolumeBackup, VolumeClone, VolumeRestore,
    VolumeStage, WorkloadStatus,
};
use jiff::Timestamp;
use kube::ResourceExt;

use super::plan;
use crate::error::Exit;
use crate::{human, output};

/// What stands where the number of files would, for a device.
pub(super) const IMAGE: &str = "image";

/// A resource that is one run.
pub(crate) trait Run {
    /// What there is to show of it now.
    fn view(&self) -> RunView;
}

/// What there is to show of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct RunView {
    /// `backup shop/nightly`.
    pub(crate) title: String,
    pub(crate) phase: Phase,
    pub(crate) stage: String,
    pub(crate) stages: Vec<StageView>,
    pub(crate) recovery_point: Option<String>,
    pub(crate) volumes: Vec<VolumeView>,
    pub(crate) commands: Vec<CommandView>,
    pub(crate) workloads: Vec<WorkloadStatus>,
    /// What the run would do, or would do now.
    pub(crate) plan: Option<RestorePlan>,
    /// What keeps the objects, and whether it was held.
    pub(crate) holds: Vec<String>,
    /// One line on how the data of the volumes hangs together.
    pub(crate) consistency: Option<String>,
    /// One line on the objects, such as `12 wanted, 10 stored, 2 skipped, 0 missed`.
    pub(crate) objects: Option<String>,
    pub(crate) missed: Vec<Missed>,
    /// How many are missed; more than are named.
    pub(crate) missed_total: u64,
    pub(crate) message: Option<String>,
}

/// One stage of a run, with its time when it has ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StageView {
    pub(crate) name: String,
    pub(crate) started: Timestamp,
    pub(crate) finished: Option<Timestamp>,
}

/// One volume of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct VolumeView {
    pub(crate) claim: String,
    pub(crate) stage: VolumeStage,
    pub(crate) attempts: u32,
    /// It is a device: there are no files.
    pub(crate) image: bool,
    pub(crate) files: Option<u64>,
    pub(crate) bytes: Option<u64>,
    pub(crate) stored_bytes: Option<u64>,
    pub(crate) note: Option<String>,
}

/// One command of a rule in one pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct CommandView {
    /// Of which rule.
    pub(crate) rule: String,
    /// Where, as `namespace/pod`.
    pub(crate) pod: String,
    pub(crate) state: HookState,
    pub(crate) note: Option<String>,
}

impl RunView {
    /// How a process that waited for this run ends.
    pub(crate) fn exit(&self) -> Exit {
        match self.phase {
            Phase::Succeeded => Exit::Succeeded,
            Phase::Incomplete => Exit::Incomplete,
            Phase::Failed | Phase::Pending | Phase::Running => Exit::Failed,
        }
    }

    /// The whole of it: fields, stages, volumes, what is missed.
    pub(crate) fn summary(&self) -> String {
        let mut text = output::fields(self.head());
        if !self.stages.is_empty() {
            text.push('\n');
            text.push_str(&output::table(["STAGE", "STARTED", "TOOK"], self.stages.iter().map(StageView::row)));
        }
        if !self.volumes.is_empty() {
            text.push('\n');
            let header = ["VOLUME", "STAGE", "FILES", "BYTES", "STORED", "NOTE"];
            text.push_str(&output::table(header, self.volumes.iter().map(VolumeView::row)));
        }
        if !self.commands.is_empty() {
            text.push('\n');
            text.push_str(&output::table(["RULE", "POD", "STATE", "NOTE"], self.commands.iter().map(CommandView::row)));
        }
        if !self.workloads.is_empty() {
            text.push('\n');
            text.push_str(&output::table(
                ["WORKLOAD", "STATE", "RUNS", "NOTE"],
                self.workloads.iter().map(workload_row),
            ));
        }
        if let Some(plan) = &self.plan {
            text.push('\n');
            text.push_str(&plan::text(plan));
        }
        if !self.missed.is_empty() {
            text.push('\n');
            let rows = self.missed.iter().map(|m| [m.item.clone(), m.reason.clone()]);
            text.push_str(&output::table(["MISSED", "REASON"], rows));
            let unnamed = self.missed_total.saturating_sub(self.missed.len() as u64);
            if unnamed > 0 {
                text.push_str(&format!("and {unnamed} more\n"));
            }
        }
        text
    }

    fn head(&self) -> Vec<(&'static str, String)> {
        let mut head = vec![("Run", self.title.clone()), ("Phase", format!("{:?}", self.phase))];
        if !self.phase.is_final() {
            head.push(("Stage", self.stage.clone()));
        }
        let optional = [
            ("Recovery point", &self.recovery_point),
            ("Objects", &self.objects),
            ("Consistency", &self.consistency),
            ("Message", &self.message),
        ];
        head.extend(self.holds.iter().map(|hold| ("Held", hold.clone())));
        head.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))));
        head
    }
}

impl StageView {
    fn row(&self) -> [String; 3] {
        let took = self.finished.and_then(|end| std::time::Duration::try_from(end.duration_since(self.started)).ok());
        [self.name.clone(), human::instant(self.started), took.map_or_else(|| "goes on".to_owned(), human::took)]
    }
}

impl VolumeView {
    fn row(&self) -> [String; 6] {
        [
            self.claim.clone(),
            format!("{:?}", self.stage),
            if self.image { IMAGE.to_owned() } else { human::maybe(self.files) },
            human::maybe_bytes(self.bytes),
            human::maybe_bytes(self.stored_bytes),
            self.note.clone().unwrap_or_default(),
        ]
    }
}

impl CommandView {
    fn row(&self) -> [String; 4] {
        let note = self.note.as_deref().unwrap_or_default().lines().next().unwrap_or_default();
        [self.rule.clone(), self.pod.clone(), format!("{:?}", self.state), note.to_owned()]
    }
}

fn workload_row(workload: &WorkloadStatus) -> [String; 4] {
    let WorkloadStatus { kind, namespace, name, state, progress, reason } = workload;
    let note = reason.clone().unwrap_or_default();
    [format!("{kind} {namespace}/{name}"), format!("{state:?}"), human::maybe(progress.as_ref()), note]
}

fn command(hook: &HookStatus) -> CommandView {
    CommandView {
        rule: format!("{} {}.{}", hook.rule, hook.item, hook.action),
        pod: format!("{}/{}", hook.namespace, hook.pod).trim_matches('/').to_owned(),
        state: hook.state,
        note: hook.message.clone(),
    }
}

/// One line on what keeps objects.
pub(super) fn hold(hold: &GitOpsHold) -> String {
    let state = match hold.state {
        HoldState::Held => "until the restore has ended",
        HoldState::WasSuspended => "suspended by somebody else, and left so",
        HoldState::LeftAlone => "left alone: it is in another namespace",
    };
    format!("{} {}/{}, {state}", hold.kind, hold.namespace, hold.name)
}

fn consistency(found: &Consistency) -> String {
    let took = human::took(std::time::Duration::from_millis(found.spread_millis));
    format!("{:?}: read within {took}; {}", found.level, found.reason)
}

impl Run for ApplicationBackup {
    fn view(&self) -> RunView {
        let status = self.status.clone().unwrap_or_default();
        let ledger = status.ledger.unwrap_or_default();
        RunView {
            title: title("backup", self),
            phase: status.phase,
            stage: format!("{:?}", status.stage),
            stages: stages(&status.stages),
            recovery_point: status.recovery_point,
            volumes: status.volumes.iter().map(backup_volume).collect(),
            commands: status.hooks.iter().map(command).collect(),
            workloads: Vec::new(),
            plan: None,
            holds: Vec::new(),
            consistency: status.consistency.as_ref().map(consistency),
            objects: (ledger != LedgerSummary::default()).then(|| ledger_line(&ledger)),
            missed_total: ledger.missed,
            missed: ledger.missed_items,
            message: status.message,
        }
    }
}

impl Run for ApplicationRestore {
    fn view(&self) -> RunView {
        let status = self.status.clone().unwrap_or_default();
        let objects = status.objects.unwrap_or_default();
        RunView {
            title: title("restore", self),
            phase: status.phase,
            stage: format!("{:?}", status.stage),
            stages: stages(&status.stages),
            recovery_point: status.recovery_point,
            volumes: status.volumes.iter().map(restore_volume).collect(),
            commands: status.hooks.iter().map(command).collect(),
            workloads: status.workloads.map(|workloads| workloads.items).unwrap_or_default(),
            plan: status.plan,
            holds: status.holds.iter().map(hold).collect(),
            consistency: None,
            objects: (objects != ObjectOutcomes::default()).then(|| outcome_line(&objects)),
            missed_total: objects.failed,
            missed: objects.failed_items,
            message: status.message,
        }
    }
}

impl Run for ApplicationClone {
    fn view(&self) -> RunView {
        let status = self.status.clone().unwrap_or_default();
        let objects = status.objects.unwrap_or_default();
        RunView {
            title: title("clone", self),
            phase: status.phase,
            stage: format!("{:?}", status.stage),
            stages: stages(&status.stages),
            volumes: status.volumes.iter().map(|volume| clone_volume(&self.spec.source_namespace, volume)).collect(),
            objects: (objects != ObjectOutcomes::default()).then(|| outcome_line(&objects)),
            missed_total: objects.failed,
            missed: objects.failed_items,
            message: status.message,
            ..RunView::default()
        }
    }
}

fn title<K: ResourceExt>(kind: &str, resource: &K) -> String {
    match resource.namespace() {
        Some(namespace) => format!("{kind} {namespace}/{}", resource.name_any()),
        None => format!("{kind} {}", resource.name_any()),
    }
}

fn stages(stages: &[Timed]) -> Vec<StageView> {
    let view = |timed: &Timed| StageView {
        name: timed.stage.clone(),
        started: timed.started_at.0,
        finished: timed.finished_at.as_ref().map(|t| t.0),
    };
    stages.iter().map(view).collect()
}

fn ledger_line(l: &LedgerSummary) -> String {
    format!("{} wanted, {} stored, {} skipped, {} missed", l.wanted, l.stored, l.skipped, l.missed)
}

fn outcome_line(o: &ObjectOutcomes) -> String {
    format!(
        "{} wanted, {} created, {} updated, {} kept, {} replaced, {} failed",
        o.wanted, o.created, o.updated, o.kept, o.replaced, o.failed
    )
}

fn backup_volume(volume: &VolumeBackup) -> VolumeView {
    VolumeView {
        claim: format!("{}/{}", volume.namespace, volume.claim),
        stage: volume.stage,
        attempts: volume.attempts,
        image: volume.image,
        files: volume.files,
        bytes: volume.bytes,
        stored_bytes: volume.stored_bytes,
        note: volume.reason.clone().or_else(|| (volume.stage == VolumeStage::Done).then(|| what_was_read(volume))),
    }
}

/// Which way a volume was read, and how well that went.
fn what_was_read(volume: &VolumeBackup) -> String {
    let from = match (&volume.snapshot_class, &volume.cut_at) {
        (Some(class), Some(at)) => format!("a snapshot of the class {class}, as of {}", human::instant(at.0)),
        _ => "the volume itself".to_owned(),
    };
    match volume.changed_while_read {
        None | Some(0) => from,
        Some(n) => format!("{from}; {} changed while read", human::count(n, "file", "files")),
    }
}

fn restore_volume(volume: &VolumeRestore) -> VolumeView {
    VolumeView {
        claim: format!("{}/{}", volume.namespace, volume.claim),
        stage: volume.stage,
        attempts: volume.attempts,
        image: volume.image,
        files: volume.files,
        bytes: volume.bytes,
        stored_bytes: None,
        note: volume.reason.clone(),
    }
}

fn clone_volume(namespace: &str, volume: &VolumeClone) -> VolumeView {
    let cut = volume.cut_at.as_ref().map(|at| format!("as of {}", human::instant(at.0)));
    VolumeView {
        claim: format!("{namespace}/{}", volume.claim),
        stage: volume.stage,
        note: volume.reason.clone().or(cut),
        ..VolumeView::default()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn at(second: i64) -> Time {
        Time(Timestamp::from_second(1_800_000_000 + second).expect("an instant"))
    }

    fn backup() -> ApplicationBackup {
        let mut backup = ApplicationBackup::new("nightly", api::ApplicationBackupSpec::default());
        backup.metadata.namespace = Some("shop".into());
        backup.status = Some(api::ApplicationBackupStatus {
            phase: Phase::Incomplete,
            stage: api::BackupStage::Done,
            stages: vec![
                Timed { stage: "Preparing".into(), started_at: at(0), finished_at: Some(at(1)) },
                Timed { stage: "Volumes".into(), started_at: at(1), finished_at: Some(at(90)) },
            ],
            recovery_point: Some("20270115-080000-0a1b2c3d".into()),
            ledger: Some(LedgerSummary {
                wanted: 14,
                stored: 10,
                skipped: 2,
                missed: 2,
                missed_items: vec![Missed { item: "Volume shop/logs".into(), reason: "no node can mount it".into() }],
            }),
            volumes: vec![
                VolumeBackup {
                    namespace: "shop".into(),
                    claim: "data".into(),
                    stage: VolumeStage::Done,
                    files: Some(1200),
                    bytes: Some(64 << 20),
                    stored_bytes: Some(3 << 20),
                    changed_while_read: Some(1),
                    ..Default::default()
                },
                VolumeBackup {
                    namespace: "shop".into(),
                    claim: "disk".into(),
                    image: true,
                    stage: VolumeStage::Done,
                    snapshot_class: Some("fast".into()),
                    cut_at: Some(at(2)),
                    bytes: Some(16 << 20),
                    stored_bytes: Some(1 << 20),
                    ..Default::default()
                },
                VolumeBackup {
                    namespace: "shop".into(),
                    claim: "logs".into(),
                    stage: VolumeStage::Missed,
                    reason: Some("no node can mount it".into()),
                    ..Default::default()
                },
            ],
            message: Some("2 of 14 items are missed".into()),
            ..Default::default()
        });
        backup
    }

    #[test]
    fn a_summary_says_all_that_a_person_needs() {
        crate::golden::check("summary-incomplete-backup.txt", &backup().view().summary());
    }

    #[test]
    fn a_run_ends_the_process_by_its_phase() {
        for (phase, exit) in
            [(Phase::Succeeded, Exit::Succeeded), (Phase::Incomplete, Exit::Incomplete), (Phase::Failed, Exit::Failed)]
        {
            assert_eq!(RunView { phase, ..Default::default() }.exit(), exit);
        }
    }

    #[test]
    fn a_run_that_nobody_has_looked_at_has_only_its_name_and_phase() {
        let run = ApplicationRestore::new("r", api::ApplicationRestoreSpec::default());
        assert_eq!(run.view().summary(), "Run:    restore r\nPhase:  Pending\nStage:  Pending\n");
    }
}
