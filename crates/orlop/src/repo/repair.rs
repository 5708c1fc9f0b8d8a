//! `orlop repo repair`: what is damaged or gone is taken from where its bytes still are.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use repository::repair::{self, RepairOptions, RepairReport, RepairSources};
use repository::{Repository, check};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::PlaceArgs;
use super::check::hit_points;
use super::open::explain;
use super::progress::Show;
use crate::error::{Error, Exit, Result};
use crate::human;
use crate::interrupt::until_interrupted;
use crate::output::{self, Format};

#[derive(Debug, Args)]
pub(super) struct RepairArgs {
    /// Another repository that has the bytes: with copies of the recovery points, or backups of the same contents
    #[arg(long, value_name = "URL")]
    from: Option<String>,
    /// File with the passphrase of the other repository; else it is opened with what opens the first one
    #[arg(long, value_name = "FILE", requires = "from")]
    from_password_file: Option<PathBuf>,
    /// What may still have the bytes of a content: the folder, the image or the device. CONTENT is its name in the recovery points, and
    /// may be left out where that is the path; can be given several times
    #[arg(long, value_name = "[CONTENT=]PATH")]
    source: Vec<String>,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
}

/// What a repair did.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Repaired {
    /// Whether nothing is wrong any more, or would be.
    whole: bool,
    dry_run: bool,
    /// Packs that no index run named.
    packs_indexed: u64,
    /// Blobs that were whole in a damaged pack.
    moved_blobs: u64,
    /// Lost blobs that the other repository had.
    copied_blobs: u64,
    /// Lost blobs that a source had.
    source_blobs: u64,
    /// Plain bytes of all blobs that were stored again.
    bytes: u64,
    /// Damaged objects that nothing needs any more.
    deleted: Vec<String>,
    /// Those that could not be deleted.
    kept: Vec<Kept>,
    /// What stays wrong.
    left: Vec<Left>,
}

#[derive(Debug, Serialize)]
struct Kept {
    object: String,
    why: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Left {
    object: String,
    what: String,
    recovery_points: Vec<String>,
}

pub(super) async fn run(place: &PlaceArgs, args: &RepairArgs, format: Format) -> Result<Exit> {
    let recipient = place.recipient().await?;
    let repository = place.open_with(&recipient).await?;
    let from = match &args.from {
        Some(url) => Some(place.open_other(url, args.from_password_file.as_deref(), &recipient).await?),
        None => None,
    };
    let sources = RepairSources { from, living: living(&args.source)? };
    known_contents(&repository, &sources.living).await?;
    let what = format!("repair {}", repository.store().place());
    let options = RepairOptions { dry_run: args.dry_run, cancel: CancellationToken::new() };
    let show = Show::start_of_packs(what.clone());
    let progress = show.progress();
    let work = async {
        let repaired = repair::repair(&repository, &sources, &options, progress.as_ref()).await;
        repaired.map_err(|e| explain(what, e))
    };
    let report = until_interrupted(&options.cancel, work).await?;
    drop(show);
    let done = Repaired::new(report, args.dry_run);
    let names = || done.left.iter().map(|left| format!("{}\n", left.object)).collect();
    output::print(&output::render(format, &done, || table(&done), names)?)?;
    Ok(if done.whole { Exit::Succeeded } else { Exit::Failed })
}

/// Contents and where they are, as they were given.
fn living(sources: &[String]) -> Result<BTreeMap<String, PathBuf>> {
    let mut living = BTreeMap::new();
    for source in sources {
        let (name, path) = source.split_once('=').unwrap_or((source, source));
        let path = std::fs::canonicalize(path).map_err(|e| Error::new(format!("find the source {path}")).because(e))?;
        // Folders are named in recovery points by their canonical path.
        let name = if source.contains('=') { name.to_owned() } else { path.display().to_string() };
        living.insert(name, path);
    }
    Ok(living)
}

/// A content that no recovery point has is a mistake that would otherwise only show in what is not repaired.
async fn known_contents(repository: &Repository, living: &BTreeMap<String, PathBuf>) -> Result<()> {
    if living.is_empty() {
        return Ok(());
    }
    let points = repository.points().await.map_err(|e| explain("list the recovery points", e))?;
    let points: Vec<_> = points.into_iter().filter_map(|entry| entry.point.ok()).collect();
    let unknown = living.keys().find(|name| !points.iter().any(|point| point.root(name).is_some()));
    match unknown {
        Some(name) => Err(Error::usage(format!("no recovery point has a content {name}"))
            .next("orlop repo show names the contents of a recovery point; write --source CONTENT=PATH")),
        None => Ok(()),
    }
}

impl Repaired {
    fn new(report: RepairReport, dry_run: bool) -> Self {
        let left = |finding: check::Finding| Left {
            object: finding.object,
            what: finding.what,
            recovery_points: finding.points.iter().map(ToString::to_string).collect(),
        };
        Self {
            whole: report.is_whole(),
            dry_run,
            packs_indexed: report.packs_indexed,
            moved_blobs: report.moved_blobs,
            copied_blobs: report.copied_blobs,
            source_blobs: report.living_blobs,
            bytes: report.bytes,
            deleted: report.deleted,
            kept: report.kept.into_iter().map(|(object, why)| Kept { object, why }).collect(),
            left: report.left.into_iter().map(left).collect(),
        }
    }
}

fn table(done: &Repaired) -> String {
    let mut text = output::fields([
        ("Found in the other repository", human::count(done.copied_blobs, "blob", "blobs")),
        ("Found in a source", human::count(done.source_blobs, "blob", "blobs")),
        ("Taken out of damaged packs", human::count(done.moved_blobs, "blob", "blobs")),
        ("Bytes stored again", human::bytes(done.bytes)),
        ("Named in a new index run", human::count(done.packs_indexed, "pack", "packs")),
        ("Damaged objects deleted", done.deleted.len().to_string()),
    ]);
    for name in &done.deleted {
        text.push_str(&format!("  {name}\n"));
    }
    if !done.kept.is_empty() {
        text.push('\n');
        let rows = done.kept.iter().map(|kept| [kept.object.clone(), kept.why.clone()]);
        text.push_str(&output::table(["DAMAGED AND NOT NEEDED, BUT NOT DELETED", "WHY"], rows));
    }
    if !done.left.is_empty() {
        text.push('\n');
        let row = |left: &Left| [left.object.clone(), left.what.clone(), hit_points(&left.recovery_points)];
        text.push_str(&output::table(["OBJECT", "WHAT STAYS WRONG", "RECOVERY POINTS HIT"], done.left.iter().map(row)));
    }
    text.push('\n');
    text.push_str(match (done.dry_run, done.whole) {
        (true, true) => "That would be done (dry run: nothing was changed). Nothing would be wrong then.\n",
        (true, false) => {
            "That would be done (dry run: nothing was changed). What lies below pages that are found again is seen only then.\n"
        }
        (false, true) => "Nothing is wrong any more.\n",
        (false, false) => "The rest is still wrong.\n",
    });
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_has_the_name_of_its_path_unless_another_is_given() {
        let folder = tempfile::tempdir().expect("a folder").keep().canonicalize().expect("it is there");
        let path = folder.to_str().expect("text").to_owned();
        let found = living(&[path.clone(), format!("shop/data={path}")]).expect("both are there");
        assert_eq!(found, BTreeMap::from([(path, folder.clone()), ("shop/data".to_owned(), folder.clone())]));
        std::fs::remove_dir(folder).expect("it is empty");
        assert!(living(&["/nowhere/at/all".to_owned()]).is_err());
    }
}
