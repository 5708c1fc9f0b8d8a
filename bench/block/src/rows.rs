//! Every row on one medium: all targets in turn, ours again with a thousand snapshots, and what is wanted of that.

use crate::daemon::Daemon;
use crate::fio::{CASES, Case, Figure, RAMP};
use crate::medium::{Folder, Kind, filled};
use crate::peers::{self, Target};
use crate::{Report, RunArgs, goals};
use anyhow::{Context, Result};
use std::fmt::Write;
use std::time::{Duration, Instant};

/// Bytes of a volume, at full scale.
const SIZE: u64 = 512 << 20;
/// Snapshots of a volume that has many.
const SNAPSHOTS: usize = 1000;

/// What was measured of a target: one figure for each case, the median of those of all rounds.
pub(crate) struct Column {
    pub(crate) name: &'static str,
    pub(crate) figures: Vec<Figure>,
}

pub(crate) const RAW: &str = "the pool's file";
pub(crate) const NBD: &str = "**orlop, NBD**";
pub(crate) const FUSE: &str = "**orlop, FUSE + loop**";
/// The same with a pool that is not asked through io_uring.
const THREADS_NBD: &str = "orlop, NBD, threads";
const THREADS_FUSE: &str = "orlop, FUSE + loop, threads";
pub(crate) const QEMU_RAW: &str = "qemu-nbd raw";
pub(crate) const QEMU_QCOW2: &str = "qemu-nbd qcow2";

/// Measures all targets in turn.
pub(crate) fn compare(targets: &[Target], bytes: u64, arguments: &RunArgs) -> Result<Vec<Column>> {
    let mut all = vec![vec![Vec::new(); CASES.len()]; targets.len()];
    for _ in 0..arguments.rounds {
        for (at, case) in CASES.iter().enumerate() {
            for (target, figures) in targets.iter().zip(&mut all) {
                let seconds = (1.0 * arguments.scale).clamp(0.3, 10.0);
                let before = target.processor();
                let mut figure = target.way.measure(case, bytes, seconds).with_context(|| target.name.to_owned())?;
                let used = target.processor().zip(before).map(|(after, before)| after - before);
                figure.processor_us = used.map(|used| used * 1e6 / (figure.per_second * (seconds + RAMP)));
                figures[at].push(figure);
            }
        }
    }
    let column = |(target, figures): (&Target, Vec<Vec<Figure>>)| Column {
        name: target.name,
        figures: figures.iter().map(|rounds| middle(rounds)).collect(),
    };
    Ok(targets.iter().zip(all).map(column).collect())
}

