//! `orlop repo restore`: files of a recovery point into a folder.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use repository::tree::{self, ExpectedCounts, Incidents, RestoreOptions, TreePath};
use repository::{Counters, RecoveryPoint, Repository, Root, RootKind, volume};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::PlaceArgs;
use super::open::{explain_tree, explain_volume, has_files, map, point, roots};
use super::path::{inside, roots_with, tree_path};
use super::progress::Show;
use crate::error::{Error, Exit, Result};
use crate::human;
use crate::interrupt::until_interrupted;
use crate::output::{self, Format};

#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    /// The recovery point, or `latest`
    id: String,
    /// The folder to write into; made if it is missing, else it must be empty. For a volume that was stored as an image, or a stream: the
    /// file to make, the folder to make it in, or a block device
    target: PathBuf,
    /// Only this volume (namespace/claim) or folder. Without it all are restored; if there are several, each below its own name
    #[arg(long, value_name = "NAME")]
    volume: Option<String>,
    /// Only this file or folder, and what is in it
    #[arg(long, value_name = "PATH")]
    path: Option<PathBuf>,
    /// Write into a folder that is not empty: files of the same name are replaced, others stay. A file that is there is replaced
    #[arg(long)]
    replace: bool,
    /// Go on where an earlier restore into the same target ended: what is there already is read, compared, and not fetched again, of images, devices and
    /// large files. An image that this one does not finish stays for the next one. Files of other restores are replaced
    #[arg(long)]
    resume: bool,
    /// Only say what would happen
    #[arg(long)]
    dry_run: bool,
}

/// What `restore` did, or would do.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Done {
    recovery_point: String,
    contents: Vec<Content>,
    dry_run: bool,
    seconds: f64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Content {
    name: String,
    target: PathBuf,
    files: u64,
    bytes: u64,
    /// Bytes that were there already.
    kept_bytes: u64,
    /// Files that could not be restored; none after a dry run.
    failed: Incidents,
}

pub(super) async fn run(place: &PlaceArgs, args: &RestoreArgs, format: Format) -> Result<Exit> {
    let only = args.path.as_deref().map(tree_path).transpose()?;
    let repository = place.open().await?;
    let point = point(&repository, &args.id).await?;
    let targets = targets(&point, args, only.as_ref())?;
    if only.is_some() {
        targets.iter().try_for_each(|(root, _)| has_files(root))?;
    }
    let cancel = CancellationToken::new();
    let clock = Instant::now();
    let contents = if args.dry_run {
        would(&repository, &targets, only.as_ref()).await?
    } else {
        until_interrupted(&cancel, restore_all(&repository, &targets, args, only, &cancel)).await?
    };
    let done = Done {
        recovery_point: point.id.to_string(),
        contents,
        dry_run: args.dry_run,
        seconds: clock.elapsed().as_secs_f64(),
    };
    output::print(&output::render(format, &done, || table(&done), || format!("{}\n", args.target.display()))?)?;
    for content in &done.contents {
        tell(&content.name, "not restored", &content.failed);
    }
    let whole = done.contents.iter().all(|content| content.failed.is_empty());
    Ok(if whole { Exit::Succeeded } else { Exit::Incomplete })
}

/// What goes where: one content into the target itself, several each below its own name.
fn targets<'a>(
    point: &'a RecoveryPoint,
    args: &RestoreArgs,
    only: Option<&TreePath>,
) -> Result<Vec<(&'a Root, PathBuf)>> {
    let with_path = only.filter(|_| args.volume.is_none()).map(|path| roots_with(point, path));
    let roots = match with_path.as_deref() {
        Some([root]) => vec![*root],
        _ => roots(point, args.volume.as_deref())?,
    };
    if roots.is_empty() {
        return Err(Error::new(format!("the recovery point {} has no volume and no folder", point.id)));
    }
    if let [root] = roots[..] {
        return Ok(vec![(root, place_of(root, &args.target))]);
    }
    // Names come from the repository, so they must not lead out of the target.
    let below = |root: &'a Root| Ok((root, args.target.join(relative(&root.name)?)));
    roots.into_iter().map(below).collect()
}

/// A volume or a stream is a file: in a folder that is there it gets its own name.
fn place_of(root: &Root, target: &Path) -> PathBuf {
    let name = relative(&root.name).ok().filter(|_| root.kind != RootKind::Tree && target.is_dir());
    let name = name.as_deref().and_then(Path::file_name);
    name.map_or_else(|| target.to_owned(), |name| target.join(name))
}

fn relative(name: &str) -> Result<PathBuf> {
    let relative = name.trim_start_matches('/');
    let clean = |part: &str| !matches!(part, "" | "." | "..");
    if relative.split('/').all(clean) {
        Ok(relative.into())
    } else {
        Err(Error::new(format!("{name:?} cannot be the name of a folder")).next("name one volume with --volume"))
    }
}

