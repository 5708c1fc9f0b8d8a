//! Storing a volume.

use repository::tree::{self, BackupOptions, VerifyOptions};
use repository::{NoProgress, Repository, TableRef};
use std::path::Path;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

use crate::failure::Error;
use crate::outcome::Backup;
use crate::packs::PackList;
use crate::report::{LineProgress, Lines, Phase};
use crate::volume::refuse_unfinished;

/// Stores the volume, then reads everything back that was written, so that `Ok` means it can be restored.
pub(crate) async fn backup(
    repository: &Repository,
    volume: &Path,
    parent: Option<&TableRef>,
    lines: &Lines,
    cancel: &CancellationToken,
) -> Result<Backup, Error> {
    refuse_unfinished(volume)?;
    let mut options = BackupOptions::new(jiff::Timestamp::now());
    options.cancel = cancel.clone();
    let writer = repository.writer().await?;
    let progress = LineProgress::new(lines, Phase::Store, None);
    let tree = tree::backup(&writer, repository, volume, parent, &options, progress).await?;
    let written = writer.finish().await?.packs;
    let total = written.iter().map(|pack| pack.bytes).sum();
    let _read_back = LineProgress::new(lines, Phase::ReadBack, Some(total));
    repository.verify_packs(&written).await?;
    let options = VerifyOptions { cancel: cancel.clone(), ..VerifyOptions::default() };
    let stored = tree::verify(repository, &tree.root, None, &options, Arc::new(NoProgress)).await?;
    let counted = (tree.files, tree.directories, tree.others, tree.bytes);
    if (stored.files, stored.directories, stored.others, stored.bytes) != counted {
        let found = stored.files + stored.directories + stored.others;
        return Err(Error::StoredOtherwise { found, expected: tree.files + tree.directories + tree.others });
    }
    let packs = PackList::store(repository, written).await?;
    Ok(Backup { tree, packs })
}
