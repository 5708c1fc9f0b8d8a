//! `orlop location`: the places that recovery points are kept in.

use std::time::Duration;

use api::{ApplicationBackup, BackupLocation, LocationPhase};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::cluster::{Cluster, ClusterArgs};
use crate::error::{Error, Exit, Result};
use crate::human::{self, parse_duration};
use crate::location_add::{self, AddArgs};
use crate::output::{self, Format, OutputArgs};
use crate::run::watch_until;
use crate::verbs::{self, DeleteArgs, Kind, ListArgs, dry};

/// Manage the places that recovery points are kept in
#[derive(Debug, Args)]
pub(crate) struct LocationArgs {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Add a bucket, with its credentials, and wait until it is found good
    Add(Box<AddArgs>),
    /// List the locations of a namespace
    List(ListArgs),
    /// Have a location probed now, and say what is wrong with it
    Check {
        /// Its name
        name: String,
        /// Wait at most this long
        #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "2m")]
        timeout: Duration,
    },
    /// Delete a location; the repository in the bucket and the Secrets with its credentials stay
    Delete(DeleteArgs),
}

impl Kind for BackupLocation {
    const NOUN: &'static str = "location";
    const COLUMNS: &'static [&'static str] = &["PHASE", "TYPE", "BUCKET", "PREFIX", "POINTS", "MESSAGE"];

    fn cells(&self) -> Vec<String> {
        let status = self.status.clone().unwrap_or_default();
        vec![
            format!("{:?}", status.phase),
            format!("{:?}", self.spec.type_).to_lowercase(),
            self.spec.path.clone(),
            human::maybe(self.spec.prefix.clone()),
            human::maybe(status.recovery_points),
            status.message.filter(|_| status.phase != LocationPhase::Ready).unwrap_or_default(),
        ]
    }
}

/// Reasons that are known without a probe. The operator watches what is behind them, so they are true at any time, and asking for a probe
/// would change nothing.
const WITHOUT_PROBE: [&str; 2] = ["SecretNotFound", "InvalidSpec"];

/// Times in resources are whole seconds: a probe within the second of the last one could not be told from it.
const TICK: Duration = Duration::from_secs(1);

/// Runs the command.
pub(crate) async fn run(args: LocationArgs) -> Result<Exit> {
    let format = args.output.format();
    match args.verb {
        Verb::Add(add) => {
            // What can be seen to be wrong without a cluster is said without one.
            let plan = location_add::plan(&add, &|name| std::env::var(name).ok())?;
            location_add::run(&Cluster::connect(&args.cluster).await?, &add, plan, format).await
        }
        Verb::List(list) => {
            verbs::list::<BackupLocation>(&Cluster::connect(&args.cluster).await?, list, format).await?;
            Ok(Exit::Succeeded)
        }
        Verb::Check { name, timeout } => check(&Cluster::connect(&args.cluster).await?, &name, timeout, format).await,
        Verb::Delete(gone) => delete(&Cluster::connect(&args.cluster).await?, &gone, format).await,
    }
}

async fn check(cluster: &Cluster, name: &str, timeout: Duration, format: Format) -> Result<Exit> {
    let before: BackupLocation = verbs::get(cluster, name).await?;
    let checked = |location: &BackupLocation| location.status.as_ref().and_then(|s| s.last_checked_at.clone());
    let last = checked(&before);
    let location = if ready_reason(&before).is_some_and(|reason| WITHOUT_PROBE.contains(&reason)) {
        before
    } else {
        let age = last.as_ref().map(|last| Timestamp::now().duration_since(last.0).unsigned_abs());
        if let Some(rest) = age.and_then(|age| TICK.checked_sub(age)) {
            tokio::time::sleep(rest).await;
        }
        let asked = json!({"metadata": {"annotations": {api::CHECK_REQUESTED: Timestamp::now().to_string()}}});
        let api = cluster.api::<BackupLocation>();
        let what = format!("check location {name}");
        api.patch(name, &PatchParams::default(), &Patch::Merge(&asked)).await.map_err(|e| cluster.explain(&what, e))?;
        let probed = |state: Option<BackupLocation>| match state {
            Some(location) => Ok((checked(&location) != last).then_some(location)),
            None => Err(Error::new(format!("{what}: it was deleted meanwhile"))),
        };
        watch_until(cluster, api, name, &what, Some(timeout), probed).await.map_err(nobody_answers)?
    };
    output::print(&output::resource(format, &location, || described(&location))?)?;
    verdict(&location)
}

