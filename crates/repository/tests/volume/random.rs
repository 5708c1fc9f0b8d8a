//! Random disks and random changes of them: whatever is written, what is restored is the disk.

use super::support::*;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use repository::volume::Changes;

/// Disks of one run, each with several generations.
const DISKS: u64 = 12;

/// The seed of this run: `ORLOP_TEST_SEED`, or a new one. It is printed, so that a failure can be repeated.
fn seed() -> u64 {
    let given = std::env::var("ORLOP_TEST_SEED").ok().map(|seed| seed.parse().expect("ORLOP_TEST_SEED is a number"));
    let seed = given.unwrap_or_else(|| rand::rng().next_u64());
    println!("ORLOP_TEST_SEED={seed}");
    seed
}

#[tokio::test(flavor = "multi_thread")]
async fn random_disks_come_back_in_every_generation() {
    let seed = seed();
    for disk in 0..DISKS {
        let mut random = StdRng::seed_from_u64(seed.wrapping_add(disk));
        // One that has two segments: reading the holes between takes its time.
        let size = match disk {
            0 => SEGMENT + random.random_range(0..PART * 3),
            1..4 => random.random_range(1..PART * 3),
            _ => random.random_range(PART..PART * 200),
        };
        one(random, size).await;
    }
}

async fn one(mut random: StdRng, size: u64) {
    let (mut world, mut disk) = (World::new().await, Disk::new(size));
    for generation in 0..random.random_range(2..8) {
        for _ in 0..random.random_range(0..30) {
            disk.write_anything(&mut random);
        }
        if random.random_range(0..4) == 0 {
            let size = disk.size() + random.random_range(0..PART * 2);
            disk.grow(size);
        }
        let parent = generation > 0 && random.random_range(0..5) > 0;
        let mut ranges = std::mem::take(&mut disk.changed);
        // A list may name too much.
        for _ in 0..random.random_range(0..3) {
            let offset = random.random_range(0..disk.size());
            ranges.push((offset, random.random_range(0..=(disk.size() - offset).min(PART * 5))));
        }
        let listed = parent && random.random_range(0..4) > 0;
        let changes = listed.then(|| Changes::new(ranges, disk.size()).unwrap());
        world.backup(&disk, parent, changes).await;
        world.is(&disk).await;
    }
    world.check().await;
}
