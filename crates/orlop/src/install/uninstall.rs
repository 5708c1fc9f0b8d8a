//! `orlop uninstall`: takes away what was installed, and nothing that cannot be made again.
//!
//! It refuses while there are volumes, or snapshots of them: without the driver nobody could unmount, delete or read them. Storage classes go first, so that no volume is
//! made meanwhile, and then it looks once more. Custom resources go only when that is asked for, and while the operator is still there, which has to let go of them.

use std::time::Duration;

use clap::Args;
use csi::DRIVER;
use k8s_openapi::api::core::v1::PersistentVolume;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, ResourceExt};

use super::apply::{Objects, name};
use super::manifests::{self, Choice, IMAGE, Server, Storage};
use super::ready::Deadline;
use super::{definitions, goodbye, present, refuse_helm};
use crate::cluster::{Cluster, ConnectionArgs};
use crate::error::{Error, Result};
use crate::human::parse_duration;
use crate::output;
use crate::verbs::{self, dry};

/// How many of the names of what is in use are said.
const FEW: usize = 10;

/// Take Orlop out of a cluster
///
/// It refuses while there are volumes of it, or snapshots of them. What stays: the custom resources with all backups, restores, schedules and locations, unless
/// --delete-crds is given; the namespaces, with the Secrets in them; the repositories; and the pools on the nodes' disks.
#[derive(Debug, Args)]
pub(crate) struct UninstallArgs {
    /// Delete the custom resources too, and with them all backups, restores, schedules and locations: recovery points of backups with reclaimPolicy Delete go,
    /// all others stay in their repositories
    #[arg(long)]
    delete_crds: bool,
    /// Only say what would go, and what stands in the way
    #[arg(long)]
    dry_run: bool,
    /// Wait at most this long until the operator has let go of what is deleted
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "5m")]
    timeout: Duration,
    #[command(flatten)]
    cluster: ConnectionArgs,
}

/// Runs the command.
pub(crate) async fn run(args: UninstallArgs) -> Result<()> {
    let cluster = Cluster::connect_to(&args.cluster, None).await?;
    let present = present::look(&cluster).await?;
    refuse_in_use(&cluster).await?;
    // Helm itself asks, by a dry run, before it takes anything away.
    if let Some(present) = present.as_ref().filter(|_| !args.dry_run) {
        refuse_helm("uninstall", present)?;
    }
    let mut objects = Objects::of(&cluster);
    let mut there = Vec::new();
    for object in everything()?.iter().rev() {
        there.extend(objects.find(object).await?.map(|_| object.clone()));
    }
    let crds = if args.delete_crds { definitions::theirs(&cluster).await? } else { Vec::new() };
    if present.as_ref().is_none_or(|present| !present.has_operator) {
        goodbye::refuse_held(&cluster, &crds).await?;
    }
    let (classes, rest): (Vec<_>, Vec<_>) = there.into_iter().partition(|one| manifests::kind(one) == "StorageClass");
    if args.dry_run {
        return told(&crds, &[classes, rest].concat(), true);
    }
    for class in &classes {
        objects.delete(class).await?;
    }
    refuse_in_use(&cluster)
        .await
        .map_err(|e| e.next("what was made meanwhile is in use; orlop upgrade brings the storage classes back"))?;
    goodbye::delete(&cluster, &crds, Deadline::after(args.timeout)).await?;
    for object in &rest {
        objects.delete(object).await?;
    }
    told(&crds, &[classes, rest].concat(), false)
}

/// All that may have been installed, but for namespaces, which hold Secrets that cannot be made again.
fn everything() -> Result<Vec<DynamicObject>> {
    let choice = Choice { storage: Storage::Replicated, image: IMAGE.to_owned(), pools: Vec::new(), monitoring: true };
    let mut all = manifests::objects(&choice, Server { snapshots: true, budgets: true })?;
    all.retain(|one| manifests::kind(one) != "Namespace");
    Ok(all)
}

fn told(crds: &[CustomResourceDefinition], gone: &[DynamicObject], dry_run: bool) -> Result<()> {
    let crds = crds.iter().map(output::resource_name);
    let lines: Vec<_> =
        crds.chain(gone.iter().map(name)).map(|one| format!("{one} deleted{}\n", dry(dry_run))).collect();
    if lines.is_empty() {
        eprintln!("Nothing of Orlop is installed in this cluster.");
    }
    output::print(&lines.concat())?;
    eprintln!(
        "The namespaces {} and {} stay, with the Secrets in them, and so do repositories, and pools on nodes (/var/lib/orlop).",
        api::ADMIN_NAMESPACE,
        api::STORAGE_NAMESPACE
    );
    Ok(())
}

/// Refuses while somebody would lose what the driver keeps. What cannot be listed may be in use.
async fn refuse_in_use(cluster: &Cluster) -> Result<()> {
    let volumes: Vec<PersistentVolume> =
        verbs::pages(&cluster.api_all()).await.map_err(|e| cluster.explain("see whether volumes are in use", e))?;
    let is_ours = |one: &&PersistentVolume| {
        one.spec.as_ref().and_then(|spec| spec.csi.as_ref()).is_some_and(|csi| csi.driver == DRIVER)
    };
    let mut used: Vec<String> = volumes.iter().filter(is_ours).map(volume_and_claim).collect();
    for (group, kind) in [("orlop.io", "Volume"), ("snapshot.storage.k8s.io", "VolumeSnapshotContent")] {
        let version = if group == "orlop.io" { "v1alpha1" } else { "v1" };
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        let found = verbs::pages(&Api::<DynamicObject>::all_with(cluster.client(), &resource)).await;
        let found = match found {
            Err(kube::Error::Api(status)) if status.code == 404 => Vec::new(),
            found => found.map_err(|e| cluster.explain("see whether volumes are in use", e))?,
        };
        let is_ours = |one: &&DynamicObject| kind == "Volume" || one.data["spec"]["driver"] == DRIVER;
        used.extend(found.iter().filter(is_ours).map(|one| format!("{} {}", kind.to_lowercase(), one.name_any())));
    }
    if used.is_empty() {
        return Ok(());
    }
    let more = used.len().checked_sub(FEW).filter(|more| *more > 0);
    let more = more.map(|more| format!("\n  and {more} more")).unwrap_or_default();
    used.truncate(FEW);
    let says = format!(
        "uninstall Orlop: volumes of it are in use, and would be lost to their pods:\n  {}{more}",
        used.join("\n  ")
    );
    Err(Error::new(says)
        .next("delete their claims and snapshots, and wait until kubectl get pv,volumes.orlop.io shows none of them"))
}

fn volume_and_claim(volume: &PersistentVolume) -> String {
    let claim = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    let claim =
        claim.and_then(|claim| Some(format!(", claimed by {}/{}", claim.namespace.as_ref()?, claim.name.as_ref()?)));
    format!("persistentvolume {}{}", volume.name_any(), claim.unwrap_or_default())
}
