//! `orlop repo backup`: folders of this machine, an image or a device, or what comes on standard input, as one recovery point.

mod folders;
mod parent;
mod volume;

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use jiff::Timestamp;
use repository::{PointId, RecoveryPoint, Repository, Root, Source, Stats, Tag, Tags, Writer, WrittenPacks};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::PlaceArgs;
use super::open::{Broken, check_content, explain, new_id};
use super::progress::Show;
use crate::error::{Error, Exit, Result};
use crate::human;
use crate::interrupt::until_interrupted;
use crate::output::{self, Format};

#[derive(Debug, Args)]
pub(super) struct BackupArgs {
    /// The folders
    #[arg(value_name = "PATH", required_unless_present_any = ["image", "stdin"])]
    paths: Vec<PathBuf>,
    /// Instead of folders, an image or a block device, as a volume
    #[arg(long, value_name = "FILE", conflicts_with_all = ["paths", "stdin", "cross_mounts"])]
    image: Option<PathBuf>,
    /// The name of the image in the recovery point; else its full path
    #[arg(long, value_name = "NAME", requires = "image", value_parser = NonEmptyStringValueParser::new())]
    name: Option<String>,
    /// What of the image has changed since --parent: lines of offset and length, in bytes. Nothing else is read
    #[arg(long, value_name = "FILE", requires = "image", requires = "parent")]
    changed_ranges: Option<PathBuf>,
    /// Instead of folders, what comes on standard input, under this name
    #[arg(
        long,
        value_name = "NAME",
        conflicts_with_all = ["paths", "cross_mounts", "parent", "no_parent"],
        value_parser = NonEmptyStringValueParser::new()
    )]
    stdin: Option<String>,
    /// The name of the recovery point; else the time and some letters
    #[arg(long, value_name = "NAME")]
    id: Option<String>,
    /// What is unchanged since this recovery point is not stored again; else the newest of this host with the same content, or for an
    /// image with a single one of its size
    #[arg(long, value_name = "ID")]
    parent: Option<String>,
    /// Read everything, whatever earlier recovery points say
    #[arg(long, conflicts_with = "parent")]
    no_parent: bool,
    /// The name of this machine in the recovery point; else its own
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// A tag for the recovery point, to find it and to keep it by; several with commas
    #[arg(long = "tag", value_name = "TAG", value_delimiter = ',')]
    tags: Vec<Tag>,
    /// Go into file systems that are mounted below the folders
    #[arg(long)]
    cross_mounts: bool,
    /// Only say what would happen: nothing is stored
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

/// One content of it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
enum Content {
    Tree(folders::Folder),
    Volume(volume::Volume),
    Stream(volume::Stream),
}

impl Content {
    fn is_complete(&self) -> bool {
        match self {
            Self::Tree(folder) => folder.is_complete(),
            Self::Volume(_) | Self::Stream(_) => true,
        }
    }

    fn has_parent(&self) -> bool {
        match self {
            Self::Tree(folder) => folder.has_parent(),
            Self::Volume(volume) => volume.has_parent(),
            Self::Stream(_) => false,
        }
    }

    /// Files and bytes.
    fn amounts(&self) -> (u64, u64) {
        match self {
            Self::Tree(folder) => folder.amounts(),
            Self::Volume(volume) => (0, volume.bytes()),
            Self::Stream(stream) => (0, stream.bytes()),
        }
    }
}

/// What is backed up.
struct What {
    folders: Vec<(String, PathBuf)>,
    image: Option<volume::Image>,
}

/// One writing session: what every kind of content needs.
struct Run<'a> {
    repository: &'a Repository,
    writer: Writer,
    args: &'a BackupArgs,
    /// Whether contents are compared with earlier recovery points.
    parents: bool,
    cancel: CancellationToken,
}

/// What a session stored.
struct Stored {
    roots: Vec<Root>,
    contents: Vec<Content>,
    written: WrittenPacks,
}

pub(super) async fn run(place: &PlaceArgs, args: &BackupArgs, format: Format) -> Result<Exit> {
    let tags = Tags::new(args.tags.iter().cloned()).map_err(|e| Error::usage("use the tags").because(e))?;
    let folders = folders::folders(&args.paths)?;
    let image = args.image.as_deref().map(|path| volume::Image::find(path, args.name.as_deref())).transpose()?;
    let what = What { folders, image };
    let repository = place.open().await?;
    if args.dry_run {
        return would(&repository, args, &what, format).await;
    }
    let cancel = CancellationToken::new();
    let done = until_interrupted(&cancel, store(&repository, args, &what, tags, &cancel)).await?;
    output::print(&output::render(format, &done, || table(&done), || format!("{}\n", done.recovery_point))?)?;
    for content in &done.contents {
        if let Content::Tree(folder) = content {
            folder.tell();
        }
    }
    Ok(if done.complete { Exit::Succeeded } else { Exit::Incomplete })
}

