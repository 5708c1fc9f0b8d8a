//! `orlop clone`: runs that copy applications into other namespaces of their cluster.

use api::{ApplicationClone, ApplicationCloneSpec};
use clap::{Args, Subcommand};
use kube::ResourceExt;
use kube::api::PostParams;

use crate::cluster::{Cluster, ClusterArgs};
use crate::error::{Exit, Result};
use crate::human;
use crate::output::{self, Format, OutputArgs};
use crate::restore::Replace;
use crate::run::{Run, WaitArgs, see_through};
use crate::select::{map, valid};
use crate::verbs::{self, DeleteArgs, Kind, ListArgs, dry};

/// Copy applications into other namespaces of this cluster: make, list, show and delete clones
#[derive(Debug, Args)]
pub(crate) struct CloneArgs {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Copy a namespace into another one, once; its volumes by snapshots
    Create(CreateArgs),
    /// List the clones of a namespace
    List(ListArgs),
    /// Show one clone: stages, volumes, what failed
    Show {
        /// Its name
        name: String,
    },
    /// Delete a clone; what it has made stays
    Delete(DeleteArgs),
}

/// What to copy, and where to.
#[derive(Debug, Args)]
struct CreateArgs {
    /// The namespace that is copied
    source: String,
    /// The namespace that it is copied into; it is made if it does not exist
    destination: String,
    /// The name of the clone; else one is made up from the source's
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Only objects with this label; given more than once, with all of them
    #[arg(long, short = 'l', value_name = "LABEL=VALUE", value_delimiter = ',', value_parser = human::parse_pair)]
    selector: Vec<(String, String)>,
    /// What happens to objects that exist in the destination
    #[arg(long, value_enum, value_name = "POLICY", default_value = "retain")]
    replace_policy: Replace,
    #[command(flatten)]
    wait: WaitArgs,
    /// Only say what would happen: the server checks the clone and changes nothing
    #[arg(long, conflicts_with = "wait")]
    dry_run: bool,
}

impl CreateArgs {
    fn spec(&self) -> Result<ApplicationCloneSpec> {
        Ok(ApplicationCloneSpec {
            source_namespace: self.source.clone(),
            destination_namespace: self.destination.clone(),
            selectors: map("--selector", &self.selector)?,
            replace_policy: self.replace_policy.policy(),
        })
    }

    /// The resource. Without a name the server makes one up, so that each clone of a namespace is a resource of its own.
    fn resource(&self, spec: ApplicationCloneSpec) -> ApplicationClone {
        let mut clone = ApplicationClone::new(self.name.as_deref().unwrap_or_default(), spec);
        if self.name.is_none() {
            clone.metadata.name = None;
            clone.metadata.generate_name = Some(format!("{}-", self.source));
        }
        clone
    }
}

impl Kind for ApplicationClone {
    const NOUN: &'static str = "clone";
    const COLUMNS: &'static [&'static str] = &["PHASE", "STAGE", "SOURCE", "DESTINATION", "CREATED", "FAILED"];

    fn cells(&self) -> Vec<String> {
        let status = self.status.clone().unwrap_or_default();
        vec![
            format!("{:?}", status.phase),
            format!("{:?}", status.stage),
            self.spec.source_namespace.clone(),
            self.spec.destination_namespace.clone(),
            human::maybe(status.objects.as_ref().map(|o| o.created)),
            human::maybe(status.objects.as_ref().map(|o| o.failed)),
        ]
    }
}

/// Runs the command.
pub(crate) async fn run(args: CloneArgs) -> Result<Exit> {
    let format = args.output.format();
    if let Verb::Create(create) = &args.verb {
        // What can be seen to be wrong without a cluster is said without one.
        create.spec()?;
    }
    let cluster = Cluster::connect(&args.cluster).await?;
    match args.verb {
        Verb::Create(create) => return make(&cluster, &create, format).await,
        Verb::List(list) => verbs::list::<ApplicationClone>(&cluster, list, format).await?,
        Verb::Show { name } => {
            let clone: ApplicationClone = verbs::get(&cluster, &name).await?;
            output::print(&output::resource(format, &clone, || clone.view().summary())?)?;
        }
        Verb::Delete(args) => {
            let gone: ApplicationClone = verbs::delete(&cluster, &args).await?;
            let name = output::resource_name(&gone);
            let table = || format!("{name} {}, what it has made stays{}\n", args.done(), dry(args.dry_run));
            output::print(&output::resource(format, &gone, table)?)?;
        }
    }
    Ok(Exit::Succeeded)
}

async fn make(cluster: &Cluster, args: &CreateArgs, format: Format) -> Result<Exit> {
    let clone = args.resource(args.spec()?);
    let what = format!("clone {} into {}", args.source, args.destination);
    valid(&what, &clone.spec.validate(cluster.namespace()))?;
    let params = PostParams { dry_run: args.dry_run, ..Default::default() };
    let api = cluster.api::<ApplicationClone>();
    let made = api.create(&params, &clone).await.map_err(|e| cluster.explain(what, e))?;
    if args.wait.wait {
        return see_through::<ApplicationClone>(cluster, &made.name_any(), args.wait.timeout, format).await;
    }
    let table = || {
        let (name, spec) = (output::resource_name(&made), &made.spec);
        let (from, into) = (&spec.source_namespace, &spec.destination_namespace);
        format!("{name} created: clones {from} into {into}{}\n", dry(args.dry_run))
    };
    output::print(&output::resource(format, &made, table)?)?;
    Ok(Exit::Succeeded)
}
