//! `orlop repo copy`: recovery points in another repository, without their sources.

use std::path::PathBuf;

use clap::Args;
use repository::copy::{CopySummary, copy};
use repository::{ErrorKind, RecoveryPoint, Repository};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::PlaceArgs;
use super::open::{explain, point};
use super::progress::Show;
use crate::error::{Error, Exit, Result};
use crate::human;
use crate::interrupt::until_interrupted;
use crate::output::{self, Format};

#[derive(Debug, Args)]
pub(super) struct CopyArgs {
    /// The recovery points, or `latest`; all of them if none is named
    ids: Vec<String>,
    /// The other repository, as with --location; it must have been made
    #[arg(long, value_name = "URL")]
    to: String,
    /// File with its passphrase; else it is opened with what opens the first one
    #[arg(long, value_name = "FILE")]
    to_password_file: Option<PathBuf>,
    /// Only say what would be copied
    #[arg(long)]
    dry_run: bool,
}

/// What was copied.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Copied {
    to: String,
    dry_run: bool,
    recovery_points: Vec<Line>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    id: String,
    /// Whether it was there already.
    was_there: bool,
    /// The recovery point through which was found what is there; absent where there was none, and in a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    base: Option<String>,
    /// Bytes that were read.
    bytes_read: u64,
    /// Bytes that they take there.
    stored_bytes: u64,
}

pub(super) async fn run(place: &PlaceArgs, args: &CopyArgs, format: Format) -> Result<Exit> {
    let recipient = place.recipient().await?;
    let from = place.open_with(&recipient).await?;
    let to = place.open_other(&args.to, args.to_password_file.as_deref(), &recipient).await?;
    if from.id() == to.id() {
        return Err(Error::usage(format!("{} is the repository that is copied from", to.store().place()))
            .next("name another repository with --to"));
    }
    let points = chosen(&from, &args.ids).await?;
    let cancel = CancellationToken::new();
    let copy_all = async {
        let mut lines = Vec::new();
        for point in points {
            lines.push(match args.dry_run {
                true => would(&to, &point).await?,
                false => Line::new(copy_one(&from, &to, &point, &cancel).await?),
            });
        }
        Ok(lines)
    };
    let recovery_points = until_interrupted(&cancel, copy_all).await?;
    let done = Copied { to: to.store().place().to_owned(), dry_run: args.dry_run, recovery_points };
    let names = || done.recovery_points.iter().map(|line| format!("{}\n", line.id)).collect();
    output::print(&output::render(format, &done, || table(&done), names)?)?;
    Ok(Exit::Succeeded)
}

/// The recovery points that are meant, the oldest first, so that each finds there what it shares with the one before.
async fn chosen(from: &Repository, ids: &[String]) -> Result<Vec<RecoveryPoint>> {
    let mut points = Vec::new();
    if ids.is_empty() {
        for entry in from.points().await.map_err(|e| explain("list the recovery points", e))? {
            points.push(entry.point.map_err(|e| explain(format!("read the recovery point {}", entry.id), e))?);
        }
    }
    for id in ids {
        points.push(point(from, id).await?);
    }
    points.sort_by_key(|point| (point.created, point.id.clone()));
    points.dedup_by(|one, other| one.id == other.id);
    Ok(points)
}

async fn would(to: &Repository, point: &RecoveryPoint) -> Result<Line> {
    let was_there = match to.point(&point.id).await {
        Ok(_) => true,
        Err(e) if e.kind() == ErrorKind::NotFound => false,
        Err(e) => return Err(explain(format!("look for {} in {}", point.id, to.store().place()), e)),
    };
    Ok(Line { id: point.id.to_string(), was_there, base: None, bytes_read: 0, stored_bytes: 0 })
}

async fn copy_one(
    from: &Repository,
    to: &Repository,
    point: &RecoveryPoint,
    cancel: &CancellationToken,
) -> Result<CopySummary> {
    let what = format!("copy {} to {}", point.id, to.store().place());
    let show = Show::start(what.clone());
    copy(from, to, &point.id, show.progress(), cancel).await.map_err(|e| explain(what, e))
}

impl Line {
    fn new(copied: CopySummary) -> Self {
        Self {
            id: copied.id.to_string(),
            was_there: copied.was_there,
            base: copied.base.map(|id| id.to_string()),
            bytes_read: copied.read_bytes,
            stored_bytes: copied.stored_bytes,
        }
    }
}

fn table(done: &Copied) -> String {
    let row = |line: &Line| {
        [
            line.id.clone(),
            match line.was_there {
                true => "is there already".to_owned(),
                false => line.base.clone().unwrap_or_else(|| "-".to_owned()),
            },
            human::bytes(line.bytes_read),
            human::bytes(line.stored_bytes),
        ]
    };
    let header = ["RECOVERY POINT", "SHARES WITH", "READ", "STORED"];
    let text = output::table(header, done.recovery_points.iter().map(row));
    let end = match done.dry_run {
        true => "would be copied to (dry run: nothing was changed):",
        false => "are in",
    };
    format!("{text}\nThese {end} {}\n", done.to)
}