async fn would(repository: &Repository, args: &BackupArgs, what: &What, format: Format) -> Result<Exit> {
    match &what.image {
        Some(image) => volume::would(repository, args, image, format).await,
        None if args.stdin.is_some() => {
            Err(Error::usage("backup: what comes on standard input is known only when it has come")
                .next("leave --dry-run out"))
        }
        None => folders::would(repository, args, &what.folders, format).await,
    }
}

async fn store(
    repository: &Repository,
    args: &BackupArgs,
    what: &What,
    tags: Tags,
    cancel: &CancellationToken,
) -> Result<Done> {
    let (clock, created) = (Instant::now(), Timestamp::now());
    let id = id(args, created)?;
    let mut stored = write(repository, args, &id, what, !args.no_parent, cancel).await?;
    match stored.check(repository, cancel).await {
        Err(broken) if broken.damage && stored.contents.iter().any(Content::has_parent) => {
            let why = broken.error;
            eprintln!(
                "orlop: an earlier recovery point has lost something, everything is stored again without it: {why}"
            );
            stored = write(repository, args, &id, what, false, cancel).await?;
            stored.check(repository, cancel).await.map_err(|broken| broken.error)?;
        }
        checked => checked.map_err(|broken| broken.error)?,
    }
    let (point, contents) = stored.publish(repository, id, created, host(args), tags).await?;
    Ok(Done {
        recovery_point: point.id.to_string(),
        complete: point.complete,
        contents,
        stored_bytes: point.stats.stored_bytes,
        seconds: clock.elapsed().as_secs_f64(),
    })
}

/// Stores everything, and reads the packs back that this took.
async fn write(
    repository: &Repository,
    args: &BackupArgs,
    id: &PointId,
    what: &What,
    parents: bool,
    cancel: &CancellationToken,
) -> Result<Stored> {
    let writer = repository.lone_writer(id).await.map_err(|e| explain(format!("begin the recovery point {id}"), e))?;
    let run = Run { repository, writer, args, parents, cancel: cancel.clone() };
    let mut stored = Vec::new();
    for (name, path) in &what.folders {
        stored.push(run.folder(name, path).await?);
    }
    if let Some(image) = &what.image {
        stored.push(run.image(image).await?);
    }
    if let Some(name) = &args.stdin {
        stored.push(run.stdin(name).await?);
    }
    let written = run.writer.finish().await.map_err(|e| explain("write the last packs", e))?;
    let show = Show::start_of_packs("read back");
    let read_back = repository.verify_packs_with(&written.packs, show.progress().as_ref()).await;
    drop(show);
    read_back.map_err(|e| explain("read back what was written", e))?;
    let (roots, contents) = stored.into_iter().unzip();
    Ok(Stored { roots, contents, written })
}

impl Stored {
    /// Looks that everything is there that the contents refer to, in the packs of earlier recovery points too.
    async fn check(&self, repository: &Repository, cancel: &CancellationToken) -> Result<(), Broken> {
        for root in &self.roots {
            check_content(repository, root, cancel).await?;
        }
        Ok(())
    }

    async fn publish(
        self,
        repository: &Repository,
        id: PointId,
        created: Timestamp,
        host: String,
        tags: Tags,
    ) -> Result<(RecoveryPoint, Vec<Content>)> {
        let amounts = self.contents.iter().map(Content::amounts);
        let (files, bytes) = amounts.fold((0, 0), |(files, bytes), more| (files + more.0, bytes + more.1));
        let stats = Stats {
            objects: 0,
            files,
            bytes,
            new_bytes: self.written.stats.new_bytes,
            stored_bytes: self.written.stats.stored_bytes,
        };
        let point = RecoveryPoint {
            version: RecoveryPoint::VERSION,
            id,
            created,
            source: Source::Paths { host },
            tags,
            complete: self.contents.iter().all(Content::is_complete),
            objects: None,
            ledger: None,
            roots: self.roots,
            sessions: vec![self.written.session],
            packs: self.written.packs,
            stats,
        };
        let published = repository.publish(&point).await;
        published.map_err(|e| explain(format!("publish the recovery point {}", point.id), e))?;
        Ok((point, self.contents))
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

fn table(done: &Done) -> String {
    let mut text = String::new();
    let folders =
        || done.contents.iter().filter_map(|c| if let Content::Tree(folder) = c { Some(folder) } else { None });
    if folders().next().is_some() {
        text.push_str(&folders::table(folders()));
    }
    for content in &done.contents {
        match content {
            Content::Tree(_) => {}
            Content::Volume(volume) => text.push_str(&volume.table()),
            Content::Stream(stream) => text.push_str(&stream.table()),
        }
    }
    let state = if done.complete { "complete" } else { "NOT complete" };
    text.push_str(&format!(
        "\nRecovery point {} is {state}: {} added in {:.1} s, read back.\n",
        done.recovery_point,
        human::bytes(done.stored_bytes),
        done.seconds
    ));
    text
}
