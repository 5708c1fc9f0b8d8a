//! `orlop repo backup`: folders of this machine as one recovery point.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use jiff::Timestamp;
use repository::tree::{self, BackupOptions, Incidents, TreeSummary, VerifyOptions};
use repository::{
    NoProgress, PointId, RecoveryPoint, Repository, Root, RootKind, Source, Stats, TableRef, Writer, WrittenPacks,
};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::PlaceArgs;
use super::open::{explain, explain_tree, new_id, point};
use super::progress::Show;
use crate::error::{Error, Exit, Result};
use crate::human;
use crate::interrupt::until_interrupted;
use crate::output::{self, Format};

#[derive(Debug, Args)]
pub(super) struct BackupArgs {
    /// The folders
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// The name of the recovery point; else the time and some letters
    #[arg(long, value_name = "NAME")]
    id: Option<String>,
    /// What is unchanged since this recovery point is not read again; else the newest of this host with the same folder
    #[arg(long, value_name = "ID")]
    parent: Option<String>,
    /// Read every file, whatever earlier recovery points say
    #[arg(long, conflicts_with = "parent")]
    no_parent: bool,
    /// The name of this machine in the recovery point; else its own
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// Go into file systems that are mounted below the folders
    #[arg(long)]
    cross_mounts: bool,
    /// Only say what would happen: the folders are looked through, nothing is stored
    #[arg(long)]
    dry_run: bool,
}

/// What `backup` did.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Done {
    /// The new recovery point.
    recovery_point: String,
    /// Whether everything could be read.
    complete: bool,
    contents: Vec<Content>,
    /// Bytes added to the repository.
    stored_bytes: u64,
    seconds: f64,
}

/// One folder of it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Content {
    name: String,
    /// The recovery point that it was compared with, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<String>,
    files: u64,
    /// Files taken over from the parent without reading them.
    unchanged_files: u64,
    directories: u64,
    others: u64,
    bytes: u64,
    new_bytes: u64,
    changed_while_read: Incidents,
    vanished: Incidents,
    skipped: Incidents,
    missed: Incidents,
}

/// A recovery point that has the same folder.
struct Parent {
    id: PointId,
    table: TableRef,
}

pub(super) async fn run(place: &PlaceArgs, args: &BackupArgs, format: Format) -> Result<Exit> {
    let paths = folders(&args.paths)?;
    let repository = place.open().await?;
    if args.dry_run {
        return would(&repository, args, &paths, format).await;
    }
    let cancel = CancellationToken::new();
    let done = until_interrupted(&cancel, store(&repository, args, &paths, &cancel)).await?;
    output::print(&output::render(format, &done, || table(&done), || format!("{}\n", done.recovery_point))?)?;
    for content in &done.contents {
        tell(content);
    }
    Ok(if done.complete { Exit::Succeeded } else { Exit::Incomplete })
}

/// The folders by their full names, each once.
fn folders(paths: &[PathBuf]) -> Result<Vec<(String, PathBuf)>> {
    let mut folders = Vec::<(String, PathBuf)>::new();
    for path in paths {
        let what = || format!("back up {}", path.display());
        let full = path.canonicalize().map_err(|e| Error::new(what()).because(e))?;
        if !full.is_dir() {
            return Err(Error::usage(format!("{}: it is not a folder", what())).next("name the folder that it is in"));
        }
        let Some(name) = full.to_str().map(str::to_owned) else {
            return Err(Error::new(format!(
                "{}: the name of the folder itself must be UTF-8; names in it need not",
                what()
            )));
        };
        if !folders.iter().any(|(known, _)| *known == name) {
            folders.push((name, full));
        }
    }
    Ok(folders)
}

async fn store(
    repository: &Repository,
    args: &BackupArgs,
    paths: &[(String, PathBuf)],
    cancel: &CancellationToken,
) -> Result<Done> {
    let (clock, created) = (Instant::now(), Timestamp::now());
    let host = host(args);
    let id = id(args, created)?;
    let mut parents = Vec::new();
    for (name, _) in paths {
        parents.push(parent(repository, args, &host, name).await?);
    }
    let had_parents = parents.iter().any(Option::is_some);
    let mut session = write(repository, args, paths, parents, cancel).await?;
    match check(repository, &session.roots, cancel).await {
        Err(damage) if had_parents && damage.is_damage() => {
            eprintln!(
                "orlop: an earlier recovery point has lost something, everything is stored again without it: {damage}"
            );
            session = write(repository, args, paths, paths.iter().map(|_| None).collect(), cancel).await?;
            check(repository, &session.roots, cancel).await.map_err(read_back)?;
        }
        checked => checked.map_err(read_back)?,
    }
    let Session { roots, contents, written } = session;
    let complete = contents.iter().all(|content: &Content| content.missed.is_empty());
    let stats = Stats {
        objects: 0,
        files: contents.iter().map(|c| c.files).sum(),
        bytes: contents.iter().map(|c| c.bytes).sum(),
        new_bytes: written.stats.new_bytes,
        stored_bytes: written.stats.stored_bytes,
    };
    let point = RecoveryPoint {
        version: RecoveryPoint::VERSION,
        id,
        created,
        source: Source::Paths { host },
        complete,
        objects: None,
        ledger: None,
        roots,
        packs: written.packs,
        stats,
    };
    repository.publish(&point).await.map_err(|e| explain(format!("publish the recovery point {}", point.id), e))?;
    Ok(Done {
        recovery_point: point.id.to_string(),
        complete,
        contents,
        stored_bytes: stats.stored_bytes,
        seconds: clock.elapsed().as_secs_f64(),
    })
}

