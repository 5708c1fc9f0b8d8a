//! `orlop store`: pools of the volume engine that no daemon has open.
//!
//! What it prints for programs is the structs of this module.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;
use volume::{Disk, FileDisk, OpenError, Problem, Shape};

use crate::error::{Error, Exit, Result};
use crate::human;
use crate::output::{self, Format, OutputArgs};

/// How much of the begin of a file or device must be zeros before it becomes a pool: partition tables, and the marks of file systems, lie there.
const LOOKED_AT: usize = 1 << 20;

/// Make, check, describe and repair pools of volumes that are not in use
#[derive(Debug, Args)]
pub(crate) struct StoreArgs {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make an empty pool of a file or a raw device
    Format(FormatArgs),
    /// Look whether a pool is sound; nothing is written
    Check(CheckArgs),
    /// Tell what is in a pool; nothing is written
    Dump(PoolArgs),
    /// Mend what can be told from the rest: superblocks, and which blocks are used
    Repair(RepairArgs),
}

#[derive(Debug, Args)]
struct PoolArgs {
    /// The file or the raw device
    #[arg(value_name = "POOL")]
    pool: PathBuf,
}

#[derive(Debug, Args)]
struct FormatArgs {
    #[command(flatten)]
    at: PoolArgs,
    /// Make a file of this size, which must not exist; else all of what is there becomes the pool
    #[arg(long, value_name = "BYTES", value_parser = human::parse_bytes)]
    size: Option<u64>,
    /// Take a file or a device that holds something already; what it holds is lost
    #[arg(long, conflicts_with = "size")]
    overwrite: bool,
}

#[derive(Debug, Args)]
struct CheckArgs {
    #[command(flatten)]
    at: PoolArgs,
    /// Read all data too, and compare it with its checksums
    #[arg(long)]
    read_data: bool,
}

#[derive(Debug, Args)]
struct RepairArgs {
    #[command(flatten)]
    at: PoolArgs,
    /// Where the log is damaged in the middle, take it up to there; what was flushed after it is lost
    #[arg(long)]
    give_up_log: bool,
}

/// What `format` made.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Formatted {
    pool: PathBuf,
    bytes: u64,
}

/// What `check` found.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Checked {
    pool: PathBuf,
    /// Whether nothing is wrong.
    clean: bool,
    problems: Vec<String>,
    /// Volumes and snapshots.
    states: usize,
    /// Blocks of 4 KiB that maps and data have.
    map_blocks: u64,
    data_blocks: u64,
    /// Changes in the log that the last checkpoint does not have.
    logged: usize,
}

/// What `repair` did.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Repaired {
    pool: PathBuf,
    /// Blocks of which was told wrongly whether they are used.
    corrected_blocks: u64,
    /// What was made anew or given up.
    notes: Vec<String>,
    /// What stays wrong, since nothing tells what was there.
    left: Vec<String>,
}

pub(crate) async fn run(args: StoreArgs) -> Result<Exit> {
    // Disks of pools are read with calls that wait.
    let ran = tokio::task::spawn_blocking(move || match &args.verb {
        Verb::Format(format) => make(format, args.output.format()),
        Verb::Check(check) => look(check, args.output.format()),
        Verb::Dump(at) => dump(at, args.output.format()),
        Verb::Repair(repair) => mend(repair, args.output.format()),
    });
    ran.await.map_err(|e| Error::new("use the pool").because(e))?
}

fn make(args: &FormatArgs, format: Format) -> Result<Exit> {
    let pool = &args.at.pool;
    let what = || format!("make a pool of {}", pool.display());
    let disk = match args.size {
        Some(size) => FileDisk::create(pool, size).map_err(|e| explain(what(), e))?,
        None => existing(pool, args.overwrite)?,
    };
    let shape = Shape { id: rand::random(), log_blocks: None, most_changed_nodes: None };
    if let Err(error) = volume::create(&disk, shape) {
        drop(disk);
        if args.size.is_some() {
            // Nobody else has seen the file, which was made a moment ago.
            let _gone = std::fs::remove_file(pool);
        }
        return Err(explain(what(), error));
    }
    let bytes = disk.bytes().map_err(|e| Error::new(what()).because(e))?;
    let made = Formatted { pool: pool.clone(), bytes };
    let table = || format!("{} is an empty pool of {}.\n", pool.display(), human::bytes(bytes));
    output::print(&output::render(format, &made, table, || name_of(pool))?)?;
    Ok(Exit::Succeeded)
}

/// Opens what is to become a pool, if it holds nothing or that does not matter.
fn existing(pool: &Path, overwrite: bool) -> Result<FileDisk> {
    let what = || format!("make a pool of {}", pool.display());
    let kind = match std::fs::metadata(pool) {
        Ok(metadata) => metadata.file_type(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(Error::new(what()).because(e).next("say with --size how large a file is to be made"));
        }
        Err(e) => return Err(Error::new(what()).because(e)),
    };
    if !kind.is_file() && !kind.is_block_device() {
        return Err(Error::new(format!("{}: it is no file and no block device", what())));
    }
    let disk = FileDisk::open(pool).map_err(|e| explain(what(), e))?;
    if !overwrite && !begins_with_zeros(&disk).map_err(|e| Error::new(what()).because(e))? {
        return Err(Error::new(format!("{}: it holds something", what()))
            .next("look what that is; --overwrite takes it all the same, and what it holds is lost"));
    }
    Ok(disk)
}

