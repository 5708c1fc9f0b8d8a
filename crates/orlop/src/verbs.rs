//! What all kinds have in common: list, show, delete.

use std::fmt::Debug;
use std::time::Duration;

use jiff::Timestamp;
use kube::api::{DeleteParams, ListParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cluster::Cluster;
use crate::error::{Error, Exit, Result};
use crate::human::{self, parse_duration};
use crate::output::{self, Format};
use crate::run::watch_until;

/// A kind that the command line speaks of.
pub(crate) trait Kind:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + DeserializeOwned
    + Serialize
    + Send
    + 'static
{
    /// What people call one of them: `backup`.
    const NOUN: &'static str;
    /// The column headings of a list, between NAME and AGE.
    const COLUMNS: &'static [&'static str];
    /// The cells below them.
    fn cells(&self) -> Vec<String>;

    /// What it waits for while it is being deleted, if that is said.
    fn held_by(&self) -> Option<String> {
        None
    }
}

/// Which resources to list.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct ListArgs {
    /// In all namespaces
    #[arg(short = 'A', long)]
    pub(crate) all_namespaces: bool,
}

/// What to delete, and whether to see it through.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct DeleteArgs {
    /// Its name
    pub(crate) name: String,
    /// Only say what would happen: the server checks the request and changes nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do not wait until it is gone
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// Wait at most this long, such as 90s or 1h30m; the deletion goes on all the same
    #[arg(long, value_name = "TIME", value_parser = parse_duration, conflicts_with_all = ["no_wait", "dry_run"])]
    pub(crate) timeout: Option<Duration>,
}

impl DeleteArgs {
    /// What can be said of it once the command is through.
    pub(crate) fn done(&self) -> &'static str {
        if self.no_wait && !self.dry_run { "is being deleted" } else { "deleted" }
    }
}

/// Resources in a page of a list; keeps one answer small in clusters with very many runs.
const PAGE: u32 = 500;

/// All resources of a kind, in the order of namespaces and names.
pub(crate) async fn all<K: Kind>(cluster: &Cluster, api: &Api<K>) -> Result<Vec<K>> {
    pages(api).await.map_err(|e| cluster.explain(format!("list {}s", K::NOUN), e))
}

/// The same of any kind, page by page.
pub(crate) async fn pages<K: Clone + Debug + DeserializeOwned>(api: &Api<K>) -> kube::Result<Vec<K>> {
    let mut found = Vec::new();
    let mut params = ListParams::default().limit(PAGE);
    loop {
        let page = api.list(&params).await?;
        found.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(found),
        }
    }
}

/// Prints the resources of a kind.
pub(crate) async fn list<K: Kind>(cluster: &Cluster, args: ListArgs, format: Format) -> Result<()> {
    let api = if args.all_namespaces { cluster.api_all() } else { cluster.api::<K>() };
    let found = all(cluster, &api).await?;
    if found.is_empty() && format == Format::Table {
        let place =
            if args.all_namespaces { "in any namespace".to_owned() } else { format!("in {}", cluster.namespace()) };
        eprintln!("There are no {}s {place}.", K::NOUN);
        return Ok(());
    }
    let table = || list_table(&found, args.all_namespaces, Timestamp::now());
    output::print(&output::resources(format, &found, table)?)
}

/// The table of a list, as of an instant.
pub(crate) fn list_table<K: Kind>(found: &[K], with_namespace: bool, now: Timestamp) -> String {
    let mut header = vec!["NAME".to_owned()];
    header.extend(K::COLUMNS.iter().map(ToString::to_string));
    header.push("AGE".to_owned());
    if with_namespace {
        header.insert(0, "NAMESPACE".to_owned());
    }
    let row = |resource: &K| {
        let mut row = vec![resource.name_any()];
        row.extend(resource.cells());
        let created = resource.creation_timestamp();
        row.push(created.map_or_else(human::dash, |created| human::age(created.0, now)));
        if with_namespace {
            row.insert(0, resource.namespace().unwrap_or_default());
        }
        row
    };
    output::table(header, found.iter().map(row))
}

/// Reads one resource.
pub(crate) async fn get<K: Kind>(cluster: &Cluster, name: &str) -> Result<K> {
    cluster.api::<K>().get(name).await.map_err(|e| missing(cluster, e, format!("read {} {name}", K::NOUN), K::NOUN))
}

/// Deletes one resource, and waits until its finalizers are through.
///
/// Returns what was deleted, as it was before.
pub(crate) async fn delete<K: Kind>(cluster: &Cluster, args: &DeleteArgs) -> Result<K> {
    let api = cluster.api::<K>();
    let before = get::<K>(cluster, &args.name).await?;
    let params = DeleteParams { dry_run: args.dry_run, ..Default::default() };
    let what = format!("delete {} {}", K::NOUN, args.name);
    api.delete(&args.name, &params).await.map_err(|e| missing(cluster, e, what.clone(), K::NOUN))?;
    if !args.dry_run && !args.no_wait {
        wait_gone(cluster, api, &before, &what, args.timeout).await?;
    }
    Ok(before)
}

/// Waits until it is gone, and tells what keeps it, each time that this turns.
pub(crate) async fn wait_gone<K: Kind>(
    cluster: &Cluster,
    api: Api<K>,
    before: &K,
    what: &str,
    timeout: Option<Duration>,
) -> Result<()> {
    let (uid, name) = (before.uid(), before.name_any());
    let mut told = None;
    let judge = |state: Option<K>| {
        // One of the same name that was made since is another one.
        let Some(now) = state.filter(|now| now.uid() == uid) else { return Ok(Some(())) };
        let held_by = now.held_by();
        if let Some(held_by) = held_by.as_ref().filter(|_| held_by != told) {
            eprintln!("{} {name}: {held_by}", K::NOUN);
        }
        told = held_by;
        Ok(None)
    };
    watch_until(cluster, api, &name, what, timeout, judge).await.map_err(|e| match e.exit_code() {
        Exit::TimedOut | Exit::Interrupted => {
            let namespace = before.namespace().unwrap_or_default();
            e.next(format!("see what keeps it: orlop {} show {name} -n {namespace} -o yaml", K::NOUN))
        }
        _ => e,
    })
}

/// Adds the way to the right name to an error about a resource that is not there.
fn missing(cluster: &Cluster, error: kube::Error, what: String, noun: &str) -> Error {
    let absent = matches!(&error, kube::Error::Api(status) if status.code == 404 && status.details.as_ref().is_some_and(|d| !d.name.is_empty()));
    let explained = cluster.explain(what, error);
    if absent {
        explained.next(format!("orlop {noun} list -n {} shows their names", cluster.namespace()))
    } else {
        explained
    }
}

/// What the last word of a message about a change is when the server only tried it.
pub(crate) fn dry(dry_run: bool) -> &'static str {
    if dry_run { " (dry run on the server: nothing was changed)" } else { "" }
}