/// What one writing session stored.
struct Session {
    roots: Vec<Root>,
    contents: Vec<Content>,
    written: WrittenPacks,
}

/// Stores all folders, and reads the packs back that this took.
async fn write(
    repository: &Repository,
    args: &BackupArgs,
    paths: &[(String, PathBuf)],
    parents: Vec<Option<Parent>>,
    cancel: &CancellationToken,
) -> Result<Session> {
    let writer = repository.writer().await.map_err(|e| explain("begin to write", e))?;
    let (mut roots, mut contents) = (Vec::new(), Vec::new());
    for ((name, path), parent) in paths.iter().zip(parents) {
        let (root, content) = one(repository, &writer, args, name, path, parent, cancel).await?;
        roots.push(root);
        contents.push(content);
    }
    let written = writer.finish().await.map_err(|e| explain("write the last packs", e))?;
    repository.verify_packs(&written.packs).await.map_err(|e| explain("read back what was written", e))?;
    Ok(Session { roots, contents, written })
}

/// Looks that everything is there that the trees refer to, in the packs of earlier recovery points too.
async fn check(repository: &Repository, roots: &[Root], cancel: &CancellationToken) -> Result<(), tree::Error> {
    let options = VerifyOptions { references: true, cancel: cancel.clone(), ..VerifyOptions::default() };
    for root in roots {
        tree::verify(repository, &root.table, None, &options, Arc::new(NoProgress)).await?;
    }
    Ok(())
}

fn read_back(error: tree::Error) -> Error {
    explain_tree("read back what was stored", error)
}

async fn one(
    repository: &Repository,
    writer: &Writer,
    args: &BackupArgs,
    name: &str,
    path: &Path,
    parent: Option<Parent>,
    cancel: &CancellationToken,
) -> Result<(Root, Content)> {
    let started = Timestamp::now();
    let mut options = BackupOptions::new(started);
    options.walk.cross_mounts = args.cross_mounts;
    options.cancel = cancel.clone();
    let show = Show::start(format!("backup {name}"));
    let table = parent.as_ref().map(|parent| &parent.table);
    let summary = tree::backup(writer, repository, path, table, &options, show.progress()).await;
    drop(show);
    let summary = summary.map_err(|e| explain_tree(format!("back up {name}"), e))?;
    if let Some(why) = &summary.parent_lost {
        eprintln!("orlop: {name}: the earlier recovery point could not be used to the end, the rest was read: {why}");
    }
    let root = Root {
        name: name.to_owned(),
        kind: RootKind::Tree,
        table: summary.root,
        files: summary.files,
        bytes: summary.bytes,
        changed_while_read: summary.changed_while_read.count,
        started,
        finished: Timestamp::now(),
        claim: None,
    };
    Ok((root, Content::new(name, parent, summary)))
}

impl Content {
    fn new(name: &str, parent: Option<Parent>, summary: TreeSummary) -> Self {
        Self {
            name: name.to_owned(),
            parent: parent.map(|parent| parent.id.to_string()),
            files: summary.files,
            unchanged_files: summary.unchanged_files,
            directories: summary.directories,
            others: summary.others,
            bytes: summary.bytes,
            new_bytes: summary.new_bytes,
            changed_while_read: summary.changed_while_read,
            vanished: summary.vanished,
            skipped: summary.skipped,
            missed: summary.missed,
        }
    }
}

fn host(args: &BackupArgs) -> String {
    let own = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok().map(|name| name.trim().to_owned());
    args.host.clone().or_else(own).unwrap_or_else(|| "unknown".to_owned())
}

fn id(args: &BackupArgs, created: Timestamp) -> Result<PointId> {
    match &args.id {
        Some(id) => id.parse().map_err(|e| Error::usage(format!("use the name {id}")).because(e)),
        None => {
            // Enough against two runs of one second; a clash would be refused when the recovery point is published.
            let unique = created.subsec_nanosecond().unsigned_abs() ^ std::process::id().rotate_left(12);
            new_id(created, &format!("{unique:08x}"))
        }
    }
}

