//! What binds: the throughput on one core and on two, and what the steps alone reach on the same bytes.

use crate::data::Data;
use crate::measure::{Cost, median};
use crate::place::{Kind, Place};
use crate::tool::{Peer, Tools};
use anyhow::{Context, Result, ensure};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use std::fmt::Write;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

/// What a volume is cut into; every step is measured on such parts, as the engine does it.
const PART: usize = 64 << 10;
/// The level of the engine for such parts.
const LEVEL: i32 = 2;
/// The bytes of an image that the steps are measured on.
const MEASURED: u64 = 512 << 20;

/// Both tables.
pub(crate) fn table(orlop: &Path, folder: &Path, data: &Data, rounds: usize) -> Result<String> {
    let mut text =
        "### What binds\n\n| image, in a folder | cores | CPU s | wall s | MiB/s |\n|---|---|---|---|---|\n".to_owned();
    let len = std::fs::metadata(&data.image)?.len() as f64 / f64::from(1 << 20);
    for (cores, count) in [("0", 1), ("0,1", 2)] {
        if count > std::thread::available_parallelism().map_or(1, std::num::NonZero::get) {
            continue;
        }
        let (mut backups, mut restores) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let (backup, restore) = once(orlop, folder, data, cores)?;
            backups.push(backup);
            restores.push(restore);
        }
        for (what, costs) in [("first backup", backups), ("restore", restores)] {
            let seconds = |of: fn(&Cost) -> Duration| {
                median(&costs.iter().map(|cost| of(cost).as_secs_f64()).collect::<Vec<_>>())
            };
            let (cpu, wall) = (seconds(|cost| cost.cpu), seconds(|cost| cost.wall));
            let (cpu, wall) = (cpu.unwrap_or_default(), wall.unwrap_or(f64::NAN));
            writeln!(text, "| {what} | {count} | {cpu:.2} | {wall:.2} | {:.0} |", len / wall)?;
        }
    }
    let steps = crate::again()?.arg("steps").arg(&data.image).output().context("measure the steps alone")?;
    ensure!(steps.status.success(), "the steps alone: {}", String::from_utf8_lossy(&steps.stderr));
    text.push_str(&String::from_utf8_lossy(&steps.stdout));
    Ok(text)
}

/// The table of the steps alone.
pub(crate) fn steps_table(image: &Path) -> Result<String> {
    let mut text = "\n| step alone | on | MiB per second of processor time |\n|---|---|---|\n".to_owned();
    for (step, bytes, time) in steps(image)? {
        let speed = bytes as f64 / f64::from(1 << 20) / time.as_secs_f64().max(1e-9);
        writeln!(text, "| {step} | {} MiB | {speed:.0} |", bytes >> 20)?;
    }
    text.push('\n');
    Ok(text)
}

/// The processor time that this thread has had: others use the machine too.
fn now() -> Result<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").context("read the processor time of a thread")?;
    let nanoseconds = text.split(' ').next().and_then(|number| number.parse().ok());
    nanoseconds.map(Duration::from_nanos).context("understand the processor time of a thread")
}

/// A first backup and a restore on some cores.
fn once(orlop: &Path, folder: &Path, data: &Data, cores: &'static str) -> Result<(Cost, Cost)> {
    let place = Place::start(Kind::Folder, folder)?;
    let mut tools = Tools::find(orlop, folder)?;
    tools.cores = Some(cores);
    tools.init(Peer::Orlop, &place, "cores")?;
    let backup = tools.backup_image(Peer::Orlop, &place, "cores", ("first", &data.image), None)?;
    let target = folder.join("target");
    let restore = tools.restore(Peer::Orlop, &place, "cores", "first", &target)?;
    std::fs::remove_file(&target)?;
    place.remove("cores")?;
    Ok((backup, restore))
}

/// Each step with the bytes that it worked on and the time that took. Zeros are left out, as the engine does.
fn steps(image: &Path) -> Result<Vec<(&'static str, usize, Duration)>> {
    let (parts, read, time) = read_parts(image)?;
    let mut results = vec![("read, from the page cache", read, time)];
    let plain: usize = parts.iter().map(Vec::len).sum();
    let started = now()?;
    let mut sum = 0_u8;
    for part in &parts {
        sum ^= blake3::keyed_hash(&[7; 32], part).as_bytes()[0];
    }
    // The sum is used, so that the work is not left out.
    let hashing = now()? - started + Duration::from_nanos(u64::from(sum) & 1);
    results.push(("BLAKE3, keyed", plain, hashing));
    let mut compressor = zstd::bulk::Compressor::new(LEVEL)?;
    let mut packed = Vec::with_capacity(parts.len());
    let started = now()?;
    for part in &parts {
        packed.push(compressor.compress(part)?);
    }
    results.push(("zstd, level 2", plain, now()? - started));
    let mut decompressor = zstd::bulk::Decompressor::new()?;
    let started = now()?;
    let mut unpacked = 0;
    for part in &packed {
        unpacked += decompressor.decompress(part, PART)?.len();
    }
    results.push(("zstd, decompression", unpacked, now()? - started));
    let stored: usize = packed.iter().map(Vec::len).sum();
    results.push(("AES-256-GCM, of what was compressed", stored, seal(&mut packed)?));
    Ok(results)
}

fn read_parts(image: &Path) -> Result<(Vec<Vec<u8>>, usize, Duration)> {
    let file = File::open(image).with_context(|| format!("open {}", image.display()))?;
    let len = file.metadata()?.len().min(MEASURED);
    let end = len / PART as u64 * PART as u64;
    let (mut parts, mut buffer) = (Vec::new(), vec![0; PART]);
    // This brings the bytes into the cache, too.
    for at in (0..end).step_by(PART) {
        file.read_exact_at(&mut buffer, at)?;
        if buffer.iter().any(|byte| *byte != 0) {
            parts.push(buffer.clone());
        }
    }
    let started = now()?;
    for at in (0..end).step_by(PART) {
        file.read_exact_at(&mut buffer, at)?;
    }
    let (read, time) = (usize::try_from(end)?, now()? - started);
    Ok((parts, read, time))
}

fn seal(parts: &mut [Vec<u8>]) -> Result<Duration> {
    let key = UnboundKey::new(&AES_256_GCM, &[9; 32]).ok().context("make a key")?;
    let key = LessSafeKey::new(key);
    let started = now()?;
    for (number, part) in parts.iter_mut().enumerate() {
        let mut nonce = [0; 12];
        nonce[..8].copy_from_slice(&(number as u64).to_le_bytes());
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = key.seal_in_place_separate_tag(nonce, Aad::empty(), part).ok().context("seal a part")?;
        part.extend_from_slice(tag.as_ref());
    }
    Ok(now()? - started)
}
