//! Many volumes, many snapshots, and how much is written for what.

use super::inline::Inline;
use crate::engine::{Admin, Answer, Io, Request, Shape};
use crate::memory::Buffer;
use crate::units::{BLOCK, BLOCK_BYTES, Blocks, Epoch, VolumeId};
use std::collections::VecDeque;

#[test]
fn a_thousand_volumes_and_a_thousand_snapshots_are_kept_apart() {
    let mut pool = Inline::new(32_768);
    let volumes: Vec<_> = (0..1000).map(|i| pool.volume(&format!("volume {i}"), 300)).collect();
    for (i, volume) in volumes.iter().enumerate() {
        assert_eq!(pool.write(*volume, 7, 1, 1 + i as u64), Some(Ok(())));
    }
    let first = volumes[0];
    let mut snapshots = Vec::new();
    for i in 0..1000 {
        assert_eq!(pool.write(first, i % 50, 1, 10_000 + i), Some(Ok(())));
        snapshots.push(pool.snapshot(first, &format!("snapshot {i}")));
    }
    pool.reopen().unwrap();
    assert_eq!(pool.engine.live_states(), 2000);
    for (i, volume) in volumes.iter().enumerate().skip(1) {
        assert!(pool.holds(*volume, 7, 1, 1 + i as u64), "{i}");
    }
    for i in (0..1000).step_by(37) {
        assert!(pool.holds(snapshots[usize::try_from(i).unwrap()], i % 50, 1, 10_000 + i), "{i}");
    }
    // Every second one is deleted, which leaves the others as they are.
    for snapshot in snapshots.iter().step_by(2) {
        pool.must(Request::Admin(Admin::Delete { of: (*snapshot).into() }));
    }
    for i in (1..1000).step_by(38) {
        assert!(pool.holds(snapshots[usize::try_from(i).unwrap()], i % 50, 1, 10_000 + i), "{i}");
    }
    pool.checkpoint();
    assert_eq!(pool.problems(), []);
}

/// Bytes written to the disk for each byte that a client wrote, who has so many writes under way at once and then flushes.
fn amplification(at_once: u64, sector: u32) -> f64 {
    let shape = Shape { id: [3; 16], log_blocks: Some(16_000), most_changed_nodes: None };
    let mut pool = Inline::with_sectors(65_536, shape, sector);
    // As many nodes as are usual: with few, few may have changed, and checkpoints are many.
    pool.reopen_with(8192).unwrap();
    let volume = pool.volume("v", 32_768);
    let before = pool.disk.counts();
    let mut random = super::random::Random::new(1);
    let writes = 8192;
    for i in 0..writes / at_once {
        let blocks: Vec<_> = (0..at_once).map(|_| random.below(32_768)).collect();
        pool.write_together(volume, &blocks, i + 1);
        pool.flush().unwrap();
    }
    pool.checkpoint();
    let after = pool.disk.counts();
    let counts = pool.engine.counts();
    assert_eq!((counts.log_changes, counts.waiting_for_log), (writes, 0), "{counts:?}");
    assert!(counts.log_syncs <= counts.log_writes && counts.log_bytes >= 512 * counts.log_writes, "{counts:?}");
    println!("{} flushes for {writes} writes; {counts:?}", after.2 - before.2);
    (after.0 - before.0) as f64 / (writes * BLOCK_BYTES) as f64
}

#[test]
fn little_more_is_written_than_was_asked() {
    for sector in [512, 4096] {
        let (single, grouped) = (amplification(1, sector), amplification(32, sector));
        println!("write amplification, sectors of {sector}: {single:.3} with one write at once, {grouped:.3} with 32");
        // What one write costs beside its data is a sector of the log, and for all of them a few checkpoints.
        let most = if sector == 512 { 1.2 } else { 2.05 };
        assert!(single <= most && grouped <= 1.05, "{single} {grouped}");
    }
}

