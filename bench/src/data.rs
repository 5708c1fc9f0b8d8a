//! The data that is backed up, made from a seed: an image of a file system with a database, bytes that do not compress, and many small files.

use crate::pages;
use anyhow::{Context, Result};
use rand::rngs::StdRng;
use rand::seq::index::sample;
use rand::{Rng, RngExt, SeedableRng};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// What all of it is made from.
const SEED: u64 = 0x6f72_6c6f_7031;
/// The size of the image at full scale, in bytes.
const IMAGE_LEN: f64 = 2.0 * 1024.0 * 1024.0 * 1024.0;
/// The incompressible bytes at full scale.
const NOISE_LEN: f64 = 1024.0 * 1024.0 * 1024.0;
/// The small files at full scale.
const FILES: f64 = 50_000.0;
/// Files of one directory.
const FILES_EACH: usize = 100;
/// The share of the blocks of an image that its second generation changes.
const CHANGED_BLOCKS: f64 = 0.05;
/// One of so many files is changed.
const UNCHANGED_FILES: usize = 100;
/// What is changed at least: a block of the file system and of the database's cache.
pub(crate) const BLOCK: u64 = 4096;
/// The length of a run of changed blocks: what a database that writes in order leaves.
const RUN: u64 = 256 << 10;

/// An image and the list of what has changed in it.
#[derive(Debug)]
pub(crate) struct Second {
    pub(crate) image: PathBuf,
    pub(crate) ranges: PathBuf,
}

/// All data.
#[derive(Debug)]
pub(crate) struct Data {
    pub(crate) image: PathBuf,
    /// 5 % of its blocks, at random.
    pub(crate) random: Second,
    /// 5 % of its blocks, in runs.
    pub(crate) runs: Second,
    pub(crate) noise: PathBuf,
    pub(crate) tree: PathBuf,
    files: usize,
}

impl Data {
    /// Makes all of it below a folder that is made too.
    pub(crate) fn make(folder: &Path, scale: f64) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let (tree, files) = (folder.join("tree"), usize::try_from(whole(FILES * scale))?.max(FILES_EACH));
        // The files first: a backup believes the times of a file only when they are a minute old.
        eprintln!("bench: {files} small files");
        make_tree(&tree, files)?;
        let image = folder.join("image");
        eprintln!("bench: an image with a database");
        pages::make_image(&image, whole(IMAGE_LEN * scale) / (1 << 20) * (1 << 20), folder)?;
        eprintln!("bench: second generations, and bytes that do not compress");
        let random = second(&image, folder, "image-random", BLOCK)?;
        let runs = second(&image, folder, "image-runs", RUN)?;
        let noise = folder.join("noise");
        make_noise(&noise, whole(NOISE_LEN * scale))?;
        rustix::fs::sync();
        Ok(Self { image, random, runs, noise, tree, files })
    }

    /// Changes one of a hundred files, or gives them back what they had.
    pub(crate) fn change_tree(&self, back: bool) -> Result<()> {
        for number in (0..self.files).step_by(UNCHANGED_FILES) {
            let mut content = content_of(number);
            if !back {
                let end = content.len().min(64);
                StdRng::seed_from_u64(SEED + number as u64).fill_bytes(&mut content[..end]);
            }
            fs::write(path_of(&self.tree, number), content)?;
        }
        Ok(())
    }
}

#[allow(clippy::cast_possible_truncation, reason = "sizes and counts are far below 2⁵³, and not negative")]
fn whole(value: f64) -> u64 {
    value.round() as u64
}

fn path_of(tree: &Path, number: usize) -> PathBuf {
    tree.join(format!("directory-{:03}", number / FILES_EACH)).join(format!("file-{number}.txt"))
}