async fn restore_all(
    repository: &Repository,
    targets: &[(&Root, PathBuf)],
    args: &RestoreArgs,
    only: Option<TreePath>,
    cancel: &CancellationToken,
) -> Result<Vec<Content>> {
    let mut contents = Vec::new();
    for (root, target) in targets {
        if let Some(map) = map(repository, root) {
            contents.push(restore_map(&map, root, target, args, cancel).await?);
            continue;
        }
        let only = match only.clone() {
            Some(path) => Some(existing(repository, root, path).await?),
            None => None,
        };
        let whole = only.is_none();
        let options = RestoreOptions {
            replace: args.replace || args.resume,
            resume: args.resume,
            only,
            expected: whole.then_some(ExpectedCounts { files: root.files, bytes: root.bytes }),
            cancel: cancel.clone(),
            ..RestoreOptions::default()
        };
        let show = Show::start(format!("restore {}", root.name));
        if whole {
            show.progress().total(Counters { files: root.files, bytes: root.bytes, new_bytes: 0 });
        }
        let summary = tree::restore(repository, &root.table, target, &options, show.progress()).await;
        drop(show);
        let summary = summary.map_err(|e| explain(root, target, e))?;
        contents.push(Content {
            name: root.name.clone(),
            target: target.clone(),
            files: summary.files,
            bytes: summary.bytes,
            kept_bytes: summary.kept_bytes,
            failed: summary.failed,
        });
    }
    Ok(contents)
}

/// Restores a volume or a stream into a file or a device.
async fn restore_map(
    map: &volume::Map,
    root: &Root,
    target: &Path,
    args: &RestoreArgs,
    cancel: &CancellationToken,
) -> Result<Content> {
    let what = || format!("restore {} into {}", root.name, target.display());
    // Several contents go below a folder, which is made; one alone goes where it was said.
    if target != args.target
        && let Some(folder) = target.parent()
    {
        std::fs::create_dir_all(folder).map_err(|e| Error::new(what()).because(e))?;
    }
    let options = volume::RestoreOptions { replace: args.replace, resume: args.resume, cancel: cancel.clone() };
    let show = Show::start(format!("restore {}", root.name));
    let restored = volume::restore(map, target, &options, show.progress()).await;
    drop(show);
    let summary = restored.map_err(|e| explain_volume(what(), e))?;
    Ok(Content {
        name: root.name.clone(),
        target: target.to_owned(),
        files: 0,
        bytes: summary.bytes,
        kept_bytes: summary.kept_bytes,
        failed: Incidents::default(),
    })
}

/// The path in a tree, where there is something at it.
async fn existing(repository: &Repository, root: &Root, path: TreePath) -> Result<TreePath> {
    let path = inside(repository, root, path).await?;
    let what = format!("restore {path} of {}", root.name);
    match tree::entry(repository, &root.table, &path).await.map_err(|e| explain_tree(&what, e))? {
        Some(_) => Ok(path),
        None => Err(Error::new(format!("{what}: there is no such file")).next("orlop repo ls shows what is there")),
    }
}

fn explain(root: &Root, target: &Path, error: tree::Error) -> Error {
    let what = format!("restore {} into {}", root.name, target.display());
    match error {
        tree::Error::TargetNotEmpty { .. } => Error::new(what)
            .because(error)
            .next("name another folder, or give --replace to replace files of the same name"),
        other => explain_tree(what, other),
    }
}

async fn would(repository: &Repository, targets: &[(&Root, PathBuf)], only: Option<&TreePath>) -> Result<Vec<Content>> {
    let mut contents = Vec::new();
    for (root, target) in targets {
        let (files, bytes) = match only {
            None => (root.files, root.bytes),
            Some(path) => {
                let path = existing(repository, root, path.clone()).await?;
                super::browse::count(repository, root, &path).await?
            }
        };
        let name = root.name.clone();
        let (target, failed) = (target.clone(), Incidents::default());
        contents.push(Content { name, target, files, bytes, kept_bytes: 0, failed });
    }
    Ok(contents)
}

fn table(done: &Done) -> String {
    let row = |c: &Content| {
        [
            c.name.clone(),
            c.target.display().to_string(),
            c.files.to_string(),
            human::bytes(c.bytes),
            c.failed.count.to_string(),
        ]
    };
    let text = output::table(["CONTENT", "TARGET", "FILES", "BYTES", "FAILED"], done.contents.iter().map(row));
    let failed: u64 = done.contents.iter().map(|c| c.failed.count).sum();
    let (point, seconds) = (&done.recovery_point, done.seconds);
    let end = match (done.dry_run, failed) {
        (true, _) => "These would be restored (dry run: nothing was written).".to_owned(),
        (false, 0) => format!("Restored from {point} in {seconds:.1} s; every byte was verified."),
        (false, n) => {
            let files = human::count(n, "file", "files");
            format!("Restored from {point} in {seconds:.1} s, but for {files}; every byte of the others was verified.")
        }
    };
    let kept: u64 = done.contents.iter().map(|c| c.kept_bytes).sum();
    let kept = if kept > 0 { format!(" {} were there already.", human::bytes(kept)) } else { String::new() };
    format!("{text}\n{end}{kept}\n")
}

/// Names on standard error what happened to single files.
pub(super) fn tell(content: &str, what: &str, incidents: &Incidents) {
    for incident in &incidents.first {
        eprintln!("orlop: {content}: {}: {what}: {}", incident.path, incident.what);
    }
    let unnamed = incidents.count.saturating_sub(incidents.first.len() as u64);
    if unnamed > 0 {
        eprintln!("orlop: {content}: {what}: and {unnamed} more");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_cannot_leave_the_target() {
        for (name, expected) in [
            ("/srv/data", Some("srv/data")),
            ("shop/data", Some("shop/data")),
            ("../x", None),
            ("/a/../../x", None),
            ("", None),
        ] {
            assert_eq!(relative(name).ok(), expected.map(PathBuf::from), "{name}");
        }
    }
}
