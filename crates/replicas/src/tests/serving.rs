//! A volume that is served, and what it does when something is away.

use super::cluster::{Cluster, VOLUME, flush, limits, read, until, write};
use super::proxy::Mode;
use crate::testing::seed;
use crate::{AttachError, Attachment, Options, Replicas};
use block::Device;
use replication::attachment::{Ending, Why};
use replication::units::{Blocks, VolumeId};
use replication::wire::BLOCK;
use std::sync::Arc;

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_replicated_volume_is_a_block_device() {
    let seed = seed();
    for nodes in 1..=3 {
        let cluster = Cluster::new(nodes, 1, 2048).await;
        let attachment = cluster.attach(0).await;
        let device = attachment.device();
        tokio::task::spawn_blocking(move || block::testing::check(&device, seed)).await.unwrap();
        let status = attachment.status();
        assert_eq!((status.suspended, status.members.len()), (None, nodes));
        assert_eq!(status.members.iter().filter(|member| member.is_here).count(), 1);
        assert!(status.members.iter().all(|member| member.is_here || member.sent_bytes > 100 * 4096), "{status:?}");
        assert_eq!(attachment.detach().await, Ending::Detached);
        assert!(cluster.records.record().attached.is_none());
        assert!(write(&attachment.device(), 0, &[1; BLOCK]).await.is_err(), "it is not attached any more");
        cluster.assert_equal();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_volume_without_a_replica_here_is_served_from_elsewhere() {
    let mut cluster = Cluster::new(3, 2, 64).await;
    let attachment = cluster.attach(0).await;
    write(&attachment.device(), 7, &[7; 2 * BLOCK]).await.unwrap();
    assert_eq!(attachment.detach().await, Ending::Detached);
    cluster.kill(0);
    let attachment = cluster.attach(0).await;
    let device = attachment.device();
    assert_eq!(read(&device, Blocks { start: 7, count: 2 }).await.unwrap(), [7; 2 * BLOCK]);
    flush(&device).await.unwrap();
    assert!(attachment.status().members.iter().all(|member| !member.is_here));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn io_waits_and_says_why_while_too_few_replicas_or_no_record_can_be_reached() {
    let cluster = Cluster::new(3, 2, 64).await;
    let attachment = cluster.attach(0).await;
    let device = attachment.device();
    write(&device, 1, &[1; BLOCK]).await.unwrap();
    // Without records, I/O goes on as long as nothing has to change.
    cluster.records.set_away(true);
    write(&device, 2, &[2; BLOCK]).await.unwrap();
    // Now one has to leave.
    cluster.way(0, 2).set(Mode::Stuck);
    let waiting = {
        let device = device.clone();
        tokio::spawn(async move { write(&device, 3, &[3; BLOCK]).await })
    };
    let waits_for = |why: &[Why]| attachment.status().suspended.is_some_and(|suspended| why.contains(&suspended.why));
    until("it is suspended", || waits_for(&[Why::NoLease, Why::RecordStore])).await;
    assert!(!waiting.is_finished());
    cluster.records.set_away(false);
    waiting.await.unwrap().unwrap();
    assert_eq!(cluster.records.in_sync(), 2);
    // Below the minimum nothing is served, and nothing fails.
    cluster.way(0, 1).set(Mode::Cut);
    let waiting = {
        let device = device.clone();
        tokio::spawn(async move { write(&device, 4, &[4; BLOCK]).await })
    };
    until("it is suspended", || waits_for(&[Why::NoLease])).await;
    assert!(!waiting.is_finished());
    assert!(attachment.status().members.iter().any(|member| member.lag.is_some()));
    cluster.way(0, 1).set(Mode::Open);
    waiting.await.unwrap().unwrap();
    cluster.way(0, 2).set(Mode::Open);
    cluster.all_in_sync().await;
    assert_eq!(attachment.detach().await, Ending::Detached);
    cluster.assert_equal();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_attached_is_refused() {
    let cluster = Cluster::new(1, 1, 64).await;
    let start = |options: Options| {
        let (records, network) = (Arc::new(cluster.records.clone()), cluster.network(0));
        Attachment::start(records, Arc::<Replicas>::default(), network, options)
    };
    let options = || Options { limits: limits(), ..Options::new(VOLUME) };
    let other = start(Options { volume: VolumeId(9), ..options() }).await;
    assert!(matches!(other, Err(AttachError::NoRecord(VolumeId(9)))), "{other:?}");
    let few = start(Options { most_bytes: 4096, ..options() }).await;
    assert!(matches!(few, Err(AttachError::Bytes { .. })), "{few:?}");
    cluster.records.set_away(true);
    assert!(matches!(start(options()).await, Err(AttachError::Records(_))));
    cluster.records.set_away(false);
    let first = cluster.attach(0).await;
    write(&first.device(), 0, &[1; BLOCK]).await.unwrap();
    let second = cluster.attach(0).await;
    assert!(matches!(second.ended().await, Ending::AttachedElsewhere { .. }));
    write(&first.device(), 0, &[2; BLOCK]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_do_not_fit_are_refused_and_those_of_a_dropped_attachment_end() {
    let cluster = Cluster::new(2, 2, 64).await;
    let attachment = cluster.attach(0).await;
    let device = attachment.device();
    assert!(write(&device, 64, &[1; BLOCK]).await.is_err(), "beyond the end");
    assert!(write(&device, 0, &[1; 100]).await.is_err(), "no whole block");
    assert!(write(&device, 0, &[]).await.is_err(), "nothing");
    assert!(write(&device, 0, &vec![1; (4 << 20) + BLOCK]).await.is_err(), "too much");
    assert_eq!(device.describe().unwrap().size, 64 * 4096);
    write(&device, 0, &[1; BLOCK]).await.unwrap();
    cluster.way(0, 1).set(Mode::Stuck);
    let waiting = {
        let device = device.clone();
        tokio::spawn(async move { write(&device, 1, &[1; BLOCK]).await })
    };
    until("it is under way", || attachment.status().operations == 1).await;
    drop(attachment);
    assert!(waiting.await.unwrap().is_err());
    assert!(write(&device, 1, &[1; BLOCK]).await.is_err());
}
