//! `make bench`: the speed and the memory of the repository engine, ours and a peer in turn, on the same data and the same store.
//!
//! What is judged are ratios of processor time within one run of this program, because a machine that others use gives no other number that
//! means anything. Data is made from a seed, so that two runs measure the same.

mod care;
mod data;
mod limits;
mod machine;
mod many;
mod measure;
mod pages;
mod place;
mod report;
mod rows;
mod tool;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Debug, Parser)]
#[command(about = "Measures the repository engine against restic and against the machine")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Makes the data, measures, and prints tables in Markdown
    Run(RunArgs),
    /// Serves buckets over S3, as a process of its own
    S3(sandbox::s3::Arguments),
    /// Fills a repository with many extents, as a process of its own
    #[command(hide = true)]
    Fill {
        /// The folder of the repository
        path: PathBuf,
        /// How many
        extents: u64,
    },
    /// Measures the steps of the engine alone on an image, as a process of its own
    #[command(hide = true)]
    Steps {
        /// The image
        image: PathBuf,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// The program that is measured
    #[arg(long, value_name = "FILE", default_value = "target/release/orlop")]
    orlop: PathBuf,
    /// Where data and repositories are made; a folder of this name must not exist
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    folder: PathBuf,
    /// The size of all data against the full size
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    scale: f64,
    /// How often everything is measured; the median counts
    #[arg(long, value_name = "NUMBER", default_value_t = 3)]
    rounds: usize,
    /// The stores
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [place::Kind::Folder, place::Kind::S3])]
    stores: Vec<place::Kind>,
    /// How many extents the generated repository has; 0 leaves it out
    #[arg(long, value_name = "NUMBER", default_value_t = 10_000_000)]
    extents: u64,
    /// Where the tables are written too
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Leave data and repositories where they are
    #[arg(long)]
    keep: bool,
}

fn main() -> Result<ExitCode> {
    let runtime = tokio::runtime::Runtime::new().context("start the runtime")?;
    match Cli::parse().command {
        Command::S3(arguments) => runtime.block_on(sandbox::s3::run(arguments))?,
        Command::Fill { path, extents } => runtime.block_on(many::fill(&path, extents))?,
        Command::Steps { image } => print!("{}", limits::steps_table(&image)?),
        Command::Run(arguments) => return run(&arguments),
    }
    Ok(ExitCode::SUCCESS)
}

/// This program again, for work that needs memory: the kernel counts the peak of whoever starts a process to that process, so what starts the
/// programs that are measured must itself stay small.
pub(crate) fn again() -> Result<std::process::Command> {
    Ok(std::process::Command::new(std::env::current_exe().context("find this program")?))
}

fn run(arguments: &RunArgs) -> Result<ExitCode> {
    // Below a tenth, what every database has besides its rows does not fit into the image.
    if !(0.1..=1.0).contains(&arguments.scale) || arguments.rounds == 0 {
        bail!("--scale is from 0.1 to 1, and --rounds is at least 1");
    }
    let orlop = arguments.orlop.canonicalize().with_context(|| format!("find {}", arguments.orlop.display()))?;
    std::fs::create_dir(&arguments.folder)
        .with_context(|| format!("make {}; a folder of this name must not exist", arguments.folder.display()))?;
    let folder = arguments.folder.canonicalize()?;
    let measured = measure_all(arguments, &orlop, &folder);
    if !arguments.keep {
        std::fs::remove_dir_all(&folder).context("take the data away")?;
    }
    Ok(if measured? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Where the tables go, each as soon as it is known: a run that is ended early has not been for nothing.
struct Output(Option<File>);

impl Output {
    fn open(path: Option<&Path>) -> Result<Self> {
        let create = |path: &Path| File::create(path).with_context(|| format!("make {}", path.display()));
        Ok(Self(path.map(create).transpose()?))
    }

    fn add(&mut self, text: &str) -> Result<()> {
        print!("{text}");
        std::io::stdout().flush()?;
        match &mut self.0 {
            Some(file) => file.write_all(text.as_bytes()).context("write the report"),
            None => Ok(()),
        }
    }
}

/// Measures everything; gives whether every bound holds.
fn measure_all(arguments: &RunArgs, orlop: &Path, folder: &Path) -> Result<bool> {
    let mut output = Output::open(arguments.report.as_deref())?;
    output.add(&machine::describe(orlop, arguments)?)?;
    let data = data::Data::make(&folder.join("data"), arguments.scale)?;
    let mut good = true;
    for kind in &arguments.stores {
        let tools = tool::Tools::find(orlop, folder)?;
        let measured = rows::measure(&tools, &data, *kind, folder, arguments.rounds)?;
        let (table, holds) = report::table(&measured, *kind);
        output.add(&table)?;
        good &= holds;
    }
    output.add(&limits::table(orlop, folder, &data, arguments.rounds)?)?;
    let (table, holds) = care::measure(orlop, folder, &data)?;
    output.add(&table)?;
    good &= holds;
    if arguments.extents > 0 {
        let (table, holds) = many::measure(orlop, folder, arguments.extents)?;
        output.add(&table)?;
        good &= holds;
    }
    Ok(good)
}
