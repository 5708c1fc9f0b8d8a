//! Volumes and snapshots over NBD, and what their clients make of it.

use crate::node::world::{World, good, nbdsh, output, require};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// What a client is told of a volume in a context: stretches of offset, length and state.
fn map(uri: &str, context: &str) -> Vec<(u64, u64, u64)> {
    let told: Value = serde_json::from_str(&good("nbdinfo", &["--json", &format!("--map={context}"), uri])).unwrap();
    let number = |item: &Value, name: &str| item[name].as_u64().unwrap();
    let stretch = |item: &Value| (number(item, "offset"), number(item, "length"), number(item, "type"));
    told.as_array().unwrap().iter().map(stretch).collect()
}

#[test]
fn a_snapshot_and_what_has_changed_since_are_read_by_others() {
    require!("nbdinfo", "nbdcopy", "qemu-img");
    let world = World::with_node("200MiB");
    world.volume(&["create", "data", "--size", "16MiB"]).good();
    let uri = world.attach(&["data", "--nbd"]);
    assert_eq!(world.attach(&["data", "--nbd"]), uri, "asked again, it is the same");
    world.volume(&["attach", "data"]).ended(1).says("detach it first");
    let image = world.file("image", &[&[1; 1 << 20][..], &[0; 14 << 20], &[2; 1 << 20]].concat());
    good("nbdcopy", &[&image, &uri]);
    world.volume(&["snapshot", "data@first"]).good();
    let changed =
        world.file("changed", &[&[1; 1 << 20][..], &[3; 8192], &[0; (14 << 20) - 8192], &[2; 1 << 20]].concat());
    good("qemu-img", &["convert", "-n", "-f", "raw", "-O", "raw", &changed, &uri]);

    // What is the same was written again by qemu; so a change of a part is made for the comparison.
    world.volume(&["snapshot", "data@second"]).good();
    let part = [world.file("part", &[4; 4096])];
    nbdsh(&uri, &format!("h.pwrite(open('{}','rb').read(), 5 << 20); h.flush()", part[0]));
    let since = |name: &str| map(&uri, &format!("orlop:changed-since={name}"));
    let changes: Vec<_> = since("second").into_iter().filter(|stretch| stretch.2 == 1).collect();
    assert_eq!(changes, [(5 << 20, 4096, 1)]);
    assert!(since("first").iter().any(|stretch| stretch.2 == 1 && stretch.0 <= 1 << 20));
    assert_eq!(world.volume(&["diff", "data", "--since", "second"]).good(), format!("{} 4096\n", 5 << 20));
    let told = world.volume(&["diff", "data", "--since", "second", "-o", "json"]).json();
    assert_eq!(told, json!([{"offset": 5 << 20, "length": 4096}]));
    world.volume(&["diff", "data", "--since", "third"]).ended(1).says("does not come from a snapshot of this name");
    let holes: u64 =
        map(&uri, "base:allocation").iter().filter(|stretch| stretch.2 == 3).map(|stretch| stretch.1).sum();
    assert!(holes >= 13 << 20, "{holes} bytes of holes");

    // The first snapshot is what it was, while the volume is another.
    let first = world.attach(&["data@first", "--nbd"]);
    assert!(good("nbdinfo", &[&first]).contains("is_read_only: true"));
    let copy = world.file("copy", &[]);
    good("nbdcopy", &[&first, &copy]);
    assert_eq!(fs::read(&copy).unwrap(), fs::read(&image).unwrap());
    let contexts = good("nbdinfo", &["--json", &first]);
    assert!(!contexts.contains("changed-since=second"), "what came later is nothing that it comes from: {contexts}");
    for name in ["data", "data@first"] {
        world.volume(&["detach", name]).good();
    }
    assert!(!good("ls", &[world.runtime().join("nbd").to_str().unwrap()]).contains("sock"), "nothing is left");
}

