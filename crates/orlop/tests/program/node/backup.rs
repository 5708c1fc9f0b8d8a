//! Snapshots of volumes into a repository: the first whole, the next by what has changed, while the volume is written.

use crate::node::world::{World, good, require};
use crate::support::place::Place;

#[test]
fn snapshots_are_backed_up_by_what_has_changed() {
    require!("dd", "cmp");
    let world = World::with_node("200MiB");
    let place = Place::new();
    world.volume(&["create", "data", "--size", "32MiB"]).good();
    let device = world.attach(&["data"]);
    let write = |name: &str, byte: u8, megabytes: usize, at: usize| {
        let file = world.file(name, &vec![byte; megabytes << 20]);
        let words =
            [format!("if={file}"), format!("of={device}"), "bs=1M".into(), format!("seek={at}"), "oflag=direct".into()];
        good("dd", &[&words.iter().map(String::as_str).collect::<Vec<_>>()[..], &["conv=notrunc"]].concat());
    };
    write("first", 1, 8, 0);
    world.volume(&["snapshot", "data@sunday"]).good();
    write("second", 2, 1, 4);
    good("blkdiscard", &["-o", &(6 << 20).to_string(), "-l", &(1 << 20).to_string(), &device]);
    world.volume(&["snapshot", "data@monday"]).good();
    write("third", 3, 2, 20);

    let sunday = world.attach(&["data@sunday"]);
    place.run(&["backup", "--image", &sunday, "--name", "data", "--id", "sunday"]).good();
    let monday = world.attach(&["data@monday"]);
    let changed = world.volume(&["diff", "data@monday", "--since", "sunday"]).good();
    assert_eq!(changed, format!("{} {}\n{} {}\n", 4 << 20, 1 << 20, 6 << 20, 1 << 20));
    let ranges = world.file("ranges", changed.as_bytes());
    let words = ["backup", "--image", &monday, "--name", "data", "--id", "monday", "--parent", "sunday"];
    place.run(&[&words[..], &["--changed-ranges", &ranges]].concat()).good();
    for (id, device) in [("sunday", &sunday), ("monday", &monday)] {
        let back = place.text(&format!("{id}.img"));
        place.run(&["restore", id, &back]).good();
        good("cmp", &[device, &back]);
    }
    for name in ["data", "data@sunday", "data@monday"] {
        world.volume(&["detach", name]).good();
    }
}
