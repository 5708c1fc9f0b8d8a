//! Filling a volume with files.

use repository::tree::{self, ExpectedCounts, RestoreOptions, VerifyOptions, WalkOptions};
use repository::{Repository, TableRef};
use std::path::Path;
use tokio_util::sync::CancellationToken;

use crate::failure::Error;
use crate::outcome::Restore;
use crate::report::{LineProgress, Lines, Phase};
use crate::volume::{Filling, MARKER_NAME};

/// Fills the volume, compares it with the repository, and takes the marker off only when they are equal.
pub(crate) async fn restore(
    repository: &Repository,
    volume: &Path,
    root: &TableRef,
    expected: ExpectedCounts,
    lines: &Lines,
    cancel: &CancellationToken,
) -> Result<Restore, Error> {
    let filling = Filling::begin(volume, root)?;
    let ignore_at_top = vec![MARKER_NAME.as_bytes().to_vec()];
    let options = RestoreOptions {
        // The volume was empty, or everything on it is from this same restore.
        replace: true,
        ignore_at_top: ignore_at_top.clone(),
        expected: Some(expected),
        cancel: cancel.clone(),
        ..RestoreOptions::default()
    };
    let progress = LineProgress::new(lines, Phase::Fill, Some(expected.bytes));
    let tree = tree::restore(repository, root, volume, &options, progress).await?;
    let walk = WalkOptions { ignore_at_top, ..WalkOptions::default() };
    let options = VerifyOptions { walk, cancel: cancel.clone(), ..VerifyOptions::default() };
    let progress = LineProgress::new(lines, Phase::Compare, Some(expected.bytes));
    let compared = tree::verify(repository, root, Some(volume), &options, progress).await?;
    if tree.failed.is_empty() && compared.differences.is_empty() {
        filling.finish()?;
    }
    Ok(Restore::Files { tree, differences: compared.differences })
}
