//! Random histories and random damage: with copies elsewhere, everything comes back.

use crate::support::{IMAGE_LEN, World, noise, open};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use repository::NoProgress;
use repository::repair::{RepairOptions, RepairSources, repair};
use std::collections::BTreeMap;
use std::fs;

/// Worlds that are made; each takes about a second.
const WORLDS: u64 = 12;

#[tokio::test(flavor = "multi_thread")]
async fn random_damage_is_healed_from_copies() {
    let first =
        std::env::var("ORLOP_SEED").map_or_else(|_| u64::from(std::process::id()), |seed| seed.parse().unwrap());
    for seed in first..first + WORLDS {
        println!("ORLOP_SEED={seed}");
        heal(seed).await;
    }
}

async fn heal(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut world = World::new().await;
    for _ in 0..random.random_range(1..4) {
        for _ in 0..random.random_range(0..12) {
            let len = if random.random_range(0..8) == 0 { 1 << 20 } else { 5000 };
            let (name, len) = (format!("file-{}", random.random_range(0..20)), random.random_range(0..len));
            world.write_file(&name, &noise(len, random.next_u64()));
        }
        for _ in 0..random.random_range(0..12) {
            let len = random.random_range(1..200_000);
            let offset = random.random_range(0..IMAGE_LEN - len);
            world.write_image(offset, &noise(usize::try_from(len).unwrap(), random.next_u64()));
        }
        world.backup().await;
    }
    let there = open(&world.path("there")).await;
    world.copy_all(&there).await;
    world.is_well_in(&world.path("there"), &format!("seed {seed}, the copies")).await;
    for round in 0..2 {
        damage(&mut random, &world).await;
        let sources = RepairSources { from: Some(there.clone()), living: BTreeMap::new() };
        let report = repair(&world.repo, &sources, &RepairOptions::default(), &NoProgress).await.unwrap();
        assert_eq!(report.left, [], "seed {seed}, round {round}: {report:?}");
        world.is_well_in(&world.path("store"), &format!("seed {seed}, round {round}")).await;
    }
}

/// Flips bytes, cuts off, or takes away, in some of the packs.
async fn damage(random: &mut StdRng, world: &World) {
    for pack in world.packs().await {
        let mut bytes = fs::read(&pack).unwrap();
        match random.random_range(0..6) {
            0 => fs::remove_file(&pack).unwrap(),
            1 => {
                bytes.truncate(random.random_range(0..bytes.len()));
                fs::write(&pack, bytes).unwrap();
            }
            2..5 => {
                for _ in 0..random.random_range(1..6) {
                    let position = random.random_range(0..bytes.len());
                    bytes[position] ^= 1 << random.random_range(0..8);
                }
                fs::write(&pack, bytes).unwrap();
            }
            _ => {}
        }
    }
}
