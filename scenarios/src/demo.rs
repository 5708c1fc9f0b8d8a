//! The demo: an application is backed up, destroyed, and comes back in another cluster under another name.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use api::ApplicationRestoreStatus as RestoreStatus;
use kube::Api;
use serde::de::DeserializeOwned;

use crate::environment::{Environment, Site};
use crate::shop::{self, Shop};
use crate::stages::Stages;
use crate::{damage, install, orlop, pods, tidy};

/// The schedule that makes the backup, in `manifests/schedule.yaml`.
pub(crate) const SCHEDULE: &str = "shop";
/// When it does.
pub(crate) const SCHEDULE_POLICY: &str = "shop-hourly";
/// The rule that its backups run, in `manifests/rule.yaml`.
pub(crate) const RULE: &str = "hold-shop";
/// The location, in both clusters.
pub(crate) const LOCATION: &str = "vault";
/// The namespace that the application comes back in.
pub(crate) const RESTORED: &str = "shop-restored";
/// The restore that only says what it would do.
pub(crate) const PLAN: &str = "shop-plan";
/// The restore that does it.
pub(crate) const RESTORE: &str = "shop-back";

/// Does the demo and prints what happened. True when everything came back.
///
/// # Errors
/// A stage could not be done.
pub async fn up(directory: &Path, keep: bool) -> anyhow::Result<bool> {
    let mut stages = Stages::default();
    let environment = stages.run("two clusters and an S3 server", Environment::start(directory)).await?;
    let done = job(&environment, &mut stages).await;
    println!("\n{}", stages.table());
    match &done {
        Ok(summary) => {
            println!("\n{summary}\n\nVERDICT: everything came back, and every byte of the repository is accounted for.")
        }
        Err(e) => println!("\nVERDICT: it did not work: {e:#}"),
    }
    if keep {
        println!("\n{}", environment.how_to_look_around());
    } else {
        environment.end().await?;
    }
    Ok(done.is_ok())
}

/// Removes what `up --keep` left, or one that was interrupted.
///
/// # Errors
/// Something could not be removed.
pub async fn down(directory: &Path) -> anyhow::Result<bool> {
    Environment::end_left_over(directory).await?;
    Ok(true)
}

/// The job itself, in clusters that are there. Gives what is worth saying at the end.
///
/// # Errors
/// A stage could not be done, or something did not come back.
pub async fn job(env: &Environment, stages: &mut Stages) -> anyhow::Result<String> {
    let (east, west) = (&env.east, &env.west);
    stages.run("Orlop in both clusters", install_both(env)).await?;
    let app = stages
        .run("PostgreSQL with 200,000 orders, and a client", async {
            let app = Shop::deploy(east.client.clone(), &env.images.postgres, &env.run).await?;
            let written = app.wait_for_writes().await?;
            Ok((format!("the client's orders are at {written}"), app))
        })
        .await?;
    let (acknowledged, stored) = stages.run("backup by a schedule, under a rule", back_up(env, &app)).await?;
    let lost = stages
        .run("the namespace is destroyed", async {
            let lost = app.rows(shop::NAMESPACE).await?;
            app.destroy().await?;
            Ok((format!("{} orders, the volume and all objects are gone", lost.len()), lost))
        })
        .await?;
    let plan = stages.run("plan of a restore in the other cluster", plan(env, &stored)).await?;
    stages.run("restore, exactly as planned", restore(env, &stored, &plan)).await?;
    let back = Shop::new(west.client.clone(), RESTORED);
    let rows = stages
        .run("comparison, row by row", async {
            back.wait_for_writes().await?;
            let rows = back.rows(shop::NAMESPACE).await?;
            shop::compare(&lost, &rows, acknowledged)?;
            back.check_database().await?;
            let note = format!(
                "{} rows equal; acknowledged before the cut: {acknowledged}; pg_amcheck finds nothing",
                rows.len()
            );
            Ok((note, rows.len()))
        })
        .await?;
    stages.run("check of the repository, all bytes", check(env)).await?;
    stages.run("one flipped byte", damage::flip_and_find(env)).await?;
    Ok(format!(
        "stored:    {}\ncame back: recovery point {} as namespace {RESTORED} in {}, {rows} rows, and the client goes on writing",
        stored.note, stored.recovery_point, west.name
    ))
}

async fn install_both(env: &Environment) -> anyhow::Result<(String, ())> {
    let one_for_both = env.east.kubeconfig == env.west.kubeconfig;
    let west = async { if one_for_both { Ok(()) } else { install_in(env, &env.west).await } };
    let (a, b) = tokio::join!(install_in(env, &env.east), west);
    a.context("east").and(b.context("west"))?;
    Ok((format!("the operator is ready, the location {LOCATION} is {}", env.s3.url()), ()))
}

async fn install_in(env: &Environment, site: &Site) -> anyhow::Result<()> {
    install::orlop(&site.client, &env.images.orlop).await?;
    let passphrase = format!("--passphrase-file={}", env.s3.passphrase_file.display());
    let endpoint = format!("--endpoint={}", site.s3_endpoint);
    let prefix = format!("--prefix={}", env.s3.prefix);
    let args = [
        "location",
        "add",
        LOCATION,
        "-n",
        api::ADMIN_NAMESPACE,
        "--bucket",
        &env.s3.bucket,
        &prefix,
        &endpoint,
        &passphrase,
    ];
    let added = orlop::succeed(Some(&site.kubeconfig), &args, &env.s3.credentials()).await;
    // Also one that the operator found bad is there, and is ours.
    let marked = tidy::mark_location(&site.client, &env.run).await;
    added?;
    marked
}

/// What a backup left.
struct Stored {
    recovery_point: String,
    note: String,
}

