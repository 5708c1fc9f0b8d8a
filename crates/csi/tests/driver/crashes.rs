//! The process ends between any two steps of a call, at every step in turn: before it, or when it is done. The next process is asked the same again, or asked to
//! undo it, and ends right.
//!
//! The process that ends is a driver whose next step panics: nothing is cleaned up after it, all that it knew is gone, and what it has done stays. The node goes on, as
//! it does for a daemon that is killed (see `orlop`'s own tests, which kill it).

use crate::steps::{Life, Site, usage};
use crate::world::{MIB, from_volume, mounts_below, request, require, write};
use csi::proto;
use csi::{OnNode, Volumes};
use std::collections::HashMap;
use std::path::Path;
use tonic::{Code, Status};

impl Life {
    async fn call(&mut self, place: &Site, call: Call) -> Result<(), Status> {
        let (volume_id, staging_target_path) = ("v".to_owned(), place.path("staging"));
        let capability = Some(usage());
        match call {
            Call::Create => {
                let mut asked = request("v", 32);
                asked.volume_content_source = from_volume("source");
                self.controller.create_volume(asked).await.map(drop)
            }
            Call::Stage => {
                let asked = proto::NodeStageVolumeRequest {
                    volume_id,
                    staging_target_path,
                    volume_capability: capability,
                    ..Default::default()
                };
                self.plugin.node_stage_volume(asked).await.map(drop)
            }
            Call::Publish => {
                let asked = proto::NodePublishVolumeRequest {
                    volume_id,
                    staging_target_path,
                    target_path: place.path("target"),
                    volume_capability: capability,
                    readonly: true,
                    ..Default::default()
                };
                self.plugin.node_publish_volume(asked).await.map(drop)
            }
            Call::Unpublish => {
                let asked = proto::NodeUnpublishVolumeRequest { volume_id, target_path: place.path("target") };
                self.plugin.node_unpublish_volume(asked).await.map(drop)
            }
            Call::Unstage => {
                let asked = proto::NodeUnstageVolumeRequest { volume_id, staging_target_path };
                self.plugin.node_unstage_volume(asked).await.map(drop)
            }
            Call::Delete => {
                let asked = proto::DeleteVolumeRequest { volume_id, secrets: HashMap::new() };
                self.controller.delete_volume(asked).await.map(drop)
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Call {
    Create,
    Stage,
    Publish,
    Unpublish,
    Unstage,
    Delete,
}

/// A life of a volume: a clone that is larger than its source, with a file system that grows, for a group.
const LIFE: [Call; 6] = [Call::Create, Call::Stage, Call::Publish, Call::Unpublish, Call::Unstage, Call::Delete];

/// What must be so when a call is done.
fn check(place: &Site, call: Call, mark: &[u8]) {
    let mounts = mounts_below(place.runtime.path()).len();
    let target = place.path("target");
    match call {
        Call::Create => assert_eq!(mounts, 0),
        Call::Stage => {
            assert_eq!(mounts, 1);
            let room = rustix::fs::statvfs(place.path("staging")).unwrap();
            assert!(
                room.f_blocks * room.f_frsize > (24 * MIB).try_into().unwrap(),
                "it has grown: {} blocks",
                room.f_blocks
            );
            if !Path::new(&place.path("staging/mark")).exists() {
                write(&place.path("staging"), "mark", mark);
            }
        }
        Call::Publish => {
            assert_eq!(mounts, 2);
            assert_eq!(std::fs::read(format!("{target}/mark")).unwrap(), mark, "what was written is there");
            assert!(std::fs::write(format!("{target}/x"), b"x").is_err(), "it is read-only");
        }
        Call::Unpublish => assert!(mounts == 1 && !Path::new(&target).exists()),
        Call::Unstage | Call::Delete => assert_eq!(mounts, 0),
    }
}

/// Has the process end at a step of the life; true if there is such a step.
async fn ends_at(place: &Site, at: u64, done: bool) -> bool {
    let mut life = place.live(Some((at, done))).await;
    let mut interrupted = false;
    let mark = format!("{at} {done}").into_bytes();
    for call in LIFE {
        if let Err(status) = life.call(place, call).await {
            assert!(!interrupted && status.code() == Code::Internal, "{call:?} at {at}, {done}: {status}");
            assert!(status.message().contains("panicked"), "{status}");
            interrupted = true;
            life.end().await;
            life = place.live(None).await;
            let again = life.call(place, call).await;
            assert!(again.is_ok(), "{call:?} again, after an end at step {at} ({done}): {again:?}");
        }
        check(place, call, &mark);
    }
    let used = life.fuse.steps();
    life.end().await;
    let volumes = OnNode::new(place.node.clone());
    let (left, snapshots) = tokio::task::spawn_blocking(move || (volumes.list(), volumes.snapshots())).await.unwrap();
    let left = left.unwrap();
    assert!(left.len() == 1 && snapshots.unwrap().is_empty(), "nothing is left behind: {left:?}");
    assert!(interrupted || used <= at, "the fuse must burn");
    interrupted
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_repeated_after_the_process_has_ended_at_any_step() {
    require!("mkfs.ext4", "resize2fs");
    for formatted in [false, true] {
        let place = Site::new(formatted).await;
        let mut at = 0;
        while ends_at(&place, at, false).await | ends_at(&place, at, true).await {
            at += 1;
        }
        assert!(at >= 14, "a life has more than {at} steps");
        eprintln!("ended before and after each of {at} steps");
    }
}

/// The orchestrator gives up instead, and undoes what it does not know to be done.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_undone_after_the_process_has_ended_at_any_step() {
    require!("mkfs.ext4", "resize2fs");
    let place = Site::new(true).await;
    let mut at = 0;
    loop {
        let mut life = place.live(Some((at, true))).await;
        let mut interrupted = None;
        for call in &LIFE[..3] {
            if life.call(&place, *call).await.is_err() {
                interrupted = Some(*call);
                break;
            }
        }
        life.end().await;
        let mut life = place.live(None).await;
        for call in &LIFE[3..] {
            match life.call(&place, *call).await {
                Ok(()) => {}
                // The volume was never made.
                Err(status) => {
                    assert!(status.code() == Code::NotFound && interrupted == Some(Call::Create), "{status}")
                }
            }
        }
        assert_eq!(mounts_below(place.runtime.path()).len(), 0, "after an end at step {at}");
        life.end().await;
        let volumes = OnNode::new(place.node.clone());
        let left = tokio::task::spawn_blocking(move || (volumes.list(), volumes.snapshots())).await.unwrap();
        assert!(left.0.unwrap().len() == 1 && left.1.unwrap().is_empty(), "after an end at step {at}");
        if interrupted.is_none() {
            break;
        }
        at += 1;
    }
    assert!(at >= 9, "a life begins with more than {at} steps");
}
