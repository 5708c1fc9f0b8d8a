//! Backs many applications up at once, each with several volumes, one of them stuck; and fails when that takes the operator too much memory, when more movers work than may, or
//! when one application waits for the stuck one: `cargo bench --bench many_applications`.
//!
//! There are 200 applications of five volumes, or as many as `ORLOP_BENCH_APPLICATIONS` says. The operator is whole and runs in a process of its own, with its limits as they are
//! shipped, but for the movers of a node, since there is one node here. Movers are real, and run in the process of the bench.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on ends")]

#[allow(unreachable_pub, reason = "a bench uses it, as it would a library")]
#[path = "shared/process.rs"]
mod process;
#[allow(dead_code, unreachable_pub, reason = "a bench uses a part of it, as it would a library")]
#[path = "../tests/api_server/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use api::{ApplicationBackup, ApplicationBackupStatus, LocationPhase, Phase};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use operator::Limits;
use support::kubelet::Behaviour;
use support::{ADMIN, World};

const APPLICATIONS: usize = 200;
const VOLUMES: usize = 5;
/// What is in a volume.
const VOLUME_BYTES: usize = 100_000;
/// What the operator may take at its peak, in KiB.
const LARGEST_PEAK_KIB: u64 = 300 << 10;
const LIMIT: Duration = Duration::from_secs(3600);
/// Made at the same time.
const TOGETHER: usize = 16;
const STUCK: &str = "app-0";

fn main() -> Result<()> {
    process::main(limits(), measure)
}

fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.movers.node = limits.movers.cluster;
    limits
}

async fn measure() -> Result<()> {
    let count = match std::env::var("ORLOP_BENCH_APPLICATIONS") {
        Ok(count) => count.parse().context("read ORLOP_BENCH_APPLICATIONS")?,
        Err(_) => APPLICATIONS,
    };
    let world = World::new().await;
    let started = Instant::now();
    let all = stream::iter(0..count).map(|number| application(&world, number));
    all.buffer_unordered(TOGETHER).try_collect::<()>().await?;
    println!("made: {count} applications with {VOLUMES} volumes in {:.1} s", started.elapsed().as_secs_f64());
    world
        .kubelet
        .script(|pod| if pod.namespace().as_deref() == Some(STUCK) { Behaviour::Hang } else { Behaviour::Run });
    world.location(ADMIN).await;
    let operator = process::start(&world)?;
    world.location_phase(ADMIN, "main", LocationPhase::Ready).await;
    let started = Instant::now();
    for number in 0..count {
        world.backup_with(&name(number), |spec| spec.namespaces = vec![name(number)]).await;
    }
    let (runs, most) = ended(&world, count).await?;
    let seconds = started.elapsed().as_secs_f64();
    let peak_kib = process::end(operator)?;
    tell(&runs, seconds);
    let may = limits().movers.cluster;
    println!("movers at once: {most}, of {may} at most; peak resident memory of the operator (VmHWM): {peak_kib} KiB");
    ensure!(most <= may, "{most} movers worked at once");
    ensure!(peak_kib < LARGEST_PEAK_KIB, "the peak of {peak_kib} KiB is over {LARGEST_PEAK_KIB} KiB");
    Ok(())
}

fn name(number: usize) -> String {
    format!("app-{number}")
}

async fn application(world: &World, number: usize) -> Result<()> {
    world.namespace(&name(number)).await;
    for volume in 0..VOLUMES {
        let folder = world.claim(&name(number), &format!("data-{volume}")).await;
        let mut bytes = vec![0; VOLUME_BYTES];
        blake3::Hasher::new().update(format!("{number} {volume}").as_bytes()).finalize_xof().fill(&mut bytes);
        std::fs::write(folder.join("file"), bytes)?;
    }
    Ok(())
}

/// How long an application has waited for its first volume, and for the end.
struct Ran {
    begun: f64,
    ended: f64,
}

/// Waits for the end of all but the stuck one; gives when they were so far, and how many movers were seen at once.
async fn ended(world: &World, count: usize) -> Result<(Vec<Ran>, usize)> {
    let (runs, mut most, begun) = (world.api::<ApplicationBackup>(ADMIN), 0, Instant::now());
    let movers = ListParams::default().labels("app.kubernetes.io/name=orlop-mover");
    loop {
        let pods = Api::<Pod>::all(world.client.clone()).list(&movers).await?.items;
        most = most.max(pods.iter().filter(|pod| !operator::mover_pod::has_ended(pod)).count());
        let all = runs.list(&ListParams::default()).await?.items;
        let others = all.iter().filter(|run| run.name_any() != STUCK);
        let done: Vec<_> = others.filter_map(|run| run.status.as_ref().filter(|s| s.phase.is_final())).collect();
        if done.len() == count - 1 {
            for status in &done {
                ensure!(status.phase == Phase::Succeeded, "a backup is {:?}: {:?}", status.phase, status.message);
                ensure!(status.volumes.len() == VOLUMES, "a backup has {} volumes", status.volumes.len());
            }
            let first =
                all.iter().filter_map(|run| run.creation_timestamp()).map(|time| time.0).min().context("a run")?;
            return Ok((done.into_iter().map(|status| ran(status, first)).collect::<Result<_>>()?, most));
        }
        ensure!(begun.elapsed() < LIMIT, "the backups do not end: {} of {}", done.len(), count - 1);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

fn ran(status: &ApplicationBackupStatus, first: jiff::Timestamp) -> Result<Ran> {
    let since = |time: jiff::Timestamp| time.duration_since(first).as_secs_f64();
    let begun = status.volumes.iter().filter_map(|volume| volume.started_at.as_ref()).map(|time| time.0).min();
    let ended = status.volumes.iter().filter_map(|volume| volume.finished_at.as_ref()).map(|time| time.0).max();
    Ok(Ran { begun: since(begun.context("a volume that began")?), ended: since(ended.context("a volume that ended")?) })
}

fn tell(runs: &[Ran], seconds: f64) {
    let at = |of: fn(&Ran) -> f64| {
        let mut all: Vec<_> = runs.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        let part = |numerator: usize| all[(all.len() - 1) * numerator / 100];
        format!("first {:.0} s, half {:.0} s, 99 % {:.0} s, last {:.0} s", part(0), part(50), part(99), part(100))
    };
    println!("{} applications backed up in {seconds:.1} s, beside one that is stuck", runs.len());
    println!("began with their volumes: {}", at(|run| run.begun));
    println!("had their volumes: {}", at(|run| run.ended));
}
