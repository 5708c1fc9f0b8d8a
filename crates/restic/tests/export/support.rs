//! A repository of Orlop's, a restic repository that is exported to, and the program that judges it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use repository::store::StoreConfig;
use repository::tree::{self, BackupOptions};
use repository::volume;
use repository::{
    NoProgress, Passphrase, Progress, RecoveryPoint, Repository, RetryPolicy, Root, RootKind, Source, Stats, TableRef,
    Writer,
};
use restic::{Error, Exported, Options};
use serde_json::Value;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// Skips the test where there is no restic.
macro_rules! require_restic {
    () => {
        if std::process::Command::new("restic").arg("version").output().is_err() {
            sandbox::skip!("restic is not installed; tools/setup does it");
        }
    };
}
pub(crate) use require_restic;

pub(crate) struct Place {
    pub(crate) dir: TempDir,
    pub(crate) repository: Repository,
}

impl Place {
    pub(crate) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("password"), "open sesame\n").unwrap();
        let config = StoreConfig::FileSystem { path: dir.path().join("orlop") };
        let store = config.open(RetryPolicy::never()).unwrap();
        let repository = Repository::create(store, &Passphrase::new("x")).await.unwrap();
        fs::create_dir(dir.path().join("data")).unwrap();
        Self { dir, repository }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join(name)
    }

    pub(crate) async fn tree(&self, writer: &Writer, name: &str, folder: &Path) -> Root {
        let options = BackupOptions::new(Timestamp::now());
        let found = tree::backup(writer, &self.repository, folder, None, &options, Arc::new(NoProgress)).await.unwrap();
        assert!(found.missed.is_empty(), "{found:?}");
        root(name, RootKind::Tree, found.root, found.bytes)
    }

    pub(crate) async fn volume(&self, writer: &Writer, name: &str, image: &Path) -> Root {
        let options = volume::BackupOptions::default();
        let found = volume::backup(writer, image, &options, Arc::new(NoProgress)).await.unwrap();
        root(name, RootKind::Volume, found.root, fs::metadata(image).unwrap().len())
    }

    pub(crate) async fn stream(&self, writer: &Writer, name: &str, bytes: &[u8]) -> Root {
        let found = volume::store_stream(writer, bytes, &CancellationToken::new(), Arc::new(NoProgress)).await.unwrap();
        root(name, RootKind::Stream, found.root, found.bytes)
    }

    pub(crate) async fn publish(&self, writer: Writer, point: &mut RecoveryPoint) {
        let written = writer.finish().await.unwrap();
        (point.sessions, point.packs) = (vec![written.session], written.packs);
        self.repository.publish(point).await.unwrap();
    }

    /// Backs the folder `data` up.
    pub(crate) async fn backup(&self, id: &str) -> RecoveryPoint {
        let writer = self.repository.writer(&id.parse().unwrap()).await.unwrap();
        let data = self.path("data");
        let mut point = point(id, vec![self.tree(&writer, data.to_str().unwrap(), &data).await]);
        self.publish(writer, &mut point).await;
        point
    }

    pub(crate) fn options(&self) -> Options {
        Options {
            path: self.path("restic"),
            password: "open sesame".to_owned(),
            host: "exporter".to_owned(),
            program: "orlop test".to_owned(),
            cancel: CancellationToken::new(),
        }
    }

    pub(crate) async fn export(&self, points: &[RecoveryPoint]) -> Vec<Exported> {
        let exported = self.try_export(points, self.options(), Arc::new(NoProgress)).await;
        exported.unwrap()
    }

    pub(crate) async fn try_export(
        &self,
        points: &[RecoveryPoint],
        options: Options,
        progress: Arc<dyn Progress>,
    ) -> Result<Vec<Exported>, Error> {
        let exported = Arc::new(Mutex::new(Vec::new()));
        let done = exported.clone();
        let note = move |one| done.lock().unwrap().push(one);
        restic::export(&self.repository, points.to_vec(), options, progress, note).await?;
        let exported = std::mem::take(&mut *exported.lock().unwrap());
        Ok(exported)
    }

    pub(crate) fn try_restic(&self, words: &[&str]) -> Output {
        let mut command = Command::new("restic");
        command.arg("--no-cache").arg("-r").arg(self.path("restic")).arg("--password-file").arg(self.path("password"));
        command.args(words).output().unwrap()
    }

    pub(crate) fn restic(&self, words: &[&str]) -> String {
        let output = self.try_restic(words);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}: {}{said}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Everything is read by restic, and it has nothing to say.
    pub(crate) fn check(&self) {
        let said = self.restic(&["check", "--read-data"]);
        assert!(said.contains("no errors were found"), "{said}");
        assert!(!said.contains("additional files"), "{said}");
    }

    pub(crate) fn restore(&self, snapshot: &str) -> PathBuf {
        let target = self.path(&format!("restored-{snapshot}"));
        self.restic(&["restore", snapshot, "--target", target.to_str().unwrap()]);
        target
    }

    pub(crate) fn snapshots(&self) -> Vec<Value> {
        // Without any it says null.
        let found: Option<Vec<Value>> = serde_json::from_str(&self.restic(&["snapshots", "--json"])).unwrap();
        found.unwrap_or_default()
    }
}

pub(crate) fn root(name: &str, kind: RootKind, table: TableRef, bytes: u64) -> Root {
    let now = Timestamp::now();
    let (changed_while_read, files) = (0, 0);
    Root { name: name.into(), kind, table, files, bytes, changed_while_read, started: now, finished: now, claim: None }
}

pub(crate) fn point(id: &str, roots: Vec<Root>) -> RecoveryPoint {
    RecoveryPoint {
        version: RecoveryPoint::VERSION,
        id: id.parse().unwrap(),
        created: "2026-11-25T10:11:12.5Z".parse().unwrap(),
        source: Source::Paths { host: "machine".to_owned() },
        tags: repository::Tags::default(),
        complete: true,
        objects: None,
        ledger: None,
        roots,
        sessions: vec![],
        packs: vec![],
        stats: Stats::default(),
    }
}

/// Bytes that do not compress, always the same for a seed.
pub(crate) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ (seed << 32);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..len.div_ceil(8)).flat_map(|_| next()).take(len).collect()
}

/// What a program says; it must end well.
pub(crate) fn said_by(program: &str, words: &[&str], folder: &Path) -> String {
    let output = Command::new(program).args(words).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{program} {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A line for everything in a folder: kind, mode, owner, size, time, links, device, name, target; then all attributes.
pub(crate) fn described(folder: &Path) -> String {
    let find =
        ["-c", "find . -printf '%y %m %U:%G %s %T@ %n %p -> %l\\n' | sed -E 's/^(d .*:[0-9]+) [0-9]+ /\\1 /' | sort"];
    let devices = ["-c", "find . -type b -o -type c | sort | xargs -r stat -c '%n %t %T'"];
    let attributes =
        ["-c", "find . -print0 | sort -z | xargs -0 getfattr -h -d -m - 2>/dev/null | grep -v security.selinux"];
    [&find[..], &devices, &attributes].map(|words| said_by("sh", words, folder)).concat()
}