#[test]
fn zeros_of_a_volume_give_their_room_back() {
    require!("nbdcopy");
    let world = World::with_node("100MiB");
    world.volume(&["create", "data", "--size", "16MiB"]).good();
    let uri = world.attach(&["data", "--nbd"]);
    let image = world.file("image", &[&[9; 4 << 20][..], &[0; 8 << 20], &[9; 4 << 20]].concat());
    good("nbdcopy", &["--allocated", &image, &uri]);
    let data = |world: &World| -> u64 {
        let told = world.volume(&["diff", "data", "-o", "json"]).json();
        told.as_array().unwrap().iter().map(|range| range["length"].as_u64().unwrap()).sum()
    };
    nbdsh(&uri, "h.pwrite(bytearray(1 << 20), 4 << 20); h.flush()");
    assert!(data(&world) > 8 << 20);
    world.volume(&["trim", "data"]).ended(1).says("detach it first");
    world.volume(&["detach", "data"]).good();
    assert!(world.volume(&["trim", "data"]).good().contains("were zeros"));
    assert_eq!(data(&world), 8 << 20);
    let uri = world.attach(&["data", "--nbd"]);
    let copy = world.file("copy", &[]);
    good("nbdcopy", &[&uri, &copy]);
    assert_eq!(fs::read(&copy).unwrap(), fs::read(&image).unwrap());
}

#[test]
fn a_volume_is_served_over_tcp_on_this_machine_and_again_by_the_next_node() {
    require!("nbdinfo");
    let mut world = World::with_node("100MiB");
    world.volume(&["create", "data", "--size", "16MiB"]).good();
    world.volume(&["attach", "data", "--listen", "127.0.0.1:0"]).ended(2).says("--nbd");
    world.volume(&["attach", "data", "--nbd", "--listen", "0.0.0.0:0"]).ended(1).says("--nbd-tls");
    assert!(world.show("data")["attached"].is_null(), "nothing is left of what was refused");
    let wanted = ["data", "--nbd", "--listen", "127.0.0.1:0"];
    let uri = world.attach(&wanted);
    assert!(uri.starts_with("nbd://127.0.0.1:") && uri.ends_with("/data"), "{uri}");
    assert_eq!(world.attach(&wanted), uri, "asked again, it is the same");
    world.volume(&["attach", "data", "--nbd"]).ended(1).says("detach it first");
    nbdsh(&uri, "h.pwrite(bytearray(b'x' * 4096), 8192); h.flush()");
    world.kill();
    world.start();
    assert_eq!(world.show("data")["attached"]["place"], json!(uri));
    nbdsh(&uri, "assert h.pread(4096, 8192) == bytearray(b'x' * 4096)");
    world.volume(&["detach", "data"]).good();
    assert!(!output("nbdinfo", &[&uri]).status.success());
}

/// An authority, what it has signed for a node in one folder, and for a client, as libnbd wants it, in another.
fn certify(node: &Path, client: &Path) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let authority = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let parts =
        [(node, ["ca.crt", "tls.crt", "tls.key"]), (client, ["ca-cert.pem", "client-cert.pem", "client-key.pem"])];
    for (folder, names) in parts {
        let key = KeyPair::generate().unwrap();
        let signed = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        for (name, text) in names.iter().zip([authority.clone(), signed.pem(), key.serialize_pem()]) {
            fs::write(folder.join(name), text).unwrap();
        }
    }
}

#[test]
fn over_tcp_a_node_with_certificates_speaks_to_those_with_one_alone() {
    require!("nbdinfo", "nbdcopy");
    let [node, client, stranger] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    certify(node.path(), client.path());
    fs::copy(client.path().join("ca-cert.pem"), stranger.path().join("ca-cert.pem")).unwrap();
    let world = World::with_node_told("100MiB", &["--nbd-tls", node.path().to_str().unwrap()]);
    world.volume(&["create", "data", "--size", "16MiB"]).good();
    let uri = world.attach(&["data", "--nbd", "--listen", "0.0.0.0:0"]);
    assert!(uri.starts_with("nbds://0.0.0.0:"), "{uri}");
    let uri = uri.replace("0.0.0.0", "localhost");
    let with = |folder: &Path| format!("{uri}?tls-certificates={}", folder.display());
    let (image, copy) = (world.file("image", &[5; 16 << 20]), world.file("copy", &[]));
    good("nbdcopy", &[&image, &with(client.path())]);
    good("nbdcopy", &[&with(client.path()), &copy]);
    assert_eq!(fs::read(&copy).unwrap(), fs::read(&image).unwrap());
    good("nbdinfo", &["--size", &with(client.path())]);
    assert!(!output("nbdinfo", &[&with(stranger.path())]).status.success(), "without a certificate");
    assert!(!output("nbdinfo", &[&uri.replace("nbds:", "nbd:")]).status.success(), "in clear");
    world.volume(&["detach", "data"]).good();
    // A folder that lacks something is told of before anything is done.
    fs::remove_file(node.path().join("ca.crt")).unwrap();
    world.start_with(&[]).ended(1).says("ca.crt").says("tls.key");
}
