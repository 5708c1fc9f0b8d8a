//! Folders of this machine.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use repository::tree::{self, BackupOptions, Incidents, TreeSummary};
use repository::{Counters, PointId, Progress, Repository, Root, RootKind};
use serde::Serialize;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::parent::{Sought, parent};
use super::{BackupArgs, Content, Run};
use crate::error::{Error, Exit, Result};
use crate::human;
use crate::output::{self, Format};
use crate::repo::open::explain_tree;
use crate::repo::progress::Show;

/// How long a backup must last before the folder is counted for it: for a short one nobody needs to know how much is left.
const COUNT_AFTER: Duration = Duration::from_secs(5);

/// One folder of a recovery point.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Folder {
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

/// The folders by their full names, each once.
pub(super) fn folders(paths: &[PathBuf]) -> Result<Vec<(String, PathBuf)>> {
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

/// The tree of a folder in earlier recovery points. Another folder of the same size says nothing.
fn sought(name: &str) -> Sought<'_> {
    Sought { name, kind: RootKind::Tree, size: None }
}

impl Run<'_> {
    /// Stores a folder.
    pub(super) async fn folder(&self, name: &str, path: &Path) -> Result<(Root, Content)> {
        let parent = match self.parents {
            true => parent(self.repository, Some(&self.writer), self.args, sought(name)).await?,
            false => None,
        };
        let started = Timestamp::now();
        let mut options = BackupOptions::new(started);
        options.walk.cross_mounts = self.args.cross_mounts;
        options.cancel = self.cancel.clone();
        let show = Show::start(format!("backup {name}"));
        let counting = match &parent {
            Some((_, root)) => {
                show.progress().total(Counters { files: root.files, bytes: root.bytes, new_bytes: 0 });
                None
            }
            None => Some(self.count_beside(path, show.progress())),
        };
        let table = parent.as_ref().map(|(_, root)| &root.table);
        let summary = tree::backup(&self.writer, self.repository, path, table, &options, show.progress()).await;
        drop(show);
        drop(counting);
        let summary = summary.map_err(|e| explain_tree(format!("back up {name}"), e))?;
        if let Some(why) = &summary.parent_lost {
            eprintln!(
                "orlop: {name}: the earlier recovery point could not be used to the end, the rest was read: {why}"
            );
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
        Ok((root, Content::Tree(Folder::new(name, parent.map(|(id, _)| id), summary))))
    }
}

impl Run<'_> {
    /// Tells the backup of a folder, while it goes on, how much there is in all, until the guard is dropped. What cannot be counted stays unknown.
    fn count_beside(&self, folder: &Path, progress: Arc<dyn Progress>) -> DropGuard {
        let (folder, cross_mounts, cancel) = (folder.to_owned(), self.args.cross_mounts, self.cancel.child_token());
        let guard = cancel.clone().drop_guard();
        tokio::spawn(async move {
            if cancel.run_until_cancelled(tokio::time::sleep(COUNT_AFTER)).await.is_none() {
                return;
            }
            // A thread of its own, which nobody waits for.
            std::thread::spawn(move || {
                if let Ok(Some((files, bytes))) = count(&folder, cross_mounts, &cancel) {
                    progress.total(Counters { files, bytes, new_bytes: 0 });
                }
            });
        });
        guard
    }
}

impl Folder {
    fn new(name: &str, parent: Option<PointId>, summary: TreeSummary) -> Self {
        Self {
            name: name.to_owned(),
            parent: parent.map(|id| id.to_string()),
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

    pub(super) fn is_complete(&self) -> bool {
        self.missed.is_empty()
    }

    pub(super) fn has_parent(&self) -> bool {
        self.parent.is_some()
    }

    pub(super) fn amounts(&self) -> (u64, u64) {
        (self.files, self.bytes)
    }

    /// Names what happened to single files.
    pub(super) fn tell(&self) {
        let lists = [
            ("missed", &self.missed),
            ("changed while read", &self.changed_while_read),
            ("gone before it was read", &self.vanished),
            ("left out", &self.skipped),
        ];
        for (what, incidents) in lists {
            crate::repo::restore::tell(&self.name, what, incidents);
        }
    }
}

/// A table of folders.
pub(super) fn table<'a>(folders: impl Iterator<Item = &'a Folder>) -> String {
    let row = |c: &Folder| {
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
    output::table(header, folders.map(row))
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

pub(super) async fn would(
    repository: &Repository,
    args: &BackupArgs,
    paths: &[(String, PathBuf)],
    format: Format,
) -> Result<Exit> {
    let mut contents = Vec::new();
    for (name, path) in paths {
        let parent = match args.no_parent {
            true => None,
            false => parent(repository, None, args, sought(name)).await?.map(|(id, _)| id.to_string()),
        };
        let (files, bytes) = count(path, args.cross_mounts, &CancellationToken::new())?.unwrap_or_default();
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

/// Files below a folder, and their bytes; as the walk of a backup goes, without following symlinks. Nothing, if nobody wants to know any more.
fn count(folder: &Path, cross_mounts: bool, cancel: &CancellationToken) -> Result<Option<(u64, u64)>> {
    use std::os::unix::fs::MetadataExt;
    let failed = |path: &Path| {
        let path = path.display().to_string();
        move |e: std::io::Error| Error::new(format!("look at {path}")).because(e)
    };
    let device = folder.symlink_metadata().map_err(failed(folder))?.dev();
    let (mut files, mut bytes, mut folders) = (0, 0, vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        if cancel.is_cancelled() {
            return Ok(None);
        }
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
    Ok(Some((files, bytes)))
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
