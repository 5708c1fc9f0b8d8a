//! What a content is compared with: the same one in an earlier recovery point.

use repository::{PointId, RecoveryPoint, Repository, Root, RootKind, Source, Writer};

use super::{BackupArgs, host};
use crate::error::Result;
use crate::repo::open::{explain, point};

/// What is looked for in earlier recovery points, to compare it with what is backed up.
#[derive(Clone, Copy)]
pub(super) struct Sought<'a> {
    pub(super) name: &'a str,
    pub(super) kind: RootKind,
    /// If no recovery point has the name, a single content of this many bytes will do.
    pub(super) size: Option<u64>,
}

impl Sought<'_> {
    fn named(self, point: &RecoveryPoint) -> Option<&Root> {
        point.root(self.name).filter(|root| root.kind == self.kind)
    }

    /// The only content of the kind, whatever its name is.
    fn single(self, point: &RecoveryPoint) -> Option<&Root> {
        let mut roots = point.roots.iter().filter(|root| root.kind == self.kind);
        roots.next().filter(|_| roots.next().is_none())
    }

    /// In a recovery point that was named, a single content of the kind is what is meant. Where a list of changes is to be believed, it must at
    /// least have the same size.
    pub(super) fn meant<'a>(self, point: &'a RecoveryPoint, args: &BackupArgs) -> Option<&'a Root> {
        let like = |root: &&Root| args.changed_ranges.is_none() || Some(root.bytes) == self.size;
        self.named(point).or_else(|| self.single(point).filter(like))
    }

    /// Tells what somebody may not expect.
    fn tell(self, id: &PointId, root: &Root) {
        if root.name != self.name {
            eprintln!("orlop: {} is compared with {} of {id}", self.name, root.name);
        }
    }
}

/// The content of the recovery point that is to be the parent.
///
/// With a session, only in one that it may have as a parent: while a prune is under way, the newest may be refused, and an older one or
/// none is taken.
pub(super) async fn parent(
    repository: &Repository,
    session: Option<&Writer>,
    args: &BackupArgs,
    sought: Sought<'_>,
) -> Result<Option<(PointId, Root)>> {
    if let Some(id) = &args.parent {
        let point = point(repository, id).await?;
        let Some(root) = sought.meant(&point, args).cloned() else { return Ok(None) };
        if may_be_parent(session, &point.id).await? {
            sought.tell(&point.id, &root);
            return Ok(Some((point.id, root)));
        }
        let name = sought.name;
        eprintln!("orlop: {name}: a prune is under way, so {} cannot be the parent, and all is read", point.id);
        return Ok(None);
    }
    let host = host(args);
    let points = repository.points().await.map_err(|e| explain("list the recovery points", e))?;
    let ours = |point: &RecoveryPoint| matches!(&point.source, Source::Paths { host: other } if *other == host);
    let mut points: Vec<_> = points.into_iter().filter_map(|entry| entry.point.ok()).filter(ours).collect();
    points.sort_by_key(|point| std::cmp::Reverse(point.created));
    let named = points.iter().filter_map(|point| Some((point, sought.named(point)?)));
    let like = |root: &&Root| Some(root.bytes) == sought.size;
    let alike = points.iter().filter_map(|point| Some((point, sought.single(point).filter(like)?)));
    for (point, root) in named.chain(alike) {
        if may_be_parent(session, &point.id).await? {
            sought.tell(&point.id, root);
            return Ok(Some((point.id.clone(), root.clone())));
        }
    }
    Ok(None)
}

/// Whether a session may take over what a recovery point has; without a session, nothing will be taken over.
async fn may_be_parent(session: Option<&Writer>, id: &PointId) -> Result<bool> {
    let Some(writer) = session else { return Ok(true) };
    let parent = writer.parent(id).await.map_err(|e| explain(format!("read the recovery point {id}"), e))?;
    Ok(parent.is_some())
}
