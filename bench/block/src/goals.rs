//! What is wanted of the rows, and whether it holds.

use crate::fio::{CASES, Case, FLUSHED, READ_1, READ_32, WRITE_1, WRITE_32};
use crate::medium::Kind;
use crate::replicated::{ONE, THREE};
use crate::rows::{Column, FUSE, NBD, QEMU_QCOW2, QEMU_RAW, RAW};
use crate::{GOALS, Report};

/// How many times as fast as another something has to be.
struct Ratio {
    on: &'static [Kind],
    ours: &'static str,
    theirs: &'static str,
    least: f64,
    cases: &'static [Case],
}

const fn ratio(
    on: &'static [Kind],
    (ours, theirs): (&'static str, &'static str),
    least: f64,
    cases: &'static [Case],
) -> Ratio {
    Ratio { on, ours, theirs, least, cases }
}

const RATIOS: [Ratio; 6] = {
    const DEEP: &[Case] = &[WRITE_32, READ_32];
    [
        ratio(&[Kind::Memory], (NBD, QEMU_RAW), 2.0, DEEP),
        ratio(&[Kind::Memory], (FUSE, "qemu-storage-daemon, FUSE + loop"), 2.0, &CASES),
        ratio(&[Kind::Memory, Kind::Disk], (NBD, QEMU_QCOW2), 1.5, &CASES),
        ratio(&[Kind::Disk], (NBD, RAW), 0.8, DEEP),
        ratio(&[Kind::Disk], (FUSE, RAW), 0.8, DEEP),
        ratio(&[Kind::Disk], (FUSE, "loop"), 0.8, &[FLUSHED]),
    ]
};

/// What many snapshots may change of any row.
const MOST_CHANGE: f64 = 0.1;

fn figure<'a>(columns: &'a [Column], name: &str, case: &Case) -> Option<&'a crate::fio::Figure> {
    let at = CASES.iter().position(|other| other == case)?;
    columns.iter().find(|column| column.name == name)?.figures.get(at)
}

/// The table of all goals of a medium.
pub(crate) fn judge(kind: Kind, columns: &[Column], report: &mut Report) -> String {
    let mut text = GOALS.to_owned();
    for Ratio { ours, theirs, least, cases, .. } in RATIOS.iter().filter(|ratio| ratio.on.contains(&kind)) {
        for case in *cases {
            let (Some(our), Some(their)) = (figure(columns, ours, case), figure(columns, theirs, case)) else {
                continue;
            };
            let ratio = our.per_second / their.per_second;
            let what = format!("{}: {ours} / {theirs}", case.name);
            report.goal(&mut text, &what, &format!("{ratio:.2}"), &format!("≥ {least}"), ratio >= *least);
        }
    }
    if kind == Kind::Memory {
        for case in [WRITE_1, READ_1] {
            let (Some(our), Some(their)) = (figure(columns, NBD, &case), figure(columns, "nbdkit file", &case)) else {
                continue;
            };
            let (what, seen) = (format!("{}: p50 of {NBD} / nbdkit file", case.name), our.half_us / their.half_us);
            report.goal(&mut text, &what, &format!("{seen:.2}"), "≤ 1", seen <= 1.0);
        }
    }
    text
}

/// Every row of ours with many snapshots, beside the same without.
pub(crate) fn with_snapshots(before: &[Column], after: &[Column], report: &mut Report) -> String {
    let mut text = GOALS.to_owned();
    for (before, after) in before.iter().zip(after) {
        for ((case, was), is) in CASES.iter().zip(&before.figures).zip(&after.figures) {
            let ratio = is.per_second / was.per_second;
            let what = format!("{}: {} / without snapshots", case.name, before.name);
            report.goal(&mut text, &what, &format!("{ratio:.2}"), "≥ 0.9", ratio >= 1.0 - MOST_CHANGE);
        }
    }
    text
}

/// What the one of longhorn-engine's v1 data path with three replicas was seen to do on a machine of this kind: 4 KiB writes a second at depth 32, and p50 at depth 1.
const LONGHORN: (f64, f64) = (5400.0, 330.0);

/// What several replicas may cost.
pub(crate) fn replicated(columns: &[Column], report: &mut Report) -> String {
    let mut text = GOALS.to_owned();
    for (case, least) in [(WRITE_32, 0.5), (WRITE_1, 0.5), (READ_32, 0.95), (READ_1, 0.95)] {
        let (Some(three), Some(one)) = (figure(columns, THREE, &case), figure(columns, ONE, &case)) else { continue };
        let ratio = three.per_second / one.per_second;
        let what = format!("{}: {THREE} / {ONE}", case.name);
        report.goal(&mut text, &what, &format!("{ratio:.2}"), &format!("≥ {least}"), ratio >= least);
    }
    if let (Some(deep), Some(single)) = (figure(columns, THREE, &WRITE_32), figure(columns, THREE, &WRITE_1)) {
        let (ratio, what) = (deep.per_second / LONGHORN.0, format!("{}: {THREE} / {:.0}", WRITE_32.name, LONGHORN.0));
        report.goal(&mut text, &what, &format!("{ratio:.2}"), "≥ 5", ratio >= 5.0);
        let (ratio, what) =
            (single.half_us / LONGHORN.1, format!("{}: p50 of {THREE} / {:.0} µs", WRITE_1.name, LONGHORN.1));
        report.goal(&mut text, &what, &format!("{ratio:.2}"), "≤ 0.4", ratio <= 0.4);
    }
    text
}
