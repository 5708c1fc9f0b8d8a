//! How much is written to the pool for what users write.

use crate::medium::{Folder, Kind};
use crate::probe::{Probe, Random, wait};
use crate::{GOALS, Report, RunArgs};
use anyhow::{Context, Result};
use volume::{BLOCK, Buffer};

/// Bytes of the volume, at full scale: more blocks than are written, so that a map changes as maps do.
const SIZE: u64 = 512 << 20;
const WRITES: u64 = 20_000;

/// Random writes, a flush after so many; gives the bytes that were written for each of theirs, as the kernel has counted them.
fn amplification(arguments: &RunArgs, sector: u32, batch: u64) -> Result<f64> {
    let folder = Folder::new(Kind::Disk, arguments, "cost")?;
    let bytes = arguments.scaled(SIZE);
    let pool = Probe::create(&folder.join("pool"), 3 * bytes + (256 << 20), sector)?.pool()?;
    let (blocks, mut random) = (bytes / BLOCK as u64, Random(3));
    let volume = pool.create_volume("measured", blocks)?;
    let piece = 256;
    for start in (0..blocks).step_by(piece) {
        wait(|done| pool.write(volume, start, some(piece), false, done))?;
    }
    wait(|done| pool.flush(done))?;
    let begin = written()?;
    let writes = (arguments.scaled(WRITES << 20) >> 20).next_multiple_of(batch);
    for _ in 0..writes / batch {
        // All of a batch are asked for before any is waited for.
        let (sender, receiver) = std::sync::mpsc::channel();
        for _ in 0..batch {
            let sender = sender.clone();
            pool.write(volume, random.below(blocks), some(1), false, move |result| drop(sender.send(result)));
        }
        drop(sender);
        receiver.iter().collect::<Result<Vec<()>, _>>()?;
        wait(|done| pool.flush(done))?;
    }
    Ok((written()? - begin) as f64 / (writes * BLOCK as u64) as f64)
}

/// Blocks that are no zeros.
fn some(blocks: usize) -> Buffer {
    let mut buffer = Buffer::zeroed(blocks * BLOCK);
    buffer.fill(1);
    buffer
}

/// Bytes that this process has given to disks.
fn written() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/self/io")?;
    let line = text.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    Ok(line.context("what the kernel counts")?.parse()?)
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
    report.section("What is written for a write, checkpoints included, on the disk", &text);
    Ok(())
}
