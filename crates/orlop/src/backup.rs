//! `orlop backup`: runs that make recovery points.

use api::{
    ApplicationBackup, ApplicationBackupSpec, BackupLocation, ObjectFilter, ReclaimPolicy, VolumeAction, VolumePolicy,
};
use clap::{Args, Subcommand, ValueEnum};
use kube::ResourceExt;
use kube::api::PostParams;

use crate::cluster::{Cluster, ClusterArgs};
use crate::error::{Exit, Result};
use crate::output::{self, Format, OutputArgs};
use crate::run::{Run, WaitArgs, see_through};
use crate::select::{map, parse_filter, valid};
use crate::verbs::{self, DeleteArgs, Kind, ListArgs, dry};
use crate::{human, points};

/// Back up applications: make, list, show and delete backups
#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Back up namespaces, once
    Create(Box<CreateArgs>),
    /// List the backups of a namespace, or the recovery points in a location
    List {
        #[command(flatten)]
        list: ListArgs,
        /// The recovery points that are in this location, whichever cluster made them; it is read from here, not by the operator
        #[arg(long, value_name = "LOCATION", conflicts_with = "all_namespaces")]
        backup_location: Option<String>,
    },
    /// Show one backup: stages, volumes, what is missed
    Show {
        /// Its name
        name: String,
    },
    /// Delete a backup; its recovery point goes too if its reclaim policy is Delete
    Delete(DeleteArgs),
}

