//! How much is written to the pool for what users write.

use crate::medium::{Folder, Kind};
use crate::probe::{Probe, Random, wait};
use crate::{GOALS, Report, RunArgs};
use anyhow::Result;
use std::sync::atomic::Ordering;
use volume::{BLOCK, Buffer};

/// Bytes of the volume, at full scale: more blocks than are written, so that a map changes as maps do.
const SIZE: u64 = 1 << 30;
const WRITES: u64 = 200_000;

/// Random writes, a flush after so many; gives the bytes that were written for each of theirs.
fn amplification(arguments: &RunArgs, sector: u32, batch: u64) -> Result<f64> {
    let folder = Folder::new(Kind::Memory, arguments, "cost")?;
    let bytes = arguments.scaled(SIZE);
    let probe = Probe::create(&folder.join("pool"), 4 * bytes + (256 << 20), sector)?;
    let pool = probe.pool()?;
    let (blocks, mut random) = (bytes / BLOCK as u64, Random(3));
    let volume = pool.create_volume("measured", blocks)?;
    let piece = 256;
    for start in (0..blocks).step_by(piece) {
        wait(|done| pool.write(volume, start, Buffer::zeroed(piece * BLOCK), false, done))?;
    }
    wait(|done| pool.flush(done))?;
    let begin = probe.written.load(Ordering::Relaxed);
    let writes = (arguments.scaled(WRITES << 20) >> 20).next_multiple_of(batch);
    for _ in 0..writes / batch {
        // All of a batch are asked for before any is waited for.
        let (sender, receiver) = std::sync::mpsc::channel();
        for _ in 0..batch {
            let sender = sender.clone();
            pool.write(volume, random.below(blocks), Buffer::zeroed(BLOCK), false, move |result| {
                drop(sender.send(result))
            });
        }
        drop(sender);
        receiver.iter().collect::<Result<Vec<()>, _>>()?;
        wait(|done| pool.flush(done))?;
    }
    let written = probe.written.load(Ordering::Relaxed) - begin;
    Ok(written as f64 / (writes * BLOCK as u64) as f64)
}

pub(crate) fn measure(arguments: &RunArgs, report: &mut Report) -> Result<()> {
    let mut text = GOALS.to_owned();
    for (batch, most) in [(1, 2.0), (32, 1.05)] {
        for sector in [512, 4096] {
            let seen = amplification(arguments, sector, batch)?;
            let what = format!("bytes written for a byte, random 4 KiB, {batch} a flush, sectors of {sector}");
            report.goal(&mut text, &what, &format!("{seen:.3}"), &format!("≤ {most}"), seen <= most);
        }
    }
    report.section("What is written for a write, checkpoints included", &text);
    Ok(())
}
