//! Snapshots are looked at, from the node of their replica and from others.

use super::cluster::{CLUSTER, Cluster, VOLUME, node_name, until, write};
use super::identity::Authority;
use crate::{Addresses, Attachment, Limits, LookError, Looking, Network, Security};
use replication::attachment::Ending;
use replication::look::{Look, Unseen};
use replication::message::Changed;
use replication::units::{Blocks, Epoch, HeldSnapshot, NodeId, ReplicaId, SnapshotId};
use replication::wire::{BLOCK, Frames, Message, Welcome};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const BLOCKS: u64 = 64;

impl Cluster {
    pub(super) fn look_here(&self, node: usize) -> Looking {
        let replicas = &self.nodes[node].process.as_ref().unwrap().replicas;
        Looking::here(replicas.find(VOLUME, self.nodes[node].replica).unwrap())
    }

    async fn look_from(&self, from: usize, at: usize) -> Result<Looking, LookError> {
        let (replica, node) = (self.nodes[at].replica, &self.nodes[at].name);
        Looking::there(&self.network(from), VOLUME, replica, node).await
    }

    /// A snapshot as its holders know it, when it is taken.
    async fn take(&self, id: u128) -> HeldSnapshot {
        let id = SnapshotId(id);
        self.records.change(|record| record.with_snapshot(id).unwrap());
        until("the snapshot is taken", || self.records.record().taken(id).is_some()).await;
        (id, self.records.record().taken(id).unwrap().epoch)
    }
}

/// All that is told, in pages of one range.
pub(super) async fn all(
    looking: &mut Looking,
    of: HeldSnapshot,
    since: Option<HeldSnapshot>,
    blocks: Blocks,
) -> Result<BTreeSet<u64>, LookError> {
    let (mut told, mut rest) = (BTreeSet::new(), blocks);
    loop {
        let Changed { ranges, next } = looking.look(&Look { of, since, blocks: rest, most: 1 }).await?;
        assert!(ranges.len() < 2);
        told.extend(ranges.into_iter().flat_map(|range| range.start..range.end()));
        let Some(next) = next else { return Ok(told) };
        rest = Blocks { start: next, count: blocks.end() - next };
    }
}

async fn write_all(attachment: &Attachment, blocks: &[u64]) {
    for block in blocks {
        write(&attachment.device(), *block, &[7; BLOCK]).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn another_node_is_told_the_same_as_who_has_the_replica_and_strangers_nothing() {
    let (authority, other) = (Authority::new(), Authority::new());
    let security = vec![authority.tls(&node_name(0)), authority.tls(&node_name(1))];
    let mut cluster = Cluster::with(security, 2, BLOCKS).await;
    let attachment = cluster.attach(0).await;
    write_all(&attachment, &[1, 2, 9]).await;
    let first = cluster.take(1).await;
    write_all(&attachment, &[2, 40]).await;
    let second = cluster.take(2).await;
    write_all(&attachment, &[50]).await;
    let whole = Blocks { start: 0, count: BLOCKS };
    for mut looking in [cluster.look_here(0), cluster.look_from(0, 1).await.unwrap()] {
        assert_eq!(all(&mut looking, first, None, whole).await.unwrap(), [1, 2, 9].into());
        assert_eq!(all(&mut looking, second, None, whole).await.unwrap(), [1, 2, 9, 40].into());
        assert_eq!(all(&mut looking, second, Some(first), whole).await.unwrap(), [2, 40].into());
        let younger = all(&mut looking, first, Some(second), whole).await.unwrap_err();
        assert!(matches!(younger, LookError::Unseen(Unseen::Unrelated(_))), "{younger}");
        let absent = all(&mut looking, (SnapshotId(3), Epoch(1)), None, whole).await.unwrap_err();
        assert!(matches!(absent, LookError::Unseen(Unseen::Absent(_))), "{absent}");
    }
    // In which epoch whoever serves the volume is does not matter, nor whether anybody does.
    assert_eq!(attachment.detach().await, Ending::Detached);
    let mut looking = cluster.look_from(0, 1).await.unwrap();
    assert_eq!(all(&mut looking, second, Some(first), whole).await.unwrap(), [2, 40].into());
    let stranger = Network { security: other.tls(&node_name(0)), ..cluster.network(0) };
    let refused = Looking::there(&stranger, VOLUME, cluster.nodes[1].replica, &node_name(1)).await;
    let heard = match refused {
        Ok(mut looking) => all(&mut looking, first, None, whole).await.map(drop),
        Err(error) => Err(error),
    };
    assert!(matches!(heard, Err(LookError::Away(_))), "{heard:?}");
    cluster.kill(1);
    let cut = all(&mut looking, first, None, whole).await.unwrap_err();
    assert!(matches!(cut, LookError::Away(_)), "{cut}");
    assert!(matches!(cluster.look_from(0, 1).await, Err(LookError::Away(_))));
}

/// All nodes are here.
struct Only(SocketAddr);

impl Addresses for Only {
    fn of(&self, _node: &NodeId) -> Option<SocketAddr> {
        Some(self.0)
    }
}

/// A peer that says these one after the other, whatever is asked.
async fn peer(version: u16, says: Vec<Changed>) -> Network {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addresses = Arc::new(Only(listener.local_addr().unwrap()));
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut frames = Frames::new();
        let welcome = Message::Welcome(Welcome { version });
        let says = says.into_iter().map(|said| Message::Seen(Ok(said)));
        for said in [welcome].into_iter().chain(says) {
            while frames.next_message().unwrap().is_none() {
                if stream.read_buf(frames.room()).await.unwrap() == 0 {
                    return;
                }
            }
            let frame = said.encode(version);
            stream.write_all(&[frame.front(), frame.data()].concat()).await.unwrap();
            frames.agreed(version);
        }
    });
    let security = Security::ClearOnLoopback;
    Network { cluster: CLUSTER, node: node_name(0), security, addresses, limits: Limits::default() }
}

/// During an upgrade nodes of both versions are there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_of_an_earlier_version_is_told_apart_and_not_asked() {
    let network = peer(1, vec![]).await;
    let refused = Looking::there(&network, VOLUME, ReplicaId(1), &node_name(1)).await;
    let Err(LookError::Away(why)) = refused else { panic!("it was asked") };
    assert!(why.contains("speaks version 1") && why.contains("upgrade it"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_tells_what_cannot_be_is_not_believed() {
    let says = vec![Changed { ranges: vec![], next: Some(8) }, Changed { ranges: vec![], next: Some(8) }];
    let network = peer(2, says).await;
    let mut looking = Looking::there(&network, VOLUME, ReplicaId(1), &node_name(1)).await.unwrap();
    let whole = Blocks { start: 0, count: BLOCKS };
    let told = all(&mut looking, (SnapshotId(1), Epoch(1)), None, whole).await;
    let Err(LookError::Away(why)) = told else { panic!("it would be asked for ever: {told:?}") };
    assert!(why.contains("other blocks"), "{why}");
}