async fn back_up(env: &Environment, app: &Shop) -> anyhow::Result<(String, (u64, Stored))> {
    let site = &env.east;
    let acknowledged = app.acknowledged().await?.context("the client has written nothing")?;
    // A copy of files is of one instant only when nobody writes: the database is held still meanwhile.
    for manifest in [include_str!("../manifests/rule.yaml"), include_str!("../manifests/schedule.yaml")] {
        install::create(&site.client, &tidy::marked(manifest, &env.run)).await?;
    }
    let run = pods::wait_for("the first run of the schedule", Duration::from_secs(60), || async {
        let schedule: api::ApplicationBackupSchedule = show(site, "schedule", SCHEDULE).await?;
        let runs = schedule.status.unwrap_or_default().items.into_values().flatten();
        Ok(runs.map(|run| run.name).next())
    })
    .await?;
    let status = pods::wait_for("the end of the backup", Duration::from_secs(120), || async {
        let backup: api::ApplicationBackup = show(site, "backup", &run).await?;
        Ok(backup.status.filter(|s| s.phase.is_final()))
    })
    .await?;
    ensure!(
        status.phase == api::Phase::Succeeded,
        "the backup is {:?}: {}",
        status.phase,
        status.message.unwrap_or_default()
    );
    app.wait_for_writes().await.context("the client goes on after the backup")?;
    let seconds = held(&status).context("a backup whose rule held nothing")?;
    let ledger = status.ledger.context("a backup without a ledger")?;
    let note = format!(
        "{} wanted = {} stored + {} skipped by rule + {} missed; {:.1} MB of data in {:.1} MB; database held for {seconds:.0} s",
        ledger.wanted,
        ledger.stored,
        ledger.skipped,
        ledger.missed,
        megabytes(status.bytes),
        megabytes(status.stored_bytes)
    );
    let recovery_point = status.recovery_point.context("a backup without a recovery point")?;
    Ok((note.clone(), (acknowledged, Stored { recovery_point, note })))
}

#[allow(clippy::cast_precision_loss, reason = "for people")]
fn megabytes(bytes: Option<u64>) -> f64 {
    bytes.unwrap_or_default() as f64 / 1e6
}

/// A resource, as `orlop` shows it.
async fn show<T: DeserializeOwned>(site: &Site, kind: &str, name: &str) -> anyhow::Result<T> {
    let args = [kind, "show", name, "-n", api::ADMIN_NAMESPACE, "-o", "json"];
    let text = orlop::succeed(Some(&site.kubeconfig), &args, &[]).await?;
    serde_json::from_str(&text).with_context(|| format!("read what `orlop {kind} show` prints"))
}

/// For how many seconds the rule held the database, if that was until all was read.
fn held(status: &api::ApplicationBackupStatus) -> Option<f64> {
    let consistency = status.consistency.as_ref()?;
    let hook = status.hooks.first()?;
    let (from, to) = (hook.holding_since.as_ref()?.0, hook.finished_at.as_ref()?.0);
    let is_whole = consistency.level == api::ConsistencyLevel::ApplicationConsistent
        && from <= consistency.cut_from.0
        && consistency.cut_to.0 <= to;
    is_whole.then(|| to.duration_since(from).as_secs_f64())
}

/// Restores what was stored, or says what would be restored, by words of `orlop restore`; its status.
async fn restored(env: &Environment, stored: &Stored, name: &str, words: &[&str]) -> anyhow::Result<RestoreStatus> {
    let site = &env.west;
    let mapping = format!("{}={RESTORED}", shop::NAMESPACE);
    let mut args = vec!["restore"];
    args.extend(words);
    args.extend(["--name", name, "-n", api::ADMIN_NAMESPACE, "--recovery-point", &stored.recovery_point]);
    args.extend(["--backup-location", LOCATION, "--to", &mapping]);
    let done = orlop::succeed(Some(&site.kubeconfig), &args, &[]).await;
    // The namespace that is restored bears the mark of the one that it was: that is a label as any other.
    let restores = Api::<api::ApplicationRestore>::namespaced(site.client.clone(), api::ADMIN_NAMESPACE);
    let marked = tidy::mark(&restores, name, &env.run).await;
    done?;
    marked?;
    let restore: api::ApplicationRestore = show(site, "restore", name).await?;
    restore.status.context("a restore without a status")
}

async fn plan(env: &Environment, stored: &Stored) -> anyhow::Result<(String, String)> {
    let plan = restored(env, stored, PLAN, &["plan"]).await?.plan.context("a plan")?;
    let (objects, volumes) = (plan.objects, plan.filled_volumes());
    let note = format!(
        "{} objects to make, {} volume to fill with {:.1} MB; nothing was changed; plan {}…",
        objects.create,
        volumes,
        megabytes(Some(plan.bytes)),
        &plan.hash[..8]
    );
    Ok((note, plan.hash))
}

async fn restore(env: &Environment, stored: &Stored, plan: &str) -> anyhow::Result<(String, ())> {
    let status = restored(env, stored, RESTORE, &["create", "--plan-hash", plan, "--wait"]).await?;
    let objects = status.objects.unwrap_or_default();
    let files: u64 = status.volumes.iter().filter_map(|v| v.files).sum();
    let workloads = status.workloads.unwrap_or_default();
    let note = format!(
        "{} objects created, {} kept, {} failed; {} volume with {files} files; {} of {} workloads ready",
        objects.created,
        objects.kept,
        objects.failed,
        status.volumes.len(),
        workloads.ready,
        workloads.wanted
    );
    Ok((note, ()))
}

async fn check(env: &Environment) -> anyhow::Result<(String, ())> {
    let checked = orlop::succeed(None, &["repo", "check", "--read-data"], &env.repo_env()).await?;
    Ok((checked.lines().last().unwrap_or_default().to_owned(), ()))
}
