//! What is left of attachments that fail.

use super::{Entry, FrontEnd, Journal};
use crate::node::{Config, Node, Serving};
use crate::pool_spec::PoolSpec;
use crate::proto::CreateVolumeRequest;
use crate::runtime::RuntimeDir;
use std::os::unix::fs::FileExt;
use std::path::Path;
use volume::Access;

/// A node in a folder, with a pool of its own; it must be made within a runtime.
fn node(folder: &Path) -> Node {
    node_with("pool", folder)
}

fn node_with(pool: &str, folder: &Path) -> Node {
    let pools = vec![PoolSpec { path: folder.join(pool), bytes: Some(32 << 20) }];
    let serving =
        Some(Serving { runtime: RuntimeDir::claim(&folder.join("run")).unwrap(), keeper: None, nbd_tls: None });
    Node::start(Config { pools, cache_bytes: 1 << 20, access: Access::Best, scrub: None, serving, replication: None })
        .unwrap()
}

fn with_volume(folder: &Path) -> Node {
    let node = node(folder);
    let request = CreateVolumeRequest { name: "data".into(), bytes: 1 << 20, ..CreateVolumeRequest::default() };
    node.create_volume(&request).unwrap();
    node
}

fn label(node: &Node) -> String {
    let source = node.target("data").unwrap().target().source;
    node.attachments.as_ref().unwrap().label("data", &source.label())
}

/// What stands where the socket of the volume would be.
fn obstacle(folder: &Path, node: &Node) -> std::path::PathBuf {
    folder.join("run/nbd").join(format!("{}.sock", label(node))).join("obstacle")
}

fn listed(folder: &Path) -> Vec<(String, FrontEnd)> {
    let journal = Journal::open(&folder.join("run")).unwrap();
    journal.entries().iter().map(|entry| (entry.name.clone(), entry.front_end)).collect()
}

fn is_counted(node: &Node) -> bool {
    node.metrics().unwrap().contains("volume=\"data\"")
}

#[test]
fn of_what_could_not_be_attached_nothing_is_left() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _entered = runtime.enter();
    let folder = tempfile::tempdir().unwrap();
    let node = with_volume(folder.path());
    let obstacle = obstacle(folder.path(), &node);
    std::fs::create_dir_all(&obstacle).unwrap();
    node.attach("data", FrontEnd::Nbd, &[]).unwrap_err();
    assert_eq!((listed(folder.path()), is_counted(&node)), (vec![], false));
    assert!(node.place("data").is_none());
    std::fs::remove_dir_all(obstacle.parent().unwrap()).unwrap();
    node.attach("data", FrontEnd::Nbd, &[]).unwrap();
    assert_eq!((listed(folder.path()), is_counted(&node)), (vec![("data".to_owned(), FrontEnd::Nbd)], true));
    node.detach("data").unwrap();
    assert_eq!((listed(folder.path()), is_counted(&node)), (vec![], false));
}

#[test]
fn what_was_attached_and_cannot_be_again_stays_listed_as_it_was_and_nothing_else_is_left() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _entered = runtime.enter();
    let folder = tempfile::tempdir().unwrap();
    let node = with_volume(folder.path());
    let (obstacle, label) = (obstacle(folder.path(), &node), label(&node));
    node.stop();
    // A process before this one had served it, and somebody has put something in the way since.
    let entry = Entry {
        pool: "pool".into(),
        name: "data".into(),
        front_end: FrontEnd::Nbd,
        label: Some(label),
        key: None,
        replicated: None,
    };
    Journal::open(&folder.path().join("run")).unwrap().add(entry).unwrap();
    std::fs::create_dir_all(&obstacle).unwrap();
    let node = self::node(folder.path());
    assert_eq!((listed(folder.path()), is_counted(&node)), (vec![("data".to_owned(), FrontEnd::Nbd)], false));
    assert!(node.place("data").is_none());
    std::fs::remove_dir_all(obstacle.parent().unwrap()).unwrap();
    node.attach("data", FrontEnd::Nbd, &[]).unwrap();
    assert!(node.place("data").is_some());
}

#[test]
fn what_was_attached_waits_for_its_pool() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _entered = runtime.enter();
    let folder = tempfile::tempdir().unwrap();
    let node = with_volume(folder.path());
    node.attach("data", FrontEnd::Nbd, &[]).unwrap();
    node.stop();
    let node = node_with("other", folder.path());
    assert_eq!((listed(folder.path()), is_counted(&node)), (vec![("data".to_owned(), FrontEnd::Nbd)], false));
    node.stop();
    let node = self::node(folder.path());
    assert!(node.place("data").is_some());
}

#[test]
fn a_device_that_was_begun_without_the_folder_in_its_name_keeps_it() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _entered = runtime.enter();
    let folder = tempfile::tempdir().unwrap();
    let node = with_volume(folder.path());
    let new = label(&node);
    node.stop();
    let entry = Entry {
        pool: "pool".into(),
        name: "data".into(),
        front_end: FrontEnd::Nbd,
        label: None,
        key: None,
        replicated: None,
    };
    Journal::open(&folder.path().join("run")).unwrap().add(entry).unwrap();
    let node = self::node(folder.path());
    let begun = label(&node);
    assert!(new.starts_with(&begun) && new.len() > begun.len(), "{begun} and {new}");
    assert!(node.place("data").unwrap().place.contains(&format!("{begun}.sock")));
    node.detach("data").unwrap();
    assert_eq!(label(&node), new);
}

#[test]
fn nodes_with_copies_of_one_pool_have_block_devices_of_their_own() {
    skips::require_block_devices!();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _entered = runtime.enter();
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    with_volume(folders[0].path()).stop();
    std::fs::copy(folders[0].path().join("pool"), folders[1].path().join("pool")).unwrap();
    let nodes = folders.each_ref().map(|folder| node(folder.path()));
    let attached = nodes.each_ref().map(|node| node.attach("data", FrontEnd::Device, &[]).map(|there| there.place));
    let written = attached.each_ref().map(|place| {
        let place = place.as_ref().ok()?;
        let file = std::fs::OpenOptions::new().read(true).write(true).open(place).ok()?;
        file.write_all_at(place.as_bytes(), 4096).and_then(|()| file.sync_all()).ok()?;
        let mut back = vec![0; place.len()];
        file.read_exact_at(&mut back, 4096).ok()?;
        Some(back == place.as_bytes())
    });
    let detached = nodes.each_ref().map(|node| node.detach("data"));
    assert!(detached.iter().all(Result::is_ok), "{detached:?}");
    let [first, second] = attached.map(Result::unwrap);
    assert_ne!(first, second);
    assert_eq!(written, [Some(true), Some(true)]);
    // Each has what was written through its own device, and nothing of the other's.
    for (node, place) in nodes.iter().zip([first, second]) {
        let (store, volume) = node.volume("data").unwrap();
        let (sender, receiver) = std::sync::mpsc::channel();
        let answer = move |result| drop(sender.send(result));
        store.pool.read(volume::State::Volume(volume.id), 1, block::Buffer::zeroed(4096), answer);
        assert!(receiver.recv().unwrap().unwrap().starts_with(place.as_bytes()));
    }
}
