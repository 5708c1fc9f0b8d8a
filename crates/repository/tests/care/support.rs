//! A folder and an image that are backed up together, as one recovery point after another.

use crate::literals;
pub(crate) use crate::literals::noise;
use repository::check::{CheckOptions, Finding, check};
use repository::copy::{CopySummary, copy};
use repository::tree::{self, RestoreOptions};
use repository::volume::{self, Changes, Map, Parent};
use repository::{NoProgress, Passphrase, PointId, RecoveryPoint, Repository, RetryPolicy, RootKind, StoreConfig};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

pub(crate) const IMAGE_LEN: u64 = 3 << 20;

/// What a recovery point should bring back: files by their names, and the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    pub(crate) image: Vec<u8>,
}

pub(crate) struct World {
    pub(crate) home: tempfile::TempDir,
    pub(crate) repo: Repository,
    pub(crate) states: Vec<(PointId, State)>,
    changes: Vec<(u64, u64)>,
}

pub(crate) async fn open(path: &Path) -> Repository {
    let store = StoreConfig::FileSystem { path: path.to_owned() }.open(RetryPolicy::never()).unwrap();
    Repository::open_or_create(store, &Passphrase::new("for tests")).await.unwrap()
}

impl World {
    pub(crate) async fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join("folder")).unwrap();
        let image = fs::File::create(home.path().join("image")).unwrap();
        image.set_len(IMAGE_LEN).unwrap();
        let repo = open(&home.path().join("store")).await;
        Self { home, repo, states: Vec::new(), changes: Vec::new() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub(crate) fn write_file(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path("folder").join(name), bytes).unwrap();
    }

    pub(crate) fn write_image(&mut self, offset: u64, bytes: &[u8]) {
        let image = fs::File::options().write(true).open(self.path("image")).unwrap();
        image.write_all_at(bytes, offset).unwrap();
        self.changes.push((offset, bytes.len() as u64));
    }

    fn state(&self) -> State {
        State { files: files(&self.path("folder")), image: fs::read(self.path("image")).unwrap() }
    }

    /// Backs both up; the image by its changes if there is a recovery point before.
    pub(crate) async fn backup(&mut self) -> RecoveryPoint {
        let number = self.states.len();
        let id: PointId = format!("point-{number}").parse().unwrap();
        let parent = match self.states.last() {
            Some((id, _)) => Some(self.repo.point(id).await.unwrap()),
            None => None,
        };
        let old = |name: &str| parent.as_ref().map(|parent| parent.root(name).unwrap().clone());
        let writer = self.repo.writer(&id).await.unwrap();
        let settled = tree::BackupOptions::new(jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1));
        let table = old("/folder").map(|root| root.table);
        let (folder, progress) = (self.path("folder"), Arc::new(NoProgress));
        let stored =
            tree::backup(&writer, &self.repo, &folder, table.as_ref(), &settled, progress.clone()).await.unwrap();
        let changes = Changes::new(std::mem::take(&mut self.changes), IMAGE_LEN).unwrap();
        let options = volume::BackupOptions {
            parent: old("disk").map(|root| Parent { table: root.table, size: root.bytes }),
            changes: parent.is_some().then_some(changes),
            cancel: CancellationToken::new(),
        };
        let image = volume::backup(&writer, &self.path("image"), &options, progress.clone()).await.unwrap();
        let stream =
            volume::store_stream(&writer, &noise(5000, 1)[..], &CancellationToken::new(), progress).await.unwrap();
        let written = writer.finish().await.unwrap();
        let time = jiff::Timestamp::now();
        let root = |name: &str, kind, table, amounts| literals::root(name, kind, table, amounts, time);
        let roots = vec![
            root("/folder", RootKind::Tree, stored.root, (stored.files, stored.bytes)),
            root("disk", RootKind::Volume, image.root, (0, image.bytes)),
            root("dump", RootKind::Stream, stream.root, (0, stream.bytes)),
        ];
        let point = literals::point(id.clone(), time, roots, written.session, written.packs);
        self.repo.publish(&point).await.unwrap();
        self.states.push((id, self.state()));
        point
    }

    /// Wants every recovery point to come back byte for byte from a repository, and nothing in it to be wrong.
    pub(crate) async fn is_well_in(&self, path: &Path, context: &str) {
        let repo = open(path).await;
        assert_eq!(findings(&repo).await, [], "{context}");
        for (id, state) in &self.states {
            let restored = restore(&repo, id).await;
            assert!(restored == *state, "{context}: {id} comes back otherwise");
        }
    }

    /// Copies all recovery points to another repository.
    pub(crate) async fn copy_all(&self, to: &Repository) -> Vec<CopySummary> {
        let mut summaries = Vec::new();
        for (id, _) in &self.states {
            summaries.push(copied(&self.repo, to, id).await);
        }
        summaries
    }

    /// The packs of a repository, by their names.
    pub(crate) async fn packs(&self) -> Vec<PathBuf> {
        let objects = self.repo.store().list("domains/default/packs/").await.unwrap();
        objects.into_iter().map(|object| self.path("store").join(object.name)).collect()
    }
}

pub(crate) async fn copied(from: &Repository, to: &Repository, id: &PointId) -> CopySummary {
    copy(from, to, id, Arc::new(NoProgress), &CancellationToken::new()).await.unwrap()
}

pub(crate) async fn findings(repo: &Repository) -> Vec<Finding> {
    let mut findings = Vec::new();
    let options = CheckOptions { read_data: true };
    check(repo, options, &NoProgress, &mut |finding| findings.push(finding)).await.unwrap();
    findings
}

pub(crate) async fn restore(repo: &Repository, id: &PointId) -> State {
    let home = tempfile::tempdir().unwrap();
    let point = repo.point(id).await.unwrap();
    let (folder, image) = (home.path().join("folder"), home.path().join("image"));
    let (table, progress) = (point.root("/folder").unwrap().table, Arc::new(NoProgress));
    let done = tree::restore(repo, &table, &folder, &RestoreOptions::default(), progress.clone()).await.unwrap();
    assert!(done.failed.is_empty(), "{done:?}");
    let disk = point.root("disk").unwrap();
    let map = Map::volume(repo, disk.table, disk.bytes);
    volume::restore(&map, &image, &volume::RestoreOptions::default(), progress).await.unwrap();
    State { files: files(&folder), image: fs::read(image).unwrap() }
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
}
