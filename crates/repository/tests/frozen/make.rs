//! How the fixtures were made.

use std::fs::{self, File, FileTimes, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::SignedDuration;
use repository::copy::copy;
use repository::keys::{KeyRing, NewKey};
use repository::repair::{RepairOptions, RepairSources, repair};
use repository::table::Builder;
use repository::tree::{self, BackupOptions};
use repository::volume::{self, Changes, Parent};
use repository::{
    Claim, CollectOptions, NoProgress, Passphrase, PointId, RecoveryPoint, Repository, RetryPolicy, Root, RootKind,
    Source, TableRef, Tags, Writer,
};
use tokio_util::sync::CancellationToken;

use crate::literals::noise;
use crate::{config, literals};

const PASSPHRASE: &str = "frozen: größe";
/// More pieces than the entry of a file may have extents.
const PIECES: u64 = 600;
const PIECE_BYTES: usize = 4096;
/// Over the border of two segments.
const IMAGE_LEN: u64 = volume::SEGMENT_LEN + 5_000;

/// Makes one of the fixtures; gives what opens it.
pub(crate) async fn make(kind: &str, path: &Path, home: &Path) -> Vec<String> {
    let repo = create(path).await;
    match kind {
        "application" => application(&repo, home).await,
        "collected" => collected(&repo).await,
        "keys" => return keys(&repo).await,
        "repaired" => repaired(&repo, path, home).await,
        "streams" => streams(&repo).await,
        "tags-and-pins" => tags_and_pins(&repo).await,
        "tree" => trees(&repo, home).await,
        "volumes" => volumes(&repo, home).await,
        other => panic!("{other} is no fixture"),
    }
    vec![PASSPHRASE.to_owned()]
}

async fn create(path: &Path) -> Repository {
    let store = config(path).open(RetryPolicy::never()).unwrap();
    Repository::create(store, &Passphrase::new(PASSPHRASE)).await.unwrap()
}

fn id(name: &str) -> PointId {
    name.parse().unwrap()
}

/// Content that compresses well, so that the fixtures are small.
fn text(len: usize) -> Vec<u8> {
    (0..len / 16).flat_map(|line| format!("line {:010}\n", line % 1000).into_bytes()).collect()
}

/// Ends a session, and publishes what it wrote.
async fn publish(repo: &Repository, writer: Writer, id: &PointId, roots: Vec<Root>) -> RecoveryPoint {
    let written = writer.finish().await.unwrap();
    let point = literals::point(id.clone(), literals::passed(), roots, written.session, written.packs);
    repo.publish(&point).await.unwrap();
    point
}

async fn stored_stream(writer: &Writer, bytes: &[u8]) -> Root {
    let progress = Arc::new(NoProgress);
    let stored = volume::store_stream(writer, bytes, &CancellationToken::new(), progress).await.unwrap();
    literals::root("dump", RootKind::Stream, stored.root, (0, stored.bytes), literals::passed())
}

/// A recovery point of one stream.
pub(crate) async fn stream(repo: &Repository, id: &PointId, bytes: &[u8]) -> RecoveryPoint {
    let writer = repo.writer(id).await.unwrap();
    let root = stored_stream(&writer, bytes).await;
    publish(repo, writer, id, vec![root]).await
}

async fn streams(repo: &Repository) {
    stream(repo, &id("empty"), b"").await;
    stream(repo, &id("short"), b"a few bytes\n").await;
    stream(repo, &id("text"), &text(3 << 20)).await;
    stream(repo, &id("noise"), &noise(40_000, 1)).await;
}

async fn keys(repo: &Repository) -> Vec<String> {
    stream(repo, &id("only"), b"for all of them").await;
    let other = "another, with spaces at its end  ";
    let ring = KeyRing::open(repo.store().clone(), &Passphrase::new(PASSPHRASE)).await.unwrap();
    let new = |label: &str| NewKey { label: label.to_owned(), created: literals::passed() };
    ring.add(&Passphrase::new(other).into(), &new("on call: größe")).await.unwrap();
    let removed = ring.add(&Passphrase::new("removed").into(), &new("removed")).await.unwrap();
    ring.remove(removed, false).await.unwrap();
    vec![PASSPHRASE.to_owned(), other.to_owned()]
}

async fn tags_and_pins(repo: &Repository) {
    stream(repo, &id("plain"), b"neither tagged nor pinned").await;
    let tagged = id("tagged");
    let writer = repo.writer(&tagged).await.unwrap();
    let root = stored_stream(&writer, b"tagged and pinned").await;
    let written = writer.finish().await.unwrap();
    let tags = ["audit", "release=1.2", "a/b:c_d-e"].map(|tag| tag.parse().unwrap());
    let point = literals::point(tagged.clone(), literals::passed(), vec![root], written.session, written.packs);
    repo.publish(&RecoveryPoint { tags: Tags::new(tags).unwrap(), ..point }).await.unwrap();
    repo.pin(&tagged, "for the audit: größe", literals::passed()).await.unwrap();
}

/// Two collections, the second of which had to give a run up; then something is forgotten that no collection has freed yet.
async fn collected(repo: &Repository) {
    let at_once = CollectOptions { dead_after: SignedDuration::ZERO, dry_run: false };
    for name in ["kept", "gone"] {
        stream(repo, &id(name), name.as_bytes()).await;
    }
    repo.forget(&id("gone")).await.unwrap();
    repo.collect(&at_once, &NoProgress).await.unwrap();
    let dead = repo.writer(&id("dead")).await.unwrap();
    stored_stream(&dead, b"of a run that died").await;
    dead.finish().await.unwrap();
    stream(repo, &id("later"), b"of the second epoch").await;
    let done = repo.collect(&at_once, &NoProgress).await.unwrap();
    assert_eq!((done.packs, done.revoked.len()), (1, 1), "{done:?}");
    for name in ["last", "forgotten"] {
        stream(repo, &id(name), name.as_bytes()).await;
    }
    repo.forget(&id("forgotten")).await.unwrap();
    // A run that is under way.
    let living = repo.writer(&id("living")).await.unwrap();
    stored_stream(&living, b"of a run that goes on").await;
    living.finish().await.unwrap();
}

/// What was lost has come from a copy: readers find it through the index.
async fn repaired(repo: &Repository, path: &Path, home: &Path) {
    let lost = stream(repo, &id("lost"), &noise(5_000, 2)).await;
    stream(repo, &id("whole"), b"was never lost").await;
    let there = create(&home.join("there")).await;
    copy(repo, &there, &lost.id, Arc::new(NoProgress), &CancellationToken::new()).await.unwrap();
    for object in repo.store().list("domains/default/packs/").await.unwrap() {
        if lost.packs.iter().any(|pack| object.name.ends_with(&pack.id.to_string())) {
            fs::remove_file(path.join(object.name)).unwrap();
        }
    }
    let sources = RepairSources { from: Some(there), living: Default::default() };
    let report = repair(repo, &sources, &RepairOptions::default(), &NoProgress).await.unwrap();
    assert!(report.left.is_empty() && report != Default::default(), "{report:?}");
}

/// The files, as they were when the fixture was made.
fn fill(top: &Path) {
    fs::create_dir_all(top.join("folder/deeper")).unwrap();
    fs::write(top.join("empty"), "").unwrap();
    fs::write(top.join("small"), "a few bytes\n").unwrap();
    fs::write(top.join("größe"), "a name that is not ASCII").unwrap();
    fs::write(top.join(std::ffi::OsStr::from_bytes(b"not \xff text\\")), "a name that is no text").unwrap();
    fs::write(top.join("folder/large"), text(700 << 10)).unwrap();
    fs::write(top.join("folder/noise"), noise(30_000, 3)).unwrap();
    fs::write(top.join("folder/deeper/other"), "another small one\n").unwrap();
    // A folder sorts before its siblings with a character less than the slash.
    fs::create_dir(top.join("folder!")).unwrap();
    fs::hard_link(top.join("small"), top.join("folder/linked")).unwrap();
    symlink("folder/large", top.join("symlink")).unwrap();
    let node = |name: &str, kind, device| {
        let mode = rustix::fs::Mode::from_raw_mode(0o640);
        rustix::fs::mknodat(rustix::fs::CWD, top.join(name), kind, mode, device).unwrap();
    };
    node("fifo", rustix::fs::FileType::Fifo, 0);
    node("null", rustix::fs::FileType::CharacterDevice, rustix::fs::makedev(1, 3));
    let pieces = File::create(top.join("pieces")).unwrap();
    for piece in 0..PIECES {
        pieces.write_all_at(&text(PIECE_BYTES), piece * 4 * PIECE_BYTES as u64).unwrap();
    }
    File::create(top.join("hole")).unwrap().set_len(1 << 20).unwrap();
    rustix::fs::setxattr(top.join("small"), "user.orlop", b"an attribute", rustix::fs::XattrFlags::empty()).unwrap();
    std::os::unix::fs::lchown(top.join("folder/deeper/other"), Some(1000), Some(1001)).unwrap();
    fs::set_permissions(top.join("small"), Permissions::from_mode(0o4750)).unwrap();
    fs::set_permissions(top.join("folder"), Permissions::from_mode(0o2700)).unwrap();
    set_times(top);
}

fn set_times(top: &Path) {
    let time = SystemTime::UNIX_EPOCH + Duration::new(1_790_000_000, 123_456_789);
    for name in ["small", "folder/large", "pieces", "folder/deeper", "folder", ""] {
        File::open(top.join(name)).unwrap().set_times(FileTimes::new().set_modified(time)).unwrap();
    }
}

async fn stored_tree(writer: &Writer, repo: &Repository, name: &str, top: &Path, parent: Option<&TableRef>) -> Root {
    // After every change of a file, so that the next run can take it for unchanged.
    let options = BackupOptions::new(jiff::Timestamp::now() + SignedDuration::from_hours(1));
    let stored = tree::backup(writer, repo, top, parent, &options, Arc::new(NoProgress)).await.unwrap();
    literals::root(name, RootKind::Tree, stored.root, (stored.files, stored.bytes), literals::passed())
}

async fn trees(repo: &Repository, home: &Path) {
    let top = home.join("source");
    fs::create_dir(&top).unwrap();
    fill(&top);
    let mut parent = None;
    for name in ["first", "second", "third"] {
        fs::write(top.join("folder/changes"), name).unwrap();
        fs::write(top.join(format!("only-from-{name}-on")), "").unwrap();
        set_times(&top);
        let writer = repo.writer(&id(name)).await.unwrap();
        if let Some((before, _)) = &parent {
            assert!(writer.parent(before).await.unwrap().is_some());
        }
        let table = parent.as_ref().map(|(_, table)| table);
        let root = stored_tree(&writer, repo, "/srv/größe", &top, table).await;
        parent = Some((id(name), root.table));
        publish(repo, writer, &id(name), vec![root]).await;
    }
}

async fn volumes(repo: &Repository, home: &Path) {
    let path = home.join("image");
    let image = File::options().create_new(true).read(true).write(true).open(&path).unwrap();
    image.set_len(IMAGE_LEN).unwrap();
    image.write_all_at(&text(1 << 20), 3 << 20).unwrap();
    image.write_all_at(&noise(100, 4), volume::SEGMENT_LEN - 50).unwrap();
    let mut parent: Option<(PointId, Parent)> = None;
    for number in 0..5_u64 {
        let name = id(&format!("p{number}"));
        let mut changed = Vec::new();
        for change in 0..40 * number.min(1) {
            let offset = (3 << 20) + 4096 * ((change * 7 + number * 13) % 256);
            let bytes = if change % 5 == 0 { vec![0; 4096] } else { text(if change % 2 == 0 { 4096 } else { 8192 }) };
            image.write_all_at(&bytes, offset).unwrap();
            changed.push((offset, bytes.len() as u64));
        }
        let border = (volume::SEGMENT_LEN - 3000, 5_000);
        image.write_all_at(&noise(5_000, 10 + number), border.0).unwrap();
        changed.push(border);
        let writer = repo.writer(&name).await.unwrap();
        if let Some((before, _)) = &parent {
            assert!(writer.parent(before).await.unwrap().is_some());
        }
        // The last one is read whole, and compared.
        let changes = (number > 0 && number < 4).then(|| Changes::new(changed, IMAGE_LEN).unwrap());
        let options = volume::BackupOptions {
            parent: parent.as_ref().map(|(_, parent)| *parent),
            changes,
            cancel: CancellationToken::new(),
        };
        let stored = volume::backup(&writer, &path, &options, Arc::new(NoProgress)).await.unwrap();
        let root = literals::root("disk", RootKind::Volume, stored.root, (0, stored.bytes), literals::passed());
        publish(repo, writer, &name, vec![root]).await;
        parent = Some((name, Parent { table: stored.root, size: stored.bytes }));
    }
}

async fn table(writer: &Writer, entries: &[(&str, &str)]) -> TableRef {
    let mut table = Builder::new(writer);
    for (key, value) in entries {
        table.push(key.as_bytes(), value.as_bytes()).await.unwrap();
    }
    table.finish().await.unwrap()
}

/// An application of two objects and one claim; see `docs/formats/application.md`.
async fn application(repo: &Repository, home: &Path) {
    const CLAIM: &str =
        r#"{"apiVersion":"v1","kind":"PersistentVolumeClaim","metadata":{"name":"data","namespace":"shop"}}"#;
    const SETTINGS: &str = r#"{"apiVersion":"v1","data":{"colour":"blue"},"kind":"ConfigMap","metadata":{"name":"settings","namespace":"shop"}}"#;
    const STORED: &str = r#"{"outcome":"stored","version":"v1"}"#;
    const SKIPPED: &str = r#"{"outcome":"skipped","rule":"owned","version":"v1"}"#;
    let top = home.join("source");
    fs::create_dir(&top).unwrap();
    fs::write(top.join("orders"), text(10_000)).unwrap();
    let name = id("20261122-100000-shop");
    let writer = repo.writer(&name).await.unwrap();
    let root = stored_tree(&writer, repo, "shop/data", &top, None).await;
    let claim =
        Claim { namespace: "shop".to_owned(), name: "data".to_owned(), object: serde_json::from_str(CLAIM).unwrap() };
    let (settings, data) = ("a\0\0ConfigMap\0shop\0settings", "a\0\0PersistentVolumeClaim\0shop\0data");
    let objects = table(&writer, &[(settings, SETTINGS), (data, CLAIM)]).await;
    let pod = "a\0\0Pod\0shop\0web-0";
    let volume = "a\0orlop.io\0Volume\0shop\0data";
    let ledger = table(&writer, &[(settings, STORED), (data, STORED), (pod, SKIPPED), (volume, STORED)]).await;
    let written = writer.finish().await.unwrap();
    let roots = vec![Root { claim: Some(claim), ..root }];
    let point = literals::point(name, literals::passed(), roots, written.session, written.packs);
    let source = Source::Application {
        cluster_id: "00000000-0000-4000-8000-000000000000".to_owned(),
        cluster_name: Some("harbour".to_owned()),
        backup: "orlop/shop".to_owned(),
        namespaces: vec!["shop".to_owned()],
    };
    repo.publish(&RecoveryPoint { source, objects: Some(objects), ledger: Some(ledger), ..point }).await.unwrap();
}
