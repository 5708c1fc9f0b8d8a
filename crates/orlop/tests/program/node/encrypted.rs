//! Encrypted volumes: nothing of them is in the pool, and the secret decides.

use crate::node::world::{Mounted, World, good, nbdsh, require};
use serde_json::json;
use std::fs;

const MARK: &[u8] = b"what nobody may read in the pool, nor beside it";

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[test]
fn only_the_secret_opens_a_volume_and_nothing_of_it_is_in_the_pool() {
    require!("mkfs.ext4");
    let mut world = World::with_node("200MiB");
    let secret = world.file("secret", b"correct horse battery staple");
    let other = world.file("other", b"Tr0ub4dor&3");
    let empty = world.file("empty", b"");
    world.volume(&["create", "data", "--size", "64MiB", "--secret-file", &empty]).ended(1).says("it is empty");
    world.volume(&["create", "data", "--size", "64MiB", "--secret-file", &secret]).good();
    world.volume(&["create", "plain", "--size", "64MiB"]).good();
    world.volume(&["create", "data", "--size", "64MiB"]).ended(1).says("it is encrypted");
    world.volume(&["attach", "data"]).ended(1).says("its secret is needed");
    world.volume(&["attach", "data", "--secret-file", &other]).ended(1).says("does not open with this secret");
    world
        .volume(&["attach", "plain", "--secret-file", &secret])
        .ended(1)
        .says("is not encrypted; leave the secret out");
    let device = world.attach(&["data", "--secret-file", &secret]);
    good("mkfs.ext4", &["-q", &device]);
    let mounted = Mounted::new(&device, world.runtime().join("mounted"), "rw");
    fs::write(mounted.0.join("mark"), MARK.repeat(100)).unwrap();
    good("sync", &["-f", mounted.path()]);
    world.volume(&["snapshot", "data@first"]).good();

    // The node is replaced, and nobody has to say the secret.
    world.kill();
    world.start();
    good("sh", &["-c", "echo 3 > /proc/sys/vm/drop_caches"]);
    assert_eq!(fs::read(mounted.0.join("mark")).unwrap(), MARK.repeat(100));
    mounted.unmount();
    world.volume(&["detach", "data"]).good();
    let left = fs::read_to_string(world.runtime().join("attached.json")).unwrap();
    assert_eq!(left.trim(), "[]", "the key is gone with what was attached");

    // A rotation, after which the old secret opens nothing: not the snapshot either, nor a clone.
    let words = ["change-secret", "data", "--secret-file", &other, "--new-secret-file", &secret];
    world.volume(&words).ended(1).says("does not open with this secret");
    world.volume(&["change-secret", "data", "--secret-file", &secret, "--new-secret-file", &other]).good();
    world.volume(&["clone", "data@first", "copy"]).good();
    for name in ["data", "data@first", "copy"] {
        world.volume(&["attach", name, "--secret-file", &secret]).ended(1).says("does not open");
    }
    let device = world.attach(&["copy", "--secret-file", &other]);
    let mounted = Mounted::new(&device, world.runtime().join("mounted"), "rw");
    assert_eq!(fs::read(mounted.0.join("mark")).unwrap(), MARK.repeat(100));
    world.volume(&["destroy-key", "data"]).ended(1).says("copy").says("detach it first");
    mounted.unmount();
    world.volume(&["detach", "copy"]).good();

    // The end of the key is the end of all that it encrypts.
    world.volume(&["destroy-key", "data"]).good();
    for name in ["data", "data@first", "copy"] {
        world.volume(&["attach", name, "--secret-file", &other]).ended(1).says("was destroyed");
    }
    assert_eq!(world.show("copy")["encryption"], json!("key destroyed"));
    world.stop();
    let pool = fs::read(world.pool()).unwrap();
    assert!(!contains(&pool, MARK), "the pool has what was written");
    assert!(!contains(&pool, b"correct horse") && !contains(&pool, b"Tr0ub4dor"));
    world.is_sound();
}

#[test]
fn holes_stay_holes() {
    require!("nbdinfo");
    let world = World::with_node("100MiB");
    let secret = world.file("secret", b"correct horse battery staple");
    world.volume(&["create", "data", "--size", "16MiB", "--secret-file", &secret]).good();
    let uri = world.attach(&["data", "--nbd", "--secret-file", &secret]);
    nbdsh(&uri, "h.pwrite(b'x' * 4096, 1 << 20); assert h.pread(4096, 0) == bytearray(4096)");
    nbdsh(&uri, "assert h.pread(4096, 1 << 20) == b'x' * 4096");
    let told = world.volume(&["diff", "data", "-o", "json"]).json();
    assert_eq!(told, json!([{"offset": 1 << 20, "length": 4096}]));
    nbdsh(&uri, "h.trim(4096, 1 << 20); h.flush(); assert h.pread(4096, 1 << 20) == bytearray(4096)");
    assert_eq!(world.volume(&["diff", "data", "-o", "json"]).json(), json!([]));
}