async fn parent(repository: &Repository, args: &BackupArgs, host: &str, name: &str) -> Result<Option<Parent>> {
    if args.no_parent {
        return Ok(None);
    }
    let found = match &args.parent {
        Some(id) => Some(point(repository, id).await?),
        None => {
            let points = repository.points().await.map_err(|e| explain("list the recovery points", e))?;
            let ours = |point: &RecoveryPoint| {
                matches!(&point.source, Source::Paths { host: other } if other == host) && point.root(name).is_some()
            };
            let readable = points.into_iter().filter_map(|entry| entry.point.ok());
            readable.filter(ours).max_by_key(|point| point.created)
        }
    };
    Ok(found.and_then(|point| Some(Parent { table: point.root(name)?.table, id: point.id })))
}

fn table(done: &Done) -> String {
    let row = |c: &Content| {
        [
            c.name.clone(),
            c.files.to_string(),
            c.unchanged_files.to_string(),
            human::bytes(c.bytes),
            human::bytes(c.new_bytes),
            c.changed_while_read.count.to_string(),
            c.missed.count.to_string(),
        ]
    };
    let header = ["FOLDER", "FILES", "UNCHANGED", "BYTES", "NEW", "CHANGED WHILE READ", "MISSED"];
    let mut text = output::table(header, done.contents.iter().map(row));
    let state = if done.complete { "complete" } else { "NOT complete" };
    text.push_str(&format!(
        "\nRecovery point {} is {state}: {} added in {:.1} s, read back.\n",
        done.recovery_point,
        human::bytes(done.stored_bytes),
        done.seconds
    ));
    text
}

/// Names what happened to single files.
fn tell(content: &Content) {
    let lists = [
        ("missed", &content.missed),
        ("changed while read", &content.changed_while_read),
        ("gone before it was read", &content.vanished),
        ("left out", &content.skipped),
    ];
    for (what, incidents) in lists {
        super::restore::tell(&content.name, what, incidents);
    }
}

/// What a dry run found.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Would {
    contents: Vec<WouldContent>,
    dry_run: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct WouldContent {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<String>,
    files: u64,
    bytes: u64,
}

async fn would(
    repository: &Repository,
    args: &BackupArgs,
    paths: &[(String, PathBuf)],
    format: Format,
) -> Result<Exit> {
    let mut contents = Vec::new();
    for (name, path) in paths {
        let parent = parent(repository, args, &host(args), name).await?.map(|parent| parent.id.to_string());
        let (files, bytes) = count(path, args.cross_mounts)?;
        contents.push(WouldContent { name: name.clone(), parent, files, bytes });
    }
    let would = Would { contents, dry_run: true };
    let table = || {
        let row = |c: &WouldContent| {
            [c.name.clone(), c.files.to_string(), human::bytes(c.bytes), human::maybe(c.parent.clone())]
        };
        let text = output::table(["FOLDER", "FILES", "BYTES", "COMPARED WITH"], would.contents.iter().map(row));
        format!("{text}\nThese would be backed up (dry run: nothing was stored).\n")
    };
    let names = || would.contents.iter().map(|c| format!("{}\n", c.name)).collect();
    output::print(&output::render(format, &would, table, names)?)?;
    Ok(Exit::Succeeded)
}

/// Files below a folder, and their bytes; as the walk of a backup goes, without following symlinks.
fn count(folder: &Path, cross_mounts: bool) -> Result<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let failed = |path: &Path| {
        let path = path.display().to_string();
        move |e: std::io::Error| Error::new(format!("look at {path}")).because(e)
    };
    let device = folder.symlink_metadata().map_err(failed(folder))?.dev();
    let (mut files, mut bytes, mut folders) = (0, 0, vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).map_err(failed(&folder))? {
            let path = entry.map_err(failed(&folder))?.path();
            let metadata = path.symlink_metadata().map_err(failed(&path))?;
            if metadata.is_dir() && (cross_mounts || metadata.dev() == device) {
                folders.push(path);
            } else if metadata.is_file() {
                files += 1;
                bytes += metadata.len();
            }
        }
    }
    Ok((files, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_named_twice_is_taken_once() {
        let dir = tempfile::tempdir().expect("a folder");
        let twice = [dir.path().to_owned(), dir.path().join(".")];
        assert_eq!(folders(&twice).expect("folders").len(), 1);
    }

    #[test]
    fn only_folders_are_taken() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let error = folders(&[file.path().to_owned()]).expect_err("a file is no folder");
        assert_eq!(error.exit_code(), Exit::Usage);
        assert!(folders(&["/no/such/folder".into()]).is_err());
    }
}
