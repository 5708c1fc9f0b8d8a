//! `make bench-block`: the speed and the memory of volumes as block devices.
//!
//! Everything is measured in one run, ours and the others in turn, and what is judged are ratios: a machine that others use gives no other number that means
//! anything. Fio is the client of all. What cannot be seen from outside, such as how much is written for a write, is measured with a pool in this process.

mod cost;
mod daemon;
mod diff;
mod fio;
mod goals;
mod machine;
mod medium;
mod pause;
mod peers;
mod probe;
mod replicated;
mod rows;
mod sharing;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand, ValueEnum};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Debug, Parser)]
#[command(about = "Measures volumes as block devices against other servers, and against the machine")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measures, and prints tables in Markdown
    Run(RunArgs),
    /// Serves a volume in memory over NBD and as a device until its standard input ends: something to look at with a profiler
    Hold(RunArgs),
    /// Serves the volumes of a pool, as a process of its own
    #[command(hide = true)]
    Serve(daemon::ServeArgs),
    /// Holds a replica, as a process of its own
    #[command(hide = true)]
    Replica(replicated::ReplicaArgs),
    /// Holds a replica and serves the volume, as a process of its own
    #[command(hide = true)]
    Front(replicated::FrontArgs),
    /// Maps a volume of so many GiB, and tells what memory that takes, as a process of its own
    #[command(hide = true)]
    Map {
        /// The file of the pool
        pool: PathBuf,
        /// How many
        gib: u64,
    },
}

/// What there is to be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Every row, with pools in memory
    Memory,
    /// Every row, with pools on the disk
    Disk,
    /// What snapshots cost those who write
    Snapshots,
    /// What is written for a write, and what maps take
    Engine,
    /// Volumes with replicas, in memory
    Replicated,
}

#[derive(Debug, clap::Args)]
struct RunArgs {
    /// A folder on the disk for pools and files
    #[arg(long, value_name = "DIR", default_value = "target/bench-block")]
    place: PathBuf,
    /// Times the usual size and duration
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// How often each thing is measured
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Only this; may be given several times
    #[arg(long)]
    only: Vec<Part>,
    /// A file for the tables, too
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

impl RunArgs {
    fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    /// A size, at this scale, in whole MiB.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "sizes are far from the bounds")]
    fn scaled(&self, bytes: u64) -> u64 {
        ((bytes as f64 * self.scale) as u64 >> 20).max(16) << 20
    }
}

/// Text that was found, and whether every goal in it holds.
struct Report {
    text: String,
    good: bool,
}

impl Report {
    fn section(&mut self, title: &str, text: &str) {
        let section = format!("### {title}\n\n{text}\n");
        print!("{section}");
        self.text.push_str(&section);
    }

    /// One goal: what is wanted, what was seen, and whether that is it.
    fn goal(&mut self, text: &mut String, what: &str, seen: &str, wanted: &str, holds: bool) {
        self.good &= holds;
        let _ = writeln!(text, "| {what} | {seen} | {wanted} | {} |", if holds { "holds" } else { "**missed**" });
    }
}

const GOALS: &str = "| what | seen | wanted | |\n|---|---|---|---|\n";

fn run(arguments: &RunArgs) -> Result<bool> {
    if arguments.rounds == 0 || arguments.scale <= 0.0 {
        bail!("--rounds is at least 1, and --scale more than 0");
    }
    std::fs::create_dir_all(&arguments.place).with_context(|| format!("make {}", arguments.place.display()))?;
    let mut report = Report { text: String::new(), good: true };
    report.section("Machine", &machine::describe(arguments)?);
    for (part, medium) in [(Part::Memory, medium::Kind::Memory), (Part::Disk, medium::Kind::Disk)] {
        if arguments.wants(part) {
            rows::measure(arguments, medium, &mut report).with_context(|| format!("measure {}", medium.name()))?;
        }
    }
    if arguments.wants(Part::Snapshots) {
        sharing::measure(arguments, &mut report).context("measure writes after snapshots")?;
        pause::measure(arguments, &mut report).context("measure pauses")?;
    }
    if arguments.wants(Part::Engine) {
        cost::measure(arguments, &mut report).context("measure what is written")?;
        diff::measure(arguments, &mut report).context("measure maps")?;
    }
    if arguments.wants(Part::Replicated) {
        replicated::measure(arguments, &mut report).context("measure replicated volumes")?;
    }
    if let Some(path) = &arguments.report {
        std::fs::write(path, &report.text).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(report.good)
}

/// A number of something in a file of the kernel, such as `VmRSS` in that of a process.
fn told(file: &Path, name: &str) -> u64 {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn main() -> Result<ExitCode> {
    match Cli::parse().command {
        Command::Run(arguments) => match run(&arguments)? {
            true => Ok(ExitCode::SUCCESS),
            false => {
                eprintln!("bench-block: a goal is missed");
                Ok(ExitCode::FAILURE)
            }
        },
        Command::Hold(arguments) => rows::hold(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Serve(arguments) => daemon::serve(arguments).map(|()| ExitCode::SUCCESS),
        Command::Replica(arguments) => replicated::replica(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Front(arguments) => replicated::front(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Map { pool, gib } => diff::map(&pool, gib).map(|()| ExitCode::SUCCESS),
    }
}
