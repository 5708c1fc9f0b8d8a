//! `orlop install`, `orlop upgrade` and `orlop uninstall`: the manifests that are built into the program, by server-side apply.
//!
//! A cluster is told nothing that it does not have already: which storage it has, which image, which pools is read from what was installed. What somebody has changed in it by
//! hand stands in the way, and is named, before anything is changed.

mod apply;
mod definitions;
mod goodbye;
mod manifests;
mod nodes;
mod present;
mod ready;
mod steps;
mod uninstall;

use std::time::Duration;

use clap::Args;

use crate::cluster::{Cluster, ConnectionArgs};
use crate::error::{Error, Result};
use crate::human::parse_duration;
use crate::node;
use manifests::{Choice, IMAGE, Storage};
use present::Present;
use steps::make_so;

pub(crate) use uninstall::{UninstallArgs, run as uninstall};

/// Install Orlop into a cluster
///
/// The custom resources, the operator, and volumes if they are wanted, from manifests that are built into this program; those who want to choose more take the
/// chart. Done again, it makes the cluster so again: what is not given stays as it was chosen.
#[derive(Debug, Args)]
pub(crate) struct InstallArgs {
    /// Volumes for the cluster, in pools of its nodes: none; csi, of one copy; or replicated, these and those with replicas on several nodes [default: those that are installed, or else none]
    #[arg(long, value_enum, value_name = "VOLUMES")]
    storage: Option<Storage>,
    /// The image of this program [default: the one that is installed, or else orlop/orlop with the version of this program]
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// A pool of each node: a file below /var/lib/orlop with its size, or a raw device [default: those that are installed, or else /var/lib/orlop/pool,size=100GiB]
    #[arg(long, value_name = "PATH[,size=BYTES]", value_parser = parse_pool)]
    pool: Vec<String>,
    /// Monitors and alerts for the operator of Prometheus, too
    #[arg(long)]
    monitoring: bool,
    #[command(flatten)]
    how: HowArgs,
    #[command(flatten)]
    cluster: ConnectionArgs,
}

/// Bring Orlop in a cluster to the version of this program
///
/// The custom resources come first. Volumes, pools and monitors stay as they were chosen. Daemons of nodes are replaced when their pods are deleted, and not
/// before: what is to be done for that is said at the end, or done with --nodes.
#[derive(Debug, Args)]
pub(crate) struct UpgradeArgs {
    /// The image of this program; else the one that the operator has, with the version of this program for its tag
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// Replace the daemons of nodes, too: one after the other, where pods with volumes go on meanwhile (Linux 6.9 and later); the other nodes are named
    #[arg(long, conflicts_with_all = ["dry_run", "no_wait"])]
    nodes: bool,
    #[command(flatten)]
    how: HowArgs,
    #[command(flatten)]
    cluster: ConnectionArgs,
}

#[derive(Debug, Args)]
struct HowArgs {
    /// Only say what would be done: the server checks it and changes nothing
    #[arg(long)]
    dry_run: bool,
    /// Set fields to what they are to be that somebody else has set to something else
    #[arg(long)]
    force_conflicts: bool,
    /// Do not wait until everything works
    #[arg(long)]
    no_wait: bool,
    /// Wait at most this long until everything works
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "10m", conflicts_with = "no_wait")]
    timeout: Duration,
}

/// A pool must be where the daemon's pod sees the node's disks.
fn parse_pool(text: &str) -> Result<String, String> {
    let pool = node::parse_pool(text)?;
    let is_file = pool.path.starts_with("/var/lib/orlop/");
    match (is_file, pool.path.starts_with("/dev/"), pool.bytes) {
        (true, _, Some(_)) | (_, true, None) => Ok(text.to_owned()),
        (true, _, None) => Err("a pool in a file has a size, as in /var/lib/orlop/pool,size=100GiB".to_owned()),
        (_, true, Some(_)) => Err("a device has the size that it has".to_owned()),
        _ => Err("a pool is a file below /var/lib/orlop, or a device below /dev".to_owned()),
    }
}

/// Runs `orlop install`.
pub(crate) async fn install(args: InstallArgs) -> Result<()> {
    let cluster = Cluster::connect_to(&args.cluster, None).await?;
    let choice = choice(present::look(&cluster).await?, &args)?;
    make_so(&cluster, choice, &args.how, false).await
}

