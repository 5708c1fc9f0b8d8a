//! Random trees, and random changes of them.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use super::support::*;

/// Trees of one run; each takes a fraction of a second.
const TREES: u64 = 6;

/// The seed of this run: `ORLOP_TEST_SEED`, or a new one. It is printed, so that a failure can be repeated.
fn seed() -> u64 {
    let given = std::env::var("ORLOP_TEST_SEED").ok().map(|seed| seed.parse().expect("ORLOP_TEST_SEED is a number"));
    let seed = given.unwrap_or_else(|| rand::rng().next_u64());
    println!("ORLOP_TEST_SEED={seed}");
    seed
}

struct Gardener {
    random: StdRng,
    root: PathBuf,
    directories: Vec<PathBuf>,
    files: Vec<PathBuf>,
}

impl Gardener {
    fn name(&mut self) -> PathBuf {
        let letters = b"abAB.-_ \n\x01\xe4\xff0";
        let len = self.random.random_range(1..=12);
        let name: Vec<u8> = (0..len).map(|_| letters[self.random.random_range(0..letters.len())]).collect();
        let name = if matches!(&name[..], b"." | b"..") { b"dot".to_vec() } else { name };
        let directory = self.random.random_range(0..self.directories.len());
        self.directories[directory].join(os(&name))
    }

    fn fill(&mut self, path: &Path) {
        let size = match self.random.random_range(0..10) {
            0 => 0,
            1..=6 => self.random.random_range(1..20_000),
            7..=8 => self.random.random_range(400_000..700_000),
            _ => self.random.random_range(1..6_000_000),
        };
        let file = File::create(path).unwrap();
        if self.random.random_range(0..4) == 0 {
            file.set_len(size as u64 * 3).unwrap();
            file.write_all_at(&noise(size, self.random.next_u64()), size as u64).unwrap();
        } else {
            file.write_all_at(&noise(size, self.random.next_u64()), 0).unwrap();
        }
    }

    fn grow(&mut self) {
        let path = self.name();
        if fs::symlink_metadata(&path).is_ok() {
            return;
        }
        match self.random.random_range(0..10) {
            0..=1 => {
                fs::create_dir(&path).unwrap();
                self.directories.push(path);
            }
            2 => symlink(self.name(), &path).unwrap(),
            3 if !self.files.is_empty() => {
                let first = self.random.random_range(0..self.files.len());
                fs::hard_link(&self.files[first], &path).unwrap();
            }
            _ => {
                self.fill(&path);
                let mode = [0o644, 0o600, 0o755, 0o4755][self.random.random_range(0..4)];
                fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
                self.files.push(path);
            }
        }
    }

    fn change(&mut self) {
        if self.files.is_empty() || self.random.random_range(0..3) == 0 {
            return self.grow();
        }
        let index = self.random.random_range(0..self.files.len());
        let path = self.files[index].clone();
        match self.random.random_range(0..3) {
            0 => {
                fs::remove_file(&path).unwrap();
                self.files.swap_remove(index);
            }
            1 => self.fill(&path),
            _ => {
                let file = File::options().write(true).open(&path).unwrap();
                let at = self.random.random_range(0..=file.metadata().unwrap().len());
                file.write_all_at(b"changed", at).unwrap();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn random_trees_come_back_also_from_increments() {
    let seed = seed();
    for tree in 0..TREES {
        let world = World::new().await;
        let random = StdRng::seed_from_u64(seed.wrapping_add(tree));
        let (root, directories) = (world.source(), vec![world.source()]);
        let mut gardener = Gardener { random, root, directories, files: Vec::new() };
        for _ in 0..60 {
            gardener.grow();
        }
        let (first, _) = world.round_trip("first").await;
        for _ in 0..15 {
            gardener.change();
        }
        let second = world.backup(Some(&first.root)).await;
        assert!(second.is_complete() && second.parent_lost.is_none(), "{second:?}");
        let restored = world.restore(&second.root, "second").await;
        assert!(restored.failed.is_empty(), "{restored:?}");
        assert_same(&gardener.root, &world.path("second"));
        assert_eq!(world.differences(&second.root, "second").await, [""; 0]);
    }
}