/// The median of each part.
fn middle(figures: &[Figure]) -> Figure {
    let of = |part: fn(&Figure) -> f64| {
        let mut values: Vec<f64> = figures.iter().map(part).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    Figure {
        per_second: of(|figure| figure.per_second),
        half_us: of(|figure| figure.half_us),
        most_us: of(|figure| figure.most_us),
        processor_us: figures[0].processor_us.map(|_| of(|figure| figure.processor_us.unwrap_or_default())),
    }
}

pub(crate) fn table(columns: &[Column]) -> String {
    let mut text =
        "| | requests/s | p50 µs | p99 µs | processor time of the server for one, µs |\n|---|---|---|---|---|\n"
            .to_owned();
    for (at, Case { name, .. }) in CASES.iter().enumerate() {
        let _ = writeln!(text, "| *{name}* | | | | |");
        for Column { name, figures } in columns {
            let Figure { per_second, half_us, most_us, processor_us } = figures[at];
            let processor = processor_us.map_or_else(String::new, |time| format!("{time:.1}"));
            let _ = writeln!(text, "| {name} | {per_second:.0} | {half_us:.1} | {most_us:.0} | {processor} |");
        }
    }
    text
}

/// Everything that is compared on a medium; ours come first.
fn targets(kind: Kind, folder: &Folder, bytes: u64, daemon: &std::rc::Rc<Daemon>) -> Result<Vec<Target>> {
    let [shared, raw, fuse] = ["shared", "raw", "fuse"].map(|name| folder.join(name));
    for file in [&shared, &raw, &fuse] {
        filled(file, bytes)?;
    }
    let way = crate::fio::Way::Path(shared.display().to_string());
    let targets = vec![
        daemon.volume(NBD, "nbd", bytes, true)?,
        daemon.volume(FUSE, "device", bytes, false)?,
        Target::new(RAW, way, Vec::new(), Vec::new()),
        peers::nbdkit(folder, &shared)?,
        peers::qemu_nbd(folder, QEMU_RAW, "raw", &raw)?,
        peers::qemu_nbd(folder, QEMU_QCOW2, "qcow2", &peers::qcow2(folder, bytes)?)?,
        peers::qemu_fuse(folder, &fuse)?,
        peers::plain_loop(&shared)?,
        peers::file_system(folder, "a file in btrfs on loop", "btrfs", bytes)?,
        peers::file_system(folder, "a file in xfs on loop", "xfs", bytes)?,
    ];
    for target in &targets {
        target.way.fill(bytes).with_context(|| format!("fill {} {}", target.name, kind.name()))?;
    }
    Ok(targets)
}

pub(crate) fn measure(arguments: &RunArgs, kind: Kind, report: &mut Report) -> Result<()> {
    let folder = Folder::new(kind, arguments, "rows")?;
    let bytes = arguments.scaled(SIZE).max(64 << 20);
    let pool = folder.join("pool");
    // For four volumes, half of them with snapshots that keep all that was there.
    filled(&pool, 7 * bytes + (512 << 20))?;
    let daemon = Daemon::start(&pool, &folder.join("run"), false)?;
    let mut targets = targets(kind, &folder, bytes, &daemon)?;
    if kind == Kind::Disk {
        let pool = folder.join("pool-threads");
        filled(&pool, 4 * bytes + (256 << 20))?;
        let daemon = Daemon::start(&pool, &folder.join("run-threads"), true)?;
        for (title, name, over_nbd) in [(THREADS_NBD, "nbd", true), (THREADS_FUSE, "device", false)] {
            let target = daemon.volume(title, name, bytes, over_nbd)?;
            target.way.fill(bytes)?;
            targets.push(target);
        }
    }
    let columns = compare(&targets, bytes, arguments)?;
    report.section(&format!("Every row, {}", kind.name()), &table(&columns));
    let judged = goals::judge(kind, &columns, report);
    report.section(&format!("Goals, {}", kind.name()), &judged);
    // The others end here.
    let mut ours: Vec<Target> = targets.into_iter().take(2).collect();
    for (name, over_nbd) in [("many-nbd", true), ("many-device", false)] {
        let target = daemon.volume("with snapshots", name, bytes, over_nbd)?;
        target.way.fill(bytes)?;
        ours.push(target);
    }
    let (slowest, all) = many_snapshots(&daemon, &ours[2..], bytes)?;
    let mut columns = compare(&ours, bytes, arguments)?;
    let with = columns.split_off(2);
    let judged = goals::with_snapshots(&columns, &with, report);
    let told = format!(
        "{SNAPSHOTS} snapshots of a volume, while something is written: {:.1} ms each, the slowest {:.1} ms. \
         The most memory that the daemon has had: {} MiB.\n\n{judged}",
        all.as_secs_f64() * 1000.0 / (2 * SNAPSHOTS) as f64,
        slowest.as_secs_f64() * 1000.0,
        daemon.peak_kib() >> 10
    );
    report.section(&format!("With {SNAPSHOTS} snapshots, {}", kind.name()), &told);
    Ok(())
}

/// Takes snapshots of volumes while they are written; gives how long the slowest took, and all.
fn many_snapshots(daemon: &Daemon, ours: &[Target], bytes: u64) -> Result<(Duration, Duration)> {
    let (mut slowest, mut all) = (Duration::ZERO, Duration::ZERO);
    for (target, volume) in ours.iter().zip(["many-nbd", "many-device"]) {
        let _writer = target.way.trickle(bytes)?;
        for i in 0..SNAPSHOTS {
            let begun = Instant::now();
            daemon.snapshot(volume, &format!("s{i}"))?;
            slowest = slowest.max(begun.elapsed());
            all += begun.elapsed();
        }
    }
    Ok((slowest, all))
}

/// Serves ours alone, and says where.
pub(crate) fn hold(arguments: &RunArgs) -> Result<()> {
    let kind = if arguments.only.contains(&crate::Part::Disk) { Kind::Disk } else { Kind::Memory };
    let folder = Folder::new(kind, arguments, "hold")?;
    let bytes = arguments.scaled(SIZE).max(64 << 20);
    let pool = folder.join("pool");
    filled(&pool, 5 * bytes + (256 << 20))?;
    let daemon = Daemon::start(&pool, &folder.join("run"), false)?;
    for (name, over_nbd) in [("nbd", true), ("device", false)] {
        let target = daemon.volume("held", name, bytes, over_nbd)?;
        target.way.fill(bytes)?;
        println!("{:?} of {bytes} bytes", target.way);
    }
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    Ok(())
}
