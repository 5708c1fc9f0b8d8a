//! What a node tells of itself, and how much it lets a volume have.

use crate::node::world::{World, nbdsh, require};
use std::time::{Duration, Instant};

/// The value of a metric with these labels.
fn metric(text: &str, name: &str, labels: &[&str]) -> f64 {
    let fits = |line: &&str| line.starts_with(name) && labels.iter().all(|label| line.contains(label));
    let line = text.lines().find(fits).unwrap_or_else(|| panic!("there is no {name} {labels:?} in:\n{text}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn what_is_asked_of_a_volume_is_counted_for_people_and_for_prometheus() {
    require!("nbdsh", "curl");
    let world = World::with_node("100MiB");
    world.volume(&["create", "data", "--size", "16MiB"]).good();
    world.volume(&["stats", "data"]).ended(1).says("is not attached");
    let uri = world.attach(&["data", "--nbd"]);
    let script = "[h.pwrite(b'x' * 8192, n * 8192) for n in range(10)]; h.pread(4096, 0); h.flush(); h.trim(4096, 0)";
    nbdsh(&uri, script);
    let stats = world.volume(&["stats", "data", "-o", "json"]).json();
    let count = |name: &str| (stats[name]["count"].as_u64().unwrap(), stats[name]["bytes"].as_u64().unwrap());
    assert_eq!((count("writes"), count("reads"), count("discards")), ((10, 81_920), (1, 4096), (1, 4096)));
    assert!(stats["writes"]["meanMicroseconds"].as_f64().unwrap() > 0.0);
    let told = world.metrics();
    let of = |name: &str, operation: &str| {
        metric(&told, name, &["pool=\"pool\"", "volume=\"data\"", &format!("operation=\"{operation}\"")])
    };
    assert_eq!(of("orlop_volume_operations_total", "write"), 10.0);
    assert_eq!(of("orlop_volume_operation_bytes_total", "write"), 81_920.0);
    assert_eq!(of("orlop_volume_operation_duration_seconds_count", "write"), 10.0);
    assert_eq!(metric(&told, "orlop_pool_volumes", &["pool=\"pool\""]), 1.0);
    assert!(metric(&told, "orlop_pool_free_bytes", &["pool=\"pool\""]) > 50e6);
    world.volume(&["detach", "data"]).good();
    assert!(!world.metrics().contains("volume=\"data\""), "what is not attached is not told of");
}

/// Seconds that so many writes of 4 KiB take, one after the other; the start of the client does not count.
fn writes(uri: &str, count: u32) -> f64 {
    let writes = format!("[h.pwrite(b'x' * 4096, (n % 1000) * 4096) for n in range({count})]");
    let script = format!("import time; begun = time.monotonic(); {writes}; print(time.monotonic() - begun)");
    nbdsh(uri, &script).trim().parse().unwrap()
}

#[test]
fn a_limit_holds_and_is_changed_while_the_volume_is_used() {
    require!("nbdsh");
    let world = World::with_node("100MiB");
    world.volume(&["create", "data", "--size", "16MiB", "--iops", "200"]).good();
    let uri = world.attach(&["data", "--nbd"]);
    // What one second gives may be had at once.
    let limited = writes(&uri, 600);
    assert!(limited > 1.9, "600 writes at 200 in a second took {limited} s");
    let begun = Instant::now();
    world.volume(&["limit", "data", "--iops", "0"]).good();
    let free = writes(&uri, 600);
    assert!(free < limited / 2.0, "without a limit it took {free} s, and {limited} s with one");
    assert!(begun.elapsed() < Duration::from_secs(60));
    world.volume(&["limit", "data", "--bandwidth", "1MiB"]).good();
    let limited = writes(&uri, 768);
    assert!(limited > 1.8, "3 MiB at 1 MiB in a second took {limited} s");
}

#[test]
fn the_api_describes_itself() {
    require!("curl");
    let world = World::with_node("50MiB");
    // The reflection service and the API's own are in what the server tells of itself; asked over the socket with curl's HTTP/2.
    let body = world.file("body", &[0, 0, 0, 0, 2, 0x3a, 0]);
    let told = std::process::Command::new("curl")
        .args(["-s", "--http2-prior-knowledge", "--unix-socket"])
        .arg(world.runtime().join("node.sock"))
        .args(["-H", "content-type: application/grpc", "-H", "te: trailers", "--data-binary"])
        .arg(format!("@{body}"))
        .arg("http://node/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&told.stdout);
    assert!(text.contains("orlop.node.v1.Node") && text.contains("grpc.reflection.v1.ServerReflection"), "{text}");
}

#[test]
fn the_socket_of_a_node_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::with_node("50MiB");
    let mode = std::fs::metadata(world.runtime().join("node.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "{mode:o}");
}
