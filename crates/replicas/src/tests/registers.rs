//! What users of a volume see while everything around it fails: reads and writes of each block can have happened in one order.

use super::cluster::{Cluster, PATIENCE, flush, read, until, write};
use super::proxy::Mode;
use crate::AttachedVolume;
use crate::testing::seed;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use replication::attachment::Ending;
use replication::testing::history::{History, instant};
use replication::units::Blocks;
use replication::wire::BLOCK;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// How long a fault lasts at most.
const FAULT: Duration = Duration::from_millis(1500);

/// Knows what was asked and answered.
pub(super) struct Judge {
    blocks: Vec<Mutex<History>>,
    moment: AtomicU64,
    next: AtomicU64,
    pub(super) acknowledged: AtomicU64,
    pub(super) read: AtomicU64,
    ends: AtomicBool,
}

impl Judge {
    pub(super) fn new(blocks: u64) -> Arc<Self> {
        Arc::new(Self {
            blocks: (0..blocks).map(|_| Mutex::new(History::new())).collect(),
            moment: AtomicU64::new(1),
            next: AtomicU64::new(1),
            acknowledged: AtomicU64::new(0),
            read: AtomicU64::new(0),
            ends: AtomicBool::new(false),
        })
    }

    pub(super) fn moment(&self) -> u64 {
        self.moment.fetch_add(1, Ordering::SeqCst)
    }

    fn block(&self, block: u64) -> std::sync::MutexGuard<'_, History> {
        self.blocks[usize::try_from(block).unwrap()].lock().unwrap()
    }

    /// Writes a value of its own to each block.
    pub(super) async fn write(&self, device: &AttachedVolume, blocks: Blocks) -> Result<(), block::Failure> {
        let first = self.next.fetch_add(blocks.count, Ordering::SeqCst);
        let values: Vec<(u64, u64)> = (0..blocks.count).map(|i| (blocks.start + i, first + i)).collect();
        let begun = self.moment();
        values.iter().for_each(|(block, value)| self.block(*block).begin_write(*value, begun));
        let bytes: Vec<u8> = values.iter().flat_map(|(_, value)| value.to_le_bytes().repeat(BLOCK / 8)).collect();
        write(device, blocks.start, &bytes).await?;
        let ended = self.moment();
        values.iter().for_each(|(block, value)| self.block(*block).end_write(*value, ended));
        self.acknowledged.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    pub(super) async fn read(&self, device: &AttachedVolume, blocks: Blocks) -> Result<(), block::Failure> {
        let begun = self.moment();
        let bytes = read(device, blocks).await?;
        let ended = self.moment();
        for (block, bytes) in (blocks.start..blocks.end()).zip(bytes.chunks(BLOCK)) {
            let value = u64::from_le_bytes(bytes[..8].try_into().unwrap());
            assert_eq!(bytes, value.to_le_bytes().repeat(BLOCK / 8), "block {block} is torn");
            self.block(block).read(value, begun, ended).unwrap_or_else(|what| panic!("block {block}: {what}"));
        }
        self.read.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    /// Whether a snapshot with these values, which was asked for at a moment and is there now, can be of one instant.
    pub(super) fn judge_snapshot(&self, values: &[u64], asked: u64) {
        let now = self.moment();
        let blocks: Vec<History> = self.blocks.iter().map(|history| history.lock().unwrap().clone()).collect();
        instant(&blocks, values, asked, now).unwrap_or_else(|what| panic!("a snapshot: {what}"));
    }

    /// A user of the volume, until it fails or all shall end.
    pub(super) async fn user(self: Arc<Self>, device: AttachedVolume, seed: u64) {
        let mut random = StdRng::seed_from_u64(seed);
        let size = self.blocks.len() as u64;
        while !self.ends.load(Ordering::SeqCst) {
            let start = random.random_range(0..size);
            let blocks = Blocks { start, count: random.random_range(1..=(size - start).min(3)) };
            let done = match random.random_range(0..20) {
                0 => flush(&device).await,
                1..10 => self.read(&device, blocks).await,
                _ => self.write(&device, blocks).await,
            };
            if done.is_err() {
                return;
            }
        }
    }

    pub(super) fn end(&self) {
        self.ends.store(true, Ordering::SeqCst);
    }

    /// All blocks are read once more, and each has had an order.
    pub(super) async fn judge(&self, device: &AttachedVolume) {
        for block in 0..self.blocks.len() as u64 {
            self.read(device, Blocks { start: block, count: 1 }).await.unwrap();
        }
        for (block, history) in self.blocks.iter().enumerate() {
            history.lock().unwrap().check().unwrap_or_else(|what| panic!("block {block}: {what}"));
        }
    }

    /// Waits until some more was acknowledged, or for as long as a fault may last.
    pub(super) async fn go_on(&self, more: u64) {
        let (wanted, end) = (self.acknowledged.load(Ordering::SeqCst) + more, Instant::now() + FAULT);
        until("the users go on, or time passes", || {
            self.acknowledged.load(Ordering::SeqCst) >= wanted || Instant::now() > end
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn no_acknowledged_write_is_lost_while_replicas_networks_and_records_fail() {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let mut cluster = Cluster::new(3, 1, 24).await;
    let judge = Judge::new(24);
    let attachment = cluster.attach(0).await;
    let mut users = JoinSet::new();
    for user in 0..6 {
        users.spawn(judge.clone().user(attachment.device(), seed ^ user));
    }
    for _ in 0..12 {
        judge.go_on(random.random_range(20..200)).await;
        let other = random.random_range(1..3);
        match random.random_range(0..6) {
            0 | 1 => {
                cluster.kill(other);
                judge.go_on(random.random_range(20..400)).await;
                cluster.start(other).await;
            }
            kind @ 2..5 => {
                let mode = [Mode::Cut, Mode::Stuck, Mode::Slow(Duration::from_millis(30))][kind - 2];
                cluster.way(0, other).set(mode);
                judge.go_on(random.random_range(20..400)).await;
                cluster.way(0, other).set(Mode::Open);
            }
            _ => {
                cluster.records.set_away(true);
                judge.go_on(random.random_range(20..400)).await;
                cluster.records.set_away(false);
            }
        }
    }
    let before = judge.acknowledged.load(Ordering::SeqCst);
    until("users go on", || judge.acknowledged.load(Ordering::SeqCst) > before + 50).await;
    cluster.all_in_sync().await;
    judge.end();
    tokio::time::timeout(PATIENCE, users.join_all()).await.expect("all users are answered");
    judge.judge(&attachment.device()).await;
    assert_eq!(attachment.detach().await, Ending::Detached);
    cluster.assert_equal();
    let (acknowledged, read) = (judge.acknowledged.load(Ordering::SeqCst), judge.read.load(Ordering::SeqCst));
    assert!(acknowledged > 300 && read > 100, "{acknowledged} writes and {read} reads prove little");
    assert!(cluster.records.record().epoch.0 > 6, "hardly anybody left: {:?}", cluster.records.record());
}
