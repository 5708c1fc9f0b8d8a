//! `orlop restore`: runs that bring recovery points back.

use std::collections::BTreeMap;

use api::{ApplicationBackup, ApplicationRestore, ApplicationRestoreSpec, ObjectFilter, ReplacePolicy};
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Subcommand, ValueEnum};
use kube::ResourceExt;
use kube::api::PostParams;

use crate::cluster::{Cluster, ClusterArgs};
use crate::error::{Error, Exit, Result};
use crate::human;
use crate::output::{self, Format, OutputArgs};
use crate::run::{Run, WaitArgs, see_through};
use crate::select::{map, parse_filter, valid};
use crate::verbs::{self, DeleteArgs, Kind, ListArgs, dry};

/// Restore applications, here or in another cluster
#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    create: CreateArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Restore a recovery point, once; the same as without this word
    Create(Box<CreateArgs>),
    /// Say what a restore would do, object by object and volume by volume, and change nothing
    Plan(Box<CreateArgs>),
    /// List the restores of a namespace
    List(ListArgs),
    /// Show one restore: stages, volumes, what failed
    Show {
        /// Its name
        name: String,
    },
    /// Delete a restore; what it has restored stays
    Delete(DeleteArgs),
}

/// What to restore, and where to.
#[derive(Debug, Args)]
struct CreateArgs {
    /// The backup whose recovery point is restored
    backup: Option<String>,
    /// The recovery point to restore, also one that another cluster made; `orlop backup list --backup-location NAME` lists them
    #[arg(long, value_name = "ID", conflicts_with = "backup")]
    recovery_point: Option<String>,
    /// The location that the recovery point is in; else the backup's
    #[arg(long, value_name = "LOCATION")]
    backup_location: Option<String>,
    /// The name of the restore; else one is made up from the backup's
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Restores a namespace under another name; the others keep theirs
    #[arg(long, value_name = "OLD=NEW", value_delimiter = ',', value_parser = human::parse_pair)]
    to: Vec<(String, String)>,
    /// Takes another storage class instead of one that this cluster may not have
    #[arg(long, value_name = "OLD=NEW", value_delimiter = ',', value_parser = human::parse_pair)]
    storage_class: Vec<(String, String)>,
    /// What happens to objects that exist already
    #[arg(long, value_enum, value_name = "POLICY", default_value = "retain")]
    replace_policy: Replace,
    /// Only these objects
    #[arg(long, value_name = "KIND[.GROUP][/NAME]", value_delimiter = ',', value_parser = parse_filter)]
    include: Vec<ObjectFilter>,
    /// The transformations that change objects on their way back
    #[arg(long, value_name = "TRANSFORMATION", value_delimiter = ',')]
    transform: Vec<String>,
    /// Kinds of custom resources whose status is written back when they are made
    #[arg(long, value_name = "KIND[.GROUP]", value_delimiter = ',')]
    restore_status_for: Vec<String>,
    /// Hold Argo CD and Flux, as far as they keep the restored objects, until the restore has ended
    #[arg(long)]
    hold_gitops: bool,
    /// Keep the node ports of Services; one whose port is taken is not made
    #[arg(long)]
    preserve_node_ports: bool,
    /// Keep the addresses that Services have in their cluster; one whose address is taken or out of range is not made
    #[arg(long)]
    preserve_cluster_ips: bool,
    /// Take a recovery point that is known to lack something
    #[arg(long)]
    accept_incomplete: bool,
    /// The rule that runs before anything is changed
    #[arg(long, value_name = "RULE")]
    pre_exec_rule: Option<String>,
    /// The rule that runs when everything is there and the workloads are ready
    #[arg(long, value_name = "RULE")]
    post_exec_rule: Option<String>,
    /// How long the restored workloads may take to be ready; 0s does not wait for them
    #[arg(long, value_name = "TIME")]
    ready_timeout: Option<String>,
    /// Only make the plan of the restore; `orlop restore plan` does, and shows it
    #[arg(long, conflicts_with_all = ["plan_hash", "dry_run"])]
    plan_only: bool,
    /// Do just the plan that has this hash, or nothing if something else would be done now
    #[arg(long, value_name = "HASH")]
    plan_hash: Option<String>,
    #[command(flatten)]
    wait: WaitArgs,
    /// Only say what would happen: the server checks the restore and changes nothing
    #[arg(long, conflicts_with = "wait")]
    dry_run: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Replace {
    /// They stay as they are, and so does the data of claims that exist
    Retain,
    /// They are deleted and made anew, claims and their data too
    Delete,
    /// They are changed to what the recovery point, or the source of a clone, has; claims that exist keep their data
    Update,
}

impl Replace {
    pub(crate) fn policy(self) -> ReplacePolicy {
        match self {
            Self::Retain => ReplacePolicy::Retain,
            Self::Delete => ReplacePolicy::Delete,
            Self::Update => ReplacePolicy::Update,
        }
    }
}

type Mapping = BTreeMap<String, String>;

impl Kind for ApplicationRestore {
    const NOUN: &'static str = "restore";
    const COLUMNS: &'static [&'static str] = &["PHASE", "STAGE", "CREATED", "FAILED", "RECOVERY POINT"];

