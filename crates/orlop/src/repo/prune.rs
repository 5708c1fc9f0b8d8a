//! `orlop repo prune`: frees what no recovery point needs, and says before what that is.

use std::time::Duration;

use clap::Args;
use jiff::{SignedDuration, Timestamp};
use repository::{CollectOptions, CollectReport, CollectState, NoProgress, Repository};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::PlaceArgs;
use super::open::explain;
use super::progress::Show;
use crate::error::{Error, Exit, Result};
use crate::human;
use crate::interrupt::until_interrupted;
use crate::output::{self, Format};

/// How long it is from one look to the next whether runs have ended.
const LOOK_EVERY: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
pub(super) struct PruneArgs {
    /// Only say what would be freed, and for whom one would wait
    #[arg(long)]
    dry_run: bool,
    /// Give up backups without a sign of life for this long: they can never be completed. Too short a time costs a backup, never a
    /// recovery point. Those whose process was on this machine and has ended are given up at once
    #[arg(long, value_name = "TIME", value_parser = human::parse_duration, default_value = "6h")]
    dead_after: Duration,
    /// Wait for backups that are under way; else prune ends with 4, and a later one goes on
    #[arg(long, conflicts_with = "dry_run")]
    wait: bool,
}

/// What `prune` did, or would do.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Pruned {
    /// `finished`, `nothing` or `waiting`.
    state: &'static str,
    dry_run: bool,
    /// Packs that were deleted, and their bytes.
    packs: u64,
    bytes: u64,
    /// Packs that stay, and their bytes; absent while backups are waited for.
    #[serde(skip_serializing_if = "Option::is_none")]
    kept_packs: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kept_bytes: Option<u64>,
    /// Index runs that were deleted; absent in a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    index_runs: Option<u64>,
    /// Parts of objects that processes left which died while they wrote them, and their bytes.
    unfinished_files: u64,
    unfinished_bytes: u64,
    /// Leftovers of recovery points that were forgotten.
    void_recovery_points: Vec<String>,
    /// Backups that were given up.
    revoked: Vec<Run>,
    /// Backups that are waited for.
    waiting: Vec<Run>,
}

/// A backup that has not made its recovery point.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Run {
    recovery_point: String,
    host: String,
    started: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seen: Option<Timestamp>,
}

pub(super) async fn run(place: &PlaceArgs, args: &PruneArgs, format: Format) -> Result<Exit> {
    let dead_after = SignedDuration::try_from(args.dead_after).map_err(|e| {
        Error::usage(format!("take backups for dead after {}", human::took(args.dead_after))).because(e)
    })?;
    let repository = place.open().await?;
    let plan = CollectOptions { dead_after, dry_run: true };
    let planned = collect(&repository, &plan, None).await?;
    if args.dry_run {
        return tell(planned, true, format);
    }
    eprint!("{}", said_before(&planned));
    let cancel = CancellationToken::new();
    let work = prune(&repository, CollectOptions { dead_after, dry_run: false }, args.wait);
    let pruned = until_interrupted(&cancel, async {
        // It can be cut off anywhere: a later one goes on.
        let interrupted = || Error::new("prune").next("run it again: it goes on where it stopped");
        cancel.run_until_cancelled(work).await.unwrap_or_else(|| Err(interrupted()))
    });
    tell(pruned.await?, false, format)
}

