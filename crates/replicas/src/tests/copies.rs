//! Replicas that come back, are new, or are damaged get what they lack, and not more.

use super::cluster::{Cluster, VOLUME, flush, until, write};
use crate::testing::seed;
use crate::{PoolStore, Replica, incarnation, session};
use rand::rngs::StdRng;
use rand::seq::index::sample;
use rand::{RngExt, SeedableRng};
use replication::attachment::Ending;
use replication::record::Standing;
use replication::units::ReplicaId;
use replication::wire::BLOCK;
use std::sync::Arc;

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_replica_that_comes_back_is_sent_what_has_changed_and_hardly_more() {
    const BLOCKS: u64 = 16_384;
    let mut random = StdRng::seed_from_u64(seed());
    let mut cluster = Cluster::new(2, 1, BLOCKS).await;
    let attachment = cluster.attach(0).await;
    let device = attachment.device();
    for start in (0..BLOCKS).step_by(256) {
        let bytes: Vec<u8> = (start..start + 256).flat_map(|block| block.to_le_bytes().repeat(BLOCK / 8)).collect();
        write(&device, start, &bytes).await.unwrap();
    }
    // A membership of both after what was written, so that the record says that both have it.
    flush(&device).await.unwrap();
    assert_eq!(attachment.detach().await, Ending::Detached);
    drop(attachment);
    let attachment = cluster.attach(0).await;
    let device = attachment.device();
    write(&device, 0, &[1; BLOCK]).await.unwrap();
    cluster.kill(1);
    let blocks = usize::try_from(BLOCKS).unwrap();
    let changed = sample(&mut random, blocks, blocks / 100);
    for block in changed {
        write(&device, block as u64, &[random.random(); BLOCK]).await.unwrap();
    }
    assert_eq!(cluster.records.in_sync(), 1);
    let before = cluster.way(0, 1).passed();
    cluster.start(1).await;
    cluster.all_in_sync().await;
    let after = cluster.way(0, 1).passed();
    let (moved, back) = (after.0 - before.0, after.1 - before.1);
    let (volume, changed) = (BLOCKS * BLOCK as u64, BLOCKS / 100 * BLOCK as u64);
    println!("{moved} bytes were sent to it and {back} came back; {changed} had changed");
    assert!(moved >= changed, "{moved} bytes do not hold what has changed");
    assert!(moved * 1000 <= volume * 11, "{moved} bytes are more than 1.1 % of {volume}");
    assert_eq!(attachment.detach().await, Ending::Detached);
    cluster.assert_equal();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_new_replica_is_built_and_an_old_one_retires_while_the_volume_is_served() {
    let mut cluster = Cluster::new(3, 1, 2048).await;
    let attachment = cluster.attach(0).await;
    let device = attachment.device();
    write(&device, 100, &[1; 500 * BLOCK]).await.unwrap();
    // The copy on node 2 is thrown away, and another one is made there.
    let (old, new) = (ReplicaId(12), ReplicaId(99));
    cluster.records.change(|record| record.with_retiring(old).unwrap());
    until("it has left", || !cluster.records.record().members.contains_key(&old)).await;
    {
        let process = cluster.nodes[2].process.as_ref().unwrap();
        drop(process.replicas.remove(VOLUME, old));
        PoolStore::remove(&process.pool, VOLUME, old).unwrap();
        let store = PoolStore::create(&process.pool, VOLUME, new, cluster.blocks).unwrap();
        process.replicas.add(Replica::new(VOLUME, new, Arc::new(store), session(), incarnation().unwrap()));
    }
    cluster.nodes[2].replica = new;
    cluster.records.change(|record| record.with_replica(new, "node-2".into()).unwrap());
    for i in 0..200 {
        write(&device, i, &[u8::try_from(i).unwrap(); BLOCK]).await.unwrap();
    }
    cluster.all_in_sync().await;
    assert_eq!(cluster.records.record().members[&new].standing, Standing::InSync);
    assert_eq!(attachment.detach().await, Ending::Detached);
    cluster.assert_equal();
}
