//! `orlop repo`: a repository without a cluster.
//!
//! What it prints for programs is the structs of these modules, whose fields the guide lists, or the recovery point itself.

mod backup;
mod browse;
mod check;
mod copy;
mod diff;
mod export;
mod forget;
mod key;
mod located;
mod manage;
mod open;
mod path;
mod pin;
mod progress;
mod prune;
mod repair;
mod restore;
mod secret;
mod serve;
mod stats;
mod store_line;
mod verify;

pub(crate) use manage::{PointLine, lines_table};
pub(crate) use open::explain;

use std::num::NonZeroU64;

use clap::{Args, Subcommand};
use operator::repositories::Access;

use crate::error::{Exit, Result};
use crate::human;
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
    /// Where it is: file:///path, s3://bucket/prefix, az://container/prefix or gs://bucket/prefix, with the environment variables that
    /// other tools use for S3 (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, AWS_PROFILE and so on), Azure (AZURE_STORAGE_ACCOUNT,
    /// AZURE_STORAGE_KEY and so on) and Google (GOOGLE_APPLICATION_CREDENTIALS)
    #[arg(long, value_name = "URL", env = "ORLOP_LOCATION", hide_env_values = true, global = true)]
    location: Option<String>,
    /// The BackupLocation of a cluster, which says where it is and what opens it, read with its Secrets by the current kubeconfig;
    /// instead of --location and a passphrase
    #[arg(long, value_name = "NAMESPACE/NAME", global = true)]
    backup_location: Option<String>,
    /// What the BackupLocation says.
    #[arg(skip)]
    located: Option<Access>,
    #[command(flatten)]
    secret: secret::SecretArgs,
    /// Read it as it was before anything was deleted or overwritten, as far as the bucket has versions of it; nothing can be written
    /// (S3 only)
    #[arg(long, global = true)]
    past_deletions: bool,
    /// Send no more bytes a second on average, such as 10MiB (a plain number is bytes); one pack of up to 32 MiB goes at once
    #[arg(long, value_name = "SIZE", value_parser = human::parse_rate, global = true)]
    limit_upload: Option<NonZeroU64>,
    /// Fetch no more bytes a second on average
    #[arg(long, value_name = "SIZE", value_parser = human::parse_rate, global = true)]
    limit_download: Option<NonZeroU64>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a repository
    Init(manage::InitArgs),
    /// Back up folders of this machine, an image or device, or standard input, as one recovery point
    Backup(backup::BackupArgs),
    /// List the recovery points
    List(manage::ListArgs),
    /// Show one recovery point
    Show(manage::ShowArgs),
    /// List files in a recovery point
    Ls(browse::LsArgs),
    /// Write files of a recovery point into a folder, or a volume into an image or a device
    Restore(restore::RestoreArgs),
    /// Write one file of a recovery point, a volume, or an archive of a folder to standard output
    Dump(browse::DumpArgs),
    /// Serve volumes that were stored as images, or streams, as read-only block devices over NBD, until it is interrupted
    Serve(serve::ServeArgs),
    /// Check the repository; ends with 1 when anything is wrong
    Check(check::CheckArgs),
    /// Take what is damaged or gone from a copy or from the source, and clear away what is damaged; ends with 1 when anything stays
    /// wrong
    Repair(repair::RepairArgs),
    /// Copy recovery points to another repository, without their sources
    Copy(copy::CopyArgs),
    /// Show what differs between two recovery points; ends with 1 when anything does
    Diff(diff::DiffArgs),
    /// Compare a recovery point with a folder, an image or a device; ends with 1 when anything differs
    Verify(verify::VerifyArgs),
    /// Write recovery points as snapshots into a restic repository, which restic itself checks and restores
    Export(export::ExportArgs),
    /// Delete recovery points, by name or by rules about which to keep; prune frees the space that only they used
    Forget(forget::ForgetArgs),
    /// Delete what no recovery point needs; also beside backups that are under way
    Prune(prune::PruneArgs),
    /// Keep a recovery point from being forgotten
    Pin(pin::PinArgs),
    /// Let a recovery point be forgotten again
    Unpin(pin::UnpinArgs),
    /// Tell what recovery points and the repository take in space
    Stats(stats::StatsArgs),
    /// Say who can open the repository: list, add, remove and rotate its keys, or erase them all
    Key(key::KeyArgs),
}

/// Runs the command.
pub(crate) async fn run(args: RepoArgs) -> Result<Exit> {
    let (place, format) = (args.place.located().await?, args.output.format());
    match args.verb {
        Verb::Init(args) => manage::init(&place, &args, format).await,
        Verb::Backup(args) => backup::run(&place, &args, format).await,
        Verb::List(args) => manage::list(&place, &args, format).await,
        Verb::Show(args) => manage::show(&place, &args, format).await,
        Verb::Ls(args) => browse::ls(&place, &args, format).await,
        Verb::Restore(args) => restore::run(&place, &args, format).await,
        Verb::Dump(args) => browse::dump(&place, &args, format).await,
        Verb::Serve(args) => serve::run(&place, &args, format).await,
        Verb::Check(args) => check::run(&place, &args, format).await,
        Verb::Repair(args) => repair::run(&place, &args, format).await,
        Verb::Copy(args) => copy::run(&place, &args, format).await,
        Verb::Diff(args) => diff::run(&place, &args, format).await,
        Verb::Verify(args) => verify::run(&place, &args, format).await,
        Verb::Export(args) => export::run(&place, &args, format).await,
        Verb::Forget(args) => forget::run(&place, &args, format).await,
        Verb::Prune(args) => prune::run(&place, &args, format).await,
        Verb::Pin(args) => pin::pin(&place, &args, format).await,
        Verb::Unpin(args) => pin::unpin(&place, &args, format).await,
        Verb::Stats(args) => stats::run(&place, &args, format).await,
        Verb::Key(args) => key::run(&place, &args, format).await,
    }
}
