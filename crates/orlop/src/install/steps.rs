//! What `orlop install` and `orlop upgrade` do, in this order: ask the server whether it would take everything, apply it, wait until it works.

use kube::core::DynamicObject;

use super::apply::{Attempt, Objects, name};
use super::manifests::{self, Choice, Server, Storage};
use super::ready::{self, Deadline};
use super::{HowArgs, definitions, nodes};
use crate::cluster::Cluster;
use crate::error::{Error, Result};
use crate::output;
use crate::verbs::dry;

/// Makes a cluster so as it was chosen.
pub(super) async fn make_so(cluster: &Cluster, choice: Choice, how: &HowArgs, also_nodes: bool) -> Result<()> {
    let server = server(cluster).await?;
    if choice.storage != Storage::None && !server.snapshots {
        eprintln!(
            "The cluster has no kinds of snapshots: volumes are installed without them. With external-snapshotter, run this again."
        );
    }
    let wanted = manifests::objects(&choice, server)?;
    let definitions = definitions::ours()?;
    definitions::refuse_newer(&definitions::theirs(cluster).await?)?;
    let mut objects = Objects::of(cluster);
    // Definitions are ours alone, and what comes after them needs them.
    let forced = definitions.iter().map(|one| (one, true));
    let all: Vec<_> = forced.chain(wanted.iter().map(|one| (one, how.force_conflicts))).collect();
    let attempts = attempt(&mut objects, &all).await?;
    if !how.dry_run {
        apply(cluster, &mut objects, &all, Deadline::after(how.timeout)).await?;
    }
    let note = |attempt: &Attempt| match (how.dry_run, attempt) {
        (true, Attempt::Unchecked) => " (dry run, not checked: its namespace is not there yet)",
        (dry_run, _) => dry(dry_run),
    };
    let lines: Vec<_> = all
        .iter()
        .zip(&attempts)
        .map(|((object, _), attempt)| format!("{} applied{}\n", name(object), note(attempt)))
        .collect();
    output::print(&lines.concat())?;
    if how.dry_run || how.no_wait {
        return Ok(());
    }
    until_it_works(cluster, choice.storage, Deadline::after(how.timeout), also_nodes).await
}

/// An object, and whether it is applied over what somebody else has set.
type Forced<'a> = (&'a DynamicObject, bool);

/// What the server says to each before anything is changed; if somebody has changed what is installed, nothing will be.
async fn attempt(objects: &mut Objects<'_>, all: &[Forced<'_>]) -> Result<Vec<Attempt>> {
    let mut attempts = Vec::new();
    for (object, force) in all {
        attempts.push(objects.attempt(object, *force).await?);
    }
    let conflicts = attempts.iter().filter_map(|attempt| match attempt {
        Attempt::Conflicts(with) => Some(with.as_str()),
        Attempt::Taken | Attempt::Unchecked => None,
    });
    let conflicts: Vec<_> = conflicts.collect();
    if !conflicts.is_empty() {
        let says =
            format!("apply the manifests: somebody has changed what is installed:\n  {}", conflicts.join("\n  "));
        return Err(Error::new(says).next("--force-conflicts sets these fields to what they are in this version"));
    }
    Ok(attempts)
}

/// Applies all, and what comes after the definitions when those are served.
async fn apply(cluster: &Cluster, objects: &mut Objects<'_>, all: &[Forced<'_>], deadline: Deadline) -> Result<()> {
    let is_definition = |(object, _): &&Forced<'_>| manifests::kind(object) == "CustomResourceDefinition";
    for (object, force) in all.iter().filter(is_definition) {
        objects.apply(object, *force).await?;
    }
    for definition in api::crds::all() {
        ready::kind_is_served(cluster, &definition.metadata.name.unwrap_or_default(), deadline).await?;
    }
    for (object, force) in all.iter().filter(|one| !is_definition(one)) {
        objects.apply(object, *force).await?;
    }
    Ok(())
}

async fn until_it_works(cluster: &Cluster, storage: Storage, deadline: Deadline, also_nodes: bool) -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    let behind = ready::all_is_ready(cluster, storage, deadline).await?;
    match also_nodes && behind > 0 {
        true => tell_of_nodes(&nodes::replace(cluster, deadline).await?),
        false if behind > 0 => tell_of_daemons(behind),
        false => {}
    }
    let alone = if storage == Storage::Replicated { nodes::hold_no_replicas(cluster).await? } else { Vec::new() };
    match alone.is_empty() {
        true => eprintln!("Orlop {version} works. See what the cluster would not survive: orlop check"),
        false => eprintln!(
            "Orlop {version} is installed, but volumes with replicas do not work yet on nodes whose daemons are of volumes with one copy, until these are replaced: {}",
            alone.join(", ")
        ),
    }
    Ok(())
}

fn tell_of_daemons(behind: i32) {
    let daemons = crate::human::count(u64::try_from(behind).unwrap_or_default(), "node runs", "nodes run");
    eprintln!(
        "{daemons} the daemon of the version before. To replace them, one after the other: orlop upgrade --nodes"
    );
}

/// Those that nobody but who drains nodes may replace.
fn tell_of_nodes(left: &[String]) {
    for node in left {
        eprintln!(
            "node {node}: on its kernel block devices end with the daemon, which was not replaced. Drain the node, then:\n  \
             kubectl -n {} delete pod -l app.kubernetes.io/name=orlop-node --field-selector spec.nodeName={node}",
            api::STORAGE_NAMESPACE
        );
    }
}

/// What this server knows beyond what all do.
async fn server(cluster: &Cluster) -> Result<Server> {
    let serves = async |group: &str, resource: &str| match cluster.client().list_api_group_resources(group).await {
        Ok(all) => Ok(all.resources.iter().any(|one| one.name == resource)),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
        Err(error) => Err(cluster.explain(format!("see whether the server knows {resource}"), error)),
    };
    Ok(Server {
        snapshots: serves("snapshot.storage.k8s.io/v1", "volumesnapshotclasses").await?,
        budgets: serves("policy/v1", "poddisruptionbudgets").await?,
    })
}
