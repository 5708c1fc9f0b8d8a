//! `orlop schedule`: backups that are made by themselves.

use std::time::Duration;

use api::schedule::TRIGGER_REQUESTED;
use api::{ApplicationBackupSchedule, ReclaimPolicy};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::cluster::{Cluster, ClusterArgs};
use crate::error::{Error, Exit, Result};
use crate::human::{self, parse_duration};
use crate::location::nobody_answers;
use crate::output::{self, Format, OutputArgs};
use crate::run::watch_until;
use crate::verbs::{self, DeleteArgs, Kind, ListArgs, dry};

/// Look after backups that are made by themselves
#[derive(Debug, Args)]
pub(crate) struct ScheduleArgs {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the schedules of a namespace
    List(ListArgs),
    /// Show a schedule and its runs
    Show {
        /// Its name
        name: String,
    },
    /// Begin a run now, beside the times of the schedule; it is kept until it is deleted
    Run {
        /// Its name
        name: String,
        /// Wait at most this long until the operator has begun it
        #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "2m")]
        timeout: Duration,
    },
    /// Begin no more runs, but those that are asked for
    Suspend {
        /// Its name
        name: String,
    },
    /// Begin runs again; one makes up for those that were missed
    Resume {
        /// Its name
        name: String,
    },
    /// Delete a schedule; its runs and their recovery points stay, unless its reclaimPolicy is Delete
    Delete(DeleteArgs),
}

impl Kind for ApplicationBackupSchedule {
    const NOUN: &'static str = "schedule";
    const COLUMNS: &'static [&'static str] = &["POLICY", "SUSPENDED", "RUNS", "LAST COMPLETE", "NEXT", "MESSAGE"];

    fn cells(&self) -> Vec<String> {
        let status = self.status.clone().unwrap_or_default();
        let is_ready = status.conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True");
        vec![
            self.spec.schedule_policy_name.clone(),
            self.spec.suspend.to_string(),
            status.items.values().map(Vec::len).sum::<usize>().to_string(),
            human::maybe(status.last_complete_at.map(|time| human::instant(time.0))),
            human::maybe(status.next_run_at.map(|time| human::instant(time.0))),
            status.message.filter(|_| !is_ready).unwrap_or_default(),
        ]
    }
}

/// Runs the command.
pub(crate) async fn run(args: ScheduleArgs) -> Result<Exit> {
    let format = args.output.format();
    let cluster = Cluster::connect(&args.cluster).await?;
    match args.verb {
        Verb::List(list) => verbs::list::<ApplicationBackupSchedule>(&cluster, list, format).await?,
        Verb::Show { name } => {
            let schedule: ApplicationBackupSchedule = verbs::get(&cluster, &name).await?;
            output::print(&output::resource(format, &schedule, || described(&schedule))?)?;
        }
        Verb::Run { name, timeout } => begin(&cluster, &name, timeout, format).await?,
        Verb::Suspend { name } => suspend(&cluster, &name, true, format).await?,
        Verb::Resume { name } => suspend(&cluster, &name, false, format).await?,
        Verb::Delete(gone) => delete(&cluster, &gone, format).await?,
    }
    Ok(Exit::Succeeded)
}

async fn patch(cluster: &Cluster, name: &str, what: &str, patch: &Value) -> Result<ApplicationBackupSchedule> {
    // That it is not there is said with the way to the right name.
    verbs::get::<ApplicationBackupSchedule>(cluster, name).await?;
    let api = cluster.api::<ApplicationBackupSchedule>();
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.map_err(|e| cluster.explain(what, e))
}

async fn suspend(cluster: &Cluster, name: &str, suspend: bool, format: Format) -> Result<()> {
    let (verb, done) = if suspend { ("suspend", "suspended") } else { ("resume", "resumed") };
    let what = format!("{verb} schedule {name}");
    let schedule = patch(cluster, name, &what, &json!({"spec": {"suspend": suspend}})).await?;
    output::print(&output::resource(format, &schedule, || format!("{} {done}\n", output::resource_name(&schedule)))?)
}

