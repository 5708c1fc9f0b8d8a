//! `orlop repo`: a repository without a cluster.
//!
//! What it prints for programs is the structs of these modules, whose fields the guide lists, or the recovery point itself.

mod backup;
mod browse;
mod check;
mod manage;
mod open;
mod progress;
mod prune;
mod restore;
mod verify;

pub(crate) use manage::{PointLine, lines_table};
pub(crate) use open::explain;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::error::{Exit, Result};
use crate::output::OutputArgs;

/// Work on a repository without a cluster: make, fill, list, restore and check it
#[derive(Debug, Args)]
pub(crate) struct RepoArgs {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    place: PlaceArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Which repository, and what opens it.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Repository")]
pub(crate) struct PlaceArgs {
    /// Where it is: file:///path or s3://bucket/prefix, the latter with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, if need be,
    /// AWS_ENDPOINT_URL, AWS_REGION, AWS_SESSION_TOKEN and AWS_CA_BUNDLE
    #[arg(long, value_name = "URL", env = "ORLOP_LOCATION", hide_env_values = true, global = true)]
    location: Option<String>,
    /// File with its passphrase
    #[arg(long, value_name = "FILE", env = "ORLOP_PASSWORD_FILE", hide_env_values = true, global = true)]
    password_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a repository
    Init(manage::InitArgs),
    /// Back up folders of this machine, an image or device, or standard input, as one recovery point
    Backup(backup::BackupArgs),
    /// List the recovery points
    List,
    /// Show one recovery point
    Show(manage::ShowArgs),
    /// List files in a recovery point
    Ls(browse::LsArgs),
    /// Write files of a recovery point into a folder, or a volume into an image or a device
    Restore(restore::RestoreArgs),
    /// Write one file of a recovery point, or a volume, to standard output
    Dump(browse::DumpArgs),
    /// Check the repository; ends with 1 when anything is wrong
    Check(check::CheckArgs),
    /// Compare a recovery point with a folder, an image or a device; ends with 1 when anything differs
    Verify(verify::VerifyArgs),
    /// Delete recovery points; prune frees the space that only they used
    Forget(manage::ForgetArgs),
    /// Delete what no recovery point needs; also beside backups that are under way
    Prune(prune::PruneArgs),
}

/// Runs the command.
pub(crate) async fn run(args: RepoArgs) -> Result<Exit> {
    let (place, format) = (args.place, args.output.output);
    match args.verb {
        Verb::Init(args) => manage::init(&place, &args, format).await,
        Verb::Backup(args) => backup::run(&place, &args, format).await,
        Verb::List => manage::list(&place, format).await,
        Verb::Show(args) => manage::show(&place, &args, format).await,
        Verb::Ls(args) => browse::ls(&place, &args, format).await,
        Verb::Restore(args) => restore::run(&place, &args, format).await,
        Verb::Dump(args) => browse::dump(&place, &args, format).await,
        Verb::Check(args) => check::run(&place, &args, format).await,
        Verb::Verify(args) => verify::run(&place, &args, format).await,
        Verb::Forget(args) => manage::forget(&place, &args, format).await,
        Verb::Prune(args) => prune::run(&place, &args, format).await,
    }
}