    fn cells(&self) -> Vec<String> {
        let status = self.status.clone().unwrap_or_default();
        vec![
            format!("{:?}", status.phase),
            format!("{:?}", status.stage),
            human::maybe(status.objects.as_ref().map(|o| o.created)),
            human::maybe(status.objects.as_ref().map(|o| o.failed)),
            human::maybe(status.recovery_point),
        ]
    }
}

impl CreateArgs {
    /// What can be seen to be wrong without a cluster.
    fn check(&self) -> Result<()> {
        match (&self.backup, &self.recovery_point, &self.backup_location) {
            (None, None, _) => Err(Error::usage("restore: it is not said what to restore").next(
                "name a backup (orlop backup list), or give --recovery-point and --backup-location; --help shows all",
            )),
            (None, Some(point), None) => {
                Err(Error::usage(format!("restore: it is not said which location the recovery point {point} is in"))
                    .next("give --backup-location; orlop location list shows their names"))
            }
            _ => self.mappings().map(drop),
        }
    }

    fn mappings(&self) -> Result<(Mapping, Mapping)> {
        Ok((map("--to", &self.to)?, map("--storage-class", &self.storage_class)?))
    }

    async fn spec(&self, cluster: &Cluster) -> Result<ApplicationRestoreSpec> {
        let (namespace_mapping, storage_class_mapping) = self.mappings()?;
        let backup_location = match (&self.backup_location, &self.backup) {
            (Some(location), _) => location.clone(),
            (None, Some(backup)) => verbs::get::<ApplicationBackup>(cluster, backup).await?.spec.backup_location,
            (None, None) => return Err(Error::usage("restore: --backup-location is missing")),
        };
        Ok(ApplicationRestoreSpec {
            backup_name: self.backup.clone(),
            recovery_point: self.recovery_point.clone(),
            backup_location,
            namespace_mapping,
            storage_class_mapping,
            replace_policy: self.replace_policy.policy(),
            include_resources: self.include.clone(),
            transforms: self.transform.clone(),
            restore_status_for: self.restore_status_for.clone(),
            hold_git_ops: self.hold_gitops,
            accept_incomplete: self.accept_incomplete,
            preserve_node_ports: self.preserve_node_ports,
            preserve_cluster_ips: self.preserve_cluster_ips,
            pre_exec_rule: self.pre_exec_rule.clone(),
            post_exec_rule: self.post_exec_rule.clone(),
            ready_timeout: self.ready_timeout.clone(),
            plan_only: self.plan_only,
            plan_hash: self.plan_hash.clone(),
        })
    }

    /// Makes a plan, and waits for it: it is what was asked for.
    fn planning(mut self) -> Result<Self> {
        if self.plan_hash.is_some() || self.dry_run {
            let option = if self.dry_run { "--dry-run" } else { "--plan-hash" };
            return Err(Error::usage(format!("restore plan: {option} has no effect on a plan, which changes nothing")));
        }
        (self.plan_only, self.wait.wait) = (true, true);
        Ok(self)
    }

    /// The resource. Without a name the server makes one up, so that each restore of a backup is a resource of its own.
    fn resource(&self, spec: ApplicationRestoreSpec) -> ApplicationRestore {
        let mut restore = ApplicationRestore::new(self.name.as_deref().unwrap_or_default(), spec);
        if self.name.is_none() {
            let source = self.backup.as_ref().or(self.recovery_point.as_ref());
            restore.metadata.name = None;
            restore.metadata.generate_name = source.map(|source| format!("{source}-"));
        }
        restore
    }
}

/// The names that clap knows the arguments of a new restore by.
pub(crate) fn ids_of_create() -> Vec<String> {
    let command = CreateArgs::augment_args(clap::Command::new("restore"));
    command.get_arguments().map(|arg| arg.get_id().to_string()).collect()
}

