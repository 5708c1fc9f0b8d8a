//! An image, a block device, or what comes on standard input.

use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use repository::volume::{self, BackupOptions, Changes, Parent, StreamSummary, VolumeSummary};
use repository::{PointId, Repository, Root, RootKind, TableRef, Writer};
use serde::Serialize;

use super::parent::{Sought, parent};
use super::{BackupArgs, Content, Run};
use crate::error::{Error, Exit, Result};
use crate::human;
use crate::output::{self, Format};
use crate::repo::open::{explain_volume, point};
use crate::repo::progress::Show;

/// An image or a device that is to be stored.
pub(super) struct Image {
    name: String,
    path: PathBuf,
    size: u64,
}

/// A volume of a recovery point.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Volume {
    name: String,
    /// The recovery point that it was compared with, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<String>,
    #[serde(flatten)]
    summary: VolumeSummary,
}

/// A stream of a recovery point.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Stream {
    name: String,
    #[serde(flatten)]
    summary: StreamSummary,
}

impl Image {
    /// Looks at it, before anything is asked of the repository.
    pub(super) fn find(path: &Path, name: Option<&str>) -> Result<Self> {
        let what = || format!("back up {}", path.display());
        let full = path.canonicalize().map_err(|e| Error::new(what()).because(e))?;
        let kind = full.metadata().map_err(|e| Error::new(what()).because(e))?.file_type();
        if kind.is_dir() {
            return Err(Error::usage(format!("{}: it is a folder", what())).next("leave --image out for folders"));
        }
        if !(kind.is_file() || kind.is_block_device()) {
            return Err(Error::usage(format!("{}: it is neither a file nor a block device", what()))
                .next("--stdin NAME stores what comes out of a pipe"));
        }
        let size = volume::image_size(&full).map_err(|e| explain_volume(what(), e))?;
        let name = match (name, full.to_str()) {
            (Some(name), _) | (None, Some(name)) => name.to_owned(),
            (None, None) => return Err(Error::usage(format!("{}: its name is not text", what())).next("give --name")),
        };
        Ok(Self { name, path: full, size })
    }

    fn changes(&self, args: &BackupArgs) -> Result<Option<Changes>> {
        let Some(path) = &args.changed_ranges else { return Ok(None) };
        let what = || format!("read the list of changes in {}", path.display());
        let text = std::fs::read_to_string(path).map_err(|e| Error::new(what()).because(e))?;
        Changes::parse(&text, self.size).map(Some).map_err(|e| Error::new(what()).because(e))
    }
}

impl Run<'_> {
    /// Stores an image or a device.
    pub(super) async fn image(&self, image: &Image) -> Result<(Root, Content)> {
        let started = Timestamp::now();
        // Without a parent there is nothing that a list of changes could be the difference to: everything is read.
        let parent = match self.parents {
            true => parent_of(self.repository, Some(&self.writer), self.args, image).await?,
            false => None,
        };
        let changes = match parent {
            Some(_) => image.changes(self.args)?,
            None => None,
        };
        let options = BackupOptions {
            parent: parent.as_ref().map(|(_, root)| Parent { table: root.table, size: root.bytes }),
            changes,
            cancel: self.cancel.clone(),
        };
        let show = Show::start(format!("backup {}", image.name));
        let summary = volume::backup(&self.writer, &image.path, &options, show.progress()).await;
        drop(show);
        let summary = summary.map_err(|e| explain_volume(format!("back up {}", image.name), e))?;
        let root = root(&image.name, RootKind::Volume, summary.root, summary.bytes, started);
        let parent = parent.map(|(id, _)| id.to_string());
        Ok((root, Content::Volume(Volume { name: image.name.clone(), parent, summary })))
    }

    /// Stores what comes on standard input.
    pub(super) async fn stdin(&self, name: &str) -> Result<(Root, Content)> {
        let started = Timestamp::now();
        let show = Show::start(format!("backup {name}"));
        let stored = volume::store_stream(&self.writer, tokio::io::stdin(), &self.cancel, show.progress()).await;
        drop(show);
        let summary = stored.map_err(|e| explain_volume(format!("back up {name}"), e))?;
        let root = root(name, RootKind::Stream, summary.root, summary.bytes, started);
        Ok((root, Content::Stream(Stream { name: name.to_owned(), summary })))
    }
}

/// The parent of an image. One that was named and does not have the image is a mistake.
async fn parent_of(
    repository: &Repository,
    session: Option<&Writer>,
    args: &BackupArgs,
    image: &Image,
) -> Result<Option<(PointId, Root)>> {
    let sought = Sought { name: &image.name, kind: RootKind::Volume, size: Some(image.size) };
    let found = parent(repository, session, args, sought).await?;
    match (&args.parent, found) {
        (Some(id), None) if sought.meant(&point(repository, id).await?, args).is_none() => {
            Err(Error::new(format!("the recovery point {id} has no volume {}", image.name))
                .next("orlop repo show tells what it has; --name gives the image the name that it has there"))
        }
        (_, found) => Ok(found),
    }
}

fn root(name: &str, kind: RootKind, table: TableRef, bytes: u64, started: Timestamp) -> Root {
    Root {
        name: name.to_owned(),
        kind,
        table,
        files: 0,
        bytes,
        changed_while_read: 0,
        started,
        finished: Timestamp::now(),
        claim: None,
    }
}

impl Volume {
    pub(super) fn has_parent(&self) -> bool {
        self.parent.is_some()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.summary.bytes
    }

    pub(super) fn table(&self) -> String {
        let row = [
            self.name.clone(),
            human::bytes(self.summary.bytes),
            human::bytes(self.summary.data_bytes),
            human::bytes(self.summary.read_bytes),
            human::maybe(self.parent.clone()),
        ];
        output::table(["VOLUME", "SIZE", "DATA", "READ", "COMPARED WITH"], [row])
    }
}

impl Stream {
    pub(super) fn bytes(&self) -> u64 {
        self.summary.bytes
    }

    pub(super) fn table(&self) -> String {
        output::table(["STREAM", "BYTES"], [[self.name.clone(), human::bytes(self.summary.bytes)]])
    }
}

/// What a dry run found.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Would {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<String>,
    bytes: u64,
    /// Bytes that a list of changes names.
    #[serde(skip_serializing_if = "Option::is_none")]
    changed_bytes: Option<u64>,
    dry_run: bool,
}

pub(super) async fn would(repository: &Repository, args: &BackupArgs, image: &Image, format: Format) -> Result<Exit> {
    let changes = image.changes(args)?;
    let parent = if args.no_parent { None } else { parent_of(repository, None, args, image).await? };
    let would = Would {
        name: image.name.clone(),
        parent: parent.map(|(id, _)| id.to_string()),
        bytes: image.size,
        changed_bytes: changes.as_ref().map(Changes::bytes),
        dry_run: true,
    };
    let table = || {
        let changed = would.changed_bytes.map(human::bytes);
        let row =
            [would.name.clone(), human::bytes(would.bytes), human::maybe(changed), human::maybe(would.parent.clone())];
        let text = output::table(["VOLUME", "SIZE", "CHANGED", "COMPARED WITH"], [row]);
        format!("{text}\nIt would be backed up (dry run: nothing was stored).\n")
    };
    output::print(&output::render(format, &would, table, || format!("{}\n", would.name))?)?;
    Ok(Exit::Succeeded)
}
