//! The client of everything.

use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::process::{Child, Command, Stdio};

/// What is asked of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) block: &'static str,
    pub(crate) depth: u32,
    /// Each write is followed by a flush.
    pub(crate) flushes: bool,
}

const fn case(name: &'static str, kind: &'static str, block: &'static str, depth: u32) -> Case {
    Case { name, kind, block, depth, flushes: false }
}

pub(crate) const WRITE_1: Case = case("4 KiB random write, depth 1", "randwrite", "4k", 1);
pub(crate) const READ_1: Case = case("4 KiB random read, depth 1", "randread", "4k", 1);
pub(crate) const WRITE_32: Case = case("4 KiB random write, depth 32", "randwrite", "4k", 32);
pub(crate) const READ_32: Case = case("4 KiB random read, depth 32", "randread", "4k", 32);
pub(crate) const FLUSHED: Case = Case { flushes: true, ..case("8 KiB write + fdatasync, depth 1", "write", "8k", 1) };

pub(crate) const CASES: [Case; 9] = [
    WRITE_1,
    READ_1,
    WRITE_32,
    READ_32,
    case("128 KiB sequential write, depth 8", "write", "128k", 8),
    case("128 KiB sequential read, depth 8", "read", "128k", 8),
    case("1 MiB sequential write, depth 4", "write", "1M", 4),
    case("1 MiB sequential read, depth 4", "read", "1M", 4),
    FLUSHED,
];

/// How fio comes to a target.
#[derive(Debug, Clone)]
pub(crate) enum Way {
    /// A file or block device, without the system's cache.
    Path(String),
    /// The URI of an NBD export.
    Nbd(String),
}

/// One figure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figure {
    pub(crate) per_second: f64,
    /// Until one is done, a flush after it included: half of them, and 99 of 100, within this time.
    pub(crate) half_us: f64,
    pub(crate) most_us: f64,
    /// Processor time of the server for one, in microseconds; none if there is no server.
    pub(crate) processor_us: Option<f64>,
}

/// Until what is asked counts.
pub(crate) const RAMP: f64 = 0.3;

impl Way {
    fn words(&self, flushes: bool) -> Vec<String> {
        let (engine, place, flush) = match self {
            Self::Path(path) => ("io_uring", format!("--filename={path}"), "--fdatasync=1"),
            // It knows one kind of flush alone, which is the same here.
            Self::Nbd(uri) => ("nbd", format!("--uri={uri}"), "--fsync=1"),
        };
        let mut words = vec![format!("--ioengine={engine}"), place, "--direct=1".into()];
        words.extend(flushes.then(|| flush.to_owned()));
        words
    }

    /// Writes all of it, so that everything has its place.
    pub(crate) fn fill(&self, bytes: u64) -> Result<()> {
        let words = ["--rw=write".into(), "--bs=1M".into(), "--iodepth=4".into(), format!("--size={bytes}")];
        fio([self.words(false), words.to_vec()].concat()).map(|_| ())
    }

    /// Writes a few hundred blocks a second.
    pub(crate) fn trickle(&self, bytes: u64) -> Result<Trickle> {
        let mut command = Command::new("fio");
        command.args([
            "--name=trickle",
            "--thread",
            "--rate_iops=500",
            "--runtime=1h",
            "--time_based",
            "--norandommap",
        ]);
        command.args([self.words(false), WRITE_1.words(bytes)].concat()).stdout(Stdio::null());
        Ok(Trickle(command.spawn().context("run fio")?))
    }

    /// Asks for some time, and gives what came of it.
    pub(crate) fn measure(&self, case: &Case, bytes: u64, seconds: f64) -> Result<Figure> {
        let time = [
            format!("--runtime={}ms", (seconds * 1000.0).round()),
            "--time_based".into(),
            format!("--ramp_time={}ms", RAMP * 1000.0),
        ];
        let job =
            fio([self.words(case.flushes), case.words(bytes), time.to_vec(), vec!["--norandommap".into()]].concat())?;
        figure(case, &job)
    }

    /// Asks so often, never for the same place twice.
    pub(crate) fn measure_some(&self, case: &Case, bytes: u64, count: u64) -> Result<Figure> {
        let count = [format!("--number_ios={count}")];
        figure(case, &fio([self.words(case.flushes), case.words(bytes), count.to_vec()].concat())?)
    }
}

/// Something that is written all the while, until this is dropped.
pub(crate) struct Trickle(Child);

impl Drop for Trickle {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _status = self.0.wait();
    }
}

impl Case {
    fn words(&self, bytes: u64) -> Vec<String> {
        vec![
            format!("--rw={}", self.kind),
            format!("--bs={}", self.block),
            format!("--iodepth={}", self.depth),
            format!("--size={bytes}"),
            "--randrepeat=0".into(),
        ]
    }

    pub(crate) fn reads(&self) -> bool {
        self.kind.ends_with("read")
    }
}

fn fio(words: Vec<String>) -> Result<Value> {
    let mut command = Command::new("fio");
    command.args(["--name=block", "--thread", "--output-format=json", "--percentile_list=50:99"]).args(&words);
    let output = command.output().context("run fio")?;
    // Notes of its engine may come first.
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let found = said.find('{').and_then(|at| serde_json::from_str::<Value>(&said[at..]).ok());
    match found {
        Some(mut found) if output.status.success() => Ok(found["jobs"][0].take()),
        _ => bail!("fio {}: {said}{}", words.join(" "), String::from_utf8_lossy(&output.stderr)),
    }
}

fn figure(case: &Case, job: &Value) -> Result<Figure> {
    let side = &job[if case.reads() { "read" } else { "write" }];
    let within = |of: &Value, part: &str| of["percentile"][part].as_f64().unwrap_or(0.0) / 1000.0;
    let latency = |part| {
        let flush = if case.flushes { within(&job["sync"]["lat_ns"], part) } else { 0.0 };
        within(&side["clat_ns"], part) + flush
    };
    let per_second = side["iops"].as_f64().with_context(|| format!("fio told nothing of {}", case.name))?;
    Ok(Figure { per_second, half_us: latency("50.000000"), most_us: latency("99.000000"), processor_us: None })
}