/// Ends well when the location can be used, else says why it cannot.
pub(crate) fn verdict(location: &BackupLocation) -> Result<Exit> {
    let status = location.status.clone().unwrap_or_default();
    if status.phase == LocationPhase::Ready {
        return Ok(Exit::Succeeded);
    }
    let name = location.name_any();
    let reason = ready_reason(location).map(|reason| format!(" ({reason})"));
    let why = status.message.unwrap_or_else(|| "the operator does not say why".to_owned());
    Err(Error::new(format!("location {name} cannot be used{}: {why}", reason.unwrap_or_default())).next(format!(
        "put it right, then: orlop location check {name} -n {}",
        location.namespace().unwrap_or_default()
    )))
}

/// The one word that the operator gives for the state of a location.
fn ready_reason(location: &BackupLocation) -> Option<&str> {
    let conditions = &location.status.as_ref()?.conditions;
    conditions.iter().find(|condition| condition.type_ == "Ready").map(|condition| condition.reason.as_str())
}

/// Adds to a time limit what most often is behind it.
pub(crate) fn nobody_answers(error: Error) -> Error {
    match error.exit_code() {
        Exit::TimedOut => {
            error.next(format!("see whether the operator runs: kubectl get pods -n {}", api::ADMIN_NAMESPACE))
        }
        _ => error,
    }
}

/// A location in full.
pub(crate) fn described(location: &BackupLocation) -> String {
    let status = location.status.clone().unwrap_or_default();
    let s3 = location.spec.s3.clone().unwrap_or_default();
    let mut fields = vec![
        ("Location", format!("{}/{}", location.namespace().unwrap_or_default(), location.name_any())),
        ("Bucket", location.spec.path.clone()),
    ];
    let optional = [
        ("Prefix", location.spec.prefix.clone()),
        ("Endpoint", s3.endpoint),
        ("Region", s3.region),
        ("Phase", Some(format!("{:?}", status.phase))),
        ("Repository", status.repository_id),
        ("Recovery points", status.recovery_points.map(|n| n.to_string())),
        ("Checked", status.last_checked_at.map(|t| human::instant(t.0))),
        ("Message", status.message),
    ];
    fields.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value?))));
    output::fields(fields)
}

async fn delete(cluster: &Cluster, args: &DeleteArgs, format: Format) -> Result<Exit> {
    let backups = verbs::all(cluster, &cluster.api::<ApplicationBackup>()).await?;
    let users = backups.iter().filter(|b| b.spec.backup_location == args.name).count();
    let gone: BackupLocation = verbs::delete(cluster, args).await?;
    let table = || deleted(&gone, users as u64, args);
    output::print(&output::resource(format, &gone, table)?)?;
    Ok(Exit::Succeeded)
}

fn deleted(location: &BackupLocation, users: u64, args: &DeleteArgs) -> String {
    let (name, done) = (output::resource_name(location), args.done());
    let mut text = format!("{name} {done}, the repository in {} stays{}\n", location.spec.path, dry(args.dry_run));
    if users > 0 {
        let users = human::count(users, "backup was", "backups were");
        text.push_str(&format!("{users} made to it: deleting them no longer deletes their recovery points\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::location_add::tests::location;

    #[test]
    fn a_location_that_cannot_be_used_says_why() {
        let mut location = location();
        location.metadata.namespace = Some("shop".into());
        location.status = Some(api::BackupLocationStatus {
            phase: LocationPhase::Unavailable,
            message: Some("the bucket does not exist".into()),
            ..Default::default()
        });
        assert_eq!(
            verdict(&location).expect_err("not ready").to_string(),
            "location main cannot be used: the bucket does not exist\n  next: put it right, then: orlop location check main -n shop"
        );
        location.status = Some(api::BackupLocationStatus { phase: LocationPhase::Ready, ..Default::default() });
        assert_eq!(verdict(&location).expect("ready"), Exit::Succeeded);
    }

    #[test]
    fn deleting_a_location_names_the_backups_that_lose_it() {
        let args = DeleteArgs { name: "main".into(), dry_run: true, no_wait: false, timeout: None };
        let text = deleted(&location(), 2, &args);
        assert_eq!(
            text,
            "backuplocation.orlop.io/main deleted, the repository in backups stays (dry run on the server: nothing was changed)\n\
             2 backups were made to it: deleting them no longer deletes their recovery points\n"
        );
    }
}
