//! `orlop repo ls` and `dump`: looking into a recovery point without restoring it.

use std::io::{BufWriter, ErrorKind};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use repository::tree::entry::{Entry, Kind};
use repository::tree::{self, TreePath};
use repository::{Repository, Root, RootKind, volume};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::PlaceArgs;
use super::open::{explain_tree, explain_volume, has_files, map, point};
use super::path::{inside, root_with, tree_path};
use super::progress::Show;
use super::restore::tell;
use crate::error::{Error, Exit, Result};
use crate::human;
use crate::output::{self, Format};

/// Bytes of an archive that are written at once: headers are short, and a pipe takes 64 KiB.
const ARCHIVE_BUFFER_LEN: usize = 64 << 10;

#[derive(Debug, Args)]
pub(super) struct LsArgs {
    /// The recovery point, or `latest`
    id: String,
    /// A file or a folder in it; else the top
    path: Option<PathBuf>,
    /// Which volume (namespace/claim) or folder, if there are several
    #[arg(long, value_name = "NAME")]
    volume: Option<String>,
    /// Also what is in folders
    #[arg(short = 'R', long)]
    recursive: bool,
}

#[derive(Debug, Args)]
pub(super) struct DumpArgs {
    /// The recovery point, or `latest`
    id: String,
    /// The file, or with `--format tar` a file or a folder, else the top; left out for a volume that was stored as an image, or a stream, of
    /// which all is written
    path: Option<PathBuf>,
    /// Which volume (namespace/claim) or folder, if there are several
    #[arg(long, value_name = "NAME")]
    volume: Option<String>,
    /// As what it is written: the bytes of a file, a volume or a stream, or an archive of files with all that is known of them
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "raw")]
    format: DumpFormat,
}

/// As what `dump` writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum DumpFormat {
    // No documentation comments on these: help would give each a paragraph.
    Raw,
    Tar,
}

/// One file of a listing.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    /// Relative to the top; what is not printable is escaped.
    path: String,
    /// `file`, `directory`, `symlink`, `fifo`, `characterDevice`, `blockDevice` or `hardLink`.
    kind: &'static str,
    /// The permission bits, in octal.
    mode: String,
    uid: u32,
    gid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    modified: Option<Timestamp>,
    /// Where a symlink or another name of a file leads.
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
}

impl Line {
    fn new(path: &TreePath, entry: &Entry) -> Self {
        let (kind, size, target) = match &entry.kind {
            Kind::Directory => ("directory", None, None),
            Kind::File(file) => ("file", Some(file.size), None),
            Kind::Symlink { target } => ("symlink", None, Some(String::from_utf8_lossy(target).into_owned())),
            Kind::Fifo => ("fifo", None, None),
            Kind::CharacterDevice(_) => ("characterDevice", None, None),
            Kind::BlockDevice(_) => ("blockDevice", None, None),
            Kind::HardLink { first } => ("hardLink", None, Some(first.to_string())),
        };
        let attributes = &entry.attributes;
        let nanoseconds = i32::try_from(attributes.mtime.nanoseconds).unwrap_or_default();
        Self {
            path: path.to_string(),
            kind,
            mode: format!("{:04o}", attributes.mode),
            uid: attributes.uid,
            gid: attributes.gid,
            size,
            modified: Timestamp::new(attributes.mtime.seconds, nanoseconds).ok(),
            target,
        }
    }

    fn cells(&self) -> [String; 6] {
        let path = match &self.target {
            Some(target) => format!("{} -> {target}", self.path),
            None => self.path.clone(),
        };
        let owner = format!("{}:{}", self.uid, self.gid);
        let modified = self.modified.map_or_else(human::dash, human::instant);
        [self.mode.clone(), self.kind.to_owned(), owner, human::maybe(self.size), modified, path]
    }
}

pub(super) async fn ls(place: &PlaceArgs, args: &LsArgs, format: Format) -> Result<Exit> {
    let top = tree_path(args.path.as_deref().unwrap_or(Path::new("")))?;
    let repository = place.open().await?;
    let point = point(&repository, &args.id).await?;
    let root = root_with(&point, args.volume.as_deref(), Some(&top))?;
    has_files(root)?;
    let top = inside(&repository, root, top).await?;
    let what = format!("list {top} of {}", root.name);
    let lines = lines(&repository, root, &top, args.recursive).await.map_err(|e| explain_tree(&what, e))?;
    if lines.is_empty() && top != TreePath::root() {
        return Err(
            Error::new(format!("{what}: there is no such file")).next("orlop repo ls without a path shows the top")
        );
    }
    let header = ["MODE", "KIND", "OWNER", "SIZE", "MODIFIED", "PATH"];
    let table = || output::table(header, lines.iter().map(Line::cells));
    let names = || lines.iter().map(|line| format!("{}\n", line.path)).collect();
    output::print(&output::render(format, &lines, table, names)?)?;
    Ok(Exit::Succeeded)
}

