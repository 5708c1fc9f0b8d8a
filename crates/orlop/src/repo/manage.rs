//! `orlop repo init`, `list` and `show`.

use clap::Args;
use jiff::Timestamp;
use repository::{ErrorKind, Lock, LockMode, Pin, PointEntry, RecoveryPoint, Repository, RootKind, Source, Tag, Tags};
use serde::Serialize;

use super::PlaceArgs;
use super::open::{explain, point};
use super::store_line::StoreLine;
use crate::error::{Error, Exit, Result};
use crate::human;
use crate::output::{self, Format};

#[derive(Debug, Args)]
pub(super) struct InitArgs {
    /// Lock everything that is stored: for this long after a recovery point is made, nobody can destroy it with the right to delete
    /// alone. A number and h, d or w, such as 30d; the bucket must have object lock (S3 only)
    #[arg(long, value_name = "TIME", value_parser = parse_lock)]
    lock_for: Option<u64>,
    /// Who may end a lock before its time: governance, who has a right of its own for that; compliance, nobody
    #[arg(long, value_name = "MODE", default_value = "governance", requires = "lock_for", value_parser = parse_mode)]
    lock_mode: LockMode,
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
pub(super) struct ListArgs {
    /// Only those that have this tag; of several, all
    #[arg(long = "tag", value_name = "TAG", value_delimiter = ',')]
    tags: Vec<Tag>,
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
    /// What was recorded about the store; absent after a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    store: Option<StoreLine>,
    dry_run: bool,
}

/// Seconds of an hour, a day and a week.
const UNITS: [(&str, u64); 3] = [("h", 3_600), ("d", 86_400), ("w", 604_800)];

fn parse_lock(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no number with h, d or w behind it, such as 30d");
    let (number, seconds) =
        UNITS.iter().find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, seconds))).ok_or_else(wrong)?;
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let lock = number.checked_mul(*seconds).ok_or_else(wrong)?;
    match Lock::new(LockMode::Governance, lock) {
        Ok(_) => Ok(lock),
        Err(e) => Err(std::error::Error::source(&e).map_or_else(|| e.to_string(), ToString::to_string)),
    }
}

