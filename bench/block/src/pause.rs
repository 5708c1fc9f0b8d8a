//! How long writes wait while a snapshot is taken.

use crate::medium::{Folder, Kind};
use crate::probe::{Probe, Random, wait};
use crate::{GOALS, Report, RunArgs};
use anyhow::Result;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use volume::{BLOCK, Blocks, Buffer, Pool, VolumeId};

/// Bytes of the volumes, all of which is mapped, at full scale.
const SIZES: [u64; 3] = [1 << 30, 16 << 30, 128 << 30];
const SNAPSHOTS: usize = 200;
/// Between two snapshots.
const GAP: Duration = Duration::from_millis(20);
const MOST: Duration = Duration::from_millis(10);

/// Maps all of a volume, to zeros that are stored as such.
pub(crate) fn fill(pool: &Pool, volume: VolumeId, blocks: Blocks) -> Result<()> {
    const PIECE: u64 = 2048;
    let mut spare = Some(Buffer::zeroed(8 << 20));
    for start in (blocks.start..blocks.end()).step_by(8 << 8) {
        let count = usize::try_from(PIECE.min(blocks.end() - start))?;
        let buffer = spare.take().filter(|buffer| buffer.len() == count * BLOCK);
        let buffer = buffer.unwrap_or_else(|| Buffer::zeroed(count * BLOCK));
        wait(|done| pool.write(volume, start, buffer, false, done))?;
    }
    Ok(())
}

/// The longest that a write takes in each of many stretches of time, with a snapshot in each or none; sorted.
fn longest(pool: &Pool, volume: VolumeId, blocks: u64, takes: bool) -> Result<Vec<Duration>> {
    let (ends, is_watched) = (AtomicBool::new(false), AtomicBool::new(false));
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::scope(|scope| -> Result<Vec<Duration>> {
        let writer = scope.spawn(|| -> Result<()> {
            let (mut random, mut most) = (Random(5), Duration::ZERO);
            while !ends.load(Ordering::Relaxed) {
                let begun = Instant::now();
                wait(|done| pool.write(volume, random.below(blocks), Buffer::zeroed(BLOCK), false, done))?;
                if is_watched.load(Ordering::Relaxed) {
                    most = most.max(begun.elapsed());
                } else if !most.is_zero() {
                    let _reader_is_gone = sender.send(std::mem::take(&mut most));
                }
            }
            Ok(())
        });
        let taken = (0..SNAPSHOTS).try_for_each(|i| -> Result<()> {
            std::thread::sleep(GAP);
            is_watched.store(true, Ordering::Relaxed);
            if takes {
                pool.snapshot(&[(volume, &format!("s{i}"))])?;
            }
            std::thread::sleep(GAP / 4);
            is_watched.store(false, Ordering::Relaxed);
            Ok(())
        });
        std::thread::sleep(GAP);
        ends.store(true, Ordering::Relaxed);
        writer.join().map_err(|_| anyhow::anyhow!("the writer has panicked"))??;
        taken?;
        let mut pauses: Vec<Duration> = receiver.try_iter().collect();
        pauses.sort_unstable();
        Ok(pauses)
    })
}

fn within(pauses: &[Duration], percent: usize) -> Duration {
    pauses.get((pauses.len() * percent / 100).min(pauses.len().saturating_sub(1))).copied().unwrap_or_default()
}

pub(crate) fn measure(arguments: &RunArgs, report: &mut Report) -> Result<()> {
    let mut text = GOALS.to_owned();
    for size in SIZES {
        let folder = Folder::new(Kind::Memory, arguments, "pause")?;
        let (bytes, extra) = (arguments.scaled(size), 16 << 30);
        let pool = Probe::create(&folder.join("pool"), bytes + extra, 512)?.pool()?;
        let blocks = bytes / BLOCK as u64;
        let volume = pool.create_volume("measured", blocks)?;
        fill(&pool, volume, Blocks { start: 0, count: blocks })?;
        let (without, with) = (longest(&pool, volume, blocks, false)?, longest(&pool, volume, blocks, true)?);
        let seen = within(&with, 99);
        let told = format!(
            "p99 {seen:.1?}, p50 {:.1?}, most {:.1?}; without a snapshot p99 {:.1?}",
            within(&with, 50),
            within(&with, 100),
            within(&without, 99)
        );
        let what = format!("longest write during a snapshot of {} MiB, all mapped, of {SNAPSHOTS}", bytes >> 20);
        report.goal(&mut text, &what, &told, &format!("p99 ≤ {MOST:?}"), seen <= MOST);
    }
    report.section("What a snapshot holds up", &text);
    Ok(())
}