/// Prunes once, or as often as it takes until nobody is waited for.
async fn prune(repository: &Repository, options: CollectOptions, wait: bool) -> Result<CollectReport> {
    let mut all = CollectReport::default();
    loop {
        let show = Show::start_of_packs("prune");
        let report = collect(repository, &options, Some(&show)).await;
        drop(show);
        let report = report?;
        let waits = report.state == CollectState::Waiting;
        all = CollectReport {
            revoked: all.revoked.into_iter().chain(report.revoked).collect(),
            unfinished: all.unfinished + report.unfinished,
            unfinished_bytes: all.unfinished_bytes + report.unfinished_bytes,
            ..report
        };
        if !(waits && wait) {
            return Ok(all);
        }
        for run in &all.waiting {
            eprintln!(
                "orlop: waiting for {} on {}, under way since {}",
                run.point,
                run.host,
                human::instant(run.started)
            );
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn collect(repository: &Repository, options: &CollectOptions, show: Option<&Show>) -> Result<CollectReport> {
    let what = || format!("prune {}", repository.store().place());
    let collected = match show {
        Some(show) => repository.collect(options, show.progress().as_ref()).await,
        None => repository.collect(options, &NoProgress).await,
    };
    collected.map_err(|e| explain(what(), e))
}

/// What is told before anything is deleted.
fn said_before(planned: &CollectReport) -> String {
    let packs = human::count(planned.packs, "pack", "packs");
    match planned.state {
        CollectState::Nothing => String::new(),
        CollectState::Finished if planned.packs == 0 => String::new(),
        _ => format!("orlop: {packs} of {} will be deleted\n", human::bytes(planned.bytes)),
    }
}

fn tell(report: CollectReport, dry_run: bool, format: Format) -> Result<Exit> {
    let waits = report.state == CollectState::Waiting;
    let pruned = Pruned::new(report, dry_run);
    let names = || pruned.void_recovery_points.iter().map(|id| format!("{id}\n")).collect();
    output::print(&output::render(format, &pruned, || table(&pruned), names)?)?;
    Ok(if waits { Exit::TimedOut } else { Exit::Succeeded })
}

impl Pruned {
    fn new(report: CollectReport, dry_run: bool) -> Self {
        let known = report.state != CollectState::Waiting;
        Self {
            state: match report.state {
                CollectState::Finished => "finished",
                CollectState::Nothing => "nothing",
                CollectState::Waiting => "waiting",
            },
            dry_run,
            packs: report.packs,
            bytes: report.bytes,
            kept_packs: known.then_some(report.kept_packs),
            kept_bytes: known.then_some(report.kept_bytes),
            index_runs: (!dry_run).then_some(report.index_runs),
            unfinished_files: report.unfinished,
            unfinished_bytes: report.unfinished_bytes,
            void_recovery_points: report.void_points.iter().map(ToString::to_string).collect(),
            revoked: report.revoked.into_iter().map(Run::new).collect(),
            waiting: report.waiting.into_iter().map(Run::new).collect(),
        }
    }
}

impl Run {
    fn new(run: repository::Run) -> Self {
        let recovery_point = run.point.to_string();
        Self { recovery_point, host: run.host, started: run.started, last_seen: run.last_seen }
    }
}

fn table(pruned: &Pruned) -> String {
    let mut text = String::new();
    let runs =
        pruned.revoked.iter().map(|run| (run, "given up")).chain(pruned.waiting.iter().map(|run| (run, "waited for")));
    let rows: Vec<_> = runs
        .map(|(run, what)| {
            let seen = run.last_seen.map(human::instant);
            [
                run.recovery_point.clone(),
                run.host.clone(),
                human::instant(run.started),
                human::maybe(seen),
                what.to_owned(),
            ]
        })
        .collect();
    if !rows.is_empty() {
        text.push_str(&output::table(["BACKUP", "HOST", "STARTED", "LAST SEEN", "IS"], rows));
        text.push('\n');
    }
    let would = if pruned.dry_run { "would be " } else { "" };
    if pruned.state == "nothing" {
        text.push_str("Nothing is to be freed.\n");
    } else if pruned.state == "waiting" {
        text.push_str("Nothing was freed: backups are under way that may need it. A later prune goes on.\n");
        text.push_str(
            "--wait waits for them. If you know that they have died, --dead-after TIME gives up those without a sign of life for that long; \
             living ones give one every 15 minutes.\n",
        );
    } else {
        let packs = human::count(pruned.packs, "pack", "packs");
        text.push_str(&format!("{} in {packs} {would}freed.\n", human::bytes(pruned.bytes)));
    }
    if pruned.unfinished_files > 0 {
        let files = human::count(pruned.unfinished_files, "file", "files");
        let bytes = human::bytes(pruned.unfinished_bytes);
        text.push_str(&format!("{bytes} in {files} that died processes did not finish {would}freed.\n"));
    }
    if let Some((packs, bytes)) = pruned.kept_packs.zip(pruned.kept_bytes) {
        text.push_str(&format!("{} in {} stay.\n", human::bytes(bytes), human::count(packs, "pack", "packs")));
    }
    if pruned.dry_run {
        text.push_str("Dry run: nothing was changed.\n");
    }
    text
}
