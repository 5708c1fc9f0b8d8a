//! Snapshots and growth of a volume that is used, on real pools.

use super::cluster::{Cluster, VOLUME, flush, read, until, write};
use super::looks;
use super::registers::Judge;
use crate::PoolStore;
use crate::testing::seed;
use block::{Buffer, Device};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use replication::attachment::Ending;
use replication::units::{Blocks, HeldSnapshot, SnapshotId};
use replication::wire::BLOCK;
use std::sync::mpsc;
use tokio::task::JoinSet;

const BLOCKS: u64 = 16;

impl Cluster {
    /// What a node has of a snapshot in the record, block by block.
    fn snapshot(&self, node: usize, id: SnapshotId) -> Vec<u64> {
        let record = self.records.record();
        let epoch = record.taken(id).unwrap().epoch;
        let (of, pool) = (self.nodes[node].replica, &self.nodes[node].process.as_ref().unwrap().pool);
        let snapshot = PoolStore::snapshot(pool, VOLUME, of, (id, epoch)).expect("it has what the record says");
        let (sender, receiver) = mpsc::channel();
        let into = Buffer::zeroed(usize::try_from(BLOCKS).unwrap() * BLOCK);
        pool.read(volume::State::Snapshot(snapshot), 0, into, move |read| sender.send(read).unwrap());
        let bytes = receiver.recv().unwrap().unwrap();
        let value = |block: &[u8]| {
            let value = u64::from_le_bytes(block[..8].try_into().unwrap());
            assert_eq!(block, value.to_le_bytes().repeat(BLOCK / 8), "a block is torn");
            value
        };
        bytes.chunks(BLOCK).map(value).collect()
    }
}

/// A snapshot that was taken: the nodes that hold it, and what each block has.
type Taken = (SnapshotId, Vec<usize>, Vec<u64>);

/// What holders tell of snapshots, and of what has changed between any two, lacks nothing: also when a replica was made equal in between. Gives how many were compared.
async fn nothing_is_missing(cluster: &Cluster, all: &[Taken]) -> usize {
    let whole = Blocks { start: 0, count: BLOCKS };
    let record = cluster.records.record();
    let held = |id: SnapshotId| -> HeldSnapshot { (id, record.taken(id).unwrap().epoch) };
    let mut compared = 0;
    for (i, (id, here, values)) in all.iter().enumerate() {
        for node in here {
            let mut looking = cluster.look_here(*node);
            let data = looks::all(&mut looking, held(*id), None, whole).await.unwrap();
            let written = (0..BLOCKS).zip(values).filter(|(_, value)| **value != 0);
            written.for_each(|(block, _)| assert!(data.contains(&block), "node {node}: block {block} of {id} is data"));
            for (older, _, before) in all[..i].iter().filter(|(_, others, _)| others.contains(node)) {
                let told = looks::all(&mut looking, held(*id), Some(held(*older)), whole).await.unwrap();
                let differ = (0..BLOCKS).zip(values.iter().zip(before)).filter(|(_, (now, before))| now != before);
                differ.for_each(|(block, _)| {
                    assert!(told.contains(&block), "node {node}: block {block} has changed from {older} to {id}");
                });
                compared += 1;
            }
        }
    }
    compared
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn snapshots_are_of_one_instant_on_all_replicas_whatever_fails_meanwhile() {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let mut cluster = Cluster::new(3, 1, BLOCKS).await;
    let judge = Judge::new(BLOCKS);
    let attachment = cluster.attach(0).await;
    let mut users = JoinSet::new();
    (0..6).for_each(|user| drop(users.spawn(judge.clone().user(attachment.device(), seed ^ user))));
    let mut all = Vec::new();
    for round in 0..10 {
        judge.go_on(random.random_range(10..100)).await;
        let id = SnapshotId(random.random());
        let asked = judge.moment();
        cluster.records.change(|record| record.with_snapshot(id).unwrap());
        let killed = (round % 3 == 2).then(|| random.random_range(1..3));
        if let Some(node) = killed {
            cluster.kill(node);
        }
        until("the snapshot is taken", || cluster.records.record().taken(id).is_some()).await;
        let holders = cluster.records.record().taken(id).unwrap().holders.clone();
        let here: Vec<usize> = (0..3).filter(|node| holders.contains(&cluster.nodes[*node].replica)).collect();
        let values = cluster.snapshot(0, id);
        judge.judge_snapshot(&values, asked);
        if let Some(node) = killed {
            cluster.start(node).await;
            cluster.all_in_sync().await;
        }
        all.push((id, here, values));
    }
    judge.end();
    users.join_all().await;
    // Also on those that were killed meanwhile, and when everything has been written since.
    let holders: usize = all.iter().map(|(_, here, _)| here.len()).sum();
    assert!(holders > 15, "hardly any replica has them: {holders}");
    let compared = nothing_is_missing(&cluster, &all).await;
    assert!(compared > 45, "none of them is on a replica that was away: {compared}");
    for (id, here, values) in all {
        here.into_iter().for_each(|node| assert_eq!(cluster.snapshot(node, id), values, "node {node}, {id}"));
    }
    judge.judge(&attachment.device()).await;
    assert_eq!(attachment.detach().await, Ending::Detached);
    cluster.assert_equal();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_volume_grows_while_it_is_used_and_a_replica_that_was_away_grows_when_it_is_back() {
    let mut cluster = Cluster::new(3, 1, BLOCKS).await;
    let attachment = cluster.attach(0).await;
    let device = attachment.device();
    write(&device, BLOCKS - 1, &[1; BLOCK]).await.unwrap();
    assert!(write(&device, BLOCKS, &[1; BLOCK]).await.is_err(), "beyond the end");
    cluster.kill(2);
    cluster.records.change(|record| record.with_wanted_blocks(4 * BLOCKS).unwrap());
    until("it has grown", || device.describe().unwrap().size == 4 * BLOCKS * BLOCK as u64).await;
    assert_eq!(cluster.records.record().blocks, 4 * BLOCKS);
    write(&device, 4 * BLOCKS - 2, &[2; 2 * BLOCK]).await.unwrap();
    let end = Blocks { start: 4 * BLOCKS - 3, count: 3 };
    assert_eq!(read(&device, end).await.unwrap(), [vec![0; BLOCK], vec![2; 2 * BLOCK]].concat());
    cluster.start(2).await;
    cluster.all_in_sync().await;
    flush(&device).await.unwrap();
    assert_eq!(attachment.detach().await, Ending::Detached);
    cluster.blocks = 4 * BLOCKS;
    cluster.assert_equal();
}
