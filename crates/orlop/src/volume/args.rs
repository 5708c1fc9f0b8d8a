//! What `orlop volume` understands.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use node::proto;

use crate::human;
use crate::node::RUNTIME_DIR;
use crate::output::OutputArgs;

/// Make, attach, snapshot and compare volumes of this node
#[derive(Debug, Args)]
pub(crate) struct VolumeArgs {
    #[command(subcommand)]
    pub(super) verb: Verb,
    #[command(flatten)]
    pub(super) at: AtArgs,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(super) struct AtArgs {
    /// The folder of the node that is asked
    #[arg(
        long,
        env = "ORLOP_RUNTIME_DIR",
        hide_env_values = true,
        value_name = "DIR",
        default_value = RUNTIME_DIR,
        global = true
    )]
    pub(super) runtime_dir: PathBuf,
    /// A pool that no node has open, which is used instead
    #[arg(long, value_name = "POOL", global = true)]
    pub(super) store: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// List the pools of the node
    Pools,
    /// Make a pool larger while it is used; writes that wait for room go on
    GrowPool(GrowPoolArgs),
    /// Make an empty volume
    Create(CreateArgs),
    /// List volumes, or snapshots
    List(ListArgs),
    /// Tell what is known of a volume or a snapshot
    Show(StateArgs),
    /// Serve a volume, or a snapshot read-only, and print where
    Attach(AttachArgs),
    /// Stop serving a volume or a snapshot, unless somebody has it open
    Detach(StateArgs),
    /// Take snapshots, of several volumes at one instant
    Snapshot(SnapshotArgs),
    /// Make a volume that begins as a snapshot
    Clone(CloneArgs),
    /// Print which bytes were written or discarded since a snapshot, or without one which are data, as lines of offset and length
    Diff(DiffArgs),
    /// Make a volume what it was at a snapshot; all its snapshots stay
    Rollback(FromArgs),
    /// Make a volume larger, attached or not
    Grow(GrowArgs),
    /// Change how much may be asked of a volume in a second
    Limit(LimitArgs),
    /// Delete a volume, of which the snapshots stay, or a snapshot
    Delete(DeleteArgs),
    /// Give back the room of blocks that are all zeros, of a volume that is not attached; a mounted one is trimmed by fstrim
    Trim(TrimArgs),
    /// Tell what was asked of a volume since it was attached
    Stats(StateArgs),
    /// Wrap the key of an encrypted volume, its snapshots and its clones with another secret
    ChangeSecret(ChangeSecretArgs),
    /// Destroy the key of an encrypted volume, its snapshots and its clones, which nobody can read from then on
    DestroyKey(StateArgs),
}

#[derive(Debug, Args)]
pub(super) struct GrowPoolArgs {
    /// The pool, where there are several
    #[arg(value_name = "POOL", default_value = "")]
    pub(super) pool: String,
    /// The new size of its file; without it, what its device or its file has grown by is taken in
    #[arg(long, value_name = "BYTES", value_parser = human::parse_bytes)]
    pub(super) size: Option<u64>,
}

#[derive(Debug, Args)]
pub(super) struct NameArgs {
    /// The volume
    pub(super) name: String,
}

#[derive(Debug, Args)]
pub(super) struct StateArgs {
    /// VOLUME, or VOLUME@SNAPSHOT
    pub(super) name: String,
}

#[derive(Debug, Args)]
pub(super) struct FromArgs {
    /// VOLUME@SNAPSHOT
    pub(super) snapshot: String,
}

#[derive(Debug, Default, Args)]
pub(super) struct LimitsArgs {
    /// Requests in a second; 0 is no limit
    #[arg(long, value_name = "NUMBER")]
    pub(super) iops: Option<u64>,
    /// Bytes in a second, such as 100MiB; 0 is no limit
    #[arg(long, value_name = "BYTES", value_parser = human::parse_bytes)]
    pub(super) bandwidth: Option<u64>,
}

