//! Storing a volume.

use repository::tree::{self, BackupOptions, TreeSummary, VerifyOptions};
use repository::volume::{self, Map, Parent, VolumeSummary};
use repository::{NoProgress, PointId, Repository, Root, TableRef, Writer, WrittenPacks};
use std::path::Path;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

use crate::device;
use crate::failure::Error;
use crate::job::Form;
use crate::outcome::{Backup, Stored};
use crate::packs::PackList;
use crate::report::{LineProgress, Lines, Phase};
use crate::volume::refuse_unfinished;

/// What is to be stored, for which recovery point.
pub(crate) struct Run<'a> {
    pub(crate) repository: &'a Repository,
    pub(crate) volume: &'a Path,
    pub(crate) form: Form,
    pub(crate) point: &'a PointId,
    /// Earlier recovery points that have the volume, the best first.
    pub(crate) parents: &'a [PointId],
    /// The name of the volume in them.
    pub(crate) content: &'a str,
    pub(crate) lines: &'a Lines,
    pub(crate) cancel: &'a CancellationToken,
}

impl Run<'_> {
    /// Stores the volume, then reads everything back that was written, and looks that everything that was taken over from earlier
    /// recovery points is there, so that `Ok` means it can be restored.
    ///
    /// When the parent turns out to have lost something, everything is stored again without it: else the loss would be handed on from
    /// backup to backup.
    pub(crate) async fn backup(&self) -> Result<Backup, Error> {
        match self.form {
            Form::Files => refuse_unfinished(self.volume)?,
            Form::Image => drop(device::size(self.volume).await?),
        }
        let (stored, written) = match self.store_and_check(self.parents).await {
            Err(damage) if !self.parents.is_empty() && damage.is_loss() => {
                tracing::warn!(error = %damage, "the parent has lost something; the volume is stored again without it");
                let (mut stored, written) = self.store_and_check(&[]).await?;
                if let Stored::Files(tree) = &mut stored {
                    tree.parent_lost = Some(damage.to_string());
                }
                (stored, written)
            }
            stored => stored?,
        };
        let mut sessions = vec![written.session];
        let (packs, session) = PackList::store(self.repository, self.point, written.packs).await?;
        sessions.extend(session);
        Ok(Backup { stored, packs, sessions })
    }

    async fn store_and_check(&self, parents: &[PointId]) -> Result<(Stored, WrittenPacks), Error> {
        let (stored, written) = self.store(parents).await?;
        match &stored {
            Stored::Files(tree) => check_tree(self.repository, tree, self.cancel).await?,
            Stored::Image { volume, .. } => {
                let map = Map::volume(self.repository, volume.root, volume.bytes);
                volume::check(&map, true, self.cancel).await?;
            }
        }
        Ok((stored, written))
    }

    /// Stores the volume, and reads the packs back that this took.
    async fn store(&self, parents: &[PointId]) -> Result<(Stored, WrittenPacks), Error> {
        let writer = self.repository.writer(self.point).await?;
        let parent = self.parent(&writer, parents).await?;
        let progress = LineProgress::new(self.lines, Phase::Store, None);
        let (stored, written) = match self.form {
            Form::Files => {
                let tree = self.tree(&writer, parent.as_ref().map(|root| &root.table), progress).await?;
                (Stored::Files(tree), writer.finish().await?)
            }
            Form::Image => {
                let volume = self.image(&writer, parent.as_ref(), progress).await?;
                let written = writer.finish().await?;
                (Stored::Image { volume, new_bytes: written.stats.new_bytes }, written)
            }
        };
        let total = written.packs.iter().map(|pack| pack.bytes).sum();
        let _read_back = LineProgress::new(self.lines, Phase::ReadBack, Some(total));
        self.repository.verify_packs(&written.packs).await?;
        Ok((stored, written))
    }

    async fn tree(
        &self,
        writer: &Writer,
        parent: Option<&TableRef>,
        progress: Arc<LineProgress>,
    ) -> Result<TreeSummary, Error> {
        let mut options = BackupOptions::new(jiff::Timestamp::now());
        options.cancel = self.cancel.clone();
        Ok(tree::backup(writer, self.repository, self.volume, parent, &options, progress).await?)
    }

    /// All of a device is read: nobody says what of it has changed. What is the same as in the parent is not stored again.
    async fn image(
        &self,
        writer: &Writer,
        parent: Option<&Root>,
        progress: Arc<LineProgress>,
    ) -> Result<VolumeSummary, Error> {
        let parent = parent.map(|root| Parent { table: root.table, size: root.bytes });
        let options = volume::BackupOptions { parent, changes: None, cancel: self.cancel.clone() };
        Ok(volume::backup(writer, self.volume, &options, progress).await?)
    }

    /// The volume in the first recovery point that may be a parent and has it in this form.
    async fn parent(&self, writer: &Writer, parents: &[PointId]) -> Result<Option<Root>, Error> {
        for id in parents {
            let Some(point) = writer.parent(id).await? else { continue };
            if let Some(root) = point.root(self.content).filter(|root| root.kind == self.form.kind()) {
                return Ok(Some(root.clone()));
            }
        }
        Ok(None)
    }
}

/// Reads every page of the tree, and looks for every blob that it refers to in the directory of its pack.
async fn check_tree(repository: &Repository, tree: &TreeSummary, cancel: &CancellationToken) -> Result<(), Error> {
    let options = VerifyOptions { references: true, cancel: cancel.clone(), ..VerifyOptions::default() };
    let stored = tree::verify(repository, &tree.root, None, &options, Arc::new(NoProgress)).await?;
    let counted = (tree.files, tree.directories, tree.others, tree.bytes);
    if (stored.files, stored.directories, stored.others, stored.bytes) != counted {
        let found = stored.files + stored.directories + stored.others;
        return Err(Error::StoredOtherwise { found, expected: tree.files + tree.directories + tree.others });
    }
    Ok(())
}
