//! Repair from the source: the folder and the image that the recovery points are of.

use crate::support::{World, findings, noise};
use repository::NoProgress;
use repository::repair::{RepairOptions, RepairReport, RepairSources, repair};
use std::collections::BTreeMap;
use std::fs;

async fn from_the_source(world: &World) -> RepairReport {
    let living =
        BTreeMap::from([("/folder".to_owned(), world.path("folder")), ("disk".to_owned(), world.path("image"))]);
    let sources = RepairSources { from: None, living };
    repair(&world.repo, &sources, &RepairOptions::default(), &NoProgress).await.unwrap()
}

/// Damages the content in a pack: what is written first is data, tables come after it.
async fn damage_data(world: &World, position: usize) {
    for pack in world.packs().await {
        let mut bytes = fs::read(&pack).unwrap();
        bytes[position] ^= 4;
        fs::write(&pack, bytes).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn content_is_healed_from_the_source() {
    let mut world = World::new().await;
    world.write_file("large", &noise(3 << 20, 1));
    for number in 0..20 {
        world.write_file(&format!("small-{number}"), &noise(3000, 100 + number));
    }
    world.write_image(0, &noise(2 << 20, 2));
    world.backup().await;
    for position in [60, 3 << 20, 4 << 20] {
        damage_data(&world, position).await;
        assert!(!findings(&world.repo).await.is_empty());
        let report = from_the_source(&world).await;
        assert_eq!(report.left, [], "{report:?}");
        assert!(report.living_blobs > 0 && report.moved_blobs > 0, "{report:?}");
        world.is_well_in(&world.path("store"), "repaired").await;
    }
}

/// What has changed at the source since is not what is lost: it is not taken, and the recovery point is named.
#[tokio::test(flavor = "multi_thread")]
async fn what_has_changed_since_is_not_taken() {
    let mut world = World::new().await;
    world.write_file("file", &noise(1 << 20, 1));
    world.backup().await;
    damage_data(&world, 60).await;
    world.write_file("file", &noise(1 << 20, 2));
    let report = from_the_source(&world).await;
    assert_eq!((report.living_blobs, report.deleted.len()), (0, 0), "{report:?}");
    assert_eq!(report.left.len(), 1);
    assert_eq!(report.left[0].points, [world.states[0].0.clone()]);
    world.write_file("file", &noise(1 << 20, 1));
    assert_eq!(from_the_source(&world).await.left, []);
    world.is_well_in(&world.path("store"), "repaired").await;
}

/// A symlink at the source leads nowhere: what lies behind it is not read.
#[tokio::test(flavor = "multi_thread")]
async fn a_symlink_is_not_followed() {
    let mut world = World::new().await;
    world.write_file("file", &noise(1 << 20, 1));
    world.backup().await;
    damage_data(&world, 60).await;
    fs::rename(world.path("folder").join("file"), world.path("behind")).unwrap();
    std::os::unix::fs::symlink(world.path("behind"), world.path("folder").join("file")).unwrap();
    assert_eq!(from_the_source(&world).await.living_blobs, 0);
}
