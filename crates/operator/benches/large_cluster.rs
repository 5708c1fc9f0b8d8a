//! Backs a cluster with many objects up and restores all of them beside, and fails when that is too slow, when the operator's memory for it is not
//! bounded, or when anything is missed: `cargo bench --bench large_cluster`.
//!
//! The number of objects is 100,000, or what `ORLOP_BENCH_OBJECTS` says. The operator is whole, with its caches, the repository and its
//! limits as they are shipped, and runs in a process of its own, so that its peak is its own.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on ends")]

#[allow(unreachable_pub, reason = "a bench uses it, as it would a library")]
#[path = "shared/process.rs"]
mod process;
#[allow(dead_code, unreachable_pub, reason = "a bench uses a part of it, as it would a library")]
#[path = "../tests/api_server/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use api::{ApplicationBackup, ApplicationRestore, ApplicationRestoreSpec, LocationPhase, Phase};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::Api;
use kube::api::PostParams;
use operator::Limits;
use operator::objects::Object;
use support::{ADMIN, World};

/// What the operator may take at its peak, in KiB.
const LARGEST_PEAK_KIB: u64 = 300 << 10;
const OBJECTS: usize = 100_000;
/// Objects in a second that are to be backed up, and restored.
const SLOWEST_BACKUP: f64 = 1000.0;
const SLOWEST_RESTORE: f64 = 300.0;
/// The storage class of the claims of the population. Nobody makes volumes of it, so the claims are objects, and no volumes are filled.
const CLASS: &str = "absent";
/// For each of the two.
const LIMIT: Duration = Duration::from_secs(1200);

fn main() -> Result<()> {
    process::main(Limits::default(), measure)
}

async fn measure() -> Result<()> {
    let count = match std::env::var("ORLOP_BENCH_OBJECTS") {
        Ok(count) => count.parse().context("read ORLOP_BENCH_OBJECTS")?,
        Err(_) => OBJECTS,
    };
    let world = World::new().await;
    let started = Instant::now();
    let population = sandbox::populate::objects(&world.client, count).await?;
    println!("populated: {count} objects in {:.1} s", started.elapsed().as_secs_f64());
    world.location(ADMIN).await;
    let operator = process::start(&world)?;
    world.location_phase(ADMIN, "main", LocationPhase::Ready).await;
    let backup = back_up(&world, &population.namespaces).await?;
    let restore = restore(&world, &population.namespaces).await?;
    let peak_kib = process::end(operator)?;
    println!("peak resident memory of the operator (VmHWM): {peak_kib} KiB, of {LARGEST_PEAK_KIB} KiB at most");
    ensure!(backup.objects >= count as u64, "of {count} objects only {} were wanted", backup.objects);
    ensure!(restore.objects >= count as u64, "of {count} objects only {} were made", restore.objects);
    ensure!(peak_kib < LARGEST_PEAK_KIB, "the peak of {peak_kib} KiB is over {LARGEST_PEAK_KIB} KiB");
    for (what, rate, slowest) in
        [("backup", backup.rate(), SLOWEST_BACKUP), ("restore", restore.rate(), SLOWEST_RESTORE)]
    {
        ensure!(rate >= slowest, "{rate:.0} objects/s are less than the {slowest} that a {what} is to do");
    }
    Ok(())
}

/// What was done in which time.
struct Measured {
    objects: u64,
    seconds: f64,
}

impl Measured {
    #[expect(clippy::cast_precision_loss, reason = "a number of objects")]
    fn rate(&self) -> f64 {
        self.objects as f64 / self.seconds
    }
}

async fn back_up(world: &World, namespaces: &[String]) -> Result<Measured> {
    let started = Instant::now();
    world.backup_with("large", |spec| spec.namespaces = namespaces.to_vec()).await;
    let run =
        finished::<ApplicationBackup>(world, |run| run.status.as_ref().is_some_and(|s| s.phase.is_final())).await?;
    let seconds = started.elapsed().as_secs_f64();
    let status = run.status.context("a backup without a status")?;
    let ledger = status.ledger.context("a backup without a ledger")?;
    let measured = Measured { objects: ledger.wanted, seconds };
    println!(
        "backed up by the whole operator in {seconds:.1} s, {:.0} objects/s: {} wanted = {} stored + {} skipped + {} missed",
        measured.rate(),
        ledger.wanted,
        ledger.stored,
        ledger.skipped,
        ledger.missed
    );
    ensure!(status.phase == Phase::Succeeded, "the backup is {:?}: {:?}", status.phase, status.message);
    Ok(measured)
}

/// Restores everything under other names. There are no controllers, so nobody waits for workloads.
async fn restore(world: &World, namespaces: &[String]) -> Result<Measured> {
    let spec = ApplicationRestoreSpec {
        backup_name: Some("large".into()),
        backup_location: "main".into(),
        namespace_mapping: namespaces.iter().map(|name| (name.clone(), format!("{name}-again"))).collect(),
        ready_timeout: Some("0s".into()),
        ..ApplicationRestoreSpec::default()
    };
    let class = serde_json::json!({"metadata": {"name": CLASS}, "provisioner": "example.com/nobody"});
    let class: StorageClass = serde_json::from_value(class)?;
    Api::all(world.client.clone()).create(&PostParams::default(), &class).await?;
    let started = Instant::now();
    world.api(ADMIN).create(&PostParams::default(), &ApplicationRestore::new("large", spec)).await?;
    let run =
        finished::<ApplicationRestore>(world, |run| run.status.as_ref().is_some_and(|s| s.phase.is_final())).await?;
    let seconds = started.elapsed().as_secs_f64();
    let status = run.status.context("a restore without a status")?;
    ensure!(status.phase == Phase::Succeeded, "the restore is {:?}: {:?}", status.phase, status.message);
    let objects = status.objects.context("a restore without objects")?;
    let measured = Measured { objects: objects.created, seconds };
    println!(
        "restored by the whole operator in {seconds:.1} s, {:.0} objects/s: {} wanted, {} created, {} kept, {} skipped, {} failed",
        measured.rate(),
        objects.wanted,
        objects.created,
        objects.kept,
        objects.skipped,
        objects.failed
    );
    Ok(measured)
}

async fn finished<K: Object>(world: &World, is_final: impl Fn(&K) -> bool) -> Result<K> {
    let runs: Api<K> = world.api(ADMIN);
    let begun = Instant::now();
    loop {
        let run = runs.get("large").await?;
        if is_final(&run) {
            return Ok(run);
        }
        ensure!(begun.elapsed() < LIMIT, "the run does not end");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