fn parse_mode(text: &str) -> Result<LockMode, String> {
    let modes = [LockMode::Governance, LockMode::Compliance];
    let known = modes.into_iter().find(|mode| mode.to_string() == text);
    known.ok_or_else(|| format!("{text:?} is neither governance nor compliance"))
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
        let lock = args.lock_for.map(|seconds| Lock::new(args.lock_mode, seconds)).transpose();
        let lock = lock.map_err(|e| Error::usage(what.clone()).because(e))?;
        let repository = Repository::create_locked(store, &recipient, lock).await.map_err(|e| match e.kind() {
            ErrorKind::NotFound => Error::new(what).because(e).next("make the bucket or the container first"),
            _ => explain(what, e),
        })?;
        Some((repository.id().to_string(), StoreLine::new(repository.known())))
    };
    let (id, store) = id.unzip();
    let done = Initialized { place: at, id, store, dry_run: args.dry_run };
    let table = || match &done.id {
        Some(id) => format!(
            "Repository {id} made in {}.\n{}Keep a copy of the passphrase elsewhere: without it nothing can be restored.\n",
            done.place,
            done.store.as_ref().map(StoreLine::sentences).unwrap_or_default()
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
    /// Why it is pinned, if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pin: Option<PinLine>,
    #[serde(flatten)]
    known: Option<PointFacts>,
}

/// A pin as it is shown.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PinLine {
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<Timestamp>,
    /// Why it cannot be read; it pins all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl PinLine {
    pub(super) fn new(pin: repository::Result<Pin>) -> Self {
        match pin {
            Ok(pin) => Self { reason: Some(pin.reason), created: Some(pin.created), error: None },
            Err(e) => Self { reason: None, created: None, error: Some(e.to_string()) },
        }
    }

    fn text(&self) -> String {
        let why = self.reason.clone().or_else(|| self.error.clone()).unwrap_or_default();
        match self.created {
            Some(created) => format!("{why} (since {})", human::instant(created)),
            None => why,
        }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PointFacts {
    created: Timestamp,
    source: Source,
    #[serde(skip_serializing_if = "Tags::is_empty")]
    tags: Tags,
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
    /// All recovery points of a repository with their pins, the oldest first.
    pub(crate) async fn all(repository: &Repository) -> repository::Result<Vec<Self>> {
        let (points, mut pins) = (repository.points().await?, repository.pins().await?);
        let line = |entry: PointEntry| {
            let pin = pins.remove(&entry.id).map(PinLine::new);
            Self::new(entry, pin)
        };
        let mut lines: Vec<_> = points.into_iter().map(line).collect();
        lines.sort_by_key(Self::created);
        Ok(lines)
    }

    fn new(entry: PointEntry, pin: Option<PinLine>) -> Self {
        let (error, known) = match entry.point {
            Ok(point) => (None, Some(PointFacts::new(point))),
            Err(e) => (Some(e.to_string()), None),
        };
        Self { id: entry.id.to_string(), error, pin, known }
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

    fn has_tags(&self, tags: &[Tag]) -> bool {
        tags.is_empty() || self.known.as_ref().is_some_and(|known| known.tags.contain_all(tags))
    }

    fn cells(&self) -> [String; 10] {
        let pinned = if self.pin.is_some() { "yes" } else { "-" };
        let Some(known) = &self.known else {
            let error = format!("cannot be read: {}", self.error.clone().unwrap_or_default());
            return [&self.id, "-", "-", "-", "-", "-", "-", "-", pinned, &error].map(str::to_owned);
        };
        [
            self.id.clone(),
            human::instant(known.created),
            source(&known.source),
            known.objects.to_string(),
            known.files.to_string(),
            human::bytes(known.bytes),
            human::bytes(known.stored_bytes),
            tags(&known.tags),
            pinned.to_owned(),
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
            tags: point.tags,
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

pub(super) fn tags(tags: &Tags) -> String {
    if tags.is_empty() { human::dash() } else { tags.to_string() }
}

/// The table of a list of recovery points.
pub(crate) fn lines_table(lines: &[PointLine]) -> String {
    let header =
        ["RECOVERY POINT", "CREATED", "SOURCE", "OBJECTS", "FILES", "BYTES", "STORED", "TAGS", "PINNED", "COMPLETE"];
    output::table(header, lines.iter().map(PointLine::cells))
}

pub(super) async fn list(place: &PlaceArgs, args: &ListArgs, format: Format) -> Result<Exit> {
    let repository = place.open().await?;
    let lines = PointLine::all(&repository).await.map_err(|e| explain("list the recovery points", e))?;
    // Of one that cannot be read nobody knows whether it has the tags; that it is there must be said all the same.
    let (lines, others): (Vec<_>, Vec<_>) =
        lines.into_iter().partition(|line| line.is_unreadable() || line.has_tags(&args.tags));
    if !others.is_empty() && lines.is_empty() && format == Format::Table {
        eprintln!("No recovery point in {} has these tags.", repository.store().place());
        return Ok(Exit::Succeeded);
    }
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

/// A recovery point as it is shown: its document, and its pin.
#[derive(Debug, Serialize)]
struct Shown {
    #[serde(flatten)]
    point: RecoveryPoint,
    #[serde(skip_serializing_if = "Option::is_none")]
    pin: Option<PinLine>,
}

pub(super) async fn show(place: &PlaceArgs, args: &ShowArgs, format: Format) -> Result<Exit> {
    let repository = place.open().await?;
    let point = point(&repository, &args.id).await?;
    let pin = match repository.read_pin(&point.id).await {
        Err(e) if e.kind() != ErrorKind::Damaged => return Err(explain(format!("look for a pin of {}", point.id), e)),
        pin => pin.transpose().map(PinLine::new),
    };
    let shown = Shown { point, pin };
    output::print(&output::render(format, &shown, || described(&shown), || format!("{}\n", shown.point.id))?)?;
    Ok(Exit::Succeeded)
}

fn described(shown: &Shown) -> String {
    let point = &shown.point;
    let mut text = output::fields([
        ("Recovery point", point.id.to_string()),
        ("Created", human::instant(point.created)),
        ("Source", source(&point.source)),
        ("Tags", tags(&point.tags)),
        ("Pinned", shown.pin.as_ref().map_or_else(|| "no".to_owned(), PinLine::text)),
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
            let (files, changed) = match root.kind {
                RootKind::Tree => (root.files.to_string(), root.changed_while_read.to_string()),
                RootKind::Volume => ("image".to_owned(), human::dash()),
                RootKind::Stream => ("stream".to_owned(), human::dash()),
            };
            [root.name.clone(), files, human::bytes(root.bytes), changed, human::took(took)]
        };
        let header = ["CONTENT", "FILES", "BYTES", "CHANGED WHILE READ", "TOOK"];
        text.push_str(&output::table(header, point.roots.iter().map(row)));
    }
    text
}
