//! Measuring with fio, in turns, and the table of it. The bench of block devices uses it too.

use block::testing::FileDisk;
use serde_json::Value;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

/// What is measured.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) block: &'static str,
    pub(crate) depth: u32,
}

pub(crate) const CASES: [Case; 8] = [
    Case { name: "4 KiB random read, depth 1", kind: "randread", block: "4k", depth: 1 },
    Case { name: "4 KiB random write, depth 1", kind: "randwrite", block: "4k", depth: 1 },
    Case { name: "4 KiB random read, depth 32", kind: "randread", block: "4k", depth: 32 },
    Case { name: "4 KiB random write, depth 32", kind: "randwrite", block: "4k", depth: 32 },
    Case { name: "128 KiB sequential read, depth 8", kind: "read", block: "128k", depth: 8 },
    Case { name: "128 KiB sequential write, depth 8", kind: "write", block: "128k", depth: 8 },
    Case { name: "1 MiB sequential read, depth 4", kind: "read", block: "1M", depth: 4 },
    Case { name: "1 MiB sequential write, depth 4", kind: "write", block: "1M", depth: 4 },
];

/// Bytes of the device.
pub(crate) const SIZE: usize = 256 << 20;

/// One figure of one turn.
#[derive(Debug, Clone, Copy)]
struct Figure {
    per_second: f64,
    half_within_us: f64,
}

fn run(case: &Case, target: &[String]) -> Figure {
    let mut command = Command::new("fio");
    command.args(["--name=speed", "--output-format=json", "--time_based", "--runtime=1", "--ramp_time=300ms"]);
    command.args(["--randrepeat=0", "--norandommap", "--refill_buffers", &format!("--size={SIZE}")]);
    command.args([format!("--rw={}", case.kind), format!("--bs={}", case.block), format!("--iodepth={}", case.depth)]);
    let output = command.args(target).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // Notes of its engine may come first.
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let found: Value = serde_json::from_str(&text[text.find('{').unwrap()..]).unwrap();
    let side = if case.kind.ends_with("read") { "read" } else { "write" };
    let job = &found["jobs"][0][side];
    let half = job["clat_ns"]["percentile"]["50.000000"].as_f64().unwrap_or_default() / 1000.0;
    Figure { per_second: job["iops"].as_f64().unwrap(), half_within_us: half }
}

/// Measures each target in turn, so often as `ROUNDS` says (3), and prints medians and how they compare with ours, the first.
pub(crate) fn compare(targets: &[(&str, Vec<String>)]) {
    let rounds = std::env::var("ROUNDS").map_or(3, |rounds| rounds.parse().expect("ROUNDS is a number"));
    println!(
        "| case | target | requests/s (least, median, most) | median latency, µs | ours / it | its latency / ours |"
    );
    println!("|---|---|---|---|---|---|");
    for case in &CASES {
        let mut figures: Vec<Vec<Figure>> = vec![Vec::new(); targets.len()];
        for _ in 0..rounds {
            for (index, (_, words)) in targets.iter().enumerate() {
                figures[index].push(run(case, words));
            }
        }
        let median = |mut values: Vec<f64>| {
            values.sort_by(f64::total_cmp);
            (values[0], values[values.len() / 2], values[values.len() - 1])
        };
        let rows: Vec<_> = figures
            .iter()
            .map(|all| {
                let speed = median(all.iter().map(|figure| figure.per_second).collect());
                (speed, median(all.iter().map(|figure| figure.half_within_us).collect()).1)
            })
            .collect();
        for ((name, _), ((least, middle, most), latency)) in targets.iter().zip(&rows) {
            let ((_, ours, _), our_latency) = rows[0];
            println!(
                "| {} | {name} | {least:.0}, {middle:.0}, {most:.0} | {latency:.1} | {:.2} | {:.2} |",
                case.name,
                ours / middle,
                latency / our_latency
            );
        }
    }
}

/// What everybody serves.
pub(crate) struct Image {
    file: tempfile::NamedTempFile,
    folder: tempfile::TempDir,
}

impl Image {
    pub(crate) fn path(&self) -> &str {
        self.file.path().to_str().unwrap()
    }

    pub(crate) fn device(&self) -> Arc<FileDisk> {
        Arc::new(FileDisk::open(self.file.path()).unwrap())
    }

    /// For what is needed to serve it.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// Measures something of a file in memory; not when a test runner asks what there is, since there is nothing that it should run.
pub(crate) fn bench(measure: impl FnOnce(&Image)) {
    if std::env::args().any(|word| word == "--list") {
        return;
    }
    measure(&Image { file: file(), folder: tempfile::tempdir().unwrap() });
}

/// Another server, which ends with its guard.
pub(crate) struct Peer(Child);

impl Peer {
    /// Starts it, and waits until it serves.
    pub(crate) fn start(words: &[&str], serves: impl Fn() -> bool) -> Self {
        let mut command = Command::new(words[0]);
        let mut child = command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        while !serves() {
            assert!(child.try_wait().unwrap().is_none(), "{} has ended", words[0]);
            std::thread::yield_now();
        }
        Self(child)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A file in memory, full of bytes that are no zeros.
fn file() -> tempfile::NamedTempFile {
    let file = tempfile::Builder::new().tempfile_in("/dev/shm").unwrap();
    let mut state = 1_u64;
    let bytes: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8 | 1
    })
    .take(1 << 20)
    .collect();
    for at in (0..SIZE).step_by(bytes.len()) {
        std::os::unix::fs::FileExt::write_all_at(file.as_file(), &bytes, at as u64).unwrap();
    }
    file
}

/// The first line of what a program says of its version.
pub(crate) fn version(program: &str) -> String {
    let output = Command::new(program).arg("--version").output().unwrap();
    String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned()
}