/// What to back up, and where to.
#[derive(Debug, Args)]
struct CreateArgs {
    /// The name of the backup
    name: String,
    /// The location that the recovery point is kept in
    #[arg(long, value_name = "LOCATION")]
    backup_location: String,
    /// The namespaces to back up; others than the backup's own only from orlop-system
    #[arg(long, value_name = "NAMESPACE", value_delimiter = ',')]
    namespaces: Vec<String>,
    /// Only objects with this label; given more than once, with all of them
    #[arg(long, short = 'l', value_name = "LABEL=VALUE", value_delimiter = ',', value_parser = human::parse_pair)]
    selector: Vec<(String, String)>,
    /// Only these objects
    #[arg(long, value_name = "KIND[.GROUP][/NAME]", value_delimiter = ',', value_parser = parse_filter)]
    include: Vec<ObjectFilter>,
    /// Only these kinds
    #[arg(long, value_name = "KIND[.GROUP]", value_delimiter = ',')]
    resource_types: Vec<String>,
    /// Not these kinds; PersistentVolumeClaim leaves the data out too
    #[arg(long, value_name = "KIND[.GROUP]", value_delimiter = ',')]
    exclude_resource_types: Vec<String>,
    /// The rule that runs before the volumes are read; what it does in the background goes on until they are
    #[arg(long, value_name = "RULE")]
    pre_exec_rule: Option<String>,
    /// The rule that runs when the volumes have been read
    #[arg(long, value_name = "RULE")]
    post_exec_rule: Option<String>,
    /// The class of the snapshots of a CSI driver, where the driver's default one is not meant
    #[arg(long, value_name = "DRIVER=CLASS", value_delimiter = ',', value_parser = human::parse_pair)]
    snapshot_class: Vec<(String, String)>,
    /// How all volumes are read; otherwise a snapshot is, where the driver takes them, and else the volume itself
    #[arg(long, value_enum, value_name = "HOW")]
    volumes: Option<How>,
    /// What happens to the recovery point when the backup is deleted
    #[arg(long, value_enum, value_name = "POLICY", default_value = "retain")]
    reclaim_policy: Reclaim,
    #[command(flatten)]
    wait: WaitArgs,
    /// Only say what would happen: the server checks the backup and changes nothing
    #[arg(long, conflicts_with = "wait")]
    dry_run: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum How {
    /// Snapshots; a volume of which none can be taken is missed
    Snapshot,
    /// The volumes themselves, while the application goes on
    Copy,
    /// Not at all: only objects are stored
    Skip,
}

impl How {
    fn for_all(self) -> VolumePolicy {
        let action = match self {
            Self::Snapshot => VolumeAction::Snapshot,
            Self::Copy => VolumeAction::Copy,
            Self::Skip => VolumeAction::Skip,
        };
        VolumePolicy { action, ..VolumePolicy::default() }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Reclaim {
    /// It stays in the location
    Retain,
    /// It is removed from the location
    Delete,
}

impl CreateArgs {
    fn spec(&self) -> Result<ApplicationBackupSpec> {
        Ok(ApplicationBackupSpec {
            namespaces: self.namespaces.clone(),
            selectors: map("--selector", &self.selector)?,
            include_resources: self.include.clone(),
            resource_types: self.resource_types.clone(),
            exclude_resource_types: self.exclude_resource_types.clone(),
            backup_location: self.backup_location.clone(),
            pre_exec_rule: self.pre_exec_rule.clone(),
            post_exec_rule: self.post_exec_rule.clone(),
            csi_snapshot_class_map: map("--snapshot-class", &self.snapshot_class)?,
            volume_policies: self.volumes.map(How::for_all).into_iter().collect(),
            reclaim_policy: match self.reclaim_policy {
                Reclaim::Retain => ReclaimPolicy::Retain,
                Reclaim::Delete => ReclaimPolicy::Delete,
            },
        })
    }
}

impl Kind for ApplicationBackup {
    const NOUN: &'static str = "backup";
    const COLUMNS: &'static [&'static str] = &["PHASE", "STAGE", "WANTED", "MISSED", "BYTES", "RECOVERY POINT"];

    fn cells(&self) -> Vec<String> {
        let status = self.status.clone().unwrap_or_default();
        vec![
            format!("{:?}", status.phase),
            format!("{:?}", status.stage),
            human::maybe(status.ledger.as_ref().map(|l| l.wanted)),
            human::maybe(status.ledger.as_ref().map(|l| l.missed)),
            human::maybe_bytes(status.bytes),
            human::maybe(status.recovery_point),
        ]
    }

    fn held_by(&self) -> Option<String> {
        let conditions = &self.status.as_ref()?.conditions;
        let released = conditions.iter().find(|c| c.type_ == operator::conditions::RELEASED && c.status == "False")?;
        Some(released.message.clone())
    }
}

/// Runs the command.
pub(crate) async fn run(args: BackupArgs) -> Result<Exit> {
    let format = args.output.format();
    if let Verb::Create(create) = &args.verb {
        // What can be seen to be wrong without a cluster is said without one.
        create.spec()?;
    }
    let cluster = Cluster::connect(&args.cluster).await?;
    match args.verb {
        Verb::Create(create) => return make(&cluster, &create, format).await,
        Verb::List { backup_location: Some(location), .. } => points::list_in(&cluster, &location, format).await?,
        Verb::List { list, backup_location: None } => verbs::list::<ApplicationBackup>(&cluster, list, format).await?,
        Verb::Show { name } => {
            let backup: ApplicationBackup = verbs::get(&cluster, &name).await?;
            output::print(&output::resource(format, &backup, || backup.view().summary())?)?;
        }
        Verb::Delete(args) => delete(&cluster, &args, format).await?,
    }
    Ok(Exit::Succeeded)
}

async fn delete(cluster: &Cluster, args: &DeleteArgs, format: Format) -> Result<()> {
    let before: ApplicationBackup = verbs::get(cluster, &args.name).await?;
    // Where the location cannot be read, nothing speaks against its being there.
    let location = cluster.api::<BackupLocation>().get_opt(&before.spec.backup_location).await;
    let fate = Fate::of(&before, matches!(location, Ok(None)));
    let gone: ApplicationBackup = verbs::delete(cluster, args).await?;
    output::print(&output::resource(format, &gone, || deleted(&gone, &fate, args))?)
}

/// What becomes of the recovery point of a backup that is deleted.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// There is none.
    None,
    /// It stays, for a reason if it was to go.
    Stays(Option<&'static str>),
    /// The operator removes it before it lets the backup go.
    Goes,
}

impl Fate {
    /// The operator removes what the finalizer keeps the backup for, and can do it only through the location.
    fn of(backup: &ApplicationBackup, location_is_gone: bool) -> Self {
        let has_point = backup.status.as_ref().is_some_and(|s| s.recovery_point.is_some());
        match backup.spec.reclaim_policy {
            _ if !has_point => Self::None,
            ReclaimPolicy::Retain => Self::Stays(None),
            ReclaimPolicy::Delete if !backup.finalizers().iter().any(|f| f == api::FINALIZER) => {
                Self::Stays(Some("no operator has taken charge of the backup"))
            }
            ReclaimPolicy::Delete if location_is_gone => {
                Self::Stays(Some("there is no such location any more through which it could be removed"))
            }
            ReclaimPolicy::Delete => Self::Goes,
        }
    }
}

fn deleted(backup: &ApplicationBackup, fate: &Fate, args: &DeleteArgs) -> String {
    let point = backup.status.as_ref().and_then(|s| s.recovery_point.as_deref()).unwrap_or_default();
    let location = &backup.spec.backup_location;
    let fate = match fate {
        Fate::None => "it has no recovery point".to_owned(),
        Fate::Stays(None) => format!("the recovery point {point} stays in {location}"),
        Fate::Stays(Some(why)) => format!("the recovery point {point} stays in {location}: {why}"),
        Fate::Goes if args.dry_run => format!("the recovery point {point} would be removed from {location}"),
        Fate::Goes if args.no_wait => format!("the recovery point {point} will be removed from {location}"),
        Fate::Goes => format!("the recovery point {point} is gone from {location}"),
    };
    format!("{} {}, {fate}{}\n", output::resource_name(backup), args.done(), dry(args.dry_run))
}

async fn make(cluster: &Cluster, args: &CreateArgs, format: Format) -> Result<Exit> {
    let spec = args.spec()?;
    let what = format!("create backup {}", args.name);
    valid(&what, &spec.validate(cluster.namespace()))?;
    let namespaces = spec.namespaces_or(cluster.namespace()).join(", ");
    let params = PostParams { dry_run: args.dry_run, ..Default::default() };
    let api = cluster.api::<ApplicationBackup>();
    let made =
        api.create(&params, &ApplicationBackup::new(&args.name, spec)).await.map_err(|e| cluster.explain(what, e))?;
    if args.wait.wait {
        return see_through::<ApplicationBackup>(cluster, &made.name_any(), args.wait.timeout, format).await;
    }
    let table = || {
        let name = output::resource_name(&made);
        format!("{name} created: backs up {namespaces} to {}{}\n", made.spec.backup_location, dry(args.dry_run))
    };
    output::print(&output::resource(format, &made, table)?)?;
    Ok(Exit::Succeeded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_shows_what_matters_of_each_run() {
        let mut one = ApplicationBackup::new("nightly", ApplicationBackupSpec::default());
        one.metadata.namespace = Some("shop".into());
        let mut two = one.clone();
        two.metadata.name = Some("weekly".into());
        two.status = Some(api::ApplicationBackupStatus {
            phase: api::Phase::Succeeded,
            stage: api::BackupStage::Done,
            ledger: Some(api::LedgerSummary { wanted: 14, stored: 14, ..Default::default() }),
            bytes: Some(1 << 30),
            recovery_point: Some("20270115-080000-0a1b2c3d".into()),
            ..Default::default()
        });
        let text = verbs::list_table(&[one, two], true, jiff::Timestamp::UNIX_EPOCH);
        crate::golden::check("backup-list.txt", &text);
    }

    #[test]
    fn deleting_says_what_becomes_of_the_recovery_point() {
        let mut backup =
            ApplicationBackup::new("b", ApplicationBackupSpec { backup_location: "main".into(), ..Default::default() });
        let waits = DeleteArgs { name: "b".into(), dry_run: false, no_wait: false, timeout: None };
        let check = |backup: &ApplicationBackup, location_is_gone, args: &DeleteArgs, said: &str| {
            let text = deleted(backup, &Fate::of(backup, location_is_gone), args);
            assert_eq!(text, format!("applicationbackup.orlop.io/b {said}\n"));
        };
        check(&backup, false, &waits, "deleted, it has no recovery point");
        backup.status = Some(api::ApplicationBackupStatus { recovery_point: Some("p".into()), ..Default::default() });
        check(&backup, false, &waits, "deleted, the recovery point p stays in main");
        backup.spec.reclaim_policy = ReclaimPolicy::Delete;
        let not_ours = "deleted, the recovery point p stays in main: no operator has taken charge of the backup";
        check(&backup, false, &waits, not_ours);
        backup.metadata.finalizers = Some(vec![api::FINALIZER.into()]);
        check(&backup, false, &waits, "deleted, the recovery point p is gone from main");
        let gone = "deleted, the recovery point p stays in main: there is no such location any more through which it could be removed";
        check(&backup, true, &waits, gone);
        let asks = DeleteArgs { no_wait: true, ..waits.clone() };
        check(&backup, false, &asks, "is being deleted, the recovery point p will be removed from main");
        let tries = DeleteArgs { dry_run: true, ..waits };
        let would =
            "deleted, the recovery point p would be removed from main (dry run on the server: nothing was changed)";
        check(&backup, false, &tries, would);
    }
}
