//! Volumes and streams.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use super::support::{Place, noise, point, require_restic, said_by};

#[tokio::test(flavor = "multi_thread")]
async fn volumes_and_streams_come_back_as_files() {
    require_restic!();
    let place = Place::new().await;
    let image = place.path("disk");
    let disk = File::create_new(&image).unwrap();
    // Data at the begin, across the edge of a window, far behind, and an odd end.
    disk.set_len((1 << 30) + (70 << 20) + 123).unwrap();
    disk.write_all_at(&noise(3 << 20, 1), 0).unwrap();
    disk.write_all_at(&noise(100_000, 2), (8 << 20) - 50_000).unwrap();
    disk.write_all_at(&noise(70_000, 3), (1 << 30) - 4096).unwrap();
    disk.write_all_at(b"end", (1 << 30) + (70 << 20) + 120).unwrap();
    let dump = noise(20 << 20, 4);
    let writer = place.repository.writer(&"disks".parse().unwrap()).await.unwrap();
    let roots = vec![
        place.volume(&writer, "/srv/disk", &image).await,
        place.stream(&writer, "dump", &dump).await,
        place.stream(&writer, "nothing", b"").await,
    ];
    let mut point = point("disks", roots);
    place.publish(writer, &mut point).await;
    let exported = place.export(&[point]).await;
    assert_eq!((exported[0].files, exported[0].changed.is_empty()), (3, true));
    // Zeros are one blob of 8 MiB, and what is beside data.
    assert!(exported[0].new_bytes < 50 << 20, "{exported:?}");
    place.check();
    let restored = place.restore("latest");
    said_by("cmp", &["srv/disk.img", image.to_str().unwrap()], &restored);
    assert!(fs::read(restored.join("dump")).unwrap() == dump);
    assert_eq!(fs::read(restored.join("nothing")).unwrap(), b"");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_block_costs_its_blob() {
    require_restic!();
    let place = Place::new().await;
    let image = place.path("disk");
    fs::write(&image, noise(32 << 20, 1)).unwrap();
    let (mut sizes, mut last) = (Vec::new(), String::new());
    for id in ["first", "second"] {
        let writer = place.repository.writer(&id.parse().unwrap()).await.unwrap();
        let mut point = point(id, vec![place.volume(&writer, "disk.img", &image).await]);
        place.publish(writer, &mut point).await;
        let exported = place.export(&[point]).await;
        sizes.push(exported[0].new_bytes);
        last.clone_from(&exported[0].snapshot);
        File::options().write(true).open(&image).unwrap().write_all_at(b"changed", 10 << 20).unwrap();
    }
    assert!(sizes[0] > 32 << 20 && sizes[1] > 1 << 20 && sizes[1] < (1 << 20) + 10_000, "{sizes:?}");
    place.check();
    // Both have one time, so either may be the latest.
    let restored = place.restore(&last).join("disk.img");
    let mut expected = noise(32 << 20, 1);
    expected[10 << 20..(10 << 20) + 7].copy_from_slice(b"changed");
    assert!(fs::read(restored).unwrap() == expected);
}
