//! Every row on one medium: all targets in turn, ours again with a thousand snapshots, and what is wanted of that.

use crate::daemon::Daemon;
use crate::fio::{CASES, Case, Figure};
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
pub(crate) const QEMU_RAW: &str = "qemu-nbd raw";
pub(crate) const QEMU_QCOW2: &str = "qemu-nbd qcow2";

/// Measures all targets in turn.
pub(crate) fn compare(targets: &[Target], bytes: u64, arguments: &RunArgs) -> Result<Vec<Column>> {
    let mut all = vec![vec![Vec::new(); CASES.len()]; targets.len()];
    for _ in 0..arguments.rounds {
        for (at, case) in CASES.iter().enumerate() {
            for (target, figures) in targets.iter().zip(&mut all) {
                let seconds = (1.0 * arguments.scale).clamp(0.3, 10.0);
                let figure = target.way.measure(case, bytes, seconds).with_context(|| target.name.to_owned())?;
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
    Figure { per_second: of(|f| f.per_second), half_us: of(|f| f.half_us), most_us: of(|f| f.most_us) }
}

fn table(columns: &[Column]) -> String {
    let mut text = "| | requests/s | p50 µs | p99 µs |\n|---|---|---|---|\n".to_owned();
    for (at, Case { name, .. }) in CASES.iter().enumerate() {
        let _ = writeln!(text, "| *{name}* | | | |");
        for Column { name, figures } in columns {
            let Figure { per_second, half_us, most_us } = figures[at];
            let _ = writeln!(text, "| {name} | {per_second:.0} | {half_us:.1} | {most_us:.0} |");
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
        Target::new(RAW, way, Vec::new()),
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
    // For two volumes, twice: what a snapshot has is kept.
    filled(&pool, 5 * bytes + (256 << 20))?;
    let daemon = Daemon::start(&pool, &folder.join("run"))?;
    let targets = targets(kind, &folder, bytes, &daemon)?;
    let mut columns = compare(&targets, bytes, arguments)?;
    report.section(&format!("Every row, {}", kind.name()), &table(&columns));
    let judged = goals::judge(kind, &columns, report);
    report.section(&format!("Goals, {}", kind.name()), &judged);
    // The others end here.
    let ours: Vec<Target> = targets.into_iter().take(2).collect();
    columns.truncate(2);
    let (slowest, all) = many_snapshots(&daemon, &ours, bytes)?;
    let after = compare(&ours, bytes, arguments)?;
    let judged = goals::with_snapshots(&columns, &after, report);
    let told = format!(
        "{SNAPSHOTS} snapshots of each volume, while something is written: {:.1} ms each, the slowest {:.1} ms. \
         The most memory that the daemon has had: {} MiB.\n\n{judged}",
        all.as_secs_f64() * 1000.0 / (2 * SNAPSHOTS) as f64,
        slowest.as_secs_f64() * 1000.0,
        daemon.peak_kib() >> 10
    );
    report.section(&format!("With {SNAPSHOTS} snapshots, {}", kind.name()), &told);
    Ok(())
}

/// Takes snapshots of both volumes while they are written; gives how long the slowest took, and all.
fn many_snapshots(daemon: &Daemon, ours: &[Target], bytes: u64) -> Result<(Duration, Duration)> {
    let (mut slowest, mut all) = (Duration::ZERO, Duration::ZERO);
    for (target, volume) in ours.iter().zip(["nbd", "device"]) {
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
