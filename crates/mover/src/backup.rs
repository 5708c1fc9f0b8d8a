//! Storing a volume.

use repository::tree::{self, BackupOptions, TreeSummary, VerifyOptions};
use repository::{NoProgress, PointId, Repository, RootKind, TableRef, Writer, WrittenPacks};
use std::path::Path;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

use crate::failure::Error;
use crate::outcome::Backup;
use crate::packs::PackList;
use crate::report::{LineProgress, Lines, Phase};
use crate::volume::refuse_unfinished;

/// What is to be stored, for which recovery point.
pub(crate) struct Run<'a> {
    pub(crate) repository: &'a Repository,
    pub(crate) volume: &'a Path,
    pub(crate) point: &'a PointId,
    /// Earlier recovery points that have the volume, the best first.
    pub(crate) parents: &'a [PointId],
    /// The name of the volume in them.
    pub(crate) content: &'a str,
    pub(crate) lines: &'a Lines,
    pub(crate) cancel: &'a CancellationToken,
}

/// What was stored, before its packs are listed.
struct Stored {
    tree: TreeSummary,
    written: WrittenPacks,
    had_parent: bool,
}

impl Run<'_> {
    /// Stores the volume, then reads everything back that was written, and looks that everything that was taken over from earlier
    /// recovery points is there, so that `Ok` means it can be restored.
    ///
    /// When the parent turns out to have lost something, everything is stored again without it: else the loss would be handed on from
    /// backup to backup.
    pub(crate) async fn backup(&self) -> Result<Backup, Error> {
        refuse_unfinished(self.volume)?;
        let mut stored = self.store(self.parents).await?;
        match check(self.repository, &stored.tree, self.cancel).await {
            Err(Error::Tree(damage)) if stored.had_parent && damage.is_damage() => {
                tracing::warn!(error = %damage, "the parent has lost something; the volume is stored again without it");
                stored = self.store(&[]).await?;
                stored.tree.parent_lost = Some(damage.to_string());
                check(self.repository, &stored.tree, self.cancel).await?;
            }
            checked => checked?,
        }
        let Stored { tree, written, .. } = stored;
        let mut sessions = vec![written.session];
        let (packs, session) = PackList::store(self.repository, self.point, written.packs).await?;
        sessions.extend(session);
        Ok(Backup { tree, packs, sessions })
    }

    /// Stores the volume, and reads the packs back that this took.
    async fn store(&self, parents: &[PointId]) -> Result<Stored, Error> {
        let mut options = BackupOptions::new(jiff::Timestamp::now());
        options.cancel = self.cancel.clone();
        let writer = self.repository.writer(self.point).await?;
        let parent = self.parent(&writer, parents).await?;
        let progress = LineProgress::new(self.lines, Phase::Store, None);
        let tree = tree::backup(&writer, self.repository, self.volume, parent.as_ref(), &options, progress).await?;
        let written = writer.finish().await?;
        let total = written.packs.iter().map(|pack| pack.bytes).sum();
        let _read_back = LineProgress::new(self.lines, Phase::ReadBack, Some(total));
        self.repository.verify_packs(&written.packs).await?;
        Ok(Stored { tree, written, had_parent: parent.is_some() })
    }

    /// The tree of the volume in the first recovery point that may be a parent and has it.
    async fn parent(&self, writer: &Writer, parents: &[PointId]) -> Result<Option<TableRef>, Error> {
        for id in parents {
            let Some(point) = writer.parent(id).await? else { continue };
            if let Some(root) = point.root(self.content).filter(|root| root.kind == RootKind::Tree) {
                return Ok(Some(root.table));
            }
        }
        Ok(None)
    }
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
