//! What the first write to a block costs that a snapshot has, beside one before.

use crate::daemon::Daemon;
use crate::fio::WRITE_1;
use crate::medium::{Folder, Kind, filled};
use crate::{GOALS, Report, RunArgs, peers};
use anyhow::Result;

/// Bytes of the volume, at full scale.
const SIZE: u64 = 512 << 20;
/// Random writes, each to another block; of qcow2's clusters there are hardly more.
const WRITES: u64 = 4000;

/// The middle of the ratios of what a write takes, after a snapshot to before.
fn middle(mut ratios: Vec<f64>) -> f64 {
    ratios.sort_by(f64::total_cmp);
    ratios[ratios.len() / 2]
}

fn ours(arguments: &RunArgs, kind: Kind) -> Result<f64> {
    let folder = Folder::new(kind, arguments, "sharing")?;
    let bytes = arguments.scaled(SIZE).max(64 << 20);
    let pool = folder.join("pool");
    filled(&pool, 3 * bytes + (256 << 20))?;
    let daemon = Daemon::start(&pool, &folder.join("run"), false)?;
    let target = daemon.volume("ours", "nbd", bytes, true)?;
    target.way.fill(bytes)?;
    let ratios = (0..arguments.rounds).map(|round| {
        let before = target.way.measure_some(&WRITE_1, bytes, WRITES)?;
        daemon.snapshot("nbd", &format!("s{round}"))?;
        let after = target.way.measure_some(&WRITE_1, bytes, WRITES)?;
        Ok(before.per_second / after.per_second)
    });
    Ok(middle(ratios.collect::<Result<_>>()?))
}

fn qcow2(arguments: &RunArgs, kind: Kind) -> Result<f64> {
    let folder = Folder::new(kind, arguments, "sharing")?;
    let bytes = arguments.scaled(SIZE).max(64 << 20);
    let file = peers::qcow2(&folder, bytes)?;
    peers::qemu_nbd(&folder, "qcow2", "qcow2", &file)?.way.fill(bytes)?;
    let ratios = (0..arguments.rounds).map(|round| {
        // It must be closed while a snapshot is taken, so it is opened anew for each figure.
        let before = peers::qemu_nbd(&folder, "qcow2", "qcow2", &file)?.way.measure_some(&WRITE_1, bytes, WRITES)?;
        peers::qcow2_snapshot(&file, &format!("s{round}"))?;
        let after = peers::qemu_nbd(&folder, "qcow2", "qcow2", &file)?.way.measure_some(&WRITE_1, bytes, WRITES)?;
        Ok(before.per_second / after.per_second)
    });
    Ok(middle(ratios.collect::<Result<_>>()?))
}

pub(crate) fn measure(arguments: &RunArgs, report: &mut Report) -> Result<()> {
    let mut text = GOALS.to_owned();
    for kind in [Kind::Memory, Kind::Disk] {
        let (ours, theirs) = (ours(arguments, kind)?, qcow2(arguments, kind)?);
        let what =
            format!("first write after a snapshot / before it, 4 KiB random, depth 1, over NBD, {}", kind.name());
        report.goal(&mut text, &what, &format!("{ours:.2} (qcow2 {theirs:.2})"), "≤ 1.2", ours <= 1.2);
    }
    report.section("The first write after a snapshot", &text);
    Ok(())
}
