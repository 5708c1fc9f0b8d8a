//! Damages a repository by one bit and wants it to be found and named.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use rand::seq::IndexedRandom;
use rand::{Rng, RngExt, SeedableRng};

use crate::environment::Environment;
use crate::orlop;

/// How many objects are damaged, one after the other.
const TRIES: usize = 3;

/// Flips a bit in a few files of the repository, one at a time; each must be found and named, and nothing after it is put back.
///
/// # Errors
/// A flipped bit was not found, or not named, or the repository is not clean afterwards.
pub async fn flip_and_find(env: &Environment) -> anyhow::Result<(String, ())> {
    let Some(root) = &env.s3.directory else {
        return Ok(("left out: the store is not this machine's".into(), ()));
    };
    let files = files_below(root)?;
    let seed: u64 = rand::rng().random();
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    let mut named = Vec::new();
    for file in files.sample(&mut random, TRIES) {
        named.push(flip_one(env, root, file, &mut random).await.with_context(|| format!("seed {seed}"))?);
    }
    orlop::succeed(None, &["repo", "check", "--read-data"], &env.repo_env())
        .await
        .context("put back, the repository must be clean")?;
    Ok((format!("found and named in each of {}", named.join(", ")), ()))
}

async fn flip_one(env: &Environment, root: &Path, file: &Path, random: &mut impl Rng) -> anyhow::Result<String> {
    let good = std::fs::read(file).with_context(|| format!("read {}", file.display()))?;
    let mut bad = good.clone();
    let at = random.random_range(0..bad.len());
    bad[at] ^= 1 << random.random_range(0..8);
    std::fs::write(file, &bad)?;
    let checked = orlop::run(None, &["repo", "check", "--read-data"], &env.repo_env()).await;
    std::fs::write(file, &good)?;
    let checked = checked?;
    let name = file.strip_prefix(root)?.to_string_lossy().into_owned();
    let said = format!("{}{}", checked.stdout, checked.stderr);
    ensure!(checked.code == 1, "byte {at} of {name} was flipped, and the check ended with {}: {said}", checked.code);
    ensure!(said.contains(&name), "byte {at} of {name} was flipped, and the check did not name it: {said}");
    Ok(name)
}

fn files_below(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else if entry.metadata()?.len() > 0 {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    Ok(files)
}
