//! `orlop repo init`, `list`, `show` and `forget`.

use clap::Args;
use jiff::Timestamp;
use repository::{ErrorKind, PointEntry, RecoveryPoint, Repository, Source};
use serde::Serialize;

use super::PlaceArgs;
use super::open::{explain, point};
use crate::error::{Error, Exit, Result};
use crate::human;
use crate::output::{self, Format};

#[derive(Debug, Args)]
pub(super) struct InitArgs {
    /// Only say what would happen
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// The recovery point, or `latest`
    id: String,
}

#[derive(Debug, Args)]
pub(super) struct ForgetArgs {
    /// The recovery points
    #[arg(required = true)]
    ids: Vec<String>,
    /// Only say what would happen
    #[arg(long)]
    dry_run: bool,
}

/// What `init` did.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Initialized {
    /// Where.
    place: String,
    /// Identity of the new repository; absent after a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    dry_run: bool,
}

pub(super) async fn init(place: &PlaceArgs, args: &InitArgs, format: Format) -> Result<Exit> {
    let (recipient, store) = (place.recipient().await?, place.store()?);
    let at = store.place().to_owned();
    let what = format!("make a repository in {at}");
    let id = if args.dry_run {
        // Opening tells whether there is one, without writing anything.
        match Repository::open(store, &recipient).await {
            Err(e) if e.kind() == ErrorKind::NotARepository => None,
            Ok(_) => return Err(explain(what, repository::Error::AlreadyExists { place: at })),
            Err(e) => return Err(explain(what, e)),
        }
    } else {
        let repository = Repository::create(store, &recipient).await.map_err(|e| explain(what, e))?;
        Some(repository.id().to_string())
    };
    let done = Initialized { place: at, id, dry_run: args.dry_run };
    let table = || match &done.id {
        Some(id) => format!(
            "Repository {id} made in {}.\nKeep a copy of the passphrase elsewhere: without it nothing can be restored.\n",
            done.place
        ),
        None => format!("A repository would be made in {} (dry run: nothing was changed).\n", done.place),
    };
    output::print(&output::render(format, &done, table, || format!("{}\n", done.place))?)?;
    Ok(Exit::Succeeded)
}

/// One recovery point in a list.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PointLine {
    /// Its name.
    id: String,
    /// Why it cannot be read; then nothing else is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(flatten)]
    known: Option<PointFacts>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PointFacts {
    created: Timestamp,
    source: Source,
    /// Names of the volumes or folders.
    contents: Vec<String>,
    /// Objects of the application.
    objects: u64,
    files: u64,
    bytes: u64,
    /// Bytes that it added to the repository.
    stored_bytes: u64,
    /// Whether everything that was wanted is in it.
    complete: bool,
}

impl PointLine {
    /// A recovery point as it is listed.
    pub(crate) fn new(entry: PointEntry) -> Self {
        let (error, known) = match entry.point {
            Ok(point) => (None, Some(PointFacts::new(point))),
            Err(e) => (Some(e.to_string()), None),
        };
        Self { id: entry.id.to_string(), error, known }
    }

    /// Its name.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Whether it could not be read.
    pub(crate) fn is_unreadable(&self) -> bool {
        self.error.is_some()
    }

    /// When it was taken; those that cannot be read come last.
    pub(crate) fn created(&self) -> Timestamp {
        self.known.as_ref().map_or(Timestamp::MAX, |known| known.created)
    }

    fn cells(&self) -> [String; 8] {
        let Some(known) = &self.known else {
            let error = format!("cannot be read: {}", self.error.clone().unwrap_or_default());
            return [&self.id, "-", "-", "-", "-", "-", "-", &error].map(str::to_owned);
        };
        [
            self.id.clone(),
            human::instant(known.created),
            source(&known.source),
            known.objects.to_string(),
            known.files.to_string(),
            human::bytes(known.bytes),
            human::bytes(known.stored_bytes),
            if known.complete { "yes" } else { "no" }.to_owned(),
        ]
    }
}

impl PointFacts {
    fn new(point: RecoveryPoint) -> Self {
        Self {
            created: point.created,
            contents: point.roots.into_iter().map(|root| root.name).collect(),
            objects: point.stats.objects,
            files: point.stats.files,
            bytes: point.stats.bytes,
            stored_bytes: point.stats.stored_bytes,
            source: point.source,
            complete: point.complete,
        }
    }
}