fn begins_with_zeros(disk: &FileDisk) -> io::Result<bool> {
    let unit = u64::from(disk.unit());
    let len = disk.bytes()?.min(LOOKED_AT as u64) / unit * unit;
    let mut begin = volume::Buffer::zeroed(usize::try_from(len).unwrap_or(LOOKED_AT));
    disk.read(0, &mut begin)?;
    Ok(begin.iter().all(|byte| *byte == 0))
}

fn look(args: &CheckArgs, format: Format) -> Result<Exit> {
    let pool = &args.at.pool;
    let what = || format!("check {}", pool.display());
    let disk = FileDisk::open_read_only(pool).map_err(|e| explain(what(), e))?;
    let found = volume::check(&disk, args.read_data).map_err(|e| explain(what(), e))?;
    let checked = Checked {
        pool: pool.clone(),
        clean: found.problems.is_empty(),
        problems: found.problems.iter().map(|problem| told(problem, &found.names)).collect(),
        states: found.states,
        map_blocks: found.nodes,
        data_blocks: found.data,
        logged: found.logged,
    };
    let table = || {
        let mut text: String = checked.problems.iter().map(|problem| format!("{problem}\n")).collect();
        text.push_str(&format!(
            "{}: {}, {} of maps and {} of data{}. {}\n",
            pool.display(),
            human::count(checked.states as u64, "volume or snapshot", "volumes and snapshots"),
            human::count(checked.map_blocks, "block", "blocks"),
            human::count(checked.data_blocks, "block", "blocks"),
            if args.read_data { ", all of it read" } else { ", which was not read" },
            if checked.clean { "Nothing is wrong." } else { "It is NOT sound." },
        ));
        text
    };
    output::print(&output::render(format, &checked, table, || name_of(pool))?)?;
    Ok(if checked.clean { Exit::Succeeded } else { Exit::Failed })
}

fn dump(at: &PoolArgs, format: Format) -> Result<Exit> {
    if format != Format::Table {
        return Err(Error::usage("dump tells of a pool in lines for people, and has no other format")
            .next("leave -o out; `orlop store check -o json` is for programs"));
    }
    let what = || format!("tell what is in {}", at.pool.display());
    let disk = FileDisk::open_read_only(&at.pool).map_err(|e| explain(what(), e))?;
    output::print(&volume::dump(&disk).map_err(|e| explain(what(), e))?)?;
    Ok(Exit::Succeeded)
}

fn mend(args: &RepairArgs, format: Format) -> Result<Exit> {
    let pool = &args.at.pool;
    let what = || format!("repair {}", pool.display());
    let disk = FileDisk::open(pool).map_err(|e| explain(what(), e))?;
    let done = volume::repair(&disk, args.give_up_log).map_err(|error| {
        let next = match &error {
            OpenError::LogDamaged { .. } => {
                "--give-up-log takes the log up to there, and what was flushed after it is lost; a replica or a backup may have it"
            }
            OpenError::Damaged { .. } => {
                "nothing in the pool tells what was there; restore the volumes from a replica or a backup"
            }
            _ => return explain(what(), error),
        };
        Error::new(what()).because(error).next(next)
    })?;
    let space = done.space.map(|why| format!("which blocks are used was made anew from the maps: {why}"));
    let log = done.log.map(|what| format!("the log was given up: {what}"));
    let repaired = Repaired {
        pool: pool.clone(),
        corrected_blocks: done.blocks,
        notes: space.into_iter().chain(log).collect(),
        left: done.left.iter().map(|problem| told(problem, &done.names)).collect(),
    };
    let table = || {
        let lines = repaired.notes.iter().chain(&repaired.left).map(|line| format!("{line}\n"));
        let corrected = human::count(repaired.corrected_blocks, "block", "blocks");
        let state = if repaired.left.is_empty() {
            "Superblocks, catalog and maps are sound; data was not read, which `orlop store check --read-data` does."
        } else {
            "The rest cannot be mended here."
        };
        lines.chain([format!("{}: {corrected} corrected. {state}\n", pool.display())]).collect()
    };
    output::print(&output::render(format, &repaired, table, || name_of(pool))?)?;
    Ok(if repaired.left.is_empty() { Exit::Succeeded } else { Exit::Failed })
}

/// A problem, with the name of what it is about.
fn told(problem: &Problem, names: &BTreeMap<u64, String>) -> String {
    let name = problem.of().and_then(|id| names.get(&id));
    name.map_or_else(|| problem.to_string(), |name| format!("{problem} ({name})"))
}

fn name_of(pool: &Path) -> String {
    format!("{}\n", pool.display())
}

fn explain(what: String, error: OpenError) -> Error {
    let next = match &error {
        OpenError::Damaged { .. } | OpenError::LogDamaged { .. } => {
            Some("restore the volumes from a replica or a backup if `orlop store repair` cannot mend it")
        }
        OpenError::Exists => Some(
            "use it as it is; if nothing in it is wanted, remove the file, or clear the begin of the device with `dd if=/dev/zero of=DEVICE bs=16k count=1`",
        ),
        OpenError::Disk { source, .. } if source.kind() == io::ErrorKind::AlreadyExists => {
            Some("leave --size out to take what is there; it is refused if it holds something")
        }
        _ => None,
    };
    let error = Error::new(what).because(error);
    next.into_iter().fold(error, Error::next)
}
