//! The tables, with what is wanted and whether it holds.

use crate::measure::median;
use crate::place::Kind;
use crate::rows::{Measured, Sample, Step};
use crate::tool::{Peer, Tools};
use std::fmt::Write;

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Measure {
    Cpu,
    Wall,
    Stored,
}

/// A wanted ratio: ours of one step against a peer's, or ours, of another.
struct Bound {
    data: &'static str,
    step: Step,
    against: (Step, Peer),
    measure: Measure,
    most: f64,
}

const fn bound(data: &'static str, step: Step, against: (Step, Peer), measure: Measure, most: f64) -> Bound {
    Bound { data, step, against, measure, most }
}

/// The most memory that a backup may take, in MiB, and a restore.
pub(crate) const BACKUP_MIB: u64 = 128;
pub(crate) const RESTORE_MIB: u64 = 64;

/// What issue 3 wants. Incrementals are compared with a peer's of the same change, which reads the whole image.
const BOUNDS: [Bound; 16] = {
    use Measure::{Cpu, Stored, Wall};
    use Step::*;
    const RESTIC: Peer = Peer::Restic;
    [
        bound("image, first", ImageFirst, (ImageFirst, RESTIC), Cpu, 0.20),
        bound("image, first", ImageFirst, (ImageFirst, RESTIC), Wall, 0.25),
        bound("image, 5 % random, whole image read", ImageRandom, (ImageRandom, RESTIC), Cpu, 0.15),
        bound("image, 5 % random, whole image read", ImageRandom, (ImageRandom, RESTIC), Stored, 0.60),
        bound("image, 5 % random, with changed ranges", ImageRandomRanges, (ImageRandom, RESTIC), Cpu, 0.03),
        bound("image, 5 % random, with changed ranges", ImageRandomRanges, (ImageRandom, RESTIC), Stored, 0.12),
        bound("image, 5 % in runs, with changed ranges", ImageRunsRanges, (ImageRunsRanges, RESTIC), Cpu, 0.05),
        bound("image, 5 % in runs, with changed ranges", ImageRunsRanges, (ImageRunsRanges, RESTIC), Stored, 0.35),
        bound("incompressible, first", NoiseFirst, (NoiseFirst, RESTIC), Cpu, 0.20),
        bound("tree, first", TreeFirst, (TreeFirst, RESTIC), Cpu, 0.35),
        bound("tree, 1 % changed", TreeChanged, (TreeChanged, RESTIC), Cpu, 0.25),
        bound("restore of the image, verified", ImageRestore, (ImageRestore, RESTIC), Cpu, 0.60),
        bound("restore of the image, verified", ImageRestore, (ImageRestore, RESTIC), Wall, 0.90),
        bound("restore after 20 incrementals of 5 %", RestoreAfterMany, (ImageRestore, Peer::Orlop), Cpu, 1.5),
        bound("size after the first, image", ImageFirst, (ImageFirst, RESTIC), Stored, 1.03),
        bound("size after the first, tree", TreeFirst, (TreeFirst, RESTIC), Stored, 1.05),
    ]
};

const BACKUPS: [Step; 7] = [
    Step::ImageFirst,
    Step::ImageRandom,
    Step::ImageRandomRanges,
    Step::ImageRunsRanges,
    Step::NoiseFirst,
    Step::TreeFirst,
    Step::TreeChanged,
];
const RESTORES: [Step; 3] = [Step::ImageRestore, Step::RestoreAfterMany, Step::TreeRestore];

/// The table of a store, and whether every bound holds.
pub(crate) fn table(measured: &Measured, kind: Kind) -> (String, bool) {
    let place = if kind == Kind::Folder { "In a folder" } else { "In a bucket" };
    let mut text = format!(
        "### {place}\n\n| data | measure | orlop | against | ratio | wanted | |\n|---|---|---|---|---|---|---|\n"
    );
    let mut good = true;
    for bound in &BOUNDS {
        let (line, holds) = row(measured, bound);
        text.push_str(&line);
        good &= holds;
    }
    for (what, steps, most) in [("backup", &BACKUPS[..], BACKUP_MIB), ("restore", &RESTORES[..], RESTORE_MIB)] {
        let peak = |peer| steps.iter().flat_map(|step| measured.of(*step, peer)).map(|sample| sample.cost.peak).max();
        let (ours, theirs) =
            (peak(Peer::Orlop).unwrap_or_default() >> 20, peak(Peer::Restic).unwrap_or_default() >> 20);
        let holds = ours <= most;
        good &= holds;
        let _ =
            writeln!(text, "| all | peak of a {what} | {ours} MiB | {theirs} MiB | | ≤ {most} MiB | {} |", mark(holds));
    }
    text.push('\n');
    text.push_str(&all(measured));
    (text, good)
}

fn mark(holds: bool) -> &'static str {
    if holds { "holds" } else { "**missed**" }
}

fn value(samples: &[Sample], measure: Measure) -> Option<f64> {
    let values: Vec<f64> = samples
        .iter()
        .map(|sample| match measure {
            Measure::Cpu => sample.cost.cpu.as_secs_f64(),
            Measure::Wall => sample.cost.wall.as_secs_f64(),
            Measure::Stored => sample.stored as f64 / f64::from(1 << 20),
        })
        .collect();
    median(&values)
}

fn row(measured: &Measured, bound: &Bound) -> (String, bool) {
    let ours = value(measured.of(bound.step, Peer::Orlop), bound.measure);
    let theirs = value(measured.of(bound.against.0, bound.against.1), bound.measure);
    let (name, unit) = match bound.measure {
        Measure::Cpu => ("CPU", "s"),
        Measure::Wall => ("wall", "s"),
        Measure::Stored => ("stored", "MiB"),
    };
    let (Some(ours), Some(theirs)) = (ours, theirs) else {
        return (format!("| {} | {name} | not measured | | | ≤ {} | **missed** |\n", bound.data, bound.most), false);
    };
    let ratio = ours / theirs;
    let holds = ratio <= bound.most;
    let line = format!(
        "| {} | {name} | {ours:.2} {unit} | {theirs:.2} {unit} | {ratio:.3} | ≤ {} | {} |\n",
        bound.data,
        bound.most,
        mark(holds)
    );
    (line, holds)
}

/// Every step of every program, without a judgement.
fn all(measured: &Measured) -> String {
    let mut text =
        "| step | program | CPU s (least–most) | wall s | peak MiB | stored MiB |\n|---|---|---|---|---|---|\n"
            .to_owned();
    let peers: Vec<Peer> = [Peer::Orlop, Peer::Restic].into_iter().chain(Tools::others()).collect();
    for step in BACKUPS.iter().chain(&RESTORES) {
        for peer in &peers {
            let samples = measured.of(*step, *peer);
            let Some(cpu) = value(samples, Measure::Cpu) else { continue };
            let wall = value(samples, Measure::Wall).unwrap_or_default();
            let stored = value(samples, Measure::Stored).unwrap_or_default();
            let seconds = samples.iter().map(|sample| sample.cost.cpu.as_secs_f64());
            let (least, most) = seconds.fold((f64::MAX, 0.0_f64), |(least, most), cpu| (least.min(cpu), most.max(cpu)));
            let peak = samples.iter().map(|sample| sample.cost.peak).max().unwrap_or_default() >> 20;
            let _ = writeln!(
                text,
                "| {step:?} | {} | {cpu:.2} ({least:.2}–{most:.2}) | {wall:.2} | {peak} | {stored:.1} |",
                peer.name()
            );
        }
    }
    text.push('\n');
    text
}