/// What is to be there.
fn choice(present: Option<Present>, args: &InstallArgs) -> Result<Choice> {
    let choice = match present {
        Some(present) => again(present, args)?,
        None => Choice {
            storage: args.storage.unwrap_or(Storage::None),
            image: args.image.clone().unwrap_or_else(|| IMAGE.to_owned()),
            pools: args.pool.clone(),
            monitoring: args.monitoring,
        },
    };
    if choice.storage == Storage::None && !args.pool.is_empty() {
        return Err(Error::usage("--pool is for nodes that have volumes: give --storage csi or --storage replicated"));
    }
    Ok(choice)
}

/// What is there, and what is to be beside it: nothing that is there is taken away or exchanged because it was not given.
fn again(present: Present, args: &InstallArgs) -> Result<Choice> {
    refuse_helm("install", &present)?;
    let storage = args.storage.unwrap_or(present.storage);
    if present.storage > storage {
        let name = present.storage.name();
        let says = format!("install Orlop: the cluster has it with --storage {name}, and volumes may be in use");
        return Err(Error::new(says).next("leave --storage out to keep what is there"));
    }
    Ok(Choice {
        storage,
        image: present.same_image(args.image.as_deref())?,
        pools: present.same_pools(&args.pool)?,
        monitoring: present.monitoring || args.monitoring,
    })
}

/// Runs `orlop upgrade`.
pub(crate) async fn upgrade(args: UpgradeArgs) -> Result<()> {
    let cluster = Cluster::connect_to(&args.cluster, None).await?;
    let Some(present) = present::look(&cluster).await? else {
        return Err(Error::new("upgrade Orlop: it is not installed in this cluster").next("orlop install"));
    };
    refuse_helm("upgrade", &present)?;
    let image = match args.image {
        Some(image) => image,
        None => present.next_image()?,
    };
    let choice = Choice { storage: present.storage, image, pools: present.pools, monitoring: present.monitoring };
    make_so(&cluster, choice, &args.how, args.nodes).await
}

/// Two that apply the same objects from different sources would undo each other's choices.
fn refuse_helm(verb: &str, present: &Present) -> Result<()> {
    match present.by_helm {
        true => Err(Error::new(format!("{verb} Orlop: it was installed by Helm"))
            .next(format!("helm {verb} orlop -n orlop-system"))),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches;

    use super::*;

    #[test]
    fn pools_are_where_the_daemon_sees_them() {
        for (text, good) in [
            ("/var/lib/orlop/pool,size=1GiB", true),
            ("/dev/disk/by-id/nvme-1", true),
            ("/var/lib/orlop/pool", false),
            ("/dev/sdb,size=1GiB", false),
            ("/home/pool,size=1GiB", false),
            ("/var/lib/orlop/pool,size=much", false),
        ] {
            assert_eq!(parse_pool(text).is_ok(), good, "{text}: {:?}", parse_pool(text));
        }
    }

    #[test]
    fn what_is_not_given_again_stays_as_it_was_chosen() {
        let present = |monitoring: bool| {
            let pools = vec!["/dev/disk/by-id/a".to_owned()];
            let image = "registry/orlop:dev".to_owned();
            Present { storage: Storage::Csi, image, pools, monitoring, by_helm: false, has_operator: true }
        };
        let args = |words: &[&str]| {
            let command = InstallArgs::augment_args(clap::Command::new("install").no_binary_name(true));
            InstallArgs::from_arg_matches(&command.get_matches_from(words)).expect("arguments")
        };
        let again = |present, words: &[&str]| choice(Some(present), &args(words));
        let kept = again(present(true), &["--storage", "replicated"]).expect("nothing is taken away");
        assert_eq!((kept.storage, kept.image.as_str()), (Storage::Replicated, "registry/orlop:dev"));
        assert_eq!((kept.pools, kept.monitoring), (vec!["/dev/disk/by-id/a".to_owned()], true));
        let more = again(present(false), &["--storage", "csi", "--monitoring"]).expect("it is more");
        assert!(more.monitoring);
        let same = again(present(true), &[]).expect("nothing is asked for");
        assert_eq!((same.storage, same.pools), (Storage::Csi, vec!["/dev/disk/by-id/a".to_owned()]));
        assert!(again(present(true), &["--storage", "none"]).is_err(), "volumes are not taken away");
        assert_eq!(choice(None, &args(&[])).expect("a new one").storage, Storage::None);
        assert!(choice(None, &args(&["--pool", "/dev/disk/by-id/a"])).is_err(), "nobody would have the pool");
    }
}