/// What is directly in a folder, or all that is below it; a file itself.
async fn lines(
    repository: &Repository,
    root: &Root,
    top: &TreePath,
    recursive: bool,
) -> Result<Vec<Line>, tree::Error> {
    let depth = top.components().count() + 1;
    let mut entries = tree::entries(repository, &root.table, top).boxed();
    let mut lines = Vec::new();
    while let Some((path, entry)) = entries.try_next().await? {
        let is_top = path == *top;
        if (is_top && entry.kind == Kind::Directory) || (!recursive && path.components().count() > depth) {
            continue;
        }
        lines.push(Line::new(&path, &entry));
    }
    Ok(lines)
}

/// How many files there are below a path, and their bytes.
pub(super) async fn count(repository: &Repository, root: &Root, path: &TreePath) -> Result<(u64, u64)> {
    let sum = |(files, bytes), (_, entry): (TreePath, Entry)| async move {
        Ok(match entry.kind {
            Kind::File(file) => (files + 1, bytes + file.size),
            _ => (files, bytes),
        })
    };
    let entries = tree::entries(repository, &root.table, path);
    entries.try_fold((0, 0), sum).await.map_err(|e| explain_tree(format!("look at {path} of {}", root.name), e))
}

pub(super) async fn dump(place: &PlaceArgs, args: &DumpArgs, format: Format) -> Result<Exit> {
    if format != Format::Table {
        return Err(Error::usage("dump: the file itself is written, so there is no other format of it")
            .next("leave --output out; orlop repo ls tells of the file, also as JSON or YAML"));
    }
    let path = args.path.as_deref().map(tree_path).transpose()?;
    let repository = place.open().await?;
    let point = point(&repository, &args.id).await?;
    let root = root_with(&point, args.volume.as_deref(), path.as_ref())?;
    let path = match path {
        Some(path) if root.kind == RootKind::Tree => Some(inside(&repository, root, path).await?),
        path => path,
    };
    if args.format == DumpFormat::Tar {
        return dump_tar(&repository, root, &path.unwrap_or_default()).await;
    }
    let path = match (map(&repository, root), path) {
        (Some(map), None) => return dump_map(&map, &root.name).await,
        (Some(_), Some(_)) => return has_files(root).map(|()| Exit::Succeeded),
        (None, Some(path)) => path,
        (None, None) => {
            return Err(Error::usage(format!("{} is a folder, and no file in it is named", root.name))
                .next("orlop repo ls shows what is there; --format tar writes all of it"));
        }
    };
    match tree::dump(&repository, &root.table, &path, std::io::stdout()).await {
        // A reader that has gone away, such as `head`, is no failure.
        Err(tree::Error::FileSystem { source, .. }) if source.kind() == ErrorKind::BrokenPipe => Ok(Exit::Succeeded),
        Err(e) => Err(explain_tree(format!("dump {path} of {}", root.name), e)),
        Ok(_) => Ok(Exit::Succeeded),
    }
}

/// Writes a folder, or one file, to standard output as an archive.
async fn dump_tar(repository: &Repository, root: &Root, path: &TreePath) -> Result<Exit> {
    has_files(root)?;
    let out = BufWriter::with_capacity(ARCHIVE_BUFFER_LEN, std::io::stdout());
    let written = tree::write_tar(repository, &root.table, path, out).await;
    match written {
        Err(tree::Error::FileSystem { source, .. }) if source.kind() == ErrorKind::BrokenPipe => Ok(Exit::Succeeded),
        Err(e) => Err(explain_tree(format!("dump {path} of {}", root.name), e)),
        Ok(summary) => {
            tell(&root.name, "not whole in the archive", &summary.left_out);
            Ok(if summary.left_out.is_empty() { Exit::Succeeded } else { Exit::Incomplete })
        }
    }
}

/// Writes all of a volume or a stream to standard output.
async fn dump_map(map: &volume::Map, name: &str) -> Result<Exit> {
    let show = Show::start(format!("dump {name}"));
    let dumped = volume::read_stream(map, tokio::io::stdout(), &CancellationToken::new(), show.progress()).await;
    drop(show);
    match dumped {
        Err(volume::Error::Stream { source, .. }) if source.kind() == ErrorKind::BrokenPipe => Ok(Exit::Succeeded),
        Err(e) => Err(explain_volume(format!("dump {name}"), e)),
        Ok(()) => Ok(Exit::Succeeded),
    }
}