fn make_tree(tree: &Path, files: usize) -> Result<()> {
    for number in 0..files {
        let path = path_of(tree, number);
        if number % FILES_EACH == 0 {
            fs::create_dir_all(path.parent().context("a file lies in a directory")?)?;
        }
        fs::write(&path, content_of(number)).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

/// Text in lines, as in sources and configurations: from some bytes to 64 KiB, half of the files below 8 KiB.
fn content_of(number: usize) -> Vec<u8> {
    let mut random = StdRng::seed_from_u64(SEED ^ number as u64);
    let len = whole(2f64.powf(random.random_range(9.0..16.0)));
    let mut text = Vec::new();
    while (text.len() as u64) < len {
        match random.random_range(0..8) {
            0 => text.extend_from_slice(format!(" {};\n", random.random_range(0..1_000_000)).as_bytes()),
            1 => text.extend_from_slice(b"\n    "),
            _ => text.extend_from_slice(pages::word(&mut random).as_bytes()),
        }
        text.push(b' ');
    }
    text
}

fn make_noise(path: &Path, len: u64) -> Result<()> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let mut noise = blake3::Hasher::new().update(&SEED.to_le_bytes()).finalize_xof();
    let (mut buffer, mut left) = (vec![0; 1 << 20], len);
    while left > 0 {
        noise.fill(&mut buffer);
        let part = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        file.write_all(&buffer[..part])?;
        left -= part as u64;
    }
    Ok(file.flush()?)
}

/// A copy of an image in which a share of the blocks has changed, in runs of `run` bytes.
fn second(image: &Path, folder: &Path, name: &str, run: u64) -> Result<Second> {
    let second = Second { image: folder.join(name), ranges: folder.join(format!("{name}.ranges")) };
    copy_sparse(image, &second.image)?;
    change(&second.image, &second.ranges, run, SEED)?;
    Ok(second)
}

/// Copies a file and keeps its holes.
pub(crate) fn copy_sparse(from: &Path, to: &Path) -> Result<()> {
    let status = std::process::Command::new("cp").args(["--sparse=always", "--"]).arg(from).arg(to).status()?;
    anyhow::ensure!(status.success(), "cp of {} ended with {status}", from.display());
    Ok(())
}

/// Changes a share of an image in runs of `run` bytes: a quarter of each block becomes noise. Writes down what has changed.
pub(crate) fn change(image: &Path, ranges: &Path, run: u64, seed: u64) -> Result<()> {
    let file = File::options().read(true).write(true).open(image)?;
    let count = usize::try_from(file.metadata()?.len() / run)?;
    let mut random = StdRng::seed_from_u64(seed);
    let mut chosen = sample(&mut random, count, usize::try_from(whole(count as f64 * CHANGED_BLOCKS))?).into_vec();
    chosen.sort_unstable();
    let mut list = BufWriter::new(File::create(ranges)?);
    let mut quarter = vec![0; usize::try_from(BLOCK / 4)?];
    for index in chosen {
        let start = index as u64 * run;
        for block in (start..start + run).step_by(usize::try_from(BLOCK)?) {
            random.fill_bytes(&mut quarter);
            file.write_all_at(&quarter, block)?;
        }
        writeln!(list, "{start} {run}")?;
    }
    Ok(list.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_files_and_other_numbers_give_others() {
        assert_eq!(content_of(7), content_of(7));
        assert_ne!(content_of(7), content_of(8));
        assert!((512..70_000).contains(&content_of(7).len()));
    }

    #[test]
    fn a_list_names_what_was_changed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let (image, ranges) = (folder.path().join("image"), folder.path().join("ranges"));
        let block_len = usize::try_from(BLOCK).unwrap();
        fs::write(&image, vec![0; 400 * block_len]).unwrap();
        change(&image, &ranges, BLOCK, 1).unwrap();
        let bytes = fs::read(&image).unwrap();
        let changed: Vec<u64> = bytes
            .chunks(block_len)
            .enumerate()
            .filter(|(_, block)| block.iter().any(|byte| *byte != 0))
            .map(|(index, _)| index as u64 * BLOCK)
            .collect();
        let listed = fs::read_to_string(&ranges).unwrap();
        let listed: Vec<u64> = listed.lines().map(|line| line.split_once(' ').unwrap().0.parse().unwrap()).collect();
        assert_eq!((changed.len(), changed), (20, listed));
    }
}
