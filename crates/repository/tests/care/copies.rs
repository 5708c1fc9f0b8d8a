//! Copies of trees, volumes and streams: what both share is neither read nor stored again.

use crate::support::{IMAGE_LEN, World, noise, open};

#[tokio::test(flavor = "multi_thread")]
async fn copies_cost_what_has_changed() {
    let mut world = World::new().await;
    world.write_file("large", &noise(5 << 20, 1));
    for number in 0..50 {
        world.write_file(&format!("small-{number}"), &noise(3000, 100 + number));
    }
    world.write_image(0, &noise(2 << 20, 2));
    world.backup().await;
    world.write_file("small-3", b"another");
    world.write_image(70_000, &noise(4096, 3));
    world.write_image(IMAGE_LEN - 4096, &noise(4096, 4));
    world.backup().await;
    world.backup().await;
    let there = open(&world.path("there")).await;
    let copies = world.copy_all(&there).await;
    assert!(copies[0].read_bytes >= (7 << 20) + 150_000, "{copies:?}");
    // The blocks that changed, widened to blocks of 4 KiB, the file, and the stream, which every backup stores as a whole.
    const STREAM: u64 = 5000;
    assert_eq!(copies[1].read_bytes, b"another".len() as u64 + 3 * 4096 + STREAM, "{copies:?}");
    assert_eq!(copies[2].read_bytes, STREAM, "nothing else has changed: {copies:?}");
    assert_eq!(copies[1].base.as_ref(), Some(&copies[0].id));
    world.is_well_in(&world.path("there"), "the copies").await;
}

/// A copy is a repository as good as the first: a third one can be made of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_copy_is_the_same() {
    let mut world = World::new().await;
    world.write_file("file", &noise(100_000, 1));
    world.backup().await;
    world.write_image(0, &noise(100_000, 2));
    world.backup().await;
    let (second, third) = (open(&world.path("second")).await, open(&world.path("third")).await);
    world.copy_all(&second).await;
    for (id, _) in &world.states {
        crate::support::copied(&second, &third, id).await;
    }
    world.is_well_in(&world.path("third"), "the copies of the copies").await;
}
