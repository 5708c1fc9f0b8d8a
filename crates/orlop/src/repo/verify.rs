//! `orlop repo verify`: whether a folder, an image or a device is what a recovery point has.

use std::path::PathBuf;

use clap::Args;
use repository::tree::{self, Incidents, VerifyOptions};
use repository::volume::{self, VerifySummary};
use repository::{Counters, Repository, Root};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::PlaceArgs;
use super::open::{explain_tree, explain_volume, map, point, root};
use super::progress::Show;
use crate::error::{Exit, Result};
use crate::human;
use crate::interrupt::until_interrupted;
use crate::output::{self, Format};

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// The recovery point, or `latest`
    id: String,
    /// What it is compared with: the folder, the image or the device
    #[arg(long, value_name = "PATH")]
    source: PathBuf,
    /// Which volume (namespace/claim) or folder, if there are several
    #[arg(long, value_name = "NAME")]
    volume: Option<String>,
}

/// What the comparison found.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Found {
    recovery_point: String,
    name: String,
    source: PathBuf,
    equal: bool,
    #[serde(flatten)]
    differences: Differences,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", untagged)]
enum Differences {
    Tree { files: u64, bytes: u64, differences: Incidents },
    Volume(VerifySummary),
}

pub(super) async fn run(place: &PlaceArgs, args: &VerifyArgs, format: Format) -> Result<Exit> {
    let repository = place.open().await?;
    let point = point(&repository, &args.id).await?;
    let root = root(&point, args.volume.as_deref())?;
    let cancel = CancellationToken::new();
    let differences = until_interrupted(&cancel, compare(&repository, root, args, &cancel)).await?;
    let found = Found {
        recovery_point: point.id.to_string(),
        name: root.name.clone(),
        source: args.source.clone(),
        equal: differences.are_none(),
        differences,
    };
    output::print(&output::render(format, &found, || table(&found), || format!("{}\n", found.name))?)?;
    Ok(if found.equal { Exit::Succeeded } else { Exit::Failed })
}

async fn compare(
    repository: &Repository,
    root: &Root,
    args: &VerifyArgs,
    cancel: &CancellationToken,
) -> Result<Differences> {
    let what = format!("compare {} with {}", args.source.display(), root.name);
    let show = Show::start(what.clone());
    if let Some(map) = map(repository, root) {
        let compared = volume::verify(&map, &args.source, cancel, show.progress()).await;
        return compared.map(Differences::Volume).map_err(|e| explain_volume(what, e));
    }
    show.progress().total(Counters { files: root.files, bytes: root.bytes, new_bytes: 0 });
    let options = VerifyOptions { cancel: cancel.clone(), ..VerifyOptions::default() };
    let compared = tree::verify(repository, &root.table, Some(&args.source), &options, show.progress()).await;
    let found = compared.map_err(|e| explain_tree(what, e))?;
    Ok(Differences::Tree { files: found.files, bytes: found.bytes, differences: found.differences })
}

impl Differences {
    fn are_none(&self) -> bool {
        match self {
            Self::Tree { differences, .. } => differences.is_empty(),
            Self::Volume(found) => found.is_equal(),
        }
    }
}

fn table(found: &Found) -> String {
    let (source, point) = (found.source.display(), &found.recovery_point);
    if found.equal {
        return format!("{source} is what {point} has of {}.\n", found.name);
    }
    let (said, lines): (String, Vec<String>) = match &found.differences {
        Differences::Tree { differences, .. } => {
            let lines = differences.first.iter().map(|one| format!("{}: {}", one.path, one.what));
            (human::count(differences.count, "file", "files"), lines.collect())
        }
        Differences::Volume(found) => {
            let size = found.other_size.map(|size| format!("its size: {size} instead of {} bytes", found.bytes));
            let ranges = found.first.iter().map(|one| format!("{} bytes at {}", one.len, one.offset));
            (human::bytes(found.different_bytes), size.into_iter().chain(ranges).collect())
        }
    };
    let mut text = format!("{source} differs in {said} from what {point} has of {}:\n", found.name);
    for line in lines {
        text.push_str(&format!("  {line}\n"));
    }
    text
}