/// Requests to the disk for one write of 128 KiB, where blocks were written at random before.
#[test]
fn long_writes_stay_together_where_blocks_were_written_at_random() {
    let mut pool = Inline::new(65_536);
    let (blocks, mut random) = (16_384, super::random::Random::new(1));
    let volume = pool.volume("v", blocks);
    for start in (0..blocks).step_by(256) {
        assert_eq!(pool.write(volume, start, 256, 1), Some(Ok(())));
    }
    // More than the pool has room for, so that all of it was written and freed in single blocks.
    for i in 0..100_000 {
        assert_eq!(pool.write(volume, random.below(blocks), 1, i), Some(Ok(())));
    }
    let before = pool.disk.writes();
    let count = blocks / 32;
    for start in (0..blocks).step_by(32) {
        assert_eq!(pool.write(volume, start, 32, 7), Some(Ok(())));
    }
    let each = (pool.disk.writes() - before) as f64 / count as f64;
    println!("{each:.1} requests for one write of 128 KiB");
    // One for the log, and checkpoints.
    assert!(each <= 6.0, "{each}");
}

#[test]
fn a_diff_reads_little_of_the_map_wherever_the_changes_are() {
    let mut pool = Inline::shaped(160_000, Shape { id: [3; 16], log_blocks: None, most_changed_nodes: Some(2000) });
    let blocks = 131_072;
    let volume = pool.volume("v", blocks);
    for start in (0..blocks).step_by(512) {
        assert_eq!(pool.write(volume, start, 512, 1), Some(Ok(())));
    }
    let snapshot = pool.snapshot(volume, "s");
    let epoch = pool.engine.epoch_in(snapshot.into(), snapshot).unwrap();
    let mut random = super::random::Random::new(1);
    let changed: std::collections::BTreeSet<u64> = (0..blocks / 100).map(|_| random.below(blocks)).collect();
    for block in &changed {
        assert_eq!(pool.write(volume, *block, 1, 2), Some(Ok(())));
    }
    pool.checkpoint();
    pool.reopen().unwrap();
    let map = (blocks / 256) as f64 * BLOCK_BYTES as f64;
    let before = pool.disk.counts().1;
    let told = told(&mut pool, volume, blocks, epoch);
    let read = (pool.disk.counts().1 - before) as f64 / map;
    assert_eq!(told, changed.len() as u64, "no more and no less than what was written");
    println!("{:.2} % of the map read for {told} changes of {blocks} blocks", read * 100.0);
    assert!(read <= 0.02, "{read}");
    assert_eq!(self::told(&mut pool, volume, blocks, Epoch(0)), blocks, "all was written once");
}

/// How many blocks have changed, asked for page by page.
fn told(pool: &mut Inline, volume: VolumeId, blocks: u64, since: Epoch) -> u64 {
    let (mut at, mut told) = (0, 0);
    while at < blocks {
        let rest = Blocks { start: at, count: blocks - at };
        let answer = pool.must(Request::Changed { of: volume.into(), blocks: rest, since, most: usize::MAX });
        let Answer::Changed(page) = answer else { panic!("{answer:?}") };
        assert!(page.next > at, "each page comes further");
        told += page.items.iter().map(|blocks| blocks.count).sum::<u64>();
        at = page.next;
    }
    told
}

#[test]
fn a_flush_is_answered_while_others_go_on_writing() {
    let mut pool = Inline::new(65_536);
    let (volume, blocks) = (pool.volume("v", 1024), 1024);
    let write = |start: u64| {
        let (from, sums) = (Buffer::zeroed(BLOCK), crate::checksum::of_blocks(&[0; BLOCK]));
        Request::Write { volume, start: start % blocks, from, sums, durable: false }
    };
    let (flush, mut next, mut ios) = (0, 9, VecDeque::new());
    for tag in 1..next {
        ios.extend(pool.engine.submit(write(tag), tag).ios);
    }
    // As many writes are under way at any time, and their data is there before the log is: so the next batch is always complete when one is written.
    for requests in 0..200 {
        let data = ios.iter().position(|(_, io)| matches!(io, Io::Write { .. }));
        let (id, io) = ios.remove(data.unwrap_or(0)).expect("something is under way");
        let mut out = pool.engine.finished(id, io.perform(&pool.disk));
        if requests == 20 {
            let asked = pool.engine.submit(Request::Flush, flush);
            assert!(asked.answers.is_empty(), "something is not durable yet");
            out.ios.extend(asked.ios);
        }
        ios.extend(out.ios);
        for (tag, result) in out.answers {
            result.unwrap();
            if tag == flush {
                return println!("{requests} requests to the disk until the flush was answered");
            }
            ios.extend(pool.engine.submit(write(next), next).ios);
            next += 1;
        }
    }
    panic!("the flush waits for as long as others write");
}