impl LimitsArgs {
    pub(super) fn over(&self, old: proto::Limits) -> proto::Limits {
        proto::Limits {
            iops: self.iops.unwrap_or(old.iops),
            bytes_per_second: self.bandwidth.unwrap_or(old.bytes_per_second),
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct SecretArgs {
    /// File with the secret that the key of an encrypted volume is wrapped with, taken as it is
    #[arg(long, value_name = "FILE")]
    pub(super) secret_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    #[command(flatten)]
    pub(super) of: NameArgs,
    /// Its size, such as 10GiB
    #[arg(long, value_name = "BYTES", value_parser = human::parse_bytes)]
    pub(super) size: u64,
    /// The pool, where there are several
    #[arg(long, value_name = "NAME", default_value = "")]
    pub(super) pool: String,
    #[command(flatten)]
    pub(super) limits: LimitsArgs,
    #[command(flatten)]
    pub(super) secret: SecretArgs,
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// List snapshots
    #[arg(long)]
    pub(super) snapshots: bool,
    /// Of this volume alone
    #[arg(requires = "snapshots")]
    pub(super) volume: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct AttachArgs {
    #[command(flatten)]
    pub(super) of: StateArgs,
    /// Serve it over NBD, on a unix socket unless --listen says otherwise, not as a block device
    #[arg(long)]
    pub(super) nbd: bool,
    /// The address and the port for NBD over TCP; port 0 is any that is free. With the node's --nbd-tls, with TLS, and to clients with a certificate alone;
    /// without, addresses of this machine alone
    #[arg(long, value_name = "ADDRESS:PORT", requires = "nbd")]
    pub(super) listen: Option<SocketAddr>,
    #[command(flatten)]
    pub(super) secret: SecretArgs,
}

#[derive(Debug, Args)]
pub(super) struct SnapshotArgs {
    /// VOLUME@SNAPSHOT for each
    #[arg(required = true)]
    pub(super) snapshot: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct CloneArgs {
    #[command(flatten)]
    pub(super) from: FromArgs,
    /// The name of the new volume
    pub(super) name: String,
    #[command(flatten)]
    pub(super) limits: LimitsArgs,
}

#[derive(Debug, Args)]
pub(super) struct DiffArgs {
    #[command(flatten)]
    pub(super) of: StateArgs,
    /// The name of a snapshot that it comes from
    #[arg(long, value_name = "SNAPSHOT", default_value = "")]
    pub(super) since: String,
}

#[derive(Debug, Args)]
pub(super) struct GrowArgs {
    #[command(flatten)]
    pub(super) of: NameArgs,
    /// Its new size
    #[arg(long, value_name = "BYTES", value_parser = human::parse_bytes)]
    pub(super) size: u64,
}

#[derive(Debug, Args)]
pub(super) struct LimitArgs {
    #[command(flatten)]
    pub(super) of: NameArgs,
    #[command(flatten)]
    pub(super) limits: LimitsArgs,
}

#[derive(Debug, Args)]
pub(super) struct DeleteArgs {
    #[command(flatten)]
    pub(super) of: StateArgs,
    /// Delete all snapshots named VOLUME@..., too, which are those that `orlop volume list --snapshots VOLUME` shows: also when the volume is gone already, and those of an earlier
    /// volume of this name. Clones of them stay. While one of them is attached, nothing is deleted
    #[arg(long)]
    pub(super) with_snapshots: bool,
}

#[derive(Debug, Args)]
pub(super) struct TrimArgs {
    #[command(flatten)]
    pub(super) of: NameArgs,
    #[command(flatten)]
    pub(super) secret: SecretArgs,
}

#[derive(Debug, Args)]
pub(super) struct ChangeSecretArgs {
    #[command(flatten)]
    pub(super) of: StateArgs,
    /// File with the secret that the key is wrapped with now
    #[arg(long, value_name = "FILE")]
    pub(super) secret_file: PathBuf,
    /// File with the secret that it is to be wrapped with
    #[arg(long, value_name = "FILE")]
    pub(super) new_secret_file: PathBuf,
}
