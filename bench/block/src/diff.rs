//! What large maps cost: to tell what has changed, and to have at all.

use crate::medium::{Folder, Kind};
use crate::pause::fill;
use crate::probe::{Probe, Random, wait};
use crate::{GOALS, Report, RunArgs};
use anyhow::{Context, Result, bail};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::Instant;
use volume::{BLOCK, Blocks, Buffer, Since, State};

/// Bytes of the volume whose changes are asked for, at full scale.
const SIZE: u64 = 100 << 30;
/// Bytes of the volume whose memory is measured, at full scale.
const MAPPED: u64 = 256 << 30;

pub(crate) fn measure(arguments: &RunArgs, report: &mut Report) -> Result<()> {
    let mut text = GOALS.to_owned();
    let (reads, nodes, told) = changes(arguments)?;
    let part = reads as f64 / nodes as f64;
    let seen = format!("{:.2} % ({reads} of {nodes}), {told}", part * 100.0);
    let what =
        format!("nodes of the map read for what has changed, 1 % random of {} MiB", arguments.scaled(SIZE) >> 20);
    report.goal(&mut text, &what, &seen, "≤ 2 %", part <= 0.02);

    let gib = (arguments.scaled(MAPPED) >> 30).max(1);
    let (least, most) = memory(arguments, gib)?;
    let wanted = 64.0 + 64.0 * gib as f64 / 1024.0;
    let seen = format!("{:.0} MiB, of which {:.0} before anything was mapped", most, least);
    report.goal(
        &mut text,
        &format!("memory with {gib} GiB mapped"),
        &seen,
        &format!("≤ {wanted:.0} MiB"),
        most <= wanted,
    );
    report.section("Large maps", &text);
    Ok(())
}

/// Has all changes told of a volume of which a hundredth was changed, with nothing in memory; gives nodes that were read, and nodes.
fn changes(arguments: &RunArgs) -> Result<(u64, u64, String)> {
    let folder = Folder::new(Kind::Memory, arguments, "diff")?;
    let (path, bytes) = (folder.join("pool"), arguments.scaled(SIZE));
    let blocks = bytes / BLOCK as u64;
    let pool = Probe::create(&path, bytes + bytes / 8 + (1 << 30), 512)?.pool()?;
    let volume = pool.create_volume("measured", blocks)?;
    fill(&pool, volume, Blocks { start: 0, count: blocks })?;
    let snapshot = pool.snapshot(&[(volume, "before")])?.first().copied().context("a snapshot")?;
    let mut random = Random(11);
    for _ in 0..blocks / 100 {
        wait(|done| pool.write(volume, random.below(blocks), Buffer::zeroed(BLOCK), false, done))?;
    }
    pool.close()?;
    let probe = Probe::open(&path, 512)?;
    let pool = probe.pool()?;
    let (before, begun) = (probe.reads.load(Ordering::Relaxed), Instant::now());
    let (mut at, mut changed) = (0, 0);
    while at < blocks {
        let rest = Blocks { start: at, count: blocks - at };
        let page = wait(|done| pool.changed(State::Volume(volume), Since::Snapshot(snapshot), rest, 65_536, done))?;
        changed += page.items.iter().map(|item| item.count).sum::<u64>();
        at = page.next;
    }
    let (took, reads) = (begun.elapsed(), probe.reads.load(Ordering::Relaxed) - before);
    let levels = std::iter::successors(Some(blocks.div_ceil(256)), |nodes| (*nodes > 1).then(|| nodes.div_ceil(64)));
    Ok((reads, levels.sum(), format!("{changed} blocks told in {took:.1?}")))
}

/// What a process takes that maps so much, in MiB: before and after.
fn memory(arguments: &RunArgs, gib: u64) -> Result<(f64, f64)> {
    let folder = Folder::new(Kind::Memory, arguments, "map")?;
    let mut command = Command::new("/proc/self/exe");
    command.arg("map").arg(folder.join("pool")).arg(gib.to_string()).env("MALLOC_ARENA_MAX", "1");
    let output = command.output().context("start a process that maps")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let mib: Vec<f64> =
        said.split_whitespace().filter_map(|word| word.parse::<f64>().ok()).map(|kib| kib / 1024.0).collect();
    match mib[..] {
        [before, after] if output.status.success() => Ok((before, after)),
        _ => bail!("it said {said:?} {}", String::from_utf8_lossy(&output.stderr)),
    }
}

/// Maps a volume, writes some more all over it, and tells how much memory the process had before, and at most.
pub(crate) fn map(path: &Path, gib: u64) -> Result<()> {
    let bytes = gib << 30;
    let pool = Probe::create(path, bytes + bytes / 16 + (1 << 30), 512)?.pool()?;
    let blocks = bytes / BLOCK as u64;
    let volume = pool.create_volume("measured", blocks)?;
    let status = Path::new("/proc/self/status");
    let before = crate::told(status, "VmRSS");
    fill(&pool, volume, Blocks { start: 0, count: blocks })?;
    let mut random = Random(13);
    for _ in 0..100_000 {
        wait(|done| pool.write(volume, random.below(blocks), Buffer::zeroed(BLOCK), false, done))?;
    }
    println!("{before} {}", crate::told(status, "VmHWM"));
    Ok(())
}
