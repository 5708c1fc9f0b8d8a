//! Filling a volume with files.

use repository::tree::{self, ExpectedCounts, RestoreOptions, VerifyOptions, WalkOptions};
use repository::{Repository, TableRef};
use std::path::Path;
use tokio_util::sync::CancellationToken;

use crate::failure::Error;
use crate::outcome::Restore;
use crate::report::{LineProgress, Lines, Phase};
use crate::volume::{Filling, MARKER_NAME};

/// A restore of a volume, as files or as an image.
pub(crate) struct Run<'a> {
    pub(crate) repository: &'a Repository,
    pub(crate) root: &'a TableRef,
    pub(crate) expected: ExpectedCounts,
    pub(crate) resumes: bool,
    pub(crate) lines: &'a Lines,
    pub(crate) cancel: &'a CancellationToken,
}

/// Fills the volume, compares it with the repository, and takes the marker off only when they are equal.
pub(crate) async fn restore(run: &Run<'_>, volume: &Path) -> Result<Restore, Error> {
    let Run { repository, root, expected, resumes, lines, cancel } = *run;
    let filling = Filling::begin(volume, root)?;
    let ignore_at_top = vec![MARKER_NAME.as_bytes().to_vec()];
    let options = RestoreOptions {
        // The volume was empty, or everything on it is from this same restore.
        replace: true,
        resume: resumes,
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