/// Asks for a run, and waits until the operator has followed.
async fn begin(cluster: &Cluster, name: &str, timeout: Duration, format: Format) -> Result<()> {
    let request = Timestamp::now().to_string();
    let what = format!("begin a run of schedule {name}");
    let asked = json!({"metadata": {"annotations": {TRIGGER_REQUESTED: request}}});
    patch(cluster, name, &what, &asked).await?;
    let followed = |state: Option<ApplicationBackupSchedule>| match state {
        Some(schedule) => {
            let status = schedule.status.clone().unwrap_or_default();
            let is_current = status.observed_generation == schedule.metadata.generation;
            let problem = status.conditions.iter().find(|c| is_current && c.type_ == "Ready" && c.status == "False");
            match problem {
                Some(problem) => Err(Error::new(format!("{what}: {} ({})", problem.message, problem.reason))),
                None => Ok((status.last_trigger.as_deref() == Some(&request)).then_some(schedule)),
            }
        }
        None => Err(Error::new(format!("{what}: it was deleted meanwhile"))),
    };
    let api = cluster.api::<ApplicationBackupSchedule>();
    let schedule = watch_until(cluster, api, name, &what, Some(timeout), followed).await.map_err(nobody_answers)?;
    let begun = schedule.status.as_ref().and_then(|status| status.items.get("Manual")?.first());
    let table = || match begun {
        Some(run) => format!("applicationbackup.orlop.io/{} begun\n", run.name),
        None => format!("{}: the run has been begun\n", output::resource_name(&schedule)),
    };
    output::print(&output::resource(format, &schedule, table)?)
}

async fn delete(cluster: &Cluster, args: &DeleteArgs, format: Format) -> Result<()> {
    let gone: ApplicationBackupSchedule = verbs::delete(cluster, args).await?;
    output::print(&output::resource(format, &gone, || deleted(&gone, args))?)
}

fn deleted(schedule: &ApplicationBackupSchedule, args: &DeleteArgs) -> String {
    let runs = match schedule.spec.reclaim_policy {
        ReclaimPolicy::Retain => "its runs and their recovery points stay",
        ReclaimPolicy::Delete => "and its runs with their recovery points",
    };
    format!("{} {}, {runs}{}\n", output::resource_name(schedule), args.done(), dry(args.dry_run))
}

/// A schedule in full.
fn described(schedule: &ApplicationBackupSchedule) -> String {
    let status = schedule.status.clone().unwrap_or_default();
    let instant = |time: Option<Time>| time.map(|time| human::instant(time.0));
    let mut fields = vec![
        ("Schedule", format!("{}/{}", schedule.namespace().unwrap_or_default(), schedule.name_any())),
        ("Policy", schedule.spec.schedule_policy_name.clone()),
        ("Suspended", schedule.spec.suspend.to_string()),
    ];
    let optional = [
        ("Last complete", instant(status.last_complete_at)),
        ("Next", instant(status.next_run_at)),
        ("Message", status.message),
    ];
    fields.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value?))));
    let runs = status.items.iter().flat_map(|(kind, runs)| runs.iter().map(move |run| (kind, run)));
    let rows: Vec<_> = runs
        .map(|(kind, run)| {
            vec![run.name.clone(), kind.clone(), format!("{:?}", run.phase), human::instant(run.scheduled_at.0)]
        })
        .collect();
    let mut text = output::fields(fields);
    if !rows.is_empty() {
        let header = ["RUN", "TYPE", "PHASE", "FOR"].map(str::to_owned).to_vec();
        text.push('\n');
        text.push_str(&output::table(header, rows));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::{ApplicationBackupScheduleSpec, ApplicationBackupScheduleStatus, Phase, ScheduledRun};

    fn schedule() -> ApplicationBackupSchedule {
        let spec = ApplicationBackupScheduleSpec { schedule_policy_name: "hourly".into(), ..Default::default() };
        let mut schedule = ApplicationBackupSchedule::new("shop", spec);
        schedule.metadata.namespace = Some("shop".into());
        let at = |second| Time(Timestamp::from_second(second).expect("a small number"));
        let run = ScheduledRun {
            name: "shop-interval-20260101000000".into(),
            scheduled_at: at(1_767_225_600),
            phase: Phase::Succeeded,
            finished_at: Some(at(1_767_225_660)),
        };
        schedule.status = Some(ApplicationBackupScheduleStatus {
            items: [("Interval".to_owned(), vec![run])].into(),
            next_run_at: Some(at(1_767_229_200)),
            ..Default::default()
        });
        schedule
    }

    #[test]
    fn a_schedule_is_shown_with_its_runs() {
        let text = described(&schedule());
        for part in ["shop/shop", "hourly", "RUN", "shop-interval-20260101000000", "Interval", "Succeeded"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert_eq!(schedule().cells()[2], "1");
    }

    #[test]
    fn what_goes_with_a_schedule_is_said() {
        let args = DeleteArgs { name: "shop".into(), dry_run: true, no_wait: false, timeout: None };
        let mut schedule = schedule();
        assert!(deleted(&schedule, &args).contains("stay (dry run"));
        schedule.spec.reclaim_policy = ReclaimPolicy::Delete;
        assert!(deleted(&schedule, &args).contains("and its runs with their recovery points"));
    }
}
