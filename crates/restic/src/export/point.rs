//! A recovery point as a snapshot.

use ::repository::tree::TreePath;
use ::repository::tree::entry::{Content as FileContent, File};
use ::repository::volume::{self, Map};
use ::repository::{Root, Source};
use futures::{StreamExt, TryStreamExt};

use super::content::{Cutter, volume_blob_len};
use super::places::{Content, Place, Places};
use super::{Error, Exported, Finished, Run};
use crate::format::{BlobKind, Id, NodeKind, Snapshot, Tree};

impl Run<'_> {
    /// Exports the recovery point, unless that was done before.
    pub(super) fn point(&mut self) -> Result<Exported, Error> {
        let before = self.target.written();
        let known = self.find()?;
        let existed = known.is_some();
        let snapshot = match known {
            Some(snapshot) => snapshot,
            None => self.store()?,
        };
        let after = self.target.written();
        Ok(Exported {
            recovery_point: self.point.id.to_string(),
            snapshot: snapshot.to_string(),
            existed,
            files: self.files,
            bytes: self.bytes,
            new_bytes: after.new_bytes - before.new_bytes,
            stored_bytes: after.stored_bytes - before.stored_bytes,
            changed: std::mem::take(&mut self.changed),
        })
    }

    /// The snapshot that an earlier run has made of this recovery point, if its tree is still there.
    fn find(&self) -> Result<Option<Id>, Error> {
        let tags = self.tags();
        for (id, snapshot) in self.target.snapshots()? {
            let same = snapshot.time == self.point.created && snapshot.tags == tags;
            if same && self.target.has(BlobKind::Tree, &snapshot.tree)? {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }

    fn store(&mut self) -> Result<Id, Error> {
        let places = Places::of(self.point);
        let top = self.place(&places.top)?;
        let empty = || Error::Damaged { what: "the top".to_owned(), why: "it is no folder".to_owned() };
        let hostname = match &self.point.source {
            Source::Paths { host } => host.clone(),
            Source::Application { cluster_id, cluster_name, .. } => cluster_name.as_ref().unwrap_or(cluster_id).clone(),
        };
        let snapshot = Snapshot {
            time: self.point.created,
            tree: top.tree.ok_or_else(empty)?,
            paths: places.paths,
            hostname,
            username: String::new(),
            tags: self.tags(),
            program_version: self.options.program.clone(),
        };
        Ok(self.target.put_snapshot(&snapshot)?)
    }

    /// What tells where a snapshot came from. A comma would part a tag in two for restic's command line.
    fn tags(&self) -> Vec<String> {
        let mut tags = vec!["orlop".to_owned(), self.point.id.to_string(), format!("repository={}", self.source.id())];
        if let Source::Application { backup, .. } = &self.point.source {
            tags.push(format!("backup={}", backup.replace(',', "_")));
        }
        if !self.point.complete {
            tags.push("incomplete".to_owned());
        }
        tags
    }

    fn place(&mut self, place: &Place<'_>) -> Result<Finished, Error> {
        let places = match place {
            Place::Content(content) => return self.content(*content),
            Place::Folder(places) => places,
        };
        let mut tree = Tree::default();
        for (name, place) in places {
            tree.push(name, &self.place(place)?.body)?;
        }
        let subtree = self.target.put(BlobKind::Tree, &tree.finish()?)?;
        let node = self.node(&self.made_up(0o755), NodeKind::Directory { subtree }, 1);
        Ok(Finished { body: node.body()?, tree: Some(subtree) })
    }

    fn content(&mut self, content: Content<'_>) -> Result<Finished, Error> {
        match content {
            Content::Tree(root) => self.tree(root),
            Content::Volume(root) => self.volume(root),
            Content::Stream(root) => self.stream(root),
            Content::Objects(table) => self.objects(table),
            Content::Ledger(table) => self.ledger(table),
            Content::Document => self.document(),
        }
    }

    /// Stores a volume as one file.
    fn volume(&mut self, root: &Root) -> Result<Finished, Error> {
        let map = Map::volume(self.source, root.table, root.bytes);
        let blob_len = volume_blob_len(map.size());
        let (mut stretches, mut cutter, mut end) = (volume::stretches(&map).boxed(), Cutter::new(), 0);
        while let Some((start, bytes)) = self.runtime.block_on(stretches.try_next())? {
            cutter.zeros(self, start - end)?;
            end = start + bytes.len() as u64;
            bytes.chunks(blob_len).try_for_each(|blob| cutter.data(self, blob))?;
        }
        cutter.zeros(self, map.size() - end)?;
        let (content, size) = cutter.finish(self)?;
        self.file_node(size, content)
    }

    /// Stores a stream as one file; its extents are those of a file.
    fn stream(&mut self, root: &Root) -> Result<Finished, Error> {
        let file = File { size: root.bytes, settled: false, content: FileContent::Table(root.table) };
        let content = self.file_content(&TreePath::root().child(root.name.replace('/', "_").as_bytes()), &file)?;
        self.file_node(root.bytes, content)
    }
}
