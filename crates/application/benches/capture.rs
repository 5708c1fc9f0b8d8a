//! Captures a cluster with many objects, and fails when the memory that takes is not bounded, or anything is missed: `cargo bench
//! --bench capture`. What is measured is this crate's capture alone: nothing is stored.
//!
//! The number of objects is 50,000, or what `ORLOP_BENCH_OBJECTS` says. The capture runs in a process of its own, so that its
//! peak is its own.

use std::{process::Command, sync::Arc, time::Instant};

use anyhow::{Context, Result, ensure};
use application::{Capture, Found, LedgerSummary, Patience, Selection, canonical, discover};
use kube::{Client, Config, config::KubeConfigOptions, config::Kubeconfig};
use sandbox::control_plane::{ControlPlane, install_crypto_provider};
use serde_json::{Value, json};

/// What the operator may take at its peak, in KiB.
const LARGEST_PEAK_KIB: u64 = 300 << 10;
const OBJECTS: usize = 50_000;
/// First argument of the process that captures; the kubeconfig and the namespaces follow.
const CAPTURE: &str = "capture";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Runtime::new()?;
    match arguments.split_first() {
        Some((first, rest)) if first == CAPTURE => runtime.block_on(capture(rest)),
        // A test runner asks what there is: nothing that it should run.
        Some((first, _)) if first == "--list" => Ok(()),
        _ => runtime.block_on(measure()),
    }
}

async fn measure() -> Result<()> {
    let count = match std::env::var("ORLOP_BENCH_OBJECTS") {
        Ok(count) => count.parse().context("read ORLOP_BENCH_OBJECTS")?,
        Err(_) => OBJECTS,
    };
    let plane = ControlPlane::start().await?;
    let started = Instant::now();
    let population = sandbox::populate::objects(&plane.client(), count).await?;
    println!("populated: {count} objects in {:.1} s", started.elapsed().as_secs_f64());
    let output = Command::new(std::env::current_exe()?)
        .arg(CAPTURE)
        .arg(plane.kubeconfig_path())
        .args(&population.namespaces)
        .output()
        .context("run the capture")?;
    ensure!(output.status.success(), "the capture failed: {}", String::from_utf8_lossy(&output.stderr));
    let figures: Value = serde_json::from_slice(&output.stdout)?;
    println!("captured by application::Capture alone, without a repository:  {figures}");
    let peak_kib = figures["peakKiB"].as_u64().context("the capture told no peak")?;
    let stored = figures["stored"].as_u64().unwrap_or_default();
    let skipped = figures["skipped"].as_u64().unwrap_or_default();
    ensure!(stored + skipped >= count as u64, "of {count} objects only {stored} are stored and {skipped} skipped");
    ensure!(figures["missed"] == 0, "some objects were missed");
    println!("peak resident memory of its process (VmHWM): {peak_kib} KiB, of {LARGEST_PEAK_KIB} KiB at most");
    ensure!(peak_kib < LARGEST_PEAK_KIB, "the peak of {peak_kib} KiB is over {LARGEST_PEAK_KIB} KiB");
    Ok(())
}

async fn capture(arguments: &[String]) -> Result<()> {
    install_crypto_provider();
    let (kubeconfig, namespaces) = arguments.split_first().context("no kubeconfig is given")?;
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    let client = Client::try_from(Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?)?;
    let started = Instant::now();
    let catalog = Arc::new(discover(&client, &Patience::default()).await?);
    let selection = Selection { namespaces: namespaces.to_vec(), ..Selection::default() };
    let mut capture = Capture::start(client, catalog, selection, Patience::default()).await?;
    let (mut summary, mut bytes) = (LedgerSummary::default(), 0);
    while let Some(captured) = capture.next().await? {
        if let Found::Stored(object) = &captured.found {
            bytes += canonical::to_bytes(object).len();
        }
        summary.add(&captured.ledger_entry().outcome);
    }
    let skipped: u64 = summary.skipped.values().sum();
    let figures = json!({
        "seconds": started.elapsed().as_secs_f64(), "bytes": bytes, "peakKiB": peak_kib()?,
        "stored": summary.stored, "skipped": skipped, "missed": summary.missed,
    });
    println!("{figures}");
    Ok(())
}

/// The most memory that this process has had, as the kernel counts it.
fn peak_kib() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("the kernel tells no VmHWM")?;
    line.trim().trim_end_matches(" kB").trim().parse().context("read VmHWM")
}
