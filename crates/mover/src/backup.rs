//! Storing a volume.

use repository::tree::{self, BackupOptions, TreeSummary, VerifyOptions};
use repository::{NoProgress, PackInfo, Repository, TableRef};
use std::path::Path;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

use crate::failure::Error;
use crate::outcome::Backup;
use crate::packs::PackList;
use crate::report::{LineProgress, Lines, Phase};
use crate::volume::refuse_unfinished;

/// Stores the volume, then reads everything back that was written, and looks that everything that was taken over from earlier
/// recovery points is there, so that `Ok` means it can be restored.
///
/// When the parent turns out to have lost something, everything is stored again without it: else the loss would be handed on from
/// backup to backup.
pub(crate) async fn backup(
    repository: &Repository,
    volume: &Path,
    parent: Option<&TableRef>,
    lines: &Lines,
    cancel: &CancellationToken,
) -> Result<Backup, Error> {
    refuse_unfinished(volume)?;
    let (mut tree, mut packs) = store(repository, volume, parent, lines, cancel).await?;
    match check(repository, &tree, cancel).await {
        Err(Error::Tree(damage)) if parent.is_some() && damage.is_damage() => {
            tracing::warn!(error = %damage, "the parent has lost something; the volume is stored again without it");
            (tree, packs) = store(repository, volume, None, lines, cancel).await?;
            tree.parent_lost = Some(damage.to_string());
            check(repository, &tree, cancel).await?;
        }
        checked => checked?,
    }
    let packs = PackList::store(repository, packs).await?;
    Ok(Backup { tree, packs })
}

/// Stores the volume, and reads the packs back that this took.
async fn store(
    repository: &Repository,
    volume: &Path,
    parent: Option<&TableRef>,
    lines: &Lines,
    cancel: &CancellationToken,
) -> Result<(TreeSummary, Vec<PackInfo>), Error> {
    let mut options = BackupOptions::new(jiff::Timestamp::now());
    options.cancel = cancel.clone();
    let writer = repository.writer().await?;
    let progress = LineProgress::new(lines, Phase::Store, None);
    let tree = tree::backup(&writer, repository, volume, parent, &options, progress).await?;
    let written = writer.finish().await?.packs;
    let total = written.iter().map(|pack| pack.bytes).sum();
    let _read_back = LineProgress::new(lines, Phase::ReadBack, Some(total));
    repository.verify_packs(&written).await?;
    Ok((tree, written))
}

/// Reads every page of the tree, and looks for every blob that it refers to in the directory of its pack.
async fn check(repository: &Repository, tree: &TreeSummary, cancel: &CancellationToken) -> Result<(), Error> {
    let options = VerifyOptions { references: true, cancel: cancel.clone(), ..VerifyOptions::default() };
    let stored = tree::verify(repository, &tree.root, None, &options, Arc::new(NoProgress)).await?;
    let counted = (tree.files, tree.directories, tree.others, tree.bytes);
    if (stored.files, stored.directories, stored.others, stored.bytes) != counted {
        let found = stored.files + stored.directories + stored.others;
        return Err(Error::StoredOtherwise { found, expected: tree.files + tree.directories + tree.others });
    }
    Ok(())
}