fn source(source: &Source) -> String {
    match source {
        Source::Application { cluster_name, backup, namespaces, .. } => {
            let cluster = cluster_name.as_ref().map(|name| format!(" in {name}")).unwrap_or_default();
            format!("{} by {backup}{cluster}", namespaces.join(","))
        }
        Source::Paths { host } => format!("host {host}"),
    }
}

/// The table of a list of recovery points.
pub(crate) fn lines_table(lines: &[PointLine]) -> String {
    let header = ["RECOVERY POINT", "CREATED", "SOURCE", "OBJECTS", "FILES", "BYTES", "STORED", "COMPLETE"];
    output::table(header, lines.iter().map(PointLine::cells))
}

pub(super) async fn list(place: &PlaceArgs, format: Format) -> Result<Exit> {
    let repository = place.open().await?;
    let points = repository.points().await.map_err(|e| explain("list the recovery points", e))?;
    let mut lines: Vec<_> = points.into_iter().map(PointLine::new).collect();
    lines.sort_by_key(PointLine::created);
    if lines.is_empty() && format == Format::Table {
        eprintln!("There are no recovery points in {}.", repository.store().place());
        return Ok(Exit::Succeeded);
    }
    let names = || lines.iter().map(|line| format!("{}\n", line.id)).collect();
    output::print(&output::render(format, &lines, || lines_table(&lines), names)?)?;
    match lines.iter().filter(|line| line.is_unreadable()).count() {
        0 => Ok(Exit::Succeeded),
        n => Err(Error::new(format!("{} cannot be read", human::count(n as u64, "recovery point", "recovery points")))
            .next("orlop repo check --read-data tells what is damaged")),
    }
}

pub(super) async fn show(place: &PlaceArgs, args: &ShowArgs, format: Format) -> Result<Exit> {
    let repository = place.open().await?;
    let point = point(&repository, &args.id).await?;
    output::print(&output::render(format, &point, || described(&point), || format!("{}\n", point.id))?)?;
    Ok(Exit::Succeeded)
}

fn described(point: &RecoveryPoint) -> String {
    let mut text = output::fields([
        ("Recovery point", point.id.to_string()),
        ("Created", human::instant(point.created)),
        ("Source", source(&point.source)),
        ("Complete", if point.complete { "yes" } else { "no: something that was wanted is missing" }.to_owned()),
        ("Objects", point.stats.objects.to_string()),
        ("Files", point.stats.files.to_string()),
        ("Bytes", human::bytes(point.stats.bytes)),
        (
            "Added",
            format!(
                "{} in {}",
                human::bytes(point.stats.stored_bytes),
                human::count(point.packs.len() as u64, "pack", "packs")
            ),
        ),
    ]);
    if !point.roots.is_empty() {
        text.push('\n');
        let row = |root: &repository::Root| {
            let took = std::time::Duration::try_from(root.finished.duration_since(root.started)).unwrap_or_default();
            [
                root.name.clone(),
                root.files.to_string(),
                human::bytes(root.bytes),
                root.changed_while_read.to_string(),
                human::took(took),
            ]
        };
        let header = ["CONTENT", "FILES", "BYTES", "CHANGED WHILE READ", "TOOK"];
        text.push_str(&output::table(header, point.roots.iter().map(row)));
    }
    text
}

/// What `forget` did.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Forgotten {
    recovery_points: Vec<String>,
    dry_run: bool,
}

pub(super) async fn forget(place: &PlaceArgs, args: &ForgetArgs, format: Format) -> Result<Exit> {
    let repository = place.open().await?;
    let mut ids = Vec::new();
    for name in &args.ids {
        let id = name.parse().map_err(|e| Error::usage(format!("forget {name}")).because(e))?;
        // One that is damaged can be forgotten, one that is not there is a mistake; all are looked at before any is deleted.
        match repository.point(&id).await {
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::Damaged => {}
            Err(e) => return Err(explain(format!("forget {name}"), e)),
        }
        ids.push(id);
    }
    if !args.dry_run {
        for id in &ids {
            repository.forget(id).await.map_err(|e| explain(format!("forget {id}"), e))?;
        }
    }
    let done = Forgotten { recovery_points: ids.iter().map(ToString::to_string).collect(), dry_run: args.dry_run };
    let verb = if args.dry_run { "would be forgotten (dry run: nothing was changed)" } else { "forgotten" };
    let table = || done.recovery_points.iter().map(|id| format!("{id} {verb}\n")).collect();
    let names = || done.recovery_points.iter().map(|id| format!("{id}\n")).collect();
    output::print(&output::render(format, &done, table, names)?)?;
    Ok(Exit::Succeeded)
}