/// Refuses what belongs to a new restore before a verb, such as `orlop restore --dry-run delete web`: the verb would not look at it.
pub(crate) fn refuse_before_verb(matches: &ArgMatches) -> Result<()> {
    let Some(verb) = matches.subcommand_name() else { return Ok(()) };
    let given = |id: &String| matches.value_source(id) == Some(ValueSource::CommandLine);
    let Some(id) = ids_of_create().into_iter().find(given) else { return Ok(()) };
    let word = match matches.get_raw("backup").and_then(|mut values| values.next()) {
        Some(backup) if id == "backup" => backup.to_string_lossy().into_owned(),
        _ => format!("--{}", id.replace('_', "-")),
    };
    Err(Error::usage(format!("restore: {word} before the verb {verb} has no effect on it, so both cannot be given together"))
        .next(format!(
            "write the options of {verb} after it; a backup that is named like a verb is restored by orlop restore create {verb}"
        )))
}

/// Runs the command.
pub(crate) async fn run(args: RestoreArgs) -> Result<Exit> {
    let format = args.output.format();
    let create = match args.verb {
        None => args.create,
        Some(Verb::Create(create)) => *create,
        Some(Verb::Plan(plan)) => plan.planning()?,
        Some(Verb::List(list)) => {
            verbs::list::<ApplicationRestore>(&Cluster::connect(&args.cluster).await?, list, format).await?;
            return Ok(Exit::Succeeded);
        }
        Some(Verb::Show { name }) => return show(&Cluster::connect(&args.cluster).await?, &name, format).await,
        Some(Verb::Delete(gone)) => return delete(&Cluster::connect(&args.cluster).await?, &gone, format).await,
    };
    create.check()?;
    make(&Cluster::connect(&args.cluster).await?, &create, format).await
}

async fn show(cluster: &Cluster, name: &str, format: Format) -> Result<Exit> {
    let restore: ApplicationRestore = verbs::get(cluster, name).await?;
    output::print(&output::resource(format, &restore, || restore.view().summary())?)?;
    Ok(Exit::Succeeded)
}

async fn delete(cluster: &Cluster, args: &DeleteArgs, format: Format) -> Result<Exit> {
    let gone: ApplicationRestore = verbs::delete(cluster, args).await?;
    let name = output::resource_name(&gone);
    let table = || format!("{name} {}, what it has restored stays{}\n", args.done(), dry(args.dry_run));
    output::print(&output::resource(format, &gone, table)?)?;
    Ok(Exit::Succeeded)
}

async fn make(cluster: &Cluster, args: &CreateArgs, format: Format) -> Result<Exit> {
    let restore = args.resource(args.spec(cluster).await?);
    let what = format!("restore {}", source_of(&restore.spec));
    valid(&what, &restore.spec.validate())?;
    let params = PostParams { dry_run: args.dry_run, ..Default::default() };
    let api = cluster.api::<ApplicationRestore>();
    let made = api.create(&params, &restore).await.map_err(|e| cluster.explain(what, e))?;
    if args.wait.wait {
        return see_through::<ApplicationRestore>(cluster, &made.name_any(), args.wait.timeout, format).await;
    }
    let does = if made.spec.plan_only { "plans to restore" } else { "restores" };
    let table =
        || format!("{} created: {does} {}{}\n", output::resource_name(&made), plan(&made.spec), dry(args.dry_run));
    output::print(&output::resource(format, &made, table)?)?;
    Ok(Exit::Succeeded)
}

fn source_of(spec: &ApplicationRestoreSpec) -> String {
    match (&spec.backup_name, &spec.recovery_point) {
        (Some(backup), _) => format!("backup {backup}"),
        (None, point) => format!("recovery point {}", point.clone().unwrap_or_default()),
    }
}

/// What the restore will do, in one line.
fn plan(spec: &ApplicationRestoreSpec) -> String {
    let mut text = format!("{} from {}", source_of(spec), spec.backup_location);
    for (from, to) in &spec.namespace_mapping {
        text.push_str(&format!(", namespace {from} as {to}"));
    }
    for (from, to) in &spec.storage_class_mapping {
        text.push_str(&format!(", storage class {from} as {to}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_names_what_changes_its_name() {
        let spec = ApplicationRestoreSpec {
            recovery_point: Some("p".into()),
            backup_location: "main".into(),
            namespace_mapping: [("a".to_owned(), "b".to_owned())].into(),
            storage_class_mapping: [("fast".to_owned(), "standard".to_owned())].into(),
            ..Default::default()
        };
        assert_eq!(plan(&spec), "recovery point p from main, namespace a as b, storage class fast as standard");
    }
}
