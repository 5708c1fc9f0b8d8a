//! Replicated volumes: every row with one, two and three replicas, beside others that write to three places; and what it takes to bring a replica back, and to
//! make a new one.

mod process;
mod set;

pub(crate) use process::{FrontArgs, ReplicaArgs, front, replica};

use crate::fio::{Figure, WRITE_1, WRITE_32, Way};
use crate::medium::{Folder, Kind, filled};
use crate::peers::{self, Target};
use crate::rows::{compare, table};
use crate::{GOALS, Report, RunArgs, goals};
use anyhow::{Context, Result};
use set::{Plan, Set};
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Bytes of a volume that is read and written, at full scale.
const SIZE: u64 = 256 << 20;
/// Of one that has a replica coming back, with little in it.
const LARGE: u64 = 10 << 30;
/// Of one that gets a new replica.
const WHOLE: u64 = 2 << 30;
/// What a pool has beside its volume.
const BESIDE: u64 = 256 << 20;

pub(crate) const ONE: &str = "**orlop**, one replica";
pub(crate) const TWO: &str = "**orlop**, two replicas";
pub(crate) const THREE: &str = "**orlop**, three replicas";
const THREE_TLS: &str = "**orlop**, three replicas, TLS";
const QUORUM: &str = "qemu-storage-daemon, quorum of a file and two qemu-nbd";

pub(crate) fn measure(arguments: &RunArgs, report: &mut Report) -> Result<()> {
    rows(arguments, report).context("measure every row")?;
    let mut text = GOALS.to_owned();
    resync(arguments, report, &mut text).context("measure a replica that comes back")?;
    rebuild(arguments, report, &mut text).context("measure a new replica")?;
    report.section("Replicas that come back, and new ones, in memory, on the loopback interface", &text);
    Ok(())
}

fn rows(arguments: &RunArgs, report: &mut Report) -> Result<()> {
    let folder = Folder::new(Kind::Memory, arguments, "replicated")?;
    let bytes = arguments.scaled(SIZE).max(64 << 20);
    let set = |title, name: &str, replicas, tls| {
        let plan = Plan { replicas, bytes, pool: 2 * bytes + BESIDE, is_filled: true, tls };
        Ok::<Target, anyhow::Error>(Set::start(&folder, name, plan)?.target(title))
    };
    let files = ["here", "second", "third"].map(|name| folder.join(name));
    for file in &files {
        filled(file, bytes)?;
    }
    let targets = [
        set(ONE, "one", 1, false)?,
        set(TWO, "two", 2, false)?,
        set(THREE, "three", 3, false)?,
        set(THREE_TLS, "three-tls", 3, true)?,
        peers::quorum(&folder, QUORUM, &files)?,
    ];
    for target in &targets {
        target.way.fill(bytes).with_context(|| format!("fill {}", target.name))?;
    }
    let columns = compare(&targets, bytes, arguments)?;
    report.section("Every row of replicated volumes, in memory, on the loopback interface", &table(&columns));
    let judged = goals::replicated(&columns, report);
    report.section("Goals of replicated volumes", &judged);
    Ok(())
}

/// A replica that was away while a hundredth of the volume was written.
fn resync(arguments: &RunArgs, report: &mut Report, text: &mut String) -> Result<()> {
    let folder = Folder::new(Kind::Memory, arguments, "resync")?;
    let bytes = arguments.scaled(LARGE).max(128 << 20);
    let plan = Plan { replicas: 3, bytes, pool: bytes / 4 + BESIDE, is_filled: false, tls: false };
    let set = Set::start(&folder, "set", plan)?;
    set.kill_last()?;
    set.until_degraded()?;
    let blocks = bytes / 100 / volume::BLOCK as u64;
    set.way().measure_some(&WRITE_32, bytes, blocks)?;
    let (before, begun) = (set.sent_to_last()?, Instant::now());
    set.start_last()?;
    set.until_in_sync()?;
    let (moved, took) = (set.sent_to_last()?.saturating_sub(before), begun.elapsed());
    let ratio = moved as f64 / (blocks * volume::BLOCK as u64) as f64;
    let what = format!("sent for a changed byte, 1 % of {} MiB changed ({:.1} s)", bytes >> 20, took.as_secs_f64());
    report.goal(text, &what, &format!("{ratio:.3}"), "≤ 1.1", moved > 0 && ratio <= 1.1);
    Ok(())
}

/// A new replica of a volume that is full, while it is written.
fn rebuild(arguments: &RunArgs, report: &mut Report, text: &mut String) -> Result<()> {
    let folder = Folder::new(Kind::Memory, arguments, "rebuild")?;
    let bytes = arguments.scaled(WHOLE).max(64 << 20);
    let plain = peers::copy(&folder, bytes)?;
    let pool = bytes + bytes / 2 + BESIDE;
    let set = Set::start(&folder, "set", Plan { replicas: 2, bytes, pool, is_filled: false, tls: false })?;
    set.way().fill(bytes)?;
    let alone = set.way().measure(&WRITE_1, bytes, 2.0)?;
    let is_done = AtomicBool::new(false);
    let (way, begun) = (set.way(), Instant::now());
    let (took, figures) = std::thread::scope(|scope| {
        let user = scope.spawn(|| use_until(&way, bytes, &is_done));
        let rebuilt = set.add(pool).and_then(|()| set.until_in_sync()).map(|()| begun.elapsed());
        is_done.store(true, Ordering::Release);
        let figures = user.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok::<_, anyhow::Error>((rebuilt?, figures))
    })?;
    let rate = bytes as f64 / took.as_secs_f64();
    let what = format!(
        "a new replica of {} MiB, {:.0} MiB/s / nbdcopy between two nbdkit, {:.0} MiB/s",
        bytes >> 20,
        rate / f64::from(1 << 20),
        plain / f64::from(1 << 20)
    );
    let ratio = rate / plain;
    report.goal(text, &what, &format!("{ratio:.2}"), "≥ 0.7", ratio >= 0.7);
    let mut most: Vec<f64> = figures.iter().map(|figure| figure.most_us).collect();
    most.sort_by(f64::total_cmp);
    let most = most[most.len() / 2];
    let ratio = most / alone.most_us;
    let mut what = String::new();
    let _ = write!(what, "p99 of {} meanwhile, {most:.0} µs / before, {:.0} µs", WRITE_1.name, alone.most_us);
    report.goal(text, &what, &format!("{ratio:.2}"), "≤ 2", ratio <= 2.0);
    Ok(())
}

/// Writes until something else is done.
fn use_until(way: &Way, bytes: u64, is_done: &AtomicBool) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    while figures.is_empty() || !is_done.load(Ordering::Acquire) {
        figures.push(way.measure(&WRITE_1, bytes, 0.5)?);
    }
    Ok(figures)
}
